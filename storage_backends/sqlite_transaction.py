"""A transaction of SQLite: statements, savepoints, the search index, and what its errors mean."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import Final

from storage_backends import sqlite_places
from storage_backends.driver import (
    DriverTransaction,
    DuplicateError,
    Entry,
    OverdueError,
    RefusedError,
    Row,
    Value,
    Wanted,
    unavailable,
)

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


class SQLiteTransaction(DriverTransaction):
    """`storage_backends.driver.DriverTransaction` on a connection of the calling thread; it never waits.

    With a deadline it is a read.
    """

    found = sqlite_places.FOUND
    tested = "search"
    tests = (
        "NOT EXISTS (SELECT 1 FROM json_each(CAST({0} AS TEXT)) WHERE instr(' ' || courses.search || ' ', value) = 0)"
    )
    offset_reads_rows = False
    counting: str | None = sqlite_places.COUNTING
    ranked: str | None = sqlite_places.RANKED

    def __init__(self, connection: sqlite3.Connection, deadline: Deadline | None = None) -> None:
        self._connection: sqlite3.Connection | None = connection
        self._deadline = deadline

    def end(self) -> None:
        """From now on, every use is an error: somebody kept what was only lent."""
        self._connection = None

    async def rows(self, sql: str, *args: Value) -> Sequence[Row]:
        connection = self._ready()  # not by `_open`, which takes as long as a small statement
        try:
            return connection.execute(sql, bound(args)).fetchall()
        except sqlite3.Error as error:
            raise self._meaning(error) from error

    def match(self, wanted: Wanted, *, without: Wanted | None = None, markers: Sequence[str] = ()) -> str:
        text = _all_of(wanted, markers)
        return text if without is None else f"({text}) NOT ({_all_of(without, markers)})"

    def test(self, wanted: Wanted, without: Wanted | None = None) -> str | None:
        if without is not None or wanted.prefix is None:
            return None
        return json.dumps([*(f" {token} " for token in wanted.every), f" {wanted.prefix}"])

    async def numbers(self, count: int) -> Sequence[int]:
        ((last,),) = await self.rows("UPDATE numbers SET last = last + $1 RETURNING last", count)
        return range(last - count + 1, last + 1)

    async def load(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        marks = ", ".join("?" * len(columns))
        sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - our own names
        with self._open() as connection:
            connection.executemany(sql, rows)

    async def survey(self, tables: Sequence[str]) -> None:
        """Nothing: what plans are made by is part of the schema."""

    async def index(self, changes: Sequence[tuple[Entry | None, Entry]]) -> None:
        with self._open() as connection:
            sqlite_places.move(connection, changes)

    async def clear_index(self) -> None:
        with self._open() as connection:
            sqlite_places.clear(connection)

    async def misplaced(self) -> Sequence[str]:
        return [str(course_id) for (course_id,) in await self.rows(sqlite_places.MISPLACED)]

    async def missed(self, courses: Sequence[Entry]) -> Sequence[int]:
        asked = [(course.n, self.match(Wanted(tuple(course.tokens.split(" "))))) for course in courses]
        return [n for (n,) in await self.rows(sqlite_places.MISSED, json.dumps(asked))]

    async def indexed(self) -> Sequence[Row]:
        return await self.rows("SELECT term, doc FROM course_index_tokens")

    async def damage(self) -> Sequence[str]:
        found = [str(message) for (message,) in await self.rows("PRAGMA integrity_check") if message != "ok"]
        orphans = await self.rows("PRAGMA foreign_key_check")
        return found + [f"row {row} of {table} refers to nothing in {parent}" for table, row, parent, _ in orphans]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The connection, while there is time; what it raises inside is told as what it means."""
        connection = self._ready()
        try:
            yield connection
        except sqlite3.Error as error:
            raise self._meaning(error) from error

    def _ready(self) -> sqlite3.Connection:
        if self._connection is None:
            raise RuntimeError("this transaction is over")
        if self._deadline is not None and self._deadline.passed():
            raise OverdueError
        return self._connection

    def _meaning(self, error: sqlite3.Error) -> Exception:
        if self._deadline is not None and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY:
            return RuntimeError("work that was given to read tried to write")
        return translated(error)


def _all_of(wanted: Wanted, markers: Sequence[str]) -> str:
    terms = [f'"{token}"' for token in (*wanted.every, *markers)]
    if wanted.some:
        terms.append("(" + " OR ".join(f'"{token}"' for token in wanted.some) + ")")
    elif wanted.prefix is not None:
        terms.append(f'"{wanted.prefix}"*')
    return " AND ".join(terms)
