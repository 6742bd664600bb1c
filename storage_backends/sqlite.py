"""The embedded backend: SQLite in a file beside the program, or in memory.

`sqlite:///learnflow.db` is a path from the working directory, `sqlite:////var/lib/learnflow.db` an absolute one;
`sqlite://` and `sqlite:///:memory:` are a database that nobody else sees and that ends with the storage.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import aiosqlite

from learnflow_core.ports import Storage
from storage_backends.driver import Row, UnusableDatabaseError, Value
from storage_backends.repository import RepositoryStorage
from storage_backends.sqlite_driver import SQLiteDriver
from storage_backends.sqlite_transaction import bound
from storage_backends.upgrade import known, upgrade

READERS: Final = 2
"""How many reads run at once: a slow one leaves room for others, and Python's own lock has no use for many."""

_MEMORY: Final = ":memory:"
_OLDEST: Final = (3, 39, 0)  # STRICT tables and RETURNING; and IS NOT DISTINCT FROM, as PostgreSQL writes it
_READ_PATIENCE_S: Final = 5.0  # a read waits only while another process recovers the log
_READER_CACHE_KB: Final = 512  # the system keeps the same pages: with four times as much, no read was any quicker
_LOG_PAGES: Final = 8_000  # then it is emptied, which waits for the disk twice more; by default every two full batches
_MIGRATION_PATIENCE_S: Final = 60.0
_CACHED_STATEMENTS: Final = 512  # more than the repository has
_WRITE_AHEAD_ATTEMPTS: Final = 100
_WRITE_AHEAD_PAUSE_S: Final = 0.05


async def open_storage(url: str, *, read_deadline_s: float) -> Storage:
    """Open the database that `url` names, made and brought up to date where needed.

    Raises ValueError for a URL that names none, and UnusableDatabaseError for a database that cannot be served.
    """
    path = _path(url)
    with _explained(path):
        if path == _MEMORY:
            readers: list[sqlite3.Connection] = []
            writer = _connect(path)
            async with _upgraded(path) as (made, _):
                await made.backup(writer)
        else:
            await migrate(url)
            writer, *readers = await asyncio.to_thread(lambda: [_connect(path) for _ in range(1 + READERS)])
        _prepare(writer, readers)
        return RepositoryStorage(SQLiteDriver(writer, readers, read_deadline_s=read_deadline_s))


async def migrate(url: str) -> list[str]:
    """Make the database or bring it up to date; the names of the migrations that ran. Raises as `open_storage`."""
    path = _path(url)
    with _explained(path):
        async with _upgraded(path) as (_, applied):
            return applied


def _path(url: str) -> str:
    if sqlite3.sqlite_version_info < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise UnusableDatabaseError(f"SQLite {oldest} or later is needed; this Python has {sqlite3.sqlite_version}.")
    parts = urlsplit(url)
    path = unquote(parts.path.removeprefix("/"))
    if parts.netloc or parts.query or parts.fragment or path.endswith("/"):
        raise ValueError(
            f"database: {url!r} names no file; write sqlite:///name.db for a path from the working directory, "
            "sqlite:////folder/name.db for an absolute one, or sqlite:// for a database in memory"
        )
    return _MEMORY if path in ("", _MEMORY) else str(Path(path).absolute())


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise UnusableDatabaseError(f"The database {path} cannot be used: {error}") from error


def _connect(path: str) -> sqlite3.Connection:
    """A connection for one thread, though it is not this one."""
    return sqlite3.connect(
        path,
        timeout=_READ_PATIENCE_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_CACHED_STATEMENTS,
    )


def _prepare(writer: sqlite3.Connection, readers: Sequence[sqlite3.Connection]) -> None:
    writer.execute("PRAGMA foreign_keys = ON")
    writer.execute("PRAGMA synchronous = FULL")  # with the log, NORMAL could lose the last commits of a power cut
    writer.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
    writer.execute("PRAGMA temp_store = MEMORY")  # else savepoints write to a file as often as commits to the log
    writer.execute("PRAGMA busy_timeout = 0")  # the writer waits in its own way
    for reader in readers:
        reader.execute("PRAGMA query_only = ON")
        reader.execute(f"PRAGMA cache_size = -{_READER_CACHE_KB}")


@asynccontextmanager
async def _upgraded(path: str) -> AsyncIterator[tuple[aiosqlite.Connection, list[str]]]:
    """A connection to the database as it should be, and which migrations that took."""
    if path != _MEMORY:
        await asyncio.to_thread(Path(path).touch, mode=0o600)  # nobody else's business: it holds people's data
    async with aiosqlite.connect(path, timeout=_MIGRATION_PATIENCE_S, isolation_level=None) as connection:
        await _write_ahead(connection)
        yield connection, await upgrade(_Session(connection), known(_Session.dialect))


async def _write_ahead(connection: aiosqlite.Connection) -> None:
    """Use a write-ahead log, so that readers and the writer do not wait for each other.

    Of several that ask for the change at once all but one are refused, whatever their timeout, so it is asked again.
    """
    for attempt in range(_WRITE_AHEAD_ATTEMPTS):
        try:
            await connection.execute_fetchall("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or attempt + 1 == _WRITE_AHEAD_ATTEMPTS:
                raise
            await asyncio.sleep(_WRITE_AHEAD_PAUSE_S)
        else:
            return


class _Session:
    """`storage_backends.upgrade.Session` on SQLite."""

    dialect = "sqlite"

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    async def rows(self, sql: str, *args: Value) -> Sequence[Row]:
        return [tuple(row) for row in await self._connection.execute_fetchall(sql, bound(args))]

    async def common(self, ddl: str) -> None:
        for statement in _statements(ddl):
            await self.rows(_in_sqlite(statement))

    async def own(self, ddl: str) -> None:
        for statement in _statements(ddl):
            await self.rows(statement)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        await self.rows("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            await self.rows("ROLLBACK")
            raise
        await self.rows("COMMIT")


def _statements(ddl: str) -> Iterator[str]:
    """The statements of a file, each ending with its line, without comments.

    The library has a way to run a script whole, but commits before it.
    """
    statement = ""
    for line in ddl.splitlines(keepends=True):
        statement += "" if line.lstrip().startswith("--") else line
        if sqlite3.complete_statement(statement):
            yield statement.strip().removesuffix(";")
            statement = ""
    if statement.strip():
        raise ValueError(f"a statement without an end: {statement.strip()[:80]}")


def _in_sqlite(statement: str) -> str:
    words = statement.replace("BIGINT", "INTEGER").replace(' COLLATE "C"', "")
    return f"{words} STRICT" if words.startswith("CREATE TABLE") else words
