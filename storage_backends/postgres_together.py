"""Writes that share a transaction of PostgreSQL, so that they share round trips and one wait for the disk.

Works that wait together go on side by side: in each step every one of them says what it asks next, and what several ask
in the same words is sent and answered at once. So a work sees what others of its transaction have written between its
own statements, which is why only works that have said whose business they are come here (`learnflow_core.ports`).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn, TypeVar

from storage_backends.driver import RefusedError, Row, Value, Work, unavailable
from storage_backends.postgres_transaction import AgainError, PostgresTransaction, answers

T = TypeVar("T")

AT_ONCE: Final = 128
"""How many works one transaction holds at most."""
TRIES: Final = 3
"""How often works are tried together before each is on its own."""


class _Ask:
    """A statement that a work waits for."""

    __slots__ = ("args", "sql")

    def __init__(self, sql: str, args: Sequence[Value]) -> None:
        self.sql = sql
        self.args = args

    def __await__(self) -> Generator[_Ask, Sequence[Row], Sequence[Row]]:
        return (yield self)


class _AloneError(Exception):
    """The work can go on only in a transaction of its own."""


class _UndoneError(Exception):
    """What a work has written must be undone, and so must what the others have."""


class SharedTransaction(PostgresTransaction):
    """`storage_backends.driver.DriverTransaction` for one of several works, which ask at the same time."""

    def __init__(self) -> None:
        super().__init__(None, lambda: None, writes=True)
        self.wrote = False
        """Whether there may be something to be undone."""
        self._over = False

    def end(self) -> None:
        self._over = True

    async def rows(self, sql: str, *args: Value) -> Sequence[Row]:
        if self._over:
            raise RuntimeError("this transaction is over")
        found = await _Ask(sql, args)
        self.wrote = self.wrote or not (sql.startswith("SELECT") or (answers(sql) and not found))
        return found

    async def together(self, *statements: tuple[str, Sequence[Value]]) -> None:
        for sql, args in statements:  # in words that others use too
            await self.rows(sql, *args)

    async def alone(self) -> None:
        raise _AloneError

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        await self.alone()
        yield

    async def load(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> NoReturn:
        del table, columns, rows
        raise _AloneError


class Waiting:
    """A work, whose business it is, and the caller who waits for it."""

    def __init__(self, work: Work[Any], subject: str) -> None:
        self.work = work
        self.subject = subject
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()


class _Going:
    """A work on its way through the transaction: what it asks now, or what it came to."""

    def __init__(self, waiting: Waiting) -> None:
        self.waiting = waiting
        self.tx = SharedTransaction()
        self.ask: _Ask | None = None
        self.value: Any = None
        self.error: Exception | None = None
        self._steps: Any = waiting.work(self.tx).__await__()
        self.resume(None)

    @property
    def must_be_alone(self) -> bool:
        """Whether it cannot end here: what it wrote would have to be undone without that of the others."""
        return isinstance(self.error, _AloneError) or (self.error is not None and self.tx.wrote)

    @property
    def args(self) -> Sequence[Value]:
        """Of what it asks."""
        assert self.ask is not None, "it is asked of those that ask"
        return self.ask.args

    def resume(self, rows: Sequence[Row] | None) -> None:
        """Go on to the next statement or to the end."""
        self.ask = None
        try:
            ask = self._steps.send(rows)
        except StopIteration as end:
            self.value = end.value
        except Exception as error:  # noqa: BLE001 - the caller's own, told when the transaction is over
            self.error = error
        else:
            if isinstance(ask, _Ask):
                self.ask = ask
                return
            self._steps.close()
            self.error = RuntimeError("work may await nothing but its transaction")
        self.tx.end()

    def tell(self) -> None:
        """Answer the caller, unless nobody waits any more."""
        answer = self.waiting.answer
        if answer.done():
            return
        if self.error is None:
            answer.set_result(self.value)
        else:
            answer.set_exception(self.error)


class _Round:
    """Works that go through one transaction together."""

    def __init__(self, works: Iterable[Waiting]) -> None:
        self._works = works
        self._going: list[_Going] = []

    async def run(self, tx: PostgresTransaction) -> None:
        """Take each of them to its end; _UndoneError when one cannot end here and has written."""
        self._going = [_Going(waiting) for waiting in self._works]
        while asking := [each for each in self._going if each.ask is not None]:
            for sql, some in _by_words(asking):
                answers = await tx.each(sql, [each.args for each in some])
                for each, rows in zip(some, answers, strict=True):
                    each.resume(rows)
        if any(each.must_be_alone and each.tx.wrote for each in self._going):
            raise _UndoneError

    def tell(self) -> None:
        """Answer those that have come to their end here."""
        for each in self._going:
            if not each.must_be_alone:
                each.tell()

    def divided(self) -> tuple[list[Waiting], list[Waiting]]:
        """Those that can end here, and those that must be alone."""
        can = [each.waiting for each in self._going if not each.must_be_alone]
        return can, [each.waiting for each in self._going if each.must_be_alone]


class Together:
    """Brings works together: those that came while others were at it make the next transaction.

    `attempt` runs a piece of work in a transaction that no other such holds at the same time, or raises with nothing
    done; `alone` runs a single work whatever that takes.
    """

    def __init__(
        self,
        attempt: Callable[[Callable[[PostgresTransaction], Awaitable[None]]], Awaitable[None]],
        alone: Callable[[Work[Any]], Awaitable[Any]],
    ) -> None:
        self._attempt = attempt
        self._alone = alone
        self._waiting: list[Waiting] = []
        self._serving: asyncio.Task[None] | None = None
        self._closed = False

    async def close(self) -> None:
        """Take no more, and see those that have come to their end."""
        self._closed = True
        if self._serving is not None:
            await asyncio.wait([self._serving])

    async def write(self, work: Work[T], subject: str) -> T:
        """What the work comes to when it is durable. Once begun, it goes on when its caller is cancelled."""
        if self._closed:
            raise unavailable()
        waiting = Waiting(work, subject)
        self._waiting.append(waiting)
        if self._serving is None:
            self._serving = asyncio.get_running_loop().create_task(self._serve())
        result: T = await waiting.answer
        return result

    async def _serve(self) -> None:
        while self._waiting:
            left = await self._side_by_side(self._take())
            await asyncio.gather(*(self._by_itself(waiting) for waiting in left))
        self._serving = None

    def _take(self) -> list[Waiting]:
        """The next works that wait, in the order they came; of one subject only the first."""
        taken: dict[str, Waiting] = {}
        left: list[Waiting] = []
        for waiting in self._waiting:
            if waiting.answer.done():
                continue
            if len(taken) < AT_ONCE and waiting.subject not in taken:
                taken[waiting.subject] = waiting
            else:
                left.append(waiting)
        self._waiting = left
        return list(taken.values())

    async def _side_by_side(self, works: list[Waiting]) -> list[Waiting]:
        """Run works in one transaction and answer them; those that are to be alone instead."""
        alone: list[Waiting] = []
        for _ in range(TRIES):
            these = _Round(works)
            try:
                await self._attempt(these.run)
            except AgainError:
                continue
            except _UndoneError:
                works, others = these.divided()
                alone += others
                continue
            except RefusedError:  # by whom what was refused was asked is not told
                break
            except Exception as error:  # noqa: BLE001 - everybody's
                for waiting in works:
                    _fail(waiting, error)
                return alone
            these.tell()
            return alone + these.divided()[1]
        return alone + works

    async def _by_itself(self, waiting: Waiting) -> None:
        try:
            value = await self._alone(waiting.work)
        except Exception as error:  # noqa: BLE001 - the caller's own
            _fail(waiting, error)
        else:
            if not waiting.answer.done():
                waiting.answer.set_result(value)


def _by_words(asking: Iterable[_Going]) -> list[tuple[str, list[_Going]]]:
    """Who asks the same, by what is asked. By their first argument, which is what a change locks: two transactions
    that lock the same rows in one order never wait for each other in a circle."""
    grouped: dict[str, list[_Going]] = defaultdict(list)
    for each in asking:
        grouped[each.ask.sql if each.ask else ""].append(each)
    return [(sql, sorted(some, key=lambda each: str(each.args[:1]))) for sql, some in grouped.items()]


def _fail(waiting: Waiting, error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
