"""The client for an event loop: one write a tick, cancelled tasks, closed loops, and nothing that waits for ever."""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import uvloop

from learnflow_core.limiter import Decisions, Limiter, Quota
from storage_backends.valkey import AsyncLeasedValkeyLimiter, AsyncValkeyLimiter
from storage_backends.valkey.node import BATCH
from storage_backends.valkey.nodes import Nodes
from storage_backends.valkey.wire import Wire
from tests.limiting import MINUTE_AND_DAY
from tests.servers import Proxy, Valkey, eventually
from tests.valkey import PATIENT_NS, looping

PLAN = (Quota.per_day(1_000),)


@pytest.fixture
async def limiter(valkey: Valkey, request: pytest.FixtureRequest) -> AsyncIterator[AsyncValkeyLimiter]:
    async with AsyncValkeyLimiter(valkey.url, budget_ns=PATIENT_NS, prefix=f"{request.node.name}:") as limiter:
        yield limiter


@pytest.fixture
def stopped() -> Iterator[Valkey]:
    """A server that accepts connections, and answers nothing."""
    with Valkey() as server:
        server.pause()
        yield server
        server.resume()


async def test_it_fulfils_the_port(limiter: AsyncValkeyLimiter) -> None:
    port: Limiter = limiter
    decision = await port.hit("key", MINUTE_AND_DAY)
    assert (decision.remaining, (await port.peek("key", MINUTE_AND_DAY)).remaining) == (299, 299)
    assert isinstance(await port.hit_many(["a", "b"], MINUTE_AND_DAY), Decisions)
    assert [bool(await port.refund(decision)) for _ in range(2)] == [True, False]
    await port.reset("key", MINUTE_AND_DAY)
    assert limiter.implementation == "valkey"


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    written: list[bytes] = []
    write = Wire.write

    def noting(self: Wire, data: bytes) -> None:
        written.append(data)
        write(self, data)

    monkeypatch.setattr(Wire, "write", noting)
    return written


async def test_calls_of_one_turn_of_the_loop_leave_in_one_write(
    limiter: AsyncValkeyLimiter, writes: list[bytes]
) -> None:
    await limiter.hit("first", PLAN)
    for callers in (2, 10, BATCH - 1):
        writes.clear()
        decisions = await asyncio.gather(*(limiter.hit(f"{callers}", PLAN) for _ in range(callers)))
        assert len(writes) == 1
        assert [decision.remaining for decision in decisions] == list(range(999, 999 - callers, -1))


async def test_of_many_calls_the_first_leave_while_the_others_are_made(
    limiter: AsyncValkeyLimiter, writes: list[bytes]
) -> None:
    await limiter.hit("first", PLAN)
    writes.clear()
    await asyncio.gather(*(limiter.hit("key", PLAN) for _ in range(3 * BATCH + 1)))
    assert len(writes) == 4


async def test_calls_made_before_the_connection_is_there_leave_when_it_is(
    limiter: AsyncValkeyLimiter, writes: list[bytes]
) -> None:
    decisions = await asyncio.gather(*(limiter.hit("key", PLAN) for _ in range(500)))
    assert [decision.remaining for decision in decisions] == list(range(999, 499, -1))
    assert len(writes) == 2  # the greeting is one


async def test_thousands_of_calls_at_once_are_each_answered_with_their_own(limiter: AsyncValkeyLimiter) -> None:
    keys = [f"key {number}" for number in range(3_000)]
    await asyncio.gather(*(limiter.hit(key, PLAN, 1 + number % 900) for number, key in enumerate(keys)))
    seen = await asyncio.gather(*(limiter.peek(key, PLAN) for key in keys))
    assert [decision.key for decision in seen] == keys
    assert [decision.remaining for decision in seen] == [999 - number % 900 for number in range(3_000)]


