"""What every limiter promises, argued with whatever requests, costs, clocks and plans can do to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_core.limiter import Quota
from tests.limiting import (
    EVERY_LIMITER,
    SECOND,
    ClassicBucket,
    Clock,
    Plan,
    Requests,
    levels,
    new_limiter,
    plans,
    quota_named,
    requests,
    tick,
    ticks,
    within_the_promise,
)

pytestmark = EVERY_LIMITER


@given(requests)
def test_in_no_span_more_passes_than_the_burst_and_the_rate_over_it(case: tuple[Plan, Requests]) -> None:
    plan, asked = case
    clock = Clock()
    limiter = new_limiter(clock)
    passed = []
    for wait, cost in asked:
        clock.now += wait
        if limiter.hit("key", plan, cost).allowed:
            passed.append((clock.now, cost))
    assert all(within_the_promise(quota, passed) for quota in plan)


@given(requests)
def test_it_decides_step_for_step_as_classic_token_buckets_do(case: tuple[Plan, Requests]) -> None:
    plan, asked = case
    clock = Clock()
    limiter = new_limiter(clock)
    classics = [ClassicBucket(quota) for quota in plan]
    for wait, cost in asked:
        clock.now += wait
        for classic in classics:
            classic.refill(clock.now)
        decision = limiter.hit("key", plan, cost)
        assert decision.allowed is all(classic.tokens >= cost for classic in classics)
        for classic in classics:
            classic.tokens -= cost if decision.allowed else 0
        for state, classic in zip(decision.states, classics, strict=True):
            assert state.remaining == int(classic.tokens)
            assert state.reset_after_ns == classic.missing_ns(classic.quota.burst)
            assert state.retry_after_ns == (0 if decision.allowed else classic.missing_ns(cost))


@given(requests)
def test_a_request_is_refused_until_exactly_the_told_instant_and_then_admitted(case: tuple[Plan, Requests]) -> None:
    plan, asked = case
    clock = Clock()
    limiter = new_limiter(clock)
    for wait, cost in asked:
        clock.now += wait
        decision = limiter.hit("key", plan, cost)
        if not decision.allowed:
            told = clock.now + decision.retry_after_ns
            clock.now = told - tick()
            assert not limiter.hit("key", plan, cost).allowed
            clock.now = told
            assert limiter.hit("key", plan, cost).allowed


@given(requests)
def test_a_denial_takes_nothing_from_any_quota(case: tuple[Plan, Requests]) -> None:
    plan, asked = case
    clock = Clock()
    limiter = new_limiter(clock)
    for wait, cost in asked:
        clock.now += wait
        before = levels(limiter, "key", plan)
        decision = limiter.hit("key", plan, cost)
        if not decision.allowed:
            assert levels(limiter, "key", plan) == before
            assert [(state.remaining, state.reset_after_ns) for state in decision.states] == before


@given(requests)
def test_a_peek_answers_as_the_hit_would_and_takes_nothing(case: tuple[Plan, Requests]) -> None:
    plan, asked = case
    clock = Clock()
    limiter = new_limiter(clock)
    for wait, cost in asked:
        clock.now += wait
        peeked = limiter.peek("key", plan, cost)
        again = limiter.peek("key", plan, cost)
        assert repr(peeked) == repr(again)
        hit = limiter.hit("key", plan, cost)
        assert hit.allowed is peeked.allowed
        assert hit.retry_after_ns == peeked.retry_after_ns
        taken = cost if hit.allowed else 0
        assert [state.remaining + taken for state in hit.states] == [state.remaining for state in peeked.states]


def test_after_a_pause_up_to_twice_the_limit_passes_in_one_period_and_no_more() -> None:
    clock = Clock()
    limiter = new_limiter(clock)
    plan = (Quota.per_minute(30),)
    passed = 0
    for clock.now in range(0, 60 * SECOND + 1, SECOND // 2):
        passed += sum(limiter.hit("key", plan).allowed for _ in range(31))
    assert passed == 2 * 30


def test_a_smaller_burst_makes_the_same_plan_smoother() -> None:
    clock = Clock()
    limiter = new_limiter(clock)
    plan = (Quota.per_minute(30, burst=3),)
    assert [limiter.hit("key", plan).allowed for _ in range(4)] == [True, True, True, False]
    clock.now += 2 * SECOND
    assert [limiter.hit("key", plan).allowed for _ in range(2)] == [True, False]


def test_keys_and_names_have_buckets_of_their_own() -> None:
    limiter = new_limiter(Clock())
    one, other = Quota.per_minute(1), Quota.per_minute(1, name="other")
    assert limiter.hit("a", (one,)).allowed
    assert not limiter.hit("a", (one,)).allowed
    assert limiter.hit("b", (one,)).allowed
    assert limiter.hit("a", (other,)).allowed


def test_a_quota_shared_by_two_plans_of_a_key_is_one_bucket() -> None:
    limiter = new_limiter(Clock())
    everything, searches = Quota.per_minute(3), Quota.per_minute(2, name="search")
    assert limiter.hit("a", (everything, searches), 2).allowed
    assert limiter.hit("a", (everything,)).allowed
    assert not limiter.hit("a", (everything, searches)).allowed


@given(plans, st.lists(ticks(-500, 500), min_size=1, max_size=40))
def test_a_clock_that_steps_back_never_grants_and_locks_no_one_out_longer_than_one_filling(
    plan: Plan, steps: list[int]
) -> None:
    clock = Clock(10**6 * tick())
    limiter = new_limiter(clock)
    for step in steps:
        before = levels(limiter, "key", plan)
        clock.now += step
        after = levels(limiter, "key", plan)
        if step < 0:
            assert all(now[0] <= then[0] and now[1] >= then[1] for now, then in zip(after, before, strict=True))
        decision = limiter.hit("key", plan)
        for quota, state in zip(plan, decision.states, strict=True):
            assert state.reset_after_ns <= quota.longest_ns
        if not decision.allowed:
            clock.now += decision.retry_after_ns
            assert limiter.hit("key", plan).allowed


def test_what_a_peek_tells_after_the_clock_stepped_back_is_true() -> None:
    clock = Clock(10**15)
    limiter = new_limiter(clock)
    plan = (Quota.per_minute(60),)
    limiter.hit("key", plan, 60)
    clock.now -= 86_400 * SECOND
    told = limiter.peek("key", plan).retry_after_ns
    assert told == SECOND
    clock.now += told
    assert limiter.hit("key", plan).allowed


@given(
    ticks(12, 200).flatmap(
        lambda period_ns: st.lists(st.tuples(quota_named("q", period_ns), ticks(0, 400), st.integers(1, 3)))
    )
)
def test_another_plan_under_the_same_name_neither_grants_more_nor_locks_longer_than_one_filling(
    changes: list[tuple[Quota, int, int]],
) -> None:
    clock = Clock()
    limiter = new_limiter(clock)
    longest = 0
    for quota, wait, hits in changes:
        longest = max(longest, quota.longest_ns)
        passed = []
        for _ in range(hits):
            clock.now += wait
            decision = limiter.hit("key", (quota,))
            assert 0 <= decision.reset_after_ns <= longest
            if not decision.allowed:
                assert decision.states[0].next_token_ns == decision.retry_after_ns
                clock.now += decision.retry_after_ns - tick()
                assert not limiter.hit("key", (quota,)).allowed
                clock.now += tick()
                assert limiter.hit("key", (quota,)).allowed
            passed.append((clock.now, 1))
        assert within_the_promise(quota, passed)


@given(
    ticks(120, 120).flatmap(lambda period_ns: st.tuples(quota_named("q", period_ns), quota_named("q", period_ns))),
    st.lists(st.tuples(ticks(0, 60), st.booleans()), max_size=60),
)
def test_of_two_plans_in_use_at_once_under_one_name_neither_lets_the_other_pass_more(
    plans_in_use: tuple[Quota, Quota], asked: list[tuple[int, bool]]
) -> None:
    clock = Clock()
    limiter = new_limiter(clock)
    passed: dict[bool, list[tuple[int, int]]] = {False: [], True: []}
    for wait, which in asked:
        clock.now += wait
        if limiter.hit("key", (plans_in_use[which],)).allowed:
            passed[which].append((clock.now, 1))
    for which, times in passed.items():
        assert within_the_promise(plans_in_use[which], times)


two_plans_of_a_bucket = ticks(12, 40).flatmap(
    lambda period_ns: st.tuples(quota_named("q", period_ns), quota_named("q", period_ns))
)
"""Their longest debts differ by up to a third of the period: what a token is worth is rounded up to the tick."""


@given(
    two_plans_of_a_bucket,
    st.lists(st.tuples(ticks(0, 12), st.integers(0, 1), st.integers(1, 12), st.integers(0, 2)), max_size=40),
)
def test_two_plans_of_one_bucket_decide_by_the_debts_of_both_and_looking_changes_nothing(
    plans_in_use: tuple[Quota, Quota], asked: list[tuple[int, int, int, int]]
) -> None:
    clock = Clock()
    limiter = new_limiter(clock)
    full_at = 0
    for wait, which, most, looks in asked:
        clock.now += wait
        quota = plans_in_use[which]
        cost = min(most, quota.burst)
        for _ in range(looks):
            limiter.peek("key", (plans_in_use[1 - which],))
        after = max(full_at, clock.now) + cost * quota.interval_ns
        fits = after - clock.now <= quota.capacity_ns
        decision = limiter.hit("key", (quota,), cost)
        assert decision.allowed is fits
        assert decision.retry_after_ns == (0 if fits else after - clock.now - quota.capacity_ns)
        full_at = after if fits else full_at


def test_what_one_plan_was_told_stays_true_after_another_of_the_same_bucket_looked_or_was_refused() -> None:
    limiter = new_limiter(Clock())
    looser, tighter = (Quota.per_minute(700),), (Quota.per_minute(300),)
    limiter.hit("key", looser, 700)
    told = limiter.hit("key", looser).retry_after_ns
    assert not limiter.peek("key", tighter)
    assert not limiter.hit("key", tighter)
    assert limiter.hit("key", looser).retry_after_ns == told


def test_a_step_back_cuts_a_bucket_to_the_longest_debt_of_the_plans_that_took_from_it() -> None:
    clock = Clock(10**15)
    limiter = new_limiter(clock)
    looser, tighter = (Quota.per_minute(700),), (Quota.per_minute(300),)
    limiter.hit("key", looser, 700)
    clock.now -= 3_600 * SECOND
    assert limiter.peek("key", tighter).reset_after_ns == looser[0].in_ticks_of(tick()).longest_ns


def test_a_smaller_burst_on_the_same_bucket_leaves_the_rest_to_others() -> None:
    limiter = new_limiter(Clock())
    everyone, background = (Quota.per_minute(300),), (Quota.per_minute(300, burst=100),)
    assert limiter.hit("key", everyone, 250).allowed
    refused = limiter.hit("key", background)
    assert (refused.allowed, refused.remaining, refused.retry_after_ns) == (False, 0, 151 * SECOND // 5)
    assert limiter.hit("key", everyone, 50).allowed


def test_another_period_under_the_same_name_is_another_bucket() -> None:
    limiter = new_limiter(Clock())
    day, minute = Quota.per_day(10, name="plan"), Quota.per_minute(10, name="plan")
    limiter.hit("key", (day,), 10)
    assert limiter.hit("key", (minute,), 10).allowed
    assert not limiter.hit("key", (day,)).allowed


def test_a_plan_that_grows_keeps_the_share_that_was_left() -> None:
    limiter = new_limiter(Clock())
    limiter.hit("key", (Quota.per_minute(30),), 15)
    assert limiter.peek("key", (Quota.per_minute(300),)).remaining == 150


@pytest.mark.parametrize("start", [0, 1_000, 10**18])
def test_it_does_not_matter_where_the_clock_starts(start: int) -> None:
    limiter = new_limiter(Clock(start))
    assert [limiter.hit("key", (Quota.per_minute(2),)).remaining for _ in range(3)] == [1, 0, 0]


@given(requests)
def test_a_call_for_many_keys_decides_as_one_call_for_each(asked: tuple[Plan, Requests]) -> None:
    plan, sequence = asked
    clock = Clock()
    batch, one_by_one = new_limiter(clock), new_limiter(clock)
    for number, (wait, cost) in enumerate(sequence):
        clock.now += wait
        keys = [f"key {(number + other) % 3}" for other in range(number % 5)]
        together = batch.hit_many(keys, plan, cost)
        apart = [one_by_one.hit(key, plan, cost) for key in keys]
        assert [repr(decision) for decision in together] == [repr(decision) for decision in apart]
        assert [decision.key for decision in together] == keys
