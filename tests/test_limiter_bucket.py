"""The arithmetic of one bucket, beside the picture that it stands for: what is in it, and what flows in."""

from __future__ import annotations

from hypothesis import assume, example, given
from hypothesis import strategies as st

from learnflow_core.limiter.bucket import given_back, settled, take, tokens, wait

instants = st.integers(-50, 50)
spans = st.integers(0, 60)
worths = st.integers(1, 20)


def held(full_at: int, now: int, capacity: int) -> int:
    """What is in a bucket, in time: it flows in as time passes, up to the brim, and may be less than nothing."""
    return capacity - max(0, full_at - now)


@given(instants, instants, worths, spans)
@example(full_at=0, now=0, debt=5, capacity=5)
@example(full_at=3, now=0, debt=2, capacity=5)
def test_what_is_in_the_bucket_can_be_taken_and_no_more(full_at: int, now: int, debt: int, capacity: int) -> None:
    after = take(full_at, now, debt, capacity)
    left = held(full_at, now, capacity) - debt
    assert (after is None) == (left < 0)
    if after is not None:
        assert held(after, now, capacity) == left


@given(instants, instants, st.integers(1, 60))
@example(full_at=0, now=1, longest=5)
@example(full_at=6, now=1, longest=5)
@example(full_at=7, now=1, longest=5)
def test_a_settled_bucket_is_as_it_was_but_owes_no_less_than_nothing_and_no_more_than_the_longest(
    full_at: int, now: int, longest: int
) -> None:
    at = settled(full_at, now, longest)
    assert now <= at <= now + longest
    if now <= full_at <= now + longest:
        assert at == full_at


@given(spans, worths, st.integers(1, 6))
@example(owed=0, interval=10, burst=3)
@example(owed=30, interval=10, burst=3)
@example(owed=31, interval=10, burst=3)
@example(owed=10, interval=10, burst=3)
def test_as_many_tokens_are_told_as_can_be_taken_and_the_next_is_there_exactly_when_told(
    owed: int, interval: int, burst: int
) -> None:
    capacity = burst * interval
    left, until_next = tokens(owed, interval, capacity)
    assert 0 <= left <= burst
    for count in range(1, burst + 1):
        assert (take(owed, 0, count * interval, capacity) is not None) == (count <= left)
    more = (left + 1) * interval
    if left < burst:
        assert take(owed, until_next, more, capacity) is not None
    assert until_next > 0
    assert take(owed, until_next - 1, more, capacity) is None


@given(spans, worths, st.integers(1, 60))
@example(owed=0, debt=5, capacity=5)
@example(owed=1, debt=5, capacity=5)
def test_after_the_wait_it_passes_and_a_tick_earlier_it_does_not(owed: int, debt: int, capacity: int) -> None:
    assume(debt <= capacity)
    rest = wait(owed, debt, capacity)
    assert take(owed, rest, debt, capacity) is not None
    assert rest == 0 or take(owed, rest - 1, debt, capacity) is None


@given(spans, worths, spans)
@example(owed=0, debt=5, elapsed=0)
@example(owed=0, debt=5, elapsed=4)
@example(owed=0, debt=5, elapsed=5)
@example(owed=0, debt=5, elapsed=6)
def test_a_gift_is_what_time_has_not_paid_of_the_debt(owed: int, debt: int, elapsed: int) -> None:
    after = owed + debt
    assert given_back(after, elapsed, debt, taken_at=0) == after - max(0, debt - elapsed)


def test_at_once_all_comes_back_and_after_a_step_back_of_the_clock_nothing() -> None:
    assert given_back(105, now=100, debt=5, taken_at=100) == 100
    assert given_back(105, now=99, debt=5, taken_at=100) == 105