async def test_a_task_that_is_cancelled_while_it_waits_disturbs_no_other(limiter: AsyncValkeyLimiter) -> None:
    await limiter.hit("first", PLAN)
    for _ in range(50):
        tasks = [asyncio.ensure_future(limiter.hit(f"key {number}", PLAN, number + 1)) for number in range(40)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        for number, decision in enumerate(done):
            if number % 3:
                assert not isinstance(decision, BaseException)
                assert (decision.key, decision.cost) == (f"key {number}", number + 1)
        for number in range(40):
            await limiter.reset(f"key {number}", PLAN)


async def test_a_task_that_is_cancelled_while_its_call_is_made_disturbs_no_other(stopped: Valkey) -> None:
    async with AsyncValkeyLimiter(stopped.url, fallback="open", budget_ns=PATIENT_NS) as limiter:
        waiting = [asyncio.ensure_future(limiter.hit("key", PLAN)) for _ in range(10)]
        many = asyncio.ensure_future(limiter.hit_many(["a", "b"], PLAN))
        await asyncio.sleep(0.01)
        for task in [*waiting[::2], many]:
            task.cancel()
        stopped.resume()
        assert [(await task).allowed for task in waiting[1::2]] == [True] * 5


async def test_closing_answers_those_who_wait_by_the_policy(stopped: Valkey) -> None:
    limiter = AsyncValkeyLimiter(stopped.url, fallback="closed", budget_ns=PATIENT_NS)
    waiting = [asyncio.ensure_future(limiter.hit("key", PLAN)) for _ in range(5)]
    many = asyncio.ensure_future(limiter.hit_many(["a"] * 600, PLAN))
    await asyncio.sleep(0.01)
    await limiter.aclose()
    assert [(await task).fallback for task in waiting] == ["closed"] * 5
    with pytest.raises(RuntimeError, match="closed"):  # its second chunk
        await many
    for call in (limiter.hit, limiter.peek, limiter.reset):
        with pytest.raises(RuntimeError, match="the limiter is closed"):
            await call("key", PLAN)
    await limiter.aclose()


async def test_after_closing_nothing_happens_any_more(stopped: Valkey) -> None:
    unexpected: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unexpected.append(context))
    for turns in range(4):
        limiter = AsyncValkeyLimiter(stopped.url, fallback="open", budget_ns=10_000_000)
        decisions = [asyncio.ensure_future(limiter.hit("key", PLAN)) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0.002)
        last = limiter.hit("key", PLAN)
        await limiter.aclose()
        await asyncio.sleep(0.03)
        assert {decision.fallback for decision in [*await asyncio.gather(*decisions), await last]} == {"open"}
    assert unexpected == []


@pytest.mark.parametrize("turns", range(6))
async def test_closing_while_someone_is_found_to_be_late_is_closing(stopped: Valkey, turns: int) -> None:
    unexpected: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unexpected.append(context))
    limiter = AsyncValkeyLimiter(stopped.url, fallback="open", budget_ns=10_000_000)
    late = limiter.hit("key", PLAN)
    await asyncio.sleep(0.002)
    time.sleep(0.02)  # noqa: ASYNC251 - the loop is held up until the budget is over
    for _ in range(turns):
        await asyncio.sleep(0)
    await limiter.aclose()
    assert (await late).fallback == "open"
    await asyncio.sleep(0.01)
    assert unexpected == []


async def test_closing_leaves_nothing_running(valkey: Valkey, stopped: Valkey) -> None:
    for server in (valkey, stopped):
        before = asyncio.all_tasks()
        limiter = AsyncValkeyLimiter(server.url, fallback="open")
        decision = asyncio.ensure_future(limiter.hit("key", PLAN))
        await asyncio.sleep(0)
        await limiter.aclose()
        await decision
        assert asyncio.all_tasks() == before


async def test_an_idle_connection_that_the_server_closes_is_no_failure() -> None:
    with Valkey() as server:
        async with AsyncValkeyLimiter(server.url, budget_ns=PATIENT_NS) as limiter:
            for _ in range(5):
                assert (await limiter.hit("key", PLAN)).fallback is None
                server.call("CLIENT", "KILL", "TYPE", "normal")
                await asyncio.sleep(0.02)
            assert limiter.counts.failures == {}


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_loop_that_was_held_up_still_takes_the_answers_that_are_there(
    run: Callable[..., Any], valkey: Valkey
) -> None:
    async def hold_up() -> None:
        async with AsyncValkeyLimiter(valkey.url, fallback="open", prefix="held up:") as limiter:
            await limiter.hit("key", PLAN)
            for pause_s in (0.0, 0.01, 0.03) * 3:
                waiting = asyncio.ensure_future(limiter.hit("key", PLAN))
                await asyncio.sleep(pause_s / 10)
                time.sleep(0.03 + pause_s)  # noqa: ASYNC251 - to hold the loop up is the test
                assert (await waiting).fallback is None
            assert limiter.counts.failures == {}

    run(hold_up())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_every_loop_serves_many_tasks(run: Callable[..., Any], valkey: Valkey) -> None:
    prefix = f"{run.__module__}:"

    async def ask() -> list[int | None]:
        async with AsyncValkeyLimiter(valkey.url, budget_ns=PATIENT_NS, prefix=prefix) as limiter:
            return [
                decision.remaining for decision in await asyncio.gather(*(limiter.hit("key", PLAN) for _ in range(500)))
            ]

    assert run(ask()) == list(range(999, 499, -1))


