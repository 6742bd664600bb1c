"""A transaction: statements, savepoints, the search index, and what the library's errors mean."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from learnflow_core.search import SearchQuery
from storage_backends.driver import DuplicateError, Entry, OverdueError, Part, RefusedError, Row, Value, unavailable

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


class PlainTransaction:
    """`storage_backends.driver.DriverTransaction` on a connection that is inside a transaction."""

    # Every range of `has` must hold a token of the course, and not every range of `lacks`.
    matches = """courses.n IN (
        SELECT course_tokens.n FROM json_each({0}, '$.has') AS wanted CROSS JOIN course_tokens
        ON token >= json_extract(wanted.value, '$[0]') AND token <= json_extract(wanted.value, '$[1]')
        GROUP BY course_tokens.n HAVING count(DISTINCT wanted.key) = json_array_length({0}, '$.has')
    ) AND courses.n NOT IN (
        SELECT course_tokens.n FROM json_each({0}, '$.lacks') AS wanted CROSS JOIN course_tokens
        ON token >= json_extract(wanted.value, '$[0]') AND token <= json_extract(wanted.value, '$[1]')
        GROUP BY course_tokens.n HAVING count(DISTINCT wanted.key) = json_array_length({0}, '$.lacks')
    )"""

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
        # Markers are left to the statement's other conditions, which say the same.
        del markers
        title, anywhere = _ranges(query, "="), _ranges(query, "")
        has, lacks = {"all": (anywhere, []), "title": (title, []), "rest": (anywhere, title)}[part]
        return json.dumps({"has": has, "lacks": lacks})

    async def load(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        marks = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
        statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - the repository's names
        for row in rows:
            await self.rows(statement, *row)

    async def index(self, entries: Sequence[Entry]) -> None:
        for number, old, new in entries:
            if old is not None:
                await self.rows(_FORGET, number, json.dumps(old.split(" ")))
            await self.rows(_INDEX, number, json.dumps(new.split(" ")))

    async def indexed(self) -> Sequence[Row]:
        return await self.rows("SELECT token, count(*) FROM course_tokens GROUP BY token")

    async def damage(self) -> Sequence[str]:
        return [message for (message,) in await self.rows("PRAGMA integrity_check") if message != "ok"]


_FORGET = "DELETE FROM course_tokens WHERE n = $1 AND token IN (SELECT value FROM json_each($2))"
_INDEX = "INSERT INTO course_tokens (n, token) SELECT $1, value FROM json_each($2)"


def _ranges(query: SearchQuery, mark: str) -> list[tuple[str, str]]:
    """The first and the last token that each word of a search may be; a whole word is a range of one."""
    whole = [(mark + word, mark + word) for word in query.words]
    return [*whole, (mark + query.prefix, f"{mark}{query.prefix}\U0010ffff")]
