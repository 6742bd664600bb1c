"""The pool: first come, first served, within bounds, and no connection is lost or lent twice."""

import asyncio
import logging
from typing import Any

import asyncpg
import pytest

from learnflow_core.errors import LearnFlowError
from storage_backends.postgres_pool import FULL_S, IDLE_S, Pool

NONE_LEFT: Exception = asyncpg.PostgresError.new({"C": "53300", "M": "too many clients"})


class Connection:
    """What the pool sees of one."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.closed = False
        self.asked: list[str] = []

    def is_closed(self) -> bool:
        return self.closed

    def terminate(self) -> None:
        self.closed = True

    async def close(self, **within: float) -> None:
        self.closed = True

    async def execute(self, sql: str, **within: float) -> None:
        self.asked.append(sql)
        if self.closed:
            raise asyncpg.InterfaceError("connection is closed")


class Server:
    """Makes connections, or fails as a test wants it; and a clock."""

    def __init__(self) -> None:
        self.made: list[Connection] = []
        self.fails: BaseException | None = None
        self.asked = 0
        self.now = 0.0

    async def __call__(self) -> Connection:
        self.asked += 1
        await asyncio.sleep(0)
        if self.fails is not None:
            raise self.fails
        self.made.append(Connection(len(self.made)))
        return self.made[-1]

    def pool(self, size: int = 2, patience_s: float = 5.0) -> Pool:
        return Pool(self, size, patience_s=patience_s, clock=lambda: self.now)


@pytest.fixture
def server() -> Server:
    return Server()


async def waiting(*coroutines: Any) -> list[asyncio.Task[Any]]:
    """Tasks that have come as far as they can."""
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    for _ in range(10):
        await asyncio.sleep(0)
    return tasks


async def test_a_connection_is_made_when_it_is_needed_and_used_again(server: Server) -> None:
    pool = server.pool()
    for _ in range(3):
        pool.give(await pool.take())
    assert len(server.made) == 1


async def test_it_tells_how_many_are_lent_and_idle_and_how_many_wait(server: Server) -> None:
    pool = server.pool(2)
    held = [await pool.take(), await pool.take()]
    assert pool.connections() == (2, 0, 0)
    task, *_ = await waiting(pool.take())
    assert pool.connections() == (2, 0, 1)
    pool.give(held[0])
    pool.give(await task)
    assert pool.connections() == (1, 1, 0)


async def test_there_are_never_more_than_the_size_and_who_came_first_is_served_first(server: Server) -> None:
    pool = server.pool(2)
    held = [await pool.take(), await pool.take()]
    first, second, third = await waiting(pool.take(), pool.take(), pool.take())
    assert not first.done()
    pool.give(held[1])
    late, *_ = await waiting(pool.take())
    assert (first.result(), second.done(), late.done()) == (held[1], False, False)
    pool.give(held[0])
    await waiting()
    assert (second.result(), third.done()) == (held[0], False)
    assert len(server.made) == 2
    for task in (third, late):
        task.cancel()


async def test_who_waits_too_long_is_told_to_come_again_and_leaves_no_trace(server: Server) -> None:
    pool = server.pool(1, patience_s=0.01)
    held = await pool.take()
    with pytest.raises(LearnFlowError):
        await pool.take()
    pool.give(held)
    assert await pool.take() is held


async def test_a_connection_given_to_who_was_just_cancelled_goes_to_the_next(server: Server) -> None:
    pool = server.pool(1)
    held = await pool.take()
    first, second = await waiting(pool.take(), pool.take())
    pool.give(held)
    first.cancel()
    await waiting()
    assert second.result() is held


async def test_who_was_just_cancelled_when_a_connection_is_given_back_is_passed_over(server: Server) -> None:
    pool = server.pool(1)
    held = await pool.take()
    first, second = await waiting(pool.take(), pool.take())
    first.cancel()
    pool.give(held)
    await waiting()
    assert (first.cancelled(), second.result()) == (True, held)


async def test_room_given_to_who_was_just_cancelled_goes_to_the_next(server: Server) -> None:
    pool = server.pool(1)
    held = await pool.take()
    first, second = await waiting(pool.take(), pool.take())
    held.closed = True
    pool.give(held)
    first.cancel()
    await waiting()
    assert second.result() is server.made[1]


async def test_a_connection_that_was_closed_meanwhile_is_replaced(server: Server) -> None:
    pool = server.pool(1)
    pool.give(await pool.take())
    server.made[0].closed = True
    assert (await pool.take()).number == 1


async def test_a_connection_that_lay_unused_for_long_is_replaced(server: Server) -> None:
    pool = server.pool()
    held = [await pool.take(), await pool.take()]
    pool.give(held[0])
    server.now = IDLE_S / 2
    pool.give(held[1])
    server.now = IDLE_S + 1
    pool.give(await pool.take())
    assert (held[0].closed, held[1].closed) == (True, False)
    server.now = 3 * IDLE_S
    assert (await pool.take()).number == 2


async def test_when_connecting_fails_nobody_waits_for_nothing(server: Server) -> None:
    pool = server.pool(1)
    server.fails = ConnectionRefusedError()
    tasks = await waiting(*(pool.take() for _ in range(5)))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [LearnFlowError] * 5
    server.fails = None
    assert (await pool.take()).number == 0


async def test_a_server_that_has_no_connection_left_is_served_by_those_there_are(server: Server) -> None:
    pool = server.pool(3)
    held = await pool.take()
    server.fails = NONE_LEFT
    first, second = await waiting(pool.take(), pool.take())
    assert not first.done()
    asked = server.asked
    third, *_ = await waiting(pool.take())
    assert server.asked == asked  # it said so a moment ago
    pool.give(held)
    await waiting()
    assert first.result() is held
    server.fails, server.now = None, 2 * FULL_S
    fourth, *_ = await waiting(pool.take())
    assert fourth.result() is server.made[1]
    for task in (second, third):
        task.cancel()


async def test_a_server_that_has_none_at_all_for_us_is_away(server: Server) -> None:
    server.fails = NONE_LEFT
    with pytest.raises(LearnFlowError):
        await server.pool().take()


async def test_a_cancelled_caller_leaves_room_for_the_connection_that_was_being_made(server: Server) -> None:
    pool = server.pool(1)
    making = asyncio.ensure_future(pool.take())
    await asyncio.sleep(0)
    making.cancel()
    await asyncio.gather(making, return_exceptions=True)
    assert await pool.take() is server.made[0]


async def test_a_mended_connection_is_rolled_back_or_given_up(server: Server) -> None:
    pool = server.pool(1)
    held = await pool.take()
    pool.mend(held)
    again = await pool.take()
    assert (again, held.asked) == (held, ["ROLLBACK"])
    held.closed = True
    pool.mend(held)
    assert (await pool.take()).number == 1


async def test_closing_waits_for_those_who_came_before_and_refuses_who_comes_after(server: Server) -> None:
    pool = server.pool(1)
    held = await pool.take()
    before, closing = await waiting(pool.take(), pool.close())
    with pytest.raises(LearnFlowError):
        await pool.take()
    pool.give(held)
    await waiting()
    assert not closing.done()
    pool.give(before.result())
    await closing
    assert held.closed
    await pool.close()


async def test_the_log_has_one_line_when_it_goes_away_and_one_when_it_is_back(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pool = server.pool()
    server.fails = ConnectionRefusedError("refused")
    for _ in range(3):
        with pytest.raises(LearnFlowError):
            await pool.take()
    server.fails = None
    await pool.take()
    await pool.take()
    assert caplog.messages == ["no connection to the database: refused", "the database can be reached again"]
