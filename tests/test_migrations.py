"""Migrations: forward only, once, whole, and the same for everybody."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from itertools import chain
from pathlib import Path

import aiosqlite
import pytest

from storage_backends import UnusableDatabaseError, migrate, open_storage
from storage_backends.conformance.samples import account, keep
from storage_backends.sqlite import _in_sqlite, _Session, _statements
from storage_backends.upgrade import Migration, known, pending, upgrade

FIRST = Migration(1, "0001_first", "CREATE TABLE a (id BIGINT NOT NULL PRIMARY KEY);", "")
SECOND = Migration(2, "0002_second", 'CREATE TABLE b (t TEXT COLLATE "C" NOT NULL);', "CREATE INDEX b_by_t ON b (t);")
THIRD = Migration(3, "0003_third", "CREATE TABLE c (id BIGINT);", "")


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[_Session]:
    async with aiosqlite.connect(tmp_path / "learnflow.db", isolation_level=None) as connection:
        yield _Session(connection)


def schema(path: Path) -> list[tuple[str, str | None]]:
    """All that a database consists of, but its rows."""
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()
    connection.close()
    return found


async def test_a_new_database_gets_every_migration_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'learnflow.db'}"
    assert await migrate(url) == [migration.name for migration in known("sqlite")]
    assert await migrate(url) == []


async def test_opening_an_embedded_database_brings_it_up_to_date(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'learnflow.db'}"
    storage = await open_storage(url)
    await storage.close()
    assert await migrate(url) == []


async def test_a_database_is_the_same_however_it_came_to_be_up_to_date(tmp_path: Path) -> None:
    migrations = [FIRST, SECOND, THIRD]
    for steps in range(len(migrations) + 1):
        async with aiosqlite.connect(tmp_path / f"{steps}.db", isolation_level=None) as connection:
            before = await upgrade(_Session(connection), migrations[:steps])
            after = await upgrade(_Session(connection), migrations)
        assert before + after == [migration.name for migration in migrations]
    schemas = [schema(tmp_path / f"{steps}.db") for steps in range(len(migrations) + 1)]
    assert all(found == schemas[0] for found in schemas)


async def test_the_shipped_migrations_one_by_one_make_the_same_database_as_all_at_once(tmp_path: Path) -> None:
    shipped = known("sqlite")
    for name, steps in (("once", [len(shipped)]), ("stepwise", range(len(shipped) + 1))):
        async with aiosqlite.connect(tmp_path / name, isolation_level=None) as connection:
            for step in steps:
                await upgrade(_Session(connection), shipped[:step])
    assert schema(tmp_path / "once") == schema(tmp_path / "stepwise")


async def test_the_shipped_migrations_are_numbered_without_a_gap() -> None:
    assert [migration.number for migration in known("sqlite")] == list(range(1, len(known("sqlite")) + 1))


async def test_a_migration_that_fails_is_undone_whole_and_those_before_it_stay(session: _Session) -> None:
    broken = Migration(2, "0002_broken", "CREATE TABLE b (id BIGINT);\nCREATE TABLE a (id BIGINT);", "")
    with pytest.raises(sqlite3.OperationalError):
        await upgrade(session, [FIRST, broken])
    tables = await session.rows("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    assert tables == [("a",), ("migrations",)]
    assert await upgrade(session, [FIRST, SECOND]) == ["0002_second"]


async def test_a_database_of_a_newer_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "learnflow.db"
    await migrate(f"sqlite:///{path}")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("INSERT INTO migrations VALUES (9999, '9999_future', '')")
    connection.close()
    before = schema(path)
    for use in (open_storage, migrate):
        with pytest.raises(UnusableDatabaseError, match=r"9999.*newer"):
            await use(f"sqlite:///{path}")
    assert schema(path) == before


def test_a_migration_that_was_changed_after_it_ran_is_refused() -> None:
    had = {1: FIRST.digest, 2: SECOND.digest}
    assert pending([FIRST, SECOND, THIRD], had) == [THIRD]
    for changed in (
        Migration(2, SECOND.name, SECOND.common + " ", SECOND.own),
        Migration(2, SECOND.name, SECOND.common, ""),
    ):
        with pytest.raises(UnusableDatabaseError, match="0002_second"):
            pending([FIRST, changed, THIRD], had)


async def test_migrating_twice_at_once_does_everything_once(tmp_path: Path) -> None:
    for number in range(5):
        url = f"sqlite:///{tmp_path / f'{number}.db'}"
        results = await asyncio.gather(*(migrate(url) for _ in range(4)))
        assert sorted(chain.from_iterable(results)) == [migration.name for migration in known("sqlite")]


async def test_opening_from_several_processes_at_once_works(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys; from storage_backends import open_storage\n"
        "async def main():\n"
        "    storage = await open_storage(sys.argv[1])\n"
        "    await storage.close()\n"
        "asyncio.run(main())"
    )
    url = f"sqlite:///{tmp_path / 'learnflow.db'}"
    processes = [await asyncio.create_subprocess_exec(sys.executable, "-c", program, url) for _ in range(4)]
    assert [await process.wait() for process in processes] == [0] * 4
    storage = await open_storage(url)
    assert await storage.check() == []
    await storage.close()


SLOW = """
import asyncio, sys
from storage_backends import sqlite

