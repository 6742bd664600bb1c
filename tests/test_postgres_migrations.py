"""Migrations on PostgreSQL: once with many at once, whole or not at all, and refused where they cannot be right."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import chain
from typing import Any

import asyncpg
import pytest

from storage_backends import UnusableDatabaseError, migrate, open_storage
from storage_backends import postgres as backend
from storage_backends.conformance.samples import account, keep
from storage_backends.sqlite import _statements
from storage_backends.upgrade import known, upgrade
from tests.postgres import Postgres

ALL = [migration.name for migration in known("postgres")]

SCHEMA = (
    """SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod), collname, attnotnull, attgenerated,
        pg_get_expr(adbin, adrelid) FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        LEFT JOIN pg_collation ON pg_collation.oid = attcollation
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND attnum > 0 ORDER BY 1, 2""",
    """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2""",
    "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2",
    "SELECT proname, pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1",
    "SELECT relname, reloptions FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
)


@pytest.fixture
async def url(postgres: Postgres) -> AsyncIterator[str]:
    """A database with nothing in it."""
    async with postgres.database(template=False) as url:
        yield url


async def schema(url: str) -> list[list[tuple[Any, ...]]]:
    """All that a database consists of, but its rows."""
    connection = await asyncpg.connect(url)
    try:
        return await schema_by(connection)
    finally:
        await connection.close()


async def schema_by(connection: Any) -> list[list[tuple[Any, ...]]]:
    return [[tuple(row) for row in await connection.fetch(sql)] for sql in SCHEMA]


class Session(backend._Session):
    """A session that works statement by statement, and whose connection the server ends after some of them."""

    def __init__(self, connection: Any, statements: int, killer: Any) -> None:
        super().__init__(connection)
        self._left = statements
        self._killer = killer

    async def rows(self, sql: str, *args: Any) -> Any:
        found = await super().rows(sql, *args)
        await self._count()
        return found

    async def common(self, ddl: str) -> None:
        for statement in _statements(ddl):
            await self._connection.execute(statement)
            await self._count()

    async def own(self, ddl: str) -> None:
        await self.common(ddl)

    async def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            pid = self._connection.get_server_pid()
            await self._killer.execute("SELECT pg_terminate_backend($1, 5000)", pid)


async def killed_after(url: str, statements: int, killer: Any) -> bool:
    """Migrate on a connection that ends after so many statements; whether there were as many."""
    connection = await asyncpg.connect(url)
    try:
        await upgrade(Session(connection, statements, killer), known("postgres"))
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        return True
    finally:
        connection.terminate()
    return False


async def test_a_migration_killed_after_any_statement_is_as_if_it_had_never_begun(url: str, postgres: Postgres) -> None:
    killer = await asyncpg.connect(url)
    assert await killed_after(url, 1, killer)  # which makes the table that keeps what was done
    nothing = await schema(url)
    async with postgres.database() as fresh:
        whole = await schema(fresh)
    found, statements = [nothing], 1
    while await killed_after(url, statements := statements + 1, killer):
        found.append(await schema_by(killer))
    await killer.close()
    assert all(one in (nothing, whole) for one in found)
    assert found.count(nothing) > len(list(_everything()))
    assert await schema(url) == whole
    storage = await open_storage(url)
    await keep(storage, account())
    assert await storage.check() == []
    await storage.close()


def _everything() -> Iterator[str]:
    return chain.from_iterable(_statements(each.common + each.own) for each in known("postgres"))


async def test_a_database_is_the_same_however_it_came_to_be_up_to_date(url: str, postgres: Postgres) -> None:
    connection = await asyncpg.connect(url)
    for steps in range(len(ALL) + 1):
        await upgrade(backend._Session(connection), known("postgres")[:steps])
    await connection.close()
    async with postgres.database() as fresh:
        assert await schema(url) == await schema(fresh)


async def test_every_text_compares_by_code_point_and_there_are_two_types(url: str) -> None:
    await migrate(url)
    columns = (await schema(url))[0]
    assert len(columns) > 100
    for table, column, kind, collation, *_ in columns:
        assert (kind, collation) in {("bigint", None), ("text", "C")} or (table, column) == ("course_search", "vec")


async def test_several_that_start_at_once_do_everything_once(postgres: Postgres) -> None:
    for _ in range(3):
        async with postgres.database(template=False) as url:
            results = await asyncio.gather(*(migrate(url) for _ in range(4)))
            assert sorted(chain.from_iterable(results)) == ALL
            assert await migrate(url) == []


async def test_a_database_that_is_not_up_to_date_is_refused_with_what_to_do(url: str) -> None:
    with pytest.raises(UnusableDatabaseError, match="`learnflow migrate`"):
        await open_storage(url)


async def test_a_database_of_a_newer_program_is_refused_and_left_alone(url: str) -> None:
    await migrate(url)
    connection = await asyncpg.connect(url)
    await connection.execute("INSERT INTO migrations VALUES (9999, '9999_future', '')")
    await connection.close()
    before = await schema(url)
    for use in (open_storage, migrate):
        with pytest.raises(UnusableDatabaseError, match=r"9999.*newer"):
            await use(url)
    assert await schema(url) == before


async def test_who_waits_too_long_for_another_migration_says_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_MIGRATION_PATIENCE_MS", 50)
    connection = await asyncpg.connect(url)
    await connection.execute(f"SELECT pg_advisory_lock({backend._MIGRATING})")
    with pytest.raises(UnusableDatabaseError, match="lock timeout"):
        await migrate(url)
    await connection.close()


async def test_an_encoding_that_holds_less_than_unicode_is_refused(postgres: Postgres) -> None:
    await postgres.run("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
    for use in (open_storage, migrate):
        with pytest.raises(UnusableDatabaseError, match=r"LATIN1.*UTF8"):
            await use(postgres.url("latin"))
    await postgres.drop("latin")


async def test_a_server_that_forgets_what_it_acknowledged_is_refused(url: str) -> None:
    with pytest.raises(UnusableDatabaseError, match="synchronous_commit"):
        await open_storage(f"{url}&synchronous_commit=off")
