"""Refunds and resets: nothing comes back twice, and what passed and was kept stays within the promise."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from learnflow_core.limiter import Decision, Quota
from tests.limiting import (
    EVERY_LIMITER,
    MINUTE_AND_DAY,
    SECOND,
    Clock,
    Plan,
    Requests,
    costs,
    levels,
    new_limiter,
    quotas,
    requests,
    tick,
    waits,
    within_the_promise,
)

pytestmark = EVERY_LIMITER

refund_steps = quotas.flatmap(
    lambda quota: st.tuples(
        st.just(quota),
        st.lists(st.tuples(waits(quota), costs(quota) | st.none(), st.integers(0, 40)), min_size=2, max_size=40),
    )
)
"""A quota and steps under it: how long to wait, then what to take, or None and which earlier decision to refund."""


@given(refund_steps)
def test_what_passes_and_is_not_refunded_stays_within_the_promise(
    case: tuple[Quota, list[tuple[int, int | None, int]]],
) -> None:
    quota, steps = case
    clock = Clock()
    limiter = new_limiter(clock)
    made: list[Decision] = []
    refunded: set[int] = set()
    for wait, cost, index in steps:
        clock.now += wait
        if cost is not None:
            made.append(limiter.hit("key", (quota,), cost))
        elif index < len(made) and limiter.refund(made[index]):
            refunded.add(index)
    kept = [(d.now_ns, d.cost) for i, d in enumerate(made) if d.allowed and i not in refunded]
    assert within_the_promise(quota, kept)


@given(requests)
def test_a_refund_at_once_undoes_the_hit_and_only_once(case: tuple[Plan, Requests]) -> None:
    plan, asked = case
    clock = Clock()
    limiter = new_limiter(clock)
    for wait, cost in asked:
        clock.now += wait
        before = levels(limiter, "key", plan)
        decision = limiter.hit("key", plan, cost)
        assert bool(limiter.refund(decision)) is decision.allowed
        assert levels(limiter, "key", plan) == before
        assert not limiter.refund(decision)
        assert levels(limiter, "key", plan) == before
        limiter.hit("key", plan, cost)


def test_a_refund_returns_what_has_not_flowed_back_since() -> None:
    clock = Clock()
    limiter = new_limiter(clock)
    plan = (Quota.per_minute(60),)
    limiter.hit("key", plan, 40)
    decision = limiter.hit("key", plan, 10)
    clock.now += 4 * SECOND
    assert limiter.peek("key", plan).remaining == 14
    assert limiter.refund(decision)
    assert limiter.peek("key", plan).remaining == 20


def test_a_refund_long_after_gives_nothing_and_never_more_than_a_full_bucket() -> None:
    clock = Clock()
    limiter = new_limiter(clock)
    plan = (Quota.per_minute(60),)
    first = limiter.hit("key", plan, 60)
    clock.now += 60 * SECOND
    limiter.hit("key", plan, 50)
    assert limiter.refund(first)
    assert limiter.peek("key", plan).remaining == 10


def test_a_refund_after_the_clock_stepped_back_gives_nothing() -> None:
    clock = Clock(10**12)
    limiter = new_limiter(clock)
    plan = (Quota.per_minute(60),)
    decision = limiter.hit("key", plan)
    clock.now -= tick()
    assert limiter.refund(decision)
    assert limiter.peek("key", plan).remaining == 58


def test_only_what_was_taken_here_can_be_refunded() -> None:
    limiter, another = new_limiter(Clock()), new_limiter(Clock())
    plan = (Quota.per_minute(2),)
    elsewhere = another.hit("key", plan)
    limiter.hit("key", plan, 2)
    assert not limiter.refund(elsewhere)
    assert not limiter.refund(limiter.peek("key", plan))
    assert not limiter.refund(limiter.hit("key", plan))
    assert limiter.peek("key", plan).remaining == 0
    assert another.refund(elsewhere)


def test_the_decision_to_refund_can_be_named() -> None:
    limiter = new_limiter(Clock())
    assert limiter.refund(decision=limiter.hit("key", MINUTE_AND_DAY))


def test_refunding_an_unlimited_decision_is_harmless() -> None:
    limiter = new_limiter(Clock())
    assert limiter.refund(limiter.hit("key", ()))


def test_a_reset_fills_the_buckets_and_ends_refunds_of_what_came_before() -> None:
    limiter = new_limiter(Clock())
    before = limiter.hit("key", MINUTE_AND_DAY, 300)
    limiter.reset("key", MINUTE_AND_DAY)
    assert limiter.peek("key", MINUTE_AND_DAY).states[1].remaining == 25_000
    limiter.hit("key", MINUTE_AND_DAY, 300)
    assert not limiter.refund(before)
    assert not limiter.hit("key", MINUTE_AND_DAY).allowed


def test_a_clock_found_to_have_stepped_back_ends_refunds_of_what_came_before() -> None:
    clock = Clock(10**15)
    limiter = new_limiter(clock)
    plan = (Quota.per_minute(60),)
    decision = limiter.hit("key", plan, 60)
    clock.now -= 3_600 * SECOND
    assert not limiter.hit("key", plan).allowed
    clock.now += 3_600 * SECOND
    limiter.hit("key", plan, 60)
    assert not limiter.refund(decision)
    assert not limiter.hit("key", plan).allowed
