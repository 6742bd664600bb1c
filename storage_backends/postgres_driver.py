"""PostgreSQL served by a few connections: reads see snapshots, and writes are as if each were alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, NamedTuple, TypeVar

from learnflow_core.errors import LearnFlowError
from storage_backends.driver import Connections, OverdueError, UncertainError, Work, unavailable
from storage_backends.postgres_pool import Connection, Pool
from storage_backends.postgres_together import Together
from storage_backends.postgres_transaction import (
    FAILURES,
    AgainError,
    PostgresTransaction,
    patience,
    translated,
    watched,
)

T = TypeVar("T")

STATEMENT_S: Final = 10.0
"""How long one statement of a write may take."""
GATED_IDLE_S: Final = 2.0
"""How long nothing may happen in a transaction that others of its kind wait for."""
TOGETHER: Final = 2
"""How often a write is tried beside others, before it is given the database for itself."""

_READ: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_PATIENT_READ: Final = f"{_READ}; SET LOCAL statement_timeout = 0; SET LOCAL enable_seqscan = on"
_WRITE: Final = f"BEGIN ISOLATION LEVEL {{}}; SET LOCAL statement_timeout = {STATEMENT_S * 1000:.0f}"
_TOGETHER: Final = f"{_WRITE}; LOCK TABLE gate IN ROW SHARE MODE"
_ALONE: Final = f"{_WRITE}; LOCK TABLE gate IN EXCLUSIVE MODE"
# One after the other, beside those above: what writes many rows that others write would wait for its like in a circle.
# Others wait for this lock: who vanishes while holding it is soon given up.
_GATED: Final = (
    f"{_WRITE}; LOCK TABLE gate IN SHARE UPDATE EXCLUSIVE MODE; "  # noqa: S608 - our own words
    f"SET LOCAL idle_in_transaction_session_timeout = {GATED_IDLE_S * 1000:.0f}"
)


class _Way(NamedTuple):
    """How a write begins that is tried beside others, and how when that was in vain."""

    beside: str
    alone: str


_SERIAL: Final = _Way(_TOGETHER.format("SERIALIZABLE"), _ALONE.format("SERIALIZABLE"))
_SNAPSHOT: Final = _Way(_GATED.format("REPEATABLE READ"), _ALONE.format("REPEATABLE READ"))
# What is asked in such a transaction goes by a key, and is asked many times: one plan is right for all.
_SHARED: Final = f"{_GATED.format('SERIALIZABLE')}; SET LOCAL plan_cache_mode = force_generic_plan"


class PostgresDriver:
    """`storage_backends.driver.Driver` on a pool of connections, which it owns from now on.

    Each connection interrupts statements after `read_deadline_s` by itself; see `storage_backends.postgres`.
    """

    def __init__(self, pool: Pool, *, read_deadline_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._read_deadline_s = read_deadline_s
        self._clock = clock
        self._writes: set[asyncio.Task[Any]] = set()
        self._together = Together(self._attempt_shared, self._write)

    @property
    def connections(self) -> Callable[[], Connections]:
        return self._pool.connections

    async def read(self, work: Work[T], *, patient: bool = False) -> T:
        connection = await self._pool.take()
        left, begin = (_without_end, _PATIENT_READ) if patient else (self._deadline(), _READ)
        return await self._returned(connection, _attempt(connection, begin, work, left))

    async def write(self, work: Work[T], *, subject: str | None = None, snapshot: bool = False) -> T:
        if subject is not None:
            return await self._together.write(work, subject)
        return await self._write(work, _SNAPSHOT if snapshot else _SERIAL)

    async def _write(self, work: Work[T], way: _Way = _SERIAL) -> T:
        connection = await self._pool.take()
        # A task of its own: it goes on when its caller is cancelled.
        task = asyncio.get_running_loop().create_task(self._returned(connection, _written(connection, work, way)))
        self._writes.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    async def close(self) -> None:
        await self._together.close()
        await self._pool.close()

    async def _attempt_shared(self, work: Callable[[PostgresTransaction], Awaitable[None]]) -> None:
        connection = await self._pool.take()
        await self._returned(connection, _attempt(connection, _SHARED, work, _a_statement, writes=True))

    async def _returned(self, connection: Connection, transaction: Coroutine[Any, Any, T]) -> T:
        """What the transaction comes to; the connection goes back to the pool."""
        try:
            result = await transaction
        except BaseException:
            self._pool.mend(connection)
            raise
        self._pool.give(connection)
        return result

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._writes.discard(task)
        if not task.cancelled():
            task.exception()  # told to the caller, if there still is one

    def _deadline(self) -> Callable[[], float]:
        at = self._clock() + self._read_deadline_s

        def left() -> float:
            seconds = at - self._clock()
            if seconds <= 0:
                raise OverdueError
            return seconds

        return left


async def _written(connection: Connection, work: Work[T], way: _Way) -> T:
    """What the work comes to when its transaction is durable.

    Each try that fails for others has let one of them succeed. The last one waits until nobody else writes, keeps all
    from beginning meanwhile, and so cannot fail for them.
    """
    for _ in range(TOGETHER):
        try:
            return await _attempt(connection, way.beside, work, _a_statement, writes=True)
        except AgainError:
            await _say(connection, "ROLLBACK", STATEMENT_S)
    try:
        return await _attempt(connection, way.alone, work, _a_statement, writes=True)
    except AgainError as error:
        raise unavailable() from error


async def _attempt(
    connection: Connection,
    begin: str,
    work: Callable[[PostgresTransaction], Awaitable[T]],
    left: Callable[[], float | None],
    *,
    writes: bool = False,
) -> T:
    """Run the work once, in a transaction that is still open when this raises."""
    await _say(connection, begin, left())
    tx = PostgresTransaction(connection, left, writes=writes)
    try:
        result = await watched(work(tx), tx)
    finally:
        tx.end()
    await (_commit(connection) if writes else _say(connection, "COMMIT", STATEMENT_S))
    return result


async def _commit(connection: Connection) -> None:
    try:
        said = await connection.execute("COMMIT", timeout=patience(STATEMENT_S))
    except FAILURES as error:
        meaning = translated(error, closed=connection.is_closed())
        raise (UncertainError() if isinstance(meaning, LearnFlowError) else meaning) from error
    if said != "COMMIT":
        raise RuntimeError("work went on after an error outside of a savepoint, so nothing of it was kept")


async def _say(connection: Connection, words: str, seconds: float | None) -> None:
    try:
        await connection.execute(words, timeout=patience(seconds))
    except FAILURES as error:
        raise translated(error, closed=connection.is_closed()) from error


def _without_end() -> None:
    return None


def _a_statement() -> float:
    return STATEMENT_S
