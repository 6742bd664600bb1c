"""Writes that share a transaction of PostgreSQL: what is asked how often, and who is alone in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from learnflow_core.errors import LearnFlowError
from storage_backends.driver import DriverTransaction, DuplicateError, Row, Value, Work, unavailable
from storage_backends.postgres_together import AT_ONCE, TRIES, Together
from storage_backends.postgres_transaction import AgainError

pytestmark = pytest.mark.asyncio

READ, ADD, TAKE = "SELECT 1 WHERE $1 = $1", "INSERT INTO a VALUES ($1)", "UPDATE a SET n = 1 WHERE id = $1 RETURNING n"


class Database:
    """Notes what it is asked, and answers every SELECT; `failures` come at the ends of the first transactions."""

    def __init__(self, *failures: Exception) -> None:
        self.asked: list[tuple[str, list[Value]]] = []
        self.alone: list[str] = []
        self.transactions = 0
        self._failures = list(failures)
        self.together = Together(self._attempt, self._by_itself)

    async def each(self, sql: str, args: Sequence[Sequence[Value]]) -> Sequence[Sequence[Row]]:
        await asyncio.sleep(0)
        self.asked.append((sql, [values[0] for values in args]))
        return [[(values[0],)] if sql == READ else [] for values in args]

    async def write(self, *works: Work[Any], subjects: Sequence[str] | None = None) -> list[Any]:
        """What each of them comes to, when all are given at once."""
        names = subjects or [str(number) for number in range(len(works))]
        writes = (self.together.write(work, name) for work, name in zip(works, names, strict=True))
        return await asyncio.gather(*writes, return_exceptions=True)

    async def _attempt(self, work: Callable[[Any], Awaitable[None]]) -> None:
        self.transactions += 1
        await work(self)
        if self._failures:
            raise self._failures.pop(0)

    async def _by_itself(self, work: Work[Any]) -> Any:
        tx: Any = Alone(self)
        return await work(tx)


class Alone:
    """A transaction that is nobody else's, as far as these works use one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def rows(self, sql: str, *args: Value) -> Sequence[Row]:
        self._database.alone.append(sql)
        return [args] if sql == READ else []

    async def row(self, sql: str, *args: Value) -> Row | None:
        found = await self.rows(sql, *args)
        return found[0] if found else None

    async def alone(self) -> None:
        """It is."""


def enrolling(name: str) -> Work[str]:
    """Reads, then adds, and answers its name."""

    async def work(tx: DriverTransaction) -> str:
        assert await tx.row(READ, name) == (name,)
        await tx.rows(ADD, name)
        return name

    return work


async def test_what_many_ask_in_the_same_words_is_asked_once_for_all() -> None:
    database = Database()
    names = [f"{number:03}" for number in range(50)]
    assert await database.write(*map(enrolling, names)) == names
    assert database.asked == [(READ, names), (ADD, names)]
    assert database.transactions == 1


async def test_what_is_changed_is_changed_in_the_order_of_its_keys() -> None:
    database = Database()
    await database.write(*map(enrolling, "cab"))
    assert database.asked[-1] == (ADD, ["a", "b", "c"])


async def test_those_that_come_meanwhile_and_those_beyond_the_bound_are_in_the_next() -> None:
    database = Database()
    await database.write(*(enrolling(f"{number:03}") for number in range(AT_ONCE + 1)))
    assert [len(args) for _, args in database.asked] == [AT_ONCE, AT_ONCE, 1, 1]
    assert database.transactions == 2


async def test_of_one_subject_only_one_is_in_a_transaction() -> None:
    database = Database()
    assert await database.write(*map(enrolling, "abc"), subjects=["x", "y", "x"]) == ["a", "b", "c"]
    assert [args for _, args in database.asked] == [["a", "b"], ["a", "b"], ["c"], ["c"]]


async def test_a_refusal_of_one_that_wrote_nothing_costs_the_others_nothing() -> None:
    async def refused(tx: DriverTransaction) -> None:
        assert await tx.row(TAKE, "nothing free") is None
        raise ValueError

    database = Database()
    first, second = await database.write(enrolling("a"), refused)
    assert (first, type(second), database.transactions, database.alone) == ("a", ValueError, 1, [])


async def test_one_that_wrote_before_it_raised_is_done_again_alone_and_the_others_without_it() -> None:
    async def broken(tx: DriverTransaction) -> None:
        await tx.rows(ADD, "x")
        raise ValueError

    database = Database()
    first, second = await database.write(enrolling("a"), broken)
    assert (first, type(second), database.transactions, database.alone) == ("a", ValueError, 2, [ADD])
    assert database.asked[-2:] == [(READ, ["a"]), (ADD, ["a"])]


async def test_one_that_asks_to_be_alone_is_begun_anew_and_the_others_go_on() -> None:
    async def shy(tx: DriverTransaction) -> str:
        await tx.rows(READ, "s")
        await tx.alone()
        await tx.rows(ADD, "s")
        return "s"

    database = Database()
    assert await database.write(enrolling("a"), shy) == ["a", "s"]
    assert (database.transactions, database.alone) == (1, [READ, ADD])


async def test_what_collides_is_tried_together_again_and_then_each_alone() -> None:
    database = Database(*[AgainError()] * TRIES)
    assert await database.write(*map(enrolling, "ab")) == ["a", "b"]
    assert (database.transactions, database.alone) == (TRIES, [READ, ADD] * 2)


async def test_what_the_schema_refuses_is_found_out_one_by_one() -> None:
    database = Database(DuplicateError())
    assert await database.write(*map(enrolling, "ab")) == ["a", "b"]
    assert (database.transactions, len(database.alone)) == (1, 4)


async def test_when_the_database_is_away_all_are_told_and_none_is_tried_again() -> None:
    database = Database(unavailable())
    assert list(map(type, await database.write(*map(enrolling, "ab")))) == [LearnFlowError] * 2
    assert (database.transactions, database.alone) == (1, [])
    assert await database.write(enrolling("c")) == ["c"]


async def test_one_whose_caller_has_gone_before_it_began_is_left_out() -> None:
    database = Database()
    gone, stays = (asyncio.ensure_future(database.together.write(enrolling(name), name)) for name in "ab")
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays == "b"
    with suppress(asyncio.CancelledError):
        await gone
    assert database.asked == [(READ, ["b"]), (ADD, ["b"])]
