"""What concerns the limiter in pure Python alone: Ctrl-C at any step of a decision, and the plans it remembers."""

from __future__ import annotations

import signal
from types import FrameType

import pytest

from learnflow_core.limiter import Quota
from learnflow_core.limiter.memory import MemoryLimiter
from tests.limiting import Clock


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


def test_plans_are_remembered_up_to_a_bound_and_one_in_the_place_of_another_is_checked() -> None:
    limiter = MemoryLimiter(clock=Clock())
    for number in range(3_000):
        limit = 1_000 + number
        assert limiter.hit(f"key {number}", (Quota.per_minute(limit), Quota.per_day(limit)))
        with pytest.raises(ValueError, match="a name of its own"):
            limiter.hit(f"key {number}", (Quota.per_minute(limit), Quota.per_minute(limit + 1)))
    assert len(limiter._plans) <= 1_024
