"""A transaction of PostgreSQL: statements, savepoints, the search index, and what its errors mean."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from types import coroutine
from typing import Any, Final, TypeVar

import asyncpg

from storage_backends import postgres_search
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

T = TypeVar("T")

GRACE_S: Final = 1.0
"""How much longer than the server itself its client waits, before it takes the server for silent."""

FAILURES: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What the library raises; a connection that breaks and a time that is over are among the last."""


class AgainError(Exception):
    """The transaction collided with another, or with a change of the schema: all of it can be run again."""


_ERRORS: Final[dict[str, Callable[[], Exception]]] = {
    "08": unavailable,  # the connection
    "23505": DuplicateError,
    "23": RefusedError,
    "25006": unavailable,  # a standby, which may become what we need
    "25P03": unavailable,  # the server gave up a transaction in which nothing happened
    "28": unavailable,  # a password that was changed
    "40001": AgainError,
    "40P01": AgainError,
    "53": unavailable,  # no room on the disk, no memory, no connection left
    "55P03": unavailable,  # a lock that others held for too long
    "57014": OverdueError,
    "57": unavailable,  # it stops, starts, or was told to end this
    "58": unavailable,  # the disk
    "XX001": unavailable,  # damaged
    "XX002": unavailable,
}
"""By SQLSTATE, else by its class; what is not here is a bug, and stays as it is (PostgreSQL's manual, appendix A)."""

_PARAMETER: Final = re.compile(r"\$([0-9]+)")
_STALE: Final = (asyncpg.exceptions.InvalidCachedStatementError, asyncpg.exceptions.OutdatedSchemaCacheError)
"""A statement that was prepared before the schema changed; the library has forgotten it when it says so."""


def translated(error: Exception, *, closed: bool) -> Exception:
    """What an error of the library means to callers, on a connection that is closed or not; itself when it is a bug."""
    if isinstance(error, _STALE):
        return AgainError()
    if isinstance(error, asyncpg.PostgresError):
        code = error.sqlstate or ""
        meaning = _ERRORS.get(code) or _ERRORS.get(code[:2])
        return error if meaning is None else meaning()
    return unavailable() if closed or isinstance(error, OSError) else error


