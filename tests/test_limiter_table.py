"""The table of buckets: bounded whatever keys come, and no one who owes is forgotten."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_core.limiter import MemoryLimiter, Quota, memory
from tests.limiting import (
    EVERY_MEMORY_LIMITER,
    MINUTE_AND_DAY,
    ROOT,
    SECOND,
    ClassicBucket,
    Clock,
    costs,
    everything_has_its_turn,
    memory_limiter,
    memory_limiters_module,
    quota_named,
    waits,
)

pytestmark = EVERY_MEMORY_LIMITER


def owing(limiter: MemoryLimiter) -> int:
    """How many buckets are kept: by the limiter's own count and, where that can be seen, in truth."""
    if isinstance(limiter, memory.MemoryLimiter):
        everything_has_its_turn(limiter)
    return len(limiter)


pair = st.tuples(quota_named("minute"), quota_named("day"))
traffic = pair.flatmap(
    lambda plan: st.tuples(
        st.just(plan),
        st.lists(st.tuples(waits(*plan), st.integers(0, 15), costs(*plan), st.integers(0, 2)), max_size=80),
    )
)
"""A plan, and what 16 keys do under it: the pause before, whose turn it is, the cost, and under which quotas."""


@given(traffic, st.integers(1, 6), st.integers(1, 3))
def test_whatever_keys_come_the_cap_holds_and_no_one_who_owes_is_forgotten(
    case: tuple[tuple[Quota, Quota], list[tuple[int, int, int, int]]], max_buckets: int, overflow_buckets: int
) -> None:
    plan, steps = case
    clock = Clock()
    limiter = memory_limiter(clock, max_buckets=max_buckets, overflow_buckets=overflow_buckets)
    own = {(name, quota.name): ClassicBucket(quota) for name in range(16) for quota in plan}
    for wait, caller, cost, which in steps:
        clock.now += wait
        asked = [plan, plan[:1], plan[1:]][which]
        decision = limiter.hit(str(caller), asked, cost)
        assert owing(limiter) <= max_buckets + overflow_buckets * len(plan)
        for state in decision.states:
            classic = own[caller, state.name]
            classic.refill(clock.now)
            classic.tokens -= cost if decision.allowed else 0
            assert 0 <= state.remaining <= classic.tokens
            assert state.reset_after_ns >= classic.missing_ns(classic.quota.burst)


@given(traffic)
def test_under_the_cap_no_key_feels_another(
    case: tuple[tuple[Quota, Quota], list[tuple[int, int, int, int]]],
) -> None:
    plan, steps = case
    clock = Clock()
    together, alone = memory_limiter(clock), [memory_limiter(clock) for _ in range(16)]
    for wait, caller, cost, which in steps:
        clock.now += wait
        asked = [plan, plan[:1], plan[1:]][which]
        assert repr(together.hit(str(caller), asked, cost)) == repr(alone[caller].hit("key", asked, cost))
    assert together.overflow_hits == 0


def test_a_limited_key_stays_limited_while_others_come_and_go() -> None:
    clock = Clock()
    limiter = memory_limiter(clock, max_buckets=100)
    plan = (Quota.per_day(10),)
    limiter.hit("victim", plan, 10)
    for number in range(5_000):
        clock.now += 1_000
        limiter.hit(f"stranger {number}", plan)
        assert not limiter.peek("victim", plan).allowed


def test_unknown_keys_share_buckets_at_the_cap_and_are_counted() -> None:
    limiter = memory_limiter(Clock(), max_buckets=2, overflow_buckets=1)
    plan = (Quota.per_minute(3),)
    assert [limiter.hit(key, plan).remaining for key in "abcdef"] == [2, 2, 2, 1, 0, 0]
    assert limiter.overflow_hits == 4
    assert not limiter.hit("g", plan).allowed
    assert limiter.overflow_hits == 5
    assert limiter.hit("a", plan).allowed
    assert limiter.overflow_hits == 5
    assert owing(limiter) == 3