def test_one_loop_after_the_other_is_served(valkey: Valkey) -> None:
    limiter = AsyncValkeyLimiter(valkey.url, budget_ns=PATIENT_NS, prefix="loops:")

    async def hit() -> int | None:
        async with asyncio.timeout(PATIENT_NS / 1e9):
            return (await limiter.hit("key", PLAN)).remaining

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # each loop was closed before its connection
        assert [asyncio.run(hit()) for _ in range(3)] == [999, 998, 997]
        asyncio.run(limiter.aclose())
        gc.collect()


LIMITERS = [AsyncValkeyLimiter, AsyncLeasedValkeyLimiter]


@pytest.mark.parametrize("kind", LIMITERS)
def test_while_its_loop_runs_another_one_is_told_to_have_a_limiter_of_its_own(
    kind: type[AsyncValkeyLimiter], valkey: Valkey
) -> None:
    with looping() as first, looping() as second:
        limiter = kind(valkey.url, budget_ns=PATIENT_NS)
        assert first(limiter.hit, "key", PLAN).fallback is None
        nodes = limiter._nodes
        for call in (limiter.hit, limiter.peek, limiter.reset):
            with pytest.raises(RuntimeError, match="another event loop"):
                second(call, "key", PLAN)
        assert limiter._nodes is nodes
        assert first(limiter.hit, "key", PLAN).fallback is None
        second(limiter.aclose)
        eventually(lambda: nodes and not nodes.descriptors())


@pytest.mark.parametrize("kind", LIMITERS)
def test_loops_that_run_in_turn_keep_no_connection_of_the_other(kind: type[AsyncValkeyLimiter]) -> None:
    with Valkey() as server:
        limiter = kind(server.url, budget_ns=PATIENT_NS)
        loops = [asyncio.new_event_loop() for _ in range(3)]

        async def hit() -> str | None:
            return (await limiter.hit("key", PLAN)).fallback

        for _ in range(5):
            assert [loop.run_until_complete(hit()) for loop in loops] == [None] * 3
        connected = len(server.call("CLIENT", "LIST").splitlines()) - 1
        for loop in loops:
            loop.run_until_complete(limiter.aclose())
            loop.run_until_complete(asyncio.sleep(0.01))
            loop.close()
        assert connected <= len(loops)
        eventually(lambda: len(server.call("CLIENT", "LIST").splitlines()) == 1)


async def test_whatever_goes_wrong_with_an_error_of_the_store_its_caller_is_answered(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    unexpected: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unexpected.append(context))

    def fail(*_: object) -> bool:
        raise LookupError

    monkeypatch.setattr(Nodes, "redirect", fail)
    with Proxy(valkey) as proxy:
        async with AsyncValkeyLimiter(proxy.url, fallback="open", budget_ns=PATIENT_NS) as limiter:
            await limiter.hit("key", PLAN)
            proxy.replies = lambda data: b"-ERR no\r\n"
            assert (await limiter.hit("key", PLAN)).fallback == "open"
    assert [type(context["exception"]) for context in unexpected] == [LookupError]


async def test_calls_beyond_the_budget_are_decided_by_the_policy_and_late_answers_by_nobody() -> None:
    with Valkey() as server, Proxy(server) as proxy:
        async with AsyncValkeyLimiter(proxy.url, fallback="open") as limiter:
            await limiter.hit("key", PLAN)
            proxy.delay_s = 0.05
            late = [await limiter.hit("key", PLAN) for _ in range(3)]
            proxy.delay_s = 0.0
            assert [decision.fallback for decision in late] == ["open"] * 3
