"""Threads, forks, interruptions and event loops: never over, never under, nothing left locked."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from learnflow_core.limiter import Decision, Decisions, Limiter, Quota, Refund, Reset
from learnflow_core.limiter.asking import EXEMPT
from tests.limiting import (
    EVERY_MEMORY_LIMITER,
    MINUTE_AND_DAY,
    ROOT,
    Clock,
    memory_limiter,
    memory_limiters_module,
)

pytestmark = EVERY_MEMORY_LIMITER


@pytest.fixture
def frequent_switches() -> Any:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class YieldingClock(Clock):
    """A clock that lets other threads run in the middle of a decision."""

    def __call__(self) -> int:
        time.sleep(0)
        return self.now


@pytest.mark.usefixtures("frequent_switches")
def test_threads_together_are_admitted_exactly_the_limit() -> None:
    limiter = memory_limiter(YieldingClock())
    plan = (Quota.per_minute(1_000), Quota.per_day(2_500))
    start = threading.Barrier(8)

    def hit_often() -> int:
        start.wait()
        return sum(limiter.hit(key, plan).allowed for _ in range(400) for key in ("a", "b"))

    with ThreadPoolExecutor(8) as threads:
        admitted = sum(future.result() for future in [threads.submit(hit_often) for _ in range(8)])
    assert admitted == 2 * 1_000
    assert [state.remaining for state in limiter.peek("a", plan).states] == [0, 1_500]


@pytest.mark.usefixtures("frequent_switches")
def test_one_decision_refunded_by_many_threads_is_given_back_once() -> None:
    limiter = memory_limiter(YieldingClock())
    plan = (Quota.per_minute(100),)
    limiter.hit("key", plan, 90)
    start = threading.Barrier(8)

    def refund(decision: Decision) -> bool:
        start.wait()
        return bool(limiter.refund(decision))

    with ThreadPoolExecutor(8) as threads:
        for _ in range(20):
            decision = limiter.hit("key", plan, 5)
            assert sum(threads.map(refund, [decision] * 8)) == 1
    assert limiter.peek("key", plan).remaining == 10


@pytest.mark.usefixtures("frequent_switches")
def test_while_one_thread_has_read_the_clock_and_not_yet_decided_no_other_reads_it() -> None:
    inside: list[int] = []
    together = 0

    def clock() -> int:
        nonlocal together
        inside.append(0)
        time.sleep(0)
        together += len(inside) > 1
        inside.pop()
        return 0

    limiter = memory_limiter(clock)
    start = threading.Barrier(4)
    taken = limiter.hit("key", MINUTE_AND_DAY)

    def often(call: Callable[[], object]) -> None:
        start.wait()
        for _ in range(500):
            call()

    calls: list[Callable[[], object]] = [
        lambda: limiter.hit("key", MINUTE_AND_DAY),
        lambda: limiter.hit_many(["key"], MINUTE_AND_DAY),
        lambda: limiter.peek("key", MINUTE_AND_DAY),
        lambda: (limiter.refund(limiter.hit("key", MINUTE_AND_DAY)), limiter.reset("key", MINUTE_AND_DAY)),
    ]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(often, calls))
    assert together == 0
    assert not limiter.refund(taken)


def test_a_child_forked_while_a_thread_decides_can_decide_and_knows_what_was_taken() -> None:
    program = f"""
import os, signal, threading
from learnflow_core.limiter import Quota
from {memory_limiters_module()} import MemoryLimiter

inside, done, slow = threading.Event(), threading.Event(), False

def clock():
    if slow and threading.current_thread() is not threading.main_thread():
        inside.set()
        done.wait()
    return 0

limiter, plan = MemoryLimiter(clock=clock), (Quota.per_minute(3),)
limiter.hit("key", plan)
slow = True
thread = threading.Thread(target=limiter.hit, args=("key", plan))
thread.start()
inside.wait()
child = os.fork()
if child == 0:
    signal.alarm(10)
    os._exit(limiter.hit("key", plan).remaining)
done.set()
thread.join()
status = os.waitpid(child, 0)[1]
print(os.waitstatus_to_exitcode(status), limiter.peek("key", plan).remaining)
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT)
    assert run.stdout.split() == ["1", "1"]


def test_a_clock_that_asks_its_own_limiter_is_told_so() -> None:
    asking = False

    def clock() -> int:
        if asking:
            limiter.hit("key", MINUTE_AND_DAY)
        return 0

    limiter = memory_limiter(clock)
    asking = True
    with pytest.raises(RuntimeError, match="asked by its own clock"):
        limiter.hit("key", MINUTE_AND_DAY)
    asking = False
    assert limiter.hit("key", MINUTE_AND_DAY).remaining == 299


