"""A transaction of SQLite: statements, savepoints, the search index, and what its errors mean."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from math import inf
from typing import Final

from learnflow_core.search import SearchQuery
from storage_backends.driver import DuplicateError, Entry, OverdueError, Part, RefusedError, Row, Value, unavailable

_NAMES: Final = [str(number) for number in range(1, 100)]
"""What `$1`, `$2`, … are called when they are bound by name: an order of first appearance would be another one."""

_OVERDUE_EVERY: Final = 10_000
"""How many of SQLite's instructions pass between two looks at the deadline: some tenths of a millisecond."""

_ERRORS: Final[dict[int, Callable[[], Exception]]] = {
    sqlite3.SQLITE_CONSTRAINT_UNIQUE: DuplicateError,
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY: DuplicateError,
    sqlite3.SQLITE_CONSTRAINT_ROWID: DuplicateError,
    sqlite3.SQLITE_CONSTRAINT: RefusedError,
    sqlite3.SQLITE_BUSY: unavailable,
    sqlite3.SQLITE_LOCKED: unavailable,
    sqlite3.SQLITE_CANTOPEN: unavailable,
    sqlite3.SQLITE_FULL: unavailable,
    sqlite3.SQLITE_IOERR: unavailable,
    sqlite3.SQLITE_READONLY: unavailable,
    sqlite3.SQLITE_CORRUPT: unavailable,
    sqlite3.SQLITE_NOTADB: unavailable,
    sqlite3.SQLITE_NOMEM: unavailable,
    sqlite3.SQLITE_INTERRUPT: OverdueError,
}
"""By extended code, else by its low byte; what is not here is a bug, and stays as it is (https://sqlite.org/rescode.html)."""


def translated(error: Exception) -> Exception:
    """What an error of the library means to callers; itself when it means a bug."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return error
    meaning = _ERRORS.get(code) or _ERRORS.get(code & 0xFF)
    return error if meaning is None else meaning()


def bound(args: Sequence[Value]) -> dict[str, Value]:
    """The arguments of `$1`, `$2`, … as the library takes them."""
    return dict(zip(_NAMES, args))  # noqa: B905 - as many as there are arguments


class Deadline:
    """How long a connection may work on one job, while it is started; without end while it is not."""

    def __init__(self, connection: sqlite3.Connection, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._abandoned = _wanted
        self._at = inf
        connection.set_progress_handler(self.passed, _OVERDUE_EVERY)

    def start(self, abandoned: Callable[[], bool], *, patient: bool = False) -> None:
        """The time runs from now, unless the caller is `patient`, and is over as soon as the job is `abandoned`."""
        self._abandoned = abandoned
        self._at = inf if patient else self._clock() + self._seconds

    def stop(self) -> None:
        """There is no hurry any more."""
        self._abandoned = _wanted
        self._at = inf

    def passed(self) -> bool:
        """Whether the time is over; SQLite asks this too, and interrupts what it does when it is."""
        return self._abandoned() or self._clock() > self._at


def _wanted() -> bool:
    return False


class SQLiteTransaction:
    """`storage_backends.driver.DriverTransaction` on a connection of the calling thread; it never waits.

    With a deadline it is a read.
    """

    matches = "courses.n IN (SELECT rowid FROM course_index WHERE course_index MATCH {0})"

    def __init__(self, connection: sqlite3.Connection, deadline: Deadline | None = None) -> None:
        self._connection: sqlite3.Connection | None = connection
        self._deadline = deadline

    def end(self) -> None:
        """From now on, every use is an error: somebody kept what was only lent."""
        self._connection = None

    async def rows(self, sql: str, *args: Value) -> Sequence[Row]:
        with self._open() as connection:
            return connection.execute(sql, bound(args)).fetchall()

    async def row(self, sql: str, *args: Value) -> Row | None:
        found = await self.rows(sql, *args)
        return found[0] if found else None

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        await self.rows("SAVEPOINT inner_work")
        try:
            yield
        except BaseException:
            await self.rows("ROLLBACK TO inner_work")
            await self.rows("RELEASE inner_work")
            raise
        await self.rows("RELEASE inner_work")

    def match(self, query: SearchQuery, part: Part, markers: Sequence[str] = ()) -> str:
        title = _all_of(query, "=", markers)
        if part == "title":
            return title
        everything = _all_of(query, "", markers)
        return everything if part == "all" else f"({everything}) NOT ({title})"

    async def load(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        marks = ", ".join("?" * len(columns))
        sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - our own names
        with self._open() as connection:
            connection.executemany(sql, rows)

    async def index(self, entries: Sequence[Entry]) -> None:
        with self._open() as connection:
            # An index without texts of its own must be told what to take out.
            gone = [(number, old) for number, old, _ in entries if old is not None]
            connection.executemany(_FORGET, gone)
            connection.executemany(_INDEX, [(number, new) for number, _, new in entries])

    async def indexed(self) -> Sequence[Row]:
        return await self.rows("SELECT term, doc FROM course_index_tokens")

    async def damage(self) -> Sequence[str]:
        found = [str(message) for (message,) in await self.rows("PRAGMA integrity_check") if message != "ok"]
        orphans = await self.rows("PRAGMA foreign_key_check")
        return found + [f"row {row} of {table} refers to nothing in {parent}" for table, row, parent, _ in orphans]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The connection, while there is time; what it raises inside is told as what it means."""
        if self._connection is None:
            raise RuntimeError("this transaction is over")
        if self._deadline is not None and self._deadline.passed():
            raise OverdueError
        try:
            yield self._connection
        except sqlite3.Error as error:
            raise self._meaning(error) from error

    def _meaning(self, error: sqlite3.Error) -> Exception:
        if self._deadline is not None and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY:
            return RuntimeError("work that was given to read tried to write")
        return translated(error)


_FORGET = "INSERT INTO course_index (course_index, rowid, search) VALUES ('delete', ?, ?)"
_INDEX = "INSERT INTO course_index (rowid, search) VALUES (?, ?)"


def _all_of(query: SearchQuery, mark: str, markers: Sequence[str]) -> str:
    terms = [f'"{mark}{word}"' for word in query.words] + [f'"{mark}{query.prefix}"*']
    return " AND ".join(terms + [f'"{marker}"' for marker in markers])