def test_a_decision_over_several_shared_buckets_counts_once() -> None:
    limiter = memory_limiter(Clock(), max_buckets=2)
    limiter.hit("own", MINUTE_AND_DAY)
    limiter.hit("shares", MINUTE_AND_DAY)
    assert (limiter.overflow_hits, owing(limiter)) == (1, 4)


def test_a_refusal_by_a_bucket_of_the_key_s_own_is_not_counted() -> None:
    limiter = memory_limiter(Clock(), max_buckets=1, overflow_buckets=1)
    minute, day = MINUTE_AND_DAY
    limiter.hit("own", (minute,), 300)
    limiter.hit("shares", (minute,))
    counted = limiter.overflow_hits
    assert not limiter.hit("own", (day, minute)).allowed
    assert limiter.overflow_hits == counted


def test_a_key_that_gets_a_bucket_of_its_own_takes_the_shared_debt_along() -> None:
    clock = Clock()
    limiter = memory_limiter(clock, max_buckets=1, overflow_buckets=1)
    plan = (Quota.per_minute(60),)
    limiter.hit("early", plan)
    limiter.hit("late", plan, 60)
    clock.now += 2 * SECOND
    counted = limiter.overflow_hits
    assert limiter.hit("late", plan).remaining == 1
    assert limiter.hit("late", plan).remaining == 0
    assert not limiter.hit("late", plan).allowed
    assert limiter.overflow_hits == counted


def test_what_was_taken_from_a_shared_bucket_is_not_refunded() -> None:
    limiter = memory_limiter(Clock(), max_buckets=1, overflow_buckets=1)
    plan = (Quota.per_minute(10),)
    limiter.hit("own", plan)
    shared = limiter.hit("shares", plan)
    assert limiter.refund(shared)
    assert limiter.peek("shares", plan).remaining == 9
    fresh = (Quota.per_minute(10, name="fresh"),)
    assert limiter.refund(limiter.hit("shares", fresh))
    assert limiter.peek("shares", fresh).remaining == 9


def test_a_reset_leaves_a_shared_bucket_as_it_is() -> None:
    limiter = memory_limiter(Clock(), max_buckets=1, overflow_buckets=1)
    plan = (Quota.per_minute(10),)
    limiter.hit("own", plan)
    limiter.hit("shares", plan)
    limiter.reset("shares", plan)
    assert limiter.peek("shares", plan).remaining == 9


def test_a_key_of_a_class_of_its_own_is_its_text_and_none_of_its_methods_is_called() -> None:
    class Tenant(str):
        __slots__ = ()

        def __hash__(self) -> int:
            raise AssertionError

        def __eq__(self, other: object) -> bool:
            raise AssertionError

    limiter, key = memory_limiter(Clock()), Tenant("acct_1")
    made = limiter.hit(key, MINUTE_AND_DAY)
    assert (type(made.key), f"{made.key}") == (str, "acct_1")
    assert [decision.remaining for decision in limiter.hit_many(["acct_1", key], MINUTE_AND_DAY)] == [298, 297]
    assert limiter.refund(made)
    limiter.reset(key, MINUTE_AND_DAY)
    assert limiter.peek("acct_1", MINUTE_AND_DAY).remaining == 300


@pytest.mark.parametrize("start", [-(10**18), -1])
def test_a_clock_may_start_before_zero(start: int) -> None:
    clock = Clock(start)
    limiter = memory_limiter(clock)
    assert [limiter.hit("key", (Quota.per_minute(2),)).remaining for _ in range(3)] == [1, 0, 0]
    clock.now += 60 * SECOND
    assert limiter.peek("key", (Quota.per_minute(2),)).remaining == 2


def test_a_limiter_is_true_however_many_it_keeps_and_has_no_copies() -> None:
    limiter = memory_limiter(Clock())
    assert (bool(limiter), len(limiter)) == (True, 0)
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="a MemoryLimiter cannot be copied or pickled"):
            copied(limiter)


def test_how_many_decisions_were_shared_is_only_read() -> None:
    limiter: Any = memory_limiter(Clock())
    with pytest.raises(AttributeError):
        limiter.overflow_hits = 5


