"""The shared backend: PostgreSQL 14 or later, for many processes on many machines.

`postgresql://USER:PASSWORD@HOST:PORT/NAME` is understood as by libpq, with its parameters (`?sslmode=verify-full`,
`?host=/run/postgresql` for a socket, several hosts), environment variables (`PGPASSWORD`) and password file.
`pool_size=N` in the query is ours: how many connections a process makes at most.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg

from learnflow_core.ports import Storage
from storage_backends.driver import Row, UnusableDatabaseError, Value
from storage_backends.postgres_driver import PostgresDriver
from storage_backends.postgres_pool import Connection, Pool, closed
from storage_backends.postgres_transaction import FAILURES
from storage_backends.repository import RepositoryStorage
from storage_backends.upgrade import known, pending, upgrade

POOL_SIZE: Final = 10
"""How many connections a process makes at most, when the URL does not say."""

_LARGEST_POOL: Final = 1_000
_OLDEST: Final = 14
_CONNECT_S: Final = 3.0  # less than callers wait for a connection, so that failing is seen for what it is
_CACHED_STATEMENTS: Final = 512  # more than the repository has
_LOCK_PATIENCE_MS: Final = 5_000
_MIGRATION_PATIENCE_MS: Final = 60_000
_MIGRATING: Final = 7_130_254_018_823_541_167  # a number that nobody else locks: one migration at a time, in a database

_SERVED: Final = {
    "application_name": "learnflow",
    # Else a prepared statement is planned once for all arguments, and a search takes thousands of times as long.
    "plan_cache_mode": "force_custom_plan",
    "jit": "off",
    # Starting another process for a part of a statement takes longer than most statements; there are others to serve.
    "max_parallel_workers_per_gather": "0",
    # Every read has an index to go by, also where the planner takes what is asked for to be most of a table.
    "enable_seqscan": "off",
    # Else a search that finds a tenth of a million courses remembers pages of the table only, and tests all on them.
    "work_mem": "16MB",
    "lock_timeout": str(_LOCK_PATIENCE_MS),
    # A process that vanished in the middle of a transaction must not hold its locks.
    "idle_in_transaction_session_timeout": "30000",
}


async def open_storage(url: str, *, read_deadline_s: float) -> Storage:
    """Open the database that `url` names, which `migrate` has brought up to date, in the event loop that will use it.

    Raises ValueError for a URL that names none, and UnusableDatabaseError for a database that cannot be served.
    """
    dsn, size = _parts(url)
    settings = {**_SERVED, "statement_timeout": f"{read_deadline_s * 1000:.0f}"}
    connect = partial(_connect, dsn, settings)
    with _explained():
        connection = await connect()
        try:
            await _check(connection)
            await _check_migrations(connection)
        except BaseException:
            await closed(connection)
            raise
    pool = Pool(connect, size)
    pool.adopt(connection)
    return RepositoryStorage(PostgresDriver(pool, read_deadline_s=read_deadline_s))


async def migrate(url: str) -> list[str]:
    """Bring the database up to date; the names of the migrations that ran. Raises as `open_storage`."""
    dsn, _ = _parts(url)
    with _explained():
        connection = await _connect(dsn, {"application_name": "learnflow", "lock_timeout": str(_MIGRATION_PATIENCE_MS)})
        try:
            await _check(connection)
            await connection.execute(f"SELECT pg_advisory_lock({_MIGRATING})")
            # What a server at work holds is let go of soon; whoever waits for it holds up all others meanwhile.
            await connection.execute(f"SET lock_timeout = {_LOCK_PATIENCE_MS}")
            return await upgrade(_Session(connection), known(_Session.dialect))
        finally:
            await closed(connection)


def _parts(url: str) -> tuple[str, int]:
    """What the library is to connect to, and how often."""
    try:
        parts = urlsplit(url)
        given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        sizes = [value for name, value in given if name == "pool_size"]
        size = _number(sizes[-1]) if sizes else POOL_SIZE
        named = parts.path not in ("", "/") or any(name in ("dbname", "database") for name, _ in given)
    except ValueError as error:
        raise ValueError(f"database: {error}") from error
    if not named or parts.fragment:
        raise ValueError("database: the URL names no database; write postgresql://USER:PASSWORD@HOST:PORT/NAME")
    query = urlencode([(name, value) for name, value in given if name != "pool_size"])
    return f"{url.partition('?')[0]}{'?' if query else ''}{query}", size


def _number(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= _LARGEST_POOL:
        return int(text)
    raise ValueError(f"pool_size must be a whole number from 1 to {_LARGEST_POOL}")


async def _connect(dsn: str, settings: dict[str, str]) -> Connection:
    try:
        return await asyncpg.connect(
            dsn,
            timeout=_CONNECT_S,
            statement_cache_size=_CACHED_STATEMENTS,
            max_cached_statement_lifetime=0,
            server_settings=settings,
        )
    except ValueError as error:  # what the URL says
        raise ValueError(f"database: {error}") from error


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except FAILURES as error:
        raise UnusableDatabaseError(f"The database cannot be used: {str(error) or type(error).__name__}") from error


async def _check(connection: Connection) -> None:
    """What LearnFlow takes for granted."""
    version = connection.get_server_version()
    if version.major < _OLDEST:
        raise UnusableDatabaseError(f"PostgreSQL {_OLDEST} or later is needed; this is {version.major}.")
    encoding, durable = await connection.fetchrow(
        "SELECT current_setting('server_encoding'), current_setting('synchronous_commit') <> 'off'"
    )
    if encoding != "UTF8":
        raise UnusableDatabaseError(f"The database is encoded in {encoding}; it must be made with ENCODING 'UTF8'.")
    if not durable:
        raise UnusableDatabaseError("synchronous_commit is off: what clients are told is kept could be lost.")


async def _check_migrations(connection: Connection) -> None:
    made = await connection.fetchval("SELECT to_regclass('migrations')") is not None
    had = dict(await connection.fetch("SELECT number, digest FROM migrations")) if made else {}
    if pending(known(_Session.dialect), had):
        raise UnusableDatabaseError("The database is not up to date: `learnflow migrate` brings it there.")


class _Session:
    """`storage_backends.upgrade.Session` on PostgreSQL."""

    dialect = "postgres"

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def rows(self, sql: str, *args: Value) -> Sequence[Row]:
        return [tuple(row) for row in await self._connection.fetch(sql, *args)]

    async def common(self, ddl: str) -> None:
        await self._connection.execute(ddl)

    async def own(self, ddl: str) -> None:
        if ddl:
            await self._connection.execute(ddl)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """A transaction; that no other migrates meanwhile is seen to by who opened the session."""
        async with self._connection.transaction():
            yield