class PostgresTransaction(DriverTransaction):
    """`storage_backends.driver.DriverTransaction` on a connection that is inside a transaction.

    `left` says how many seconds the next statement may take, None for as long as it likes, or raises `OverdueError`.
    """

    found = postgres_search.FOUND
    tested = "search"
    tests = postgres_search.TESTS
    counting: str | None = postgres_search.COUNTING
    offset_reads_rows = True
    ranked: str | None = None

    def __init__(self, connection: Any, left: Callable[[], float | None], *, writes: bool) -> None:
        self.asking = False
        """Whether a statement is being answered."""
        self._connection: Any = connection
        self._left = left
        self._writes = writes

    def end(self) -> None:
        """From now on, every use is an error: somebody kept what was only lent."""
        self._connection = None

    async def rows(self, sql: str, *args: Value) -> Sequence[Row]:
        with self._asking() as (connection, timeout):
            return [tuple(row) for row in await connection.fetch(sql, *args, timeout=timeout)]

    async def each(self, sql: str, args: Sequence[Sequence[Value]]) -> Sequence[Sequence[Row]]:
        """What `rows` answers to each of these arguments, in one round trip."""
        if len(args) == 1:
            return [await self.rows(sql, *args[0])]
        found: list[list[Row]] = [[] for _ in args]
        with self._asking() as (connection, timeout):
            if not answers(sql):
                await connection.executemany(sql, args, timeout=timeout)
                return found
            numbered = [(*values, number) for number, values in enumerate(args)]
            for row in await connection.fetchmany(_numbered(sql, len(args[0]) + 1), numbered, timeout=timeout):
                number, *columns = row
                found[number].append(tuple(columns))
        return found

    async def together(self, *statements: tuple[str, Sequence[Value]]) -> None:
        if statements:
            every, args = zip(*statements, strict=True)
            await self.rows(_as_one(every), *chain.from_iterable(args))

    def match(self, wanted: Wanted, *, without: Wanted | None = None, markers: Sequence[str] = ()) -> str:
        return postgres_search.match(wanted, without, markers)

    def test(self, wanted: Wanted, without: Wanted | None = None) -> str | None:
        return postgres_search.test(wanted, without)

    async def numbers(self, count: int) -> Sequence[int]:
        taken = await self.rows("SELECT nextval('numbers') FROM generate_series(1, CAST($1 AS BIGINT))", count)
        return [number for (number,) in taken]

    async def load(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        with self._asking() as (connection, timeout):
            await connection.copy_records_to_table(table, columns=columns, records=rows, timeout=timeout)

    async def survey(self, tables: Sequence[str]) -> None:
        with self._asking() as (connection, _):
            await connection.execute(f"SET LOCAL statement_timeout = 0; ANALYZE course_search, {', '.join(tables)}")

    async def index(self, changes: Sequence[tuple[Entry | None, Entry]]) -> None:
        await postgres_search.index(self, changes)

    async def clear_index(self) -> None:
        await self.rows("DELETE FROM course_search")

    async def missed(self, courses: Sequence[Entry]) -> Sequence[int]:
        return await postgres_search.missed(self, courses)

    async def indexed(self) -> Sequence[Row]:
        return await postgres_search.indexed(self)

    async def damage(self) -> Sequence[str]:
        pages = await self.rows(_BAD_PAGES)
        indexes = await self.rows(_BAD_INDEXES)
        return [f"{count} pages had a wrong checksum" for (count,) in pages] + [
            f"the index {name} is not valid" for (name,) in indexes
        ]

    @contextmanager
    def _asking(self) -> Iterator[tuple[Any, float | None]]:
        """The connection and for how long to wait for it; what it raises inside is told as what it means."""
        if self._connection is None:
            raise RuntimeError("this transaction is over")
        connection, timeout = self._connection, patience(self._left())
        self.asking = True
        try:
            yield connection, timeout
        except FAILURES as error:
            meaning = self._meaning(error, closed=connection.is_closed())
            if meaning is error:
                raise
            raise meaning from error
        finally:
            self.asking = False

    def _meaning(self, error: Exception, *, closed: bool) -> Exception:
        if not self._writes and getattr(error, "sqlstate", None) == "25006":
            return RuntimeError("work that was given to read tried to write")
        meaning = translated(error, closed=closed)
        return unavailable() if self._writes and isinstance(meaning, OverdueError) else meaning


def answers(sql: str) -> bool:
    """Whether a statement answers rows."""
    return sql.startswith(("SELECT", "WITH")) or " RETURNING " in sql


@lru_cache(maxsize=512)
def _numbered(sql: str, parameter: int) -> str:
    """The statement with the value of one more parameter before each row: the library tells not whose a row is."""
    return f"WITH asked AS ({sql}) SELECT CAST(${parameter} AS BIGINT), asked.* FROM asked"  # noqa: S608 - our own


def patience(left: float | None) -> float | None:
    """For how long to wait for a server that is to answer within so many seconds."""
    return None if left is None else left + GRACE_S


@coroutine
def watched(work: Awaitable[T], tx: PostgresTransaction) -> Generator[Any, Any, T]:
    """What the work returns or raises. RuntimeError when it waits for anything but its transaction."""
    steps: Any = work.__await__()
    step, given = steps.send, None
    while True:
        try:
            waits_for = step(given)
        except StopIteration as end:
            result: T = end.value
            return result
        if not tx.asking:
            steps.close()
            raise RuntimeError("work may await nothing but its transaction")
        try:
            step, given = steps.send, (yield waits_for)
        except BaseException as error:  # noqa: BLE001 - handed on to whom it was meant for
            step, given = steps.throw, error


@lru_cache(maxsize=256)
def _as_one(statements: tuple[str, ...]) -> str:
    """One statement that does what these do; its parameters are those of the first, then those of the next."""
    used = [max(map(int, _PARAMETER.findall(sql)), default=0) for sql in statements]
    *firsts, last = (_renumbered(sql, sum(used[:at])) for at, sql in enumerate(statements))
    named = ", ".join(f"part_{number} AS ({sql})" for number, sql in enumerate(firsts))
    return f"WITH {named} {last}" if named else last


def _renumbered(sql: str, by: int) -> str:
    return _PARAMETER.sub(lambda found: f"${int(found[1]) + by}", sql)


_BAD_PAGES = (
    "SELECT checksum_failures FROM pg_stat_database WHERE datname = current_database() AND checksum_failures > 0"
)
_BAD_INDEXES = (
    "SELECT pg_class.relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
    "WHERE NOT indisvalid AND pg_table_is_visible(indexrelid) ORDER BY relname"
)