def test_a_hit_of_ones_own_is_not_asked_by_the_call_for_many_keys() -> None:
    kind: Any = type(memory_limiter(Clock()))

    class Limiter(kind):  # type: ignore[misc]
        def hit(self, *_: object) -> None:
            raise AssertionError

    assert Limiter(clock=Clock()).hit_many(["a"], MINUTE_AND_DAY)[0].allowed


def test_the_quotas_of_one_call_may_come_from_a_generator() -> None:
    limiter: Any = memory_limiter(Clock())
    for call in (limiter.hit, limiter.peek):
        assert call("key", iter(MINUTE_AND_DAY)).quotas == MINUTE_AND_DAY
    assert limiter.hit_many(["key"], iter(MINUTE_AND_DAY))[0].quotas == MINUTE_AND_DAY
    limiter.reset("key", iter(MINUTE_AND_DAY))
    assert limiter.peek("key", MINUTE_AND_DAY).remaining == 300


def test_memory_follows_the_keys_that_owe_and_not_those_that_came_once() -> None:
    clock = Clock()
    limiter = memory_limiter(clock, max_buckets=10**6)
    plan = (Quota.per_minute(60),)
    for number in range(20_000):
        limiter.hit(str(number), plan)
        clock.now += SECOND // 100
    assert owing(limiter) <= 2 * 100 + 2


def test_no_call_looks_at_more_than_two_buckets_for_each_new_one() -> None:
    clock = Clock()
    limiter = memory_limiter(clock)
    for number in range(500):
        limiter.hit(str(number), MINUTE_AND_DAY)
    clock.now += 86_400 * SECOND
    kept = []
    for number in range(250):
        limiter.hit(f"another {number}", MINUTE_AND_DAY)
        kept.append(owing(limiter))
    assert kept == list(range(998, 498, -2))


def test_asking_and_being_refused_keep_nothing() -> None:
    limiter = memory_limiter(Clock())
    limiter.hit("key", MINUTE_AND_DAY[:1], 300)
    for number in range(100):
        limiter.peek(str(number), MINUTE_AND_DAY)
        assert not limiter.hit("key", MINUTE_AND_DAY).allowed
    assert owing(limiter) == 1


def test_which_keys_share_a_bucket_differs_from_limiter_to_limiter_even_where_hashing_is_fixed() -> None:
    program = f"""
from learnflow_core.limiter import Quota
from {memory_limiters_module()} import MemoryLimiter
plan = (Quota.per_day(2),)
def sharing_with_the_first():
    limiter = MemoryLimiter(max_buckets=1, overflow_buckets=2)
    limiter.hit("own", plan)
    limiter.hit("first", plan)
    return [limiter.peek(str(number), plan).remaining for number in range(64)]
one, another = sharing_with_the_first(), sharing_with_the_first()
assert sorted(set(one)) == sorted(set(another)) == [1, 2]
assert one != another and one != [3 - left for left in another]
"""
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONHASHSEED": "0"}, cwd=ROOT)


@pytest.mark.parametrize("clock", [time.monotonic, lambda: True, lambda: None])
def test_a_clock_that_does_not_give_whole_nanoseconds_is_refused(clock: Any) -> None:
    with pytest.raises(TypeError, match="clock: an int is needed"):
        memory_limiter(clock)


@pytest.mark.parametrize("field", ["max_buckets", "overflow_buckets"])
def test_a_table_without_room_is_refused(field: str) -> None:
    for value in (0, -1):
        with pytest.raises(ValueError, match="each must be at least 1"):
            memory_limiter(Clock(), **{field: value})
    nonsense: Any
    for nonsense in (True, 1.5, "1"):
        with pytest.raises(TypeError, match=f"{field}: an int is needed"):
            memory_limiter(Clock(), **{field: nonsense})


def test_a_key_that_owes_under_one_quota_and_is_new_under_another_owes_under_both_afterwards() -> None:
    minute, day = MINUTE_AND_DAY
    limiter = memory_limiter(Clock())
    limiter.hit("key", (minute,), 100)
    assert [state.remaining for state in limiter.hit("key", (minute, day), 100).states] == [100, 24_900]
    assert len(limiter) == 2
