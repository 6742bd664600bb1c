"""A transaction: statements, savepoints, the search index, and what the library's errors mean."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Final

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

_MEANINGS: Final[dict[int, Callable[[], Exception]]] = {
    sqlite3.SQLITE_CONSTRAINT_UNIQUE: DuplicateError,
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY: DuplicateError,
    sqlite3.SQLITE_CONSTRAINT: RefusedError,
    sqlite3.SQLITE_INTERRUPT: OverdueError,
    **dict.fromkeys(
        (
            sqlite3.SQLITE_BUSY,
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_CORRUPT,
            sqlite3.SQLITE_FULL,
            sqlite3.SQLITE_IOERR,
            sqlite3.SQLITE_NOTADB,
            sqlite3.SQLITE_READONLY,
        ),
        unavailable,
    ),
}
"""By extended code, else by its low byte (https://sqlite.org/rescode.html). What is not here is a bug."""


def translated(error: BaseException) -> BaseException:
    """What an error of the library means to callers; itself when it means a bug, or is not the library's."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return error
    meaning = _MEANINGS.get(code) or _MEANINGS.get(code & 0xFF)
    return error if meaning is None else meaning()


def bound(args: Sequence[Value]) -> dict[str, Value]:
    """The arguments of `$1`, `$2`, …, which SQLite takes for names."""
    return {str(number): value for number, value in enumerate(args, 1)}


class PlainTransaction(DriverTransaction):
    """`storage_backends.driver.DriverTransaction` on a connection that is inside a transaction."""

    # This index finds all that match, in no order.
    tested = "n"
    # A range of each element of `has` must hold a token of the course, and not so of each element of `lacks`.
    tests = """courses.n IN (
        SELECT course_tokens.n FROM json_each({0}, '$.has') AS wanted CROSS JOIN json_each(wanted.value) AS range
        CROSS JOIN course_tokens
        ON token >= json_extract(range.value, '$[0]') AND token <= json_extract(range.value, '$[1]')
        GROUP BY course_tokens.n HAVING count(DISTINCT wanted.key) = json_array_length({0}, '$.has')
    ) AND courses.n NOT IN (
        SELECT course_tokens.n FROM json_each({0}, '$.lacks') AS wanted CROSS JOIN json_each(wanted.value) AS range
        CROSS JOIN course_tokens
        ON token >= json_extract(range.value, '$[0]') AND token <= json_extract(range.value, '$[1]')
        GROUP BY course_tokens.n HAVING count(DISTINCT wanted.key) = json_array_length({0}, '$.lacks')
    )"""
    found = f"(SELECT * FROM courses WHERE {tests}) AS courses"  # noqa: S608 - our own names
    counting: str | None = None
    ranked: str | None = None
    offset_reads_rows = False

    def __init__(self, connection: sqlite3.Connection, *, writes: bool) -> None:
        self._connection: sqlite3.Connection | None = connection
        self._writes = writes

    def end(self) -> None:
        """From now on, every use is an error: somebody kept what was only lent."""
        self._connection = None

    async def rows(self, sql: str, *args: Value) -> Sequence[Row]:
        if self._connection is None:
            raise RuntimeError("this transaction is over")
        try:
            return self._connection.execute(sql, bound(args)).fetchall()
        except sqlite3.Error as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_READONLY and not self._writes:
                raise RuntimeError("work that was given to read tried to write") from error
            if (meaning := translated(error)) is error:
                raise
            raise meaning from error

    def match(self, wanted: Wanted, *, without: Wanted | None = None, markers: Sequence[str] = ()) -> str:
        # Markers are left to the statement's other conditions, which say the same.
        del markers
        return json.dumps({"has": _ranges(wanted), "lacks": [] if without is None else _ranges(without)})

    def test(self, wanted: Wanted, without: Wanted | None = None) -> str | None:
        """Nothing: a course is not looked at by itself."""

    async def numbers(self, count: int) -> Sequence[int]:
        ((last,),) = await self.rows("UPDATE numbers SET last = last + $1 RETURNING last", count)
        return range(last - count + 1, last + 1)

    async def load(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        marks = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
        statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - the repository's names
        for row in rows:
            await self.rows(statement, *row)

    async def survey(self, tables: Sequence[str]) -> None:
        """Nothing: statements here are planned without knowing how much there is."""

    async def index(self, changes: Sequence[tuple[Entry | None, Entry]]) -> None:
        for before, after in changes:
            if before is not None:
                await self.rows(_FORGET, before.n, json.dumps(before.tokens.split(" ")))
            await self.rows(_INDEX, after.n, json.dumps(after.tokens.split(" ")))

    async def clear_index(self) -> None:
        await self.rows("DELETE FROM course_tokens")

    async def missed(self, courses: Sequence[Entry]) -> Sequence[int]:
        asked = [(course.n, json.dumps(course.tokens.split(" "))) for course in courses]
        return [n for n, tokens in asked if await self.row(_MISSED, n, tokens) is not None]

    async def indexed(self) -> Sequence[Row]:
        return await self.rows("SELECT token, count(*) FROM course_tokens GROUP BY token")

    async def damage(self) -> Sequence[str]:
        return [message for (message,) in await self.rows("PRAGMA integrity_check") if message != "ok"]


_FORGET = "DELETE FROM course_tokens WHERE n = $1 AND token IN (SELECT value FROM json_each($2))"
_MISSED = """
    SELECT 1 FROM json_each($2)
    WHERE NOT EXISTS (SELECT 1 FROM course_tokens WHERE course_tokens.n = $1 AND token = value) LIMIT 1
"""
_INDEX = "INSERT INTO course_tokens (n, token) SELECT $1, value FROM json_each($2)"


def _ranges(wanted: Wanted) -> list[list[tuple[str, str]]]:
    """For each word of a search, the first and the last token that may stand for it; a whole word is a range of one."""
    ranges = [[(token, token)] for token in wanted.every]
    if wanted.prefix is not None:
        ranges.append([(wanted.prefix, f"{wanted.prefix}\U0010ffff")])
    elif wanted.some:
        ranges.append([(token, token) for token in wanted.some])
    return ranges
