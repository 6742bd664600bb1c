"""A storage backend of one's own: SQLite in the calling thread, with the standard library alone.

For tests, simulations and small programs: no threads, no dependency beyond the core's, no FTS5, and the same calls give
the same trace. The price is that a transaction holds up the event loop until it is over.

`plain:///school.db` is a path from the working directory, `plain:////var/lib/school.db` an absolute one, and `plain://`
a database in memory. What a scheme names is this module: `open_storage` and `migrate` are all that is asked of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from importlib.resources import files
from typing import Final

from learnflow_core.ports import Storage
from learnflow_plain.driver import PlainDriver
from learnflow_plain.transaction import bound
from storage_backends.driver import Row, UnusableDatabaseError, Value
from storage_backends.repository import RepositoryStorage
from storage_backends.upgrade import known, upgrade

__all__ = ["migrate", "open_storage"]

_PATIENCE_S: Final = 5.0  # for another process that writes, or migrates


async def open_storage(url: str, *, read_deadline_s: float) -> Storage:
    """See `storage_backends.Backend`; the database is made and brought up to date where needed."""
    with _explained(url), ExitStack() as stack:
        connection = stack.enter_context(closing(_connect(url)))
        await _upgraded(connection)
        stack.pop_all()  # from here on it is the driver that closes it
        return RepositoryStorage(PlainDriver(connection, read_deadline_s))


async def migrate(url: str) -> list[str]:
    """See `storage_backends.Backend`."""
    with _explained(url), closing(_connect(url)) as connection:
        return await _upgraded(connection)


@contextmanager
def _explained(url: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise UnusableDatabaseError(f"The database {url} cannot be used: {error}") from error


def _connect(url: str) -> sqlite3.Connection:
    scheme, _, rest = url.partition("://")
    if scheme != "plain" or (rest and not rest.startswith("/")):
        raise ValueError(f"database: {url!r} names no file; write plain:///name.db")
    return sqlite3.connect(rest[1:] or ":memory:", timeout=_PATIENCE_S, isolation_level=None)


async def _upgraded(connection: sqlite3.Connection) -> list[str]:
    """Bring the database up to date: by the common statements, and by those in our folder for our search index."""
    connection.execute("PRAGMA journal_mode = WAL")  # else a reader of another process holds up a writer
    connection.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a power cut
    connection.execute("PRAGMA foreign_keys = ON")
    return await upgrade(_Session(connection), known(_Session.dialect, files("learnflow_plain") / "migrations"))


class _Session:
    """`storage_backends.upgrade.Session`: how migrations are run."""

    dialect = "plain"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def rows(self, sql: str, *args: Value) -> Sequence[Row]:
        return self._connection.execute(sql, bound(args)).fetchall()

    async def common(self, ddl: str) -> None:
        # They are in PostgreSQL's words. SQLite has no collation of that name, and needs none; BIGINT is an integer.
        await self.own(ddl.replace(' COLLATE "C"', ""))

    async def own(self, ddl: str) -> None:
        # One by one: the library's way to run a script commits before it.
        for statement in _statements(ddl):
            self._connection.execute(statement)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def _statements(ddl: str) -> Iterator[str]:
    statement = ""
    for line in ddl.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
