"""What concerns the limiter in pure Python alone: Ctrl-C or a fork at any step, and the plans it remembers."""

from __future__ import annotations

import linecache
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType, TracebackType
from typing import Any

import pytest

from learnflow_core.limiter import Quota
from learnflow_core.limiter.memory import MemoryLimiter
from tests.limiting import MINUTE_AND_DAY, ROOT, SECOND, Clock, everything_has_its_turn


class InterruptError(Exception):
    pass


def test_a_limiter_interrupted_at_any_moment_decides_on_and_has_granted_no_more_than_its_quota() -> None:
    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise InterruptError

    limiter, plan = MemoryLimiter(clock=Clock()), (Quota.per_minute(10_000), Quota.per_day(10_000))
    allowed = interruptions = 0
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        while interruptions < 300:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.000_1)
                while True:
                    if limiter.hit("key", plan, 1):
                        allowed += 1
                    limiter.refund(limiter.peek("key", plan))
            except InterruptError:
                interruptions += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert limiter._free
    assert not limiter.hit("key", plan, 10_000)
    assert allowed <= 10_000
    state = limiter.peek("key", plan)
    assert state.remaining is not None
    assert state.remaining + allowed == pytest.approx(10_000, abs=interruptions)


class InterruptedAt:
    """Raises InterruptError at the step of that number, of all lines and instructions of the limiter.

    Within a line that takes or releases the turn there are none: no signal is handled there, with a tracer or without.
    """

    def __init__(self, step: int) -> None:
        self.left = step

    def __enter__(self) -> None:
        self.before = sys.gettrace()
        sys.settrace(self.trace)

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> bool:
        sys.settrace(self.before)
        return kind is InterruptError

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if "learnflow_core/limiter" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno or 0)
        if event == "line" or (event == "opcode" and "free[TURN]" not in line):
            self.left -= 1
            if self.left == 0:
                raise InterruptError
        return self.trace


CALLS: dict[str, Callable[[MemoryLimiter], object]] = {
    "known": lambda limiter: limiter.hit("full", MINUTE_AND_DAY),
    "unknown": lambda limiter: limiter.hit("new", MINUTE_AND_DAY),
    "refused": lambda limiter: limiter.hit("owing", MINUTE_AND_DAY, 300),
    "never seen": lambda limiter: limiter.hit("owing", [Quota.per_minute(7)]),
    "peek": lambda limiter: limiter.peek("new", MINUTE_AND_DAY),
    "reset": lambda limiter: limiter.reset("owing", MINUTE_AND_DAY),
    "refund": lambda limiter: limiter.refund(limiter.hit("owing", MINUTE_AND_DAY)),
}


def _interrupt_everywhere(call: Callable[[MemoryLimiter], object], max_buckets: int) -> None:
    step, interrupted = 0, True
    while interrupted:
        step += 1
        clock = Clock()
        limiter = MemoryLimiter(clock=clock, max_buckets=max_buckets, overflow_buckets=1)
        limiter.hit("full", MINUTE_AND_DAY)
        limiter.hit("owing", MINUTE_AND_DAY, 200)
        clock.now += 4 * SECOND
        steps = InterruptedAt(step)
        with steps:
            call(limiter)
        interrupted = steps.left <= 0
        assert limiter._free, f"the turn is lost at step {step}"
        table = limiter._table
        assert len(limiter) == sum(map(len, [*table.own.values(), table.shared]))
        limiter.hit("another", MINUTE_AND_DAY)
        everything_has_its_turn(limiter)
        clock.now += 86_400 * SECOND
        for number in range(6):
            limiter.hit(f"later {number}", MINUTE_AND_DAY[:1])
            everything_has_its_turn(limiter)
        assert not set(table.own[MINUTE_AND_DAY[1].bucket]) & {"full", "owing", "another", "new"}
    assert step > 20


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of a generator that is broken off
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("max_buckets", [4, 100])
def test_interrupted_at_whatever_instruction_it_stays_free_bounded_and_forgets_what_is_full(
    call: str, max_buckets: int
) -> None:
    with ThreadPoolExecutor(1) as thread:  # CPython may go on handling what was raised within its own steps: there only
        thread.submit(_interrupt_everywhere, CALLS[call], max_buckets).result()


def test_a_child_forked_in_the_middle_of_a_decision_gets_all_of_it() -> None:
    program = """
import os, sys, threading
from learnflow_core.limiter import Quota
from learnflow_core.limiter.memory import MemoryLimiter

inside, forking, plan = threading.Event(), threading.Event(), (Quota.per_day(100), Quota.per_hour(100))
limiter = MemoryLimiter(clock=lambda: 0)
limiter.hit("key", plan)

def left():
    return [state.remaining for state in limiter.peek("key", plan).states]

def trace(frame, event, argument):
    own = frame.f_locals.get("own")
    if own and len({own[quota.bucket]["key"] // quota.interval_ns for quota in plan}) == 2:
        inside.set()
        forking.wait()
    return trace

def hit():
    sys.settrace(trace)
    limiter.hit("key", plan)
    sys.settrace(None)

os.register_at_fork(before=forking.set)
thread = threading.Thread(target=hit)
thread.start()
inside.wait()
child = os.fork()
if child == 0:
    os._exit(0 if left() == [98, 98] else 1)
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), *left())
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT)
    assert run.stdout.split() == ["0", "98", "98"]


def test_plans_are_remembered_up_to_a_bound_and_one_in_the_place_of_another_is_checked() -> None:
    limiter = MemoryLimiter(clock=Clock())
    for number in range(3_000):
        limit = 1_000 + number
        assert limiter.hit(f"key {number}", (Quota.per_minute(limit), Quota.per_day(limit)))
        with pytest.raises(ValueError, match="a name of its own"):
            limiter.hit(f"key {number}", (Quota.per_minute(limit), Quota.per_minute(limit + 1)))
    assert len(limiter._plans) <= 1_024