rows = sqlite._Session.rows
async def slow(self, sql, *args):
    print(sql.split("(")[0].strip(), flush=True)
    sys.stdin.readline()
    return await rows(self, sql, *args)
sqlite._Session.rows = slow
asyncio.run(sqlite.migrate(sys.argv[1]))
"""


def killed_after(url: str, statements: int) -> Sequence[str]:
    """Migrate in another process that dies between two statements; what it was asked to do until then."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdin is not None
    assert process.stdout is not None
    asked = []
    for _ in range(statements):
        asked.append(process.stdout.readline().strip())
        process.stdin.write("\n")
        process.stdin.flush()
    process.stdout.readline()  # it stands before the next statement
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
    return asked


@pytest.mark.parametrize("statements", [1, 4, 20, 45])
async def test_a_migration_killed_between_two_statements_is_as_if_it_had_never_begun(
    tmp_path: Path, statements: int
) -> None:
    path = tmp_path / "learnflow.db"
    asked = killed_after(f"sqlite:///{path}", statements)
    assert "COMMIT" not in asked
    assert [name for name, _ in schema(path) if "migrations" not in name] == []
    storage = await open_storage(f"sqlite:///{path}")
    await keep(storage, account())
    assert await storage.check() == []
    await storage.close()
    async with aiosqlite.connect(tmp_path / "fresh.db", isolation_level=None) as connection:
        await upgrade(_Session(connection), known("sqlite"))
    assert schema(path) == schema(tmp_path / "fresh.db")


def test_the_words_of_postgresql_become_those_of_sqlite() -> None:
    common = 'CREATE TABLE b (\n    id BIGINT NOT NULL,\n    t TEXT COLLATE "C"\n)'
    assert _in_sqlite(common) == "CREATE TABLE b (\n    id INTEGER NOT NULL,\n    t TEXT\n) STRICT"
    assert _in_sqlite("CREATE INDEX i ON b (t)") == "CREATE INDEX i ON b (t)"


def test_a_file_is_read_as_its_statements_without_comments() -> None:
    ddl = "-- one; two\nCREATE TABLE a (\n    -- why\n    t TEXT DEFAULT ';'\n);\n\nCREATE INDEX i ON a (t);\n"
    assert list(_statements(ddl)) == ["CREATE TABLE a (\n    t TEXT DEFAULT ';'\n)", "CREATE INDEX i ON a (t)"]
    with pytest.raises(ValueError, match="without an end: CREATE"):
        list(_statements("CREATE TABLE a (id BIGINT)"))


async def test_every_table_refuses_values_of_another_type(tmp_path: Path) -> None:
    await migrate(f"sqlite:///{tmp_path / 'learnflow.db'}")
    connection = sqlite3.connect(tmp_path / "learnflow.db")
    tables = connection.execute("SELECT name, strict FROM pragma_table_list WHERE type = 'table'").fetchall()
    connection.close()
    ours = [(name, strict) for name, strict in tables if not name.startswith(("sqlite_", "course_index_"))]
    assert len(ours) > 15
    assert all(strict for _, strict in ours)
