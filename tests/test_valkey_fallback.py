"""The three policies: what is decided without the store, and that its figures agree with one another."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_core.limiter import Decision, Quota, headers
from storage_backends.valkey import (
    AsyncLeasedValkeyLimiter,
    AsyncValkeyLimiter,
    LeasedValkeyLimiter,
    ValkeyLimiter,
)
from storage_backends.valkey.calls import Calls
from storage_backends.valkey.fallback import POLICIES, Fallback
from tests.limiting import MINUTE_AND_DAY, SECOND, Plan, costs, plans, within_the_promise

REST = 700_000_000
calls = Calls("limiter:")


def decide(fallback: Fallback, quotas: Plan = MINUTE_AND_DAY, cost: int = 1, key: str = "key") -> Decision:
    return fallback.decide(calls.hit(key, quotas, cost), key, REST)


def look(fallback: Fallback, quotas: Plan = MINUTE_AND_DAY, cost: int = 1) -> Decision:
    return fallback.decide(calls.peek("key", quotas, cost), "key", REST)


plans_in_microseconds = plans.map(
    lambda plan: tuple(Quota(q.name, q.limit, q.period_ns * 1_000, q.burst) for q in plan)
)


@given(plans_in_microseconds.flatmap(lambda plan: st.tuples(st.just(plan), costs(*plan))), st.integers(1, SECOND))
@pytest.mark.parametrize("policy", POLICIES)
def test_the_figures_of_a_decision_agree_with_one_another(policy: Any, case: tuple[Plan, int], rest: int) -> None:
    plan, cost = case
    fallback = Fallback(policy, processes=3)
    for ask in (calls.peek, calls.hit, calls.hit):
        decision = fallback.decide(ask("key", plan, cost), "key", rest)
        assert decision.fallback == policy
        assert [quota.name for quota in decision.quotas] == [quota.name for quota in plan]
        for quota, full_at, state in zip(decision.quotas, decision.full_at_ns, decision.states, strict=True):
            assert decision.now_ns <= full_at <= decision.now_ns + quota.longest_ns
            assert 0 <= state.remaining <= quota.burst
            assert (state.retry_after_ns > 0) <= (not decision.allowed)
        assert (decision.retry_after_ns > 0) is (not decision.allowed)
        assert len(headers(decision, time.time_ns())) == 6 - decision.allowed


def test_open_lets_everything_pass_and_tells_of_buckets_that_were_full() -> None:
    fallback = Fallback("open", processes=1)
    decisions = [decide(fallback, cost=300) for _ in range(10)]
    assert all(decision.allowed and decision.fallback == "open" for decision in decisions)
    assert [state.remaining for state in decisions[-1].states] == [0, 24_700]
    assert look(fallback).remaining == 300


def test_closed_lets_nothing_pass_and_says_to_come_back_when_the_store_is_asked_again() -> None:
    decision = decide(Fallback("closed", processes=1))
    assert not decision.allowed
    assert (decision.fallback, decision.remaining, decision.retry_after_ns) == ("closed", 0, REST)
    told = dict(headers(decision, time.time_ns()))
    assert (told["Retry-After"], told["X-RateLimit-Remaining"]) == ("1", "0")
    assert told["RateLimit"] == '"minute";r=0;t=1, "day";r=0;t=1'
    assert re.fullmatch(r"\d+", told["X-RateLimit-Reset"])
    assert not look(Fallback("closed", processes=1)).allowed


def test_local_admits_over_all_processes_at_most_what_the_quota_promises() -> None:
    quota = Quota("q", 10, 3_600 * SECOND)
    processes = [Fallback("local", processes=4) for _ in range(4)]
    passed = [
        (decision.now_ns, 1) for fallback in processes for _ in range(20) if (decision := decide(fallback, (quota,)))
    ]
    assert len(passed) == 4 * (10 // 4)
    assert within_the_promise(quota, sorted(passed))


def test_local_tells_of_the_share_since_that_is_what_holds() -> None:
    decision = decide(Fallback("local", processes=3), cost=10)
    assert (decision.limit, decision.remaining, decision.fallback) == (100, 90, "local")
    assert [quota.limit for quota in decision.quotas] == [100, 8_333]


def test_a_share_is_at_least_one_token() -> None:
    fallback = Fallback("local", processes=100)
    quota = Quota.per_minute(7, burst=2)
    assert [decide(fallback, (quota,)).allowed for _ in range(2)] == [True, False]


def test_a_cost_above_the_share_is_a_denial_until_the_store_is_asked_again_and_takes_nothing() -> None:
    fallback = Fallback("local", processes=4)
    for decision in (decide(fallback, cost=300), look(fallback, cost=300)):
        assert not decision.allowed
        assert (decision.fallback, decision.remaining, decision.retry_after_ns) == ("local", 0, REST)
    assert decide(fallback).remaining == 74


def test_buckets_of_the_share_outlast_an_outage() -> None:
    fallback = Fallback("local", processes=1)
    plan = (Quota.per_day(3),)
    assert [decide(fallback, plan).allowed for _ in range(4)] == [True, True, True, False]
    assert look(fallback, plan).remaining == 0


def test_what_the_share_gave_can_be_refunded_once() -> None:
    fallback = Fallback("local", processes=1)
    decision: Any = decide(fallback, cost=300)
    assert not decide(fallback).allowed
    assert fallback.refund(decision)
    assert not fallback.refund(decision)
    assert decide(fallback).allowed
    denied: Any = decide(fallback, cost=300)
    assert not fallback.refund(denied)
    looked: Any = look(fallback)
    assert not fallback.refund(looked)


def test_the_share_keeps_so_many_buckets_at_most() -> None:
    with ValkeyLimiter("unix:///nowhere/valkey.sock", max_buckets=10) as limiter:
        for number in range(10_000):
            limiter.hit(f"key {number}", (Quota.per_day(10),))
        assert len(limiter._store._fallback._memory) <= 10 + 4_096
    for made in (ValkeyLimiter, AsyncValkeyLimiter, LeasedValkeyLimiter, AsyncLeasedValkeyLimiter):
        with pytest.raises(ValueError, match="max_buckets"):
            made("unix:///nowhere/valkey.sock", max_buckets=0)