def test_a_clock_that_forks_goes_on_deciding_in_both_processes() -> None:
    program = f"""
import os
from learnflow_core.limiter import Quota
from {memory_limiters_module()} import MemoryLimiter

child = None

def clock():
    global child
    if child is None and forking:
        child = os.fork()
    return 0

forking = False
limiter, plan = MemoryLimiter(clock=clock), (Quota.per_minute(5),)
forking = True
left = limiter.hit("key", plan).remaining, limiter.hit("key", plan).remaining
if child == 0:
    os._exit(10 * left[0] + left[1])
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), *left)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, cwd=ROOT
    )
    assert run.stdout.split() == ["43", "4", "3"]


@pytest.mark.parametrize(
    ("instant", "error"),
    [
        (1.5, TypeError),
        (True, TypeError),
        (None, TypeError),
        (2**62, ValueError),
        (-(2**62), ValueError),
        (10**30, ValueError),
        (ZeroDivisionError(), ZeroDivisionError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_clock_that_goes_wrong_is_an_error_of_that_call_alone(instant: Any, error: type[BaseException]) -> None:
    told: list[Any] = [0]

    def clock() -> Any:
        if isinstance(told[0], BaseException):
            raise told[0]
        return told[0]

    limiter = memory_limiter(clock)
    made = limiter.hit("key", MINUTE_AND_DAY)
    told[0] = instant
    for call in (limiter.hit, limiter.peek, limiter.reset):
        with pytest.raises(error):
            call("key", MINUTE_AND_DAY)
    with pytest.raises(error):
        limiter.hit_many(["key"], MINUTE_AND_DAY)
    with pytest.raises(error):
        limiter.refund(made)
    told[0] = 0
    assert limiter.peek("key", MINUTE_AND_DAY).remaining == 299
    assert limiter.refund(made)


def test_a_decision_that_is_interrupted_leaves_nothing_locked() -> None:
    clock = Clock()
    interrupted = False

    def interrupting() -> int:
        if interrupted:
            raise KeyboardInterrupt
        return clock()

    limiter = memory_limiter(interrupting)
    plan = (Quota.per_minute(2),)
    interrupted = True
    for call in (limiter.hit, limiter.peek, limiter.reset):
        with pytest.raises(KeyboardInterrupt):
            call("key", plan)
    interrupted = False
    assert limiter.hit("key", plan).remaining == 1


async def test_one_line_of_a_coroutine_serves_any_limiter_behind_the_port() -> None:
    class FarAway:
        """A limiter whose answers take a turn of the event loop."""

        implementation = "far away"

        def __init__(self) -> None:
            self.memory = memory_limiter(Clock())

        async def hit(self, key: str, quotas: Any, cost: int = 1) -> Decision:
            return self.memory.hit(key, quotas, cost)

        async def hit_many(self, keys: Any, quotas: Any, cost: int = 1) -> Decisions:
            return self.memory.hit_many(keys, quotas, cost)

        async def peek(self, key: str, quotas: Any, cost: int = 1) -> Decision:
            return self.memory.peek(key, quotas, cost)

        async def refund(self, decision: Decision) -> Refund:
            return self.memory.refund(decision)

        async def reset(self, key: str, quotas: Any) -> Reset:
            return self.memory.reset(key, quotas)

    ports: list[Limiter] = [memory_limiter(Clock()), FarAway()]
    for limiter in ports:
        decision = await limiter.hit("key", MINUTE_AND_DAY)
        assert isinstance(decision, Decision)
        assert (decision.remaining, (await limiter.peek("key", MINUTE_AND_DAY)).remaining) == (299, 299)
        assert [bool(await limiter.refund(decision)) for _ in range(2)] == [True, False]


async def test_whatever_it_answers_can_be_awaited_and_read_in_a_log() -> None:
    limiter = memory_limiter(Clock())
    many = limiter.hit_many(["a", "b"], MINUTE_AND_DAY)
    assert [decision.key for decision in many] == ["a", "b"]
    refund, reset = limiter.refund(many[0]), limiter.reset("b", MINUTE_AND_DAY)
    assert await many is many
    assert await refund is refund
    assert await reset is reset
    assert (repr(refund), repr(reset)) == ("Refund(given_back=True)", "Reset()")
    assert not limiter.refund(EXEMPT)


def test_it_tells_the_monotonic_time_that_is_its_clock_unless_it_is_given_another() -> None:
    before = time.monotonic_ns()
    now_ns = memory_limiter(time.monotonic_ns).hit("key", MINUTE_AND_DAY).now_ns
    assert before <= now_ns <= time.monotonic_ns()
