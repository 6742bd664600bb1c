"""Nonsense: a clear error, and nothing taken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from learnflow_core.limiter import Quota
from tests.limiting import (
    EVERY_LIMITER,
    MINUTE_AND_DAY,
    Clock,
    levels,
    new_limiter,
)

pytestmark = EVERY_LIMITER


@pytest.mark.parametrize("method", ["hit", "peek"])
@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("key", MINUTE_AND_DAY, True), TypeError, "cost: an int is needed, not bool"),
        (("key", MINUTE_AND_DAY, 1.0), TypeError, "cost: an int is needed, not float"),
        (("key", MINUTE_AND_DAY, float("nan")), TypeError, "cost: an int is needed, not float"),
        (("key", MINUTE_AND_DAY, "1"), TypeError, "cost: an int is needed, not str"),
        (("key", MINUTE_AND_DAY, None), TypeError, "cost: an int is needed, not NoneType"),
        (("key", MINUTE_AND_DAY, 0), ValueError, "cost: it must be at least 1"),
        (("key", MINUTE_AND_DAY, -1), ValueError, "cost: it must be at least 1"),
        (("key", MINUTE_AND_DAY, 301), ValueError, r"cost: Quota\(name='minute'.* never holds as much"),
        (("key", MINUTE_AND_DAY, 10**5_000), ValueError, r"cost: Quota\(name='minute'.* never holds as much"),
        (("key", MINUTE_AND_DAY[1:], 25_001), ValueError, r"cost: Quota\(name='day'.* never holds as much"),
        ((None, MINUTE_AND_DAY), TypeError, "key: a str is needed, not NoneType"),
        ((b"key", MINUTE_AND_DAY), TypeError, "key: a str is needed, not bytes"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_nonsense_is_a_clear_error_and_takes_nothing(
    method: str, seen: bool, arguments: Any, error: type[Exception], message: str
) -> None:
    limiter = new_limiter(Clock())
    if seen:
        limiter.hit("key", MINUTE_AND_DAY)
    before = levels(limiter, "key", MINUTE_AND_DAY)
    with pytest.raises(error, match=message):
        getattr(limiter, method)(*arguments)
    assert levels(limiter, "key", MINUTE_AND_DAY) == before


@pytest.mark.parametrize("other", [Quota.per_minute(10), Quota.per_minute(5), Quota.per_hour(10, name="minute")])
@pytest.mark.parametrize("make", [tuple, list])
@pytest.mark.parametrize("seen", [False, True])
def test_a_name_used_twice_in_one_call_is_an_error_and_takes_nothing(other: Quota, make: Any, seen: bool) -> None:
    limiter = new_limiter(Clock())
    quota = Quota.per_minute(10)
    if seen:
        limiter.hit("key", (quota,))
        limiter.hit("key", (other,))
    before = levels(limiter, "key", (quota,))
    for call in (limiter.hit, limiter.peek):
        for _ in range(2):
            with pytest.raises(ValueError, match="quotas: each needs a name of its own"):
                call("key", make((quota, other)))
    assert levels(limiter, "key", (quota,)) == before


def test_a_list_of_quotas_is_checked_each_time_since_it_can_change() -> None:
    limiter = new_limiter(Clock())
    plan = [Quota.per_minute(10), Quota.per_day(10)]
    limiter.hit("key", plan)
    plan[1] = plan[0]
    with pytest.raises(ValueError, match="quotas: each needs a name of its own"):
        limiter.hit("key", plan)


@pytest.mark.parametrize(
    ("keys", "cost", "error"), [(["a", None, "b"], 1, TypeError), (["a", "b"], 301, ValueError), ([], 0, ValueError)]
)
def test_nonsense_in_a_call_for_many_keys_takes_nothing_from_any_of_them(
    keys: Any, cost: int, error: type[Exception]
) -> None:
    limiter = new_limiter(Clock())
    before = levels(limiter, "a", MINUTE_AND_DAY)
    with pytest.raises(error):
        limiter.hit_many(keys, MINUTE_AND_DAY, cost)
    assert levels(limiter, "a", MINUTE_AND_DAY) == before


def test_a_single_str_as_the_keys_of_one_call_is_an_error_since_its_letters_are_hardly_meant() -> None:
    limiter = new_limiter(Clock())
    with pytest.raises(TypeError, match="keys: an iterable of keys is needed, not a str"):
        limiter.hit_many("acct_1", MINUTE_AND_DAY)


@pytest.mark.parametrize("key", [None, 5, b"key"])
def test_a_key_that_is_no_str_is_an_error_under_no_quotas_and_in_a_reset_too(key: Any) -> None:
    limiter = new_limiter(Clock())
    for call in (lambda: limiter.hit(key, ()), lambda: limiter.reset(key, MINUTE_AND_DAY)):
        with pytest.raises(TypeError, match="key: a str is needed"):
            call()


def test_a_list_of_quotas_is_read_at_each_call_and_a_decision_keeps_what_it_was_asked() -> None:
    limiter, plan = new_limiter(Clock()), [Quota.per_minute(2)]
    made = limiter.hit("key", plan)
    plan[:] = [Quota.per_day(5), Quota.per_hour(4)]
    assert limiter.hit("key", plan).limit == 4
    assert (made.limit, [quota.name for quota in made.quotas]) == (2, ["minute"])
    assert limiter.refund(made)
    assert limiter.peek("key", plan).remaining == 3


def test_the_keys_of_one_call_may_come_from_a_generator_and_one_that_breaks_takes_nothing() -> None:
    limiter = new_limiter(Clock())

    def broken() -> Iterator[str]:
        yield "a"
        raise KeyError

    with pytest.raises(KeyError):
        limiter.hit_many(broken(), MINUTE_AND_DAY)
    assert [decision.remaining for decision in limiter.hit_many(iter("aba"), MINUTE_AND_DAY)] == [299, 299, 298]
