"""Quotas: what they promise, and the nonsense they refuse."""

from __future__ import annotations

import copy
import pickle
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_core.limiter import Quota
from learnflow_core.limiter.quota import MAX_LIMIT, MAX_PERIOD_NS
from tests.limiting import quotas

limits = st.integers(1, MAX_LIMIT)
periods = st.integers(1, MAX_PERIOD_NS)


def of_ten(**fields: Any) -> Quota:
    return Quota(**{"name": "q", "limit": 10, "period_ns": 100, **fields})


@given(limits, periods)
def test_the_interval_errs_on_the_strict_side_by_less_than_a_nanosecond(limit: int, period_ns: int) -> None:
    if limit > period_ns:
        limit, period_ns = period_ns, limit
    quota = Quota("q", limit, period_ns)
    assert period_ns <= quota.interval_ns * limit < period_ns + limit
    assert quota.capacity_ns == quota.longest_ns == quota.interval_ns * limit


@given(limits, periods)
def test_the_largest_sums_fit_into_64_bits_and_into_53_in_microseconds(limit: int, period_ns: int) -> None:
    quota = Quota("q", min(limit, period_ns), period_ns)
    in_2100_ns = 4_102_444_800 * 10**9
    assert in_2100_ns + 2 * quota.capacity_ns < 2**63
    assert (in_2100_ns + 2 * quota.capacity_ns) // 1_000 < 2**53


@pytest.mark.parametrize(
    ("made", "limit", "period_s"),
    [
        (Quota.per_second(5), 5, 1),
        (Quota.per_minute(300), 300, 60),
        (Quota.per_hour(1_000), 1_000, 3_600),
        (Quota.per_day(25_000), 25_000, 86_400),
    ],
)
def test_the_common_periods_have_names(made: Quota, limit: int, period_s: int) -> None:
    assert made == Quota(made.name, limit, period_s * 10**9)


def test_burst_is_apart_from_the_rate() -> None:
    smooth = Quota.per_minute(300, burst=10, name="smooth")
    assert (smooth.limit, smooth.burst, smooth.name) == (300, 10, "smooth")
    assert smooth.interval_ns == Quota.per_minute(300).interval_ns
    assert smooth.capacity_ns == 10 * smooth.interval_ns
    assert smooth.longest_ns == 300 * smooth.interval_ns


@pytest.mark.parametrize("field", ["limit", "period_ns", "burst"])
@pytest.mark.parametrize("value", [True, 1.0, float("nan"), float("inf"), "1", b"1", [1]])
def test_a_number_that_is_not_an_int_is_a_type_error_that_names_it(field: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{field}: an int is needed"):
        of_ten(**{field: value})


@pytest.mark.parametrize("field", ["limit", "period_ns", "burst"])
@pytest.mark.parametrize("value", [0, -1, -(10**30), 10**30, pytest.param(10**5_000, id="5001 digits")])
def test_a_number_out_of_bounds_is_a_value_error_that_names_it(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        of_ten(**{field: value})


def test_more_than_one_token_a_nanosecond_is_refused() -> None:
    assert Quota("q", 100, 100).interval_ns == 1
    with pytest.raises(ValueError, match="more than one in each tick of 1 ns"):
        Quota("q", 101, 100)


def test_a_burst_above_the_limit_is_refused() -> None:
    assert Quota("q", 10, 100, burst=10).burst == 10
    with pytest.raises(ValueError, match="burst: it must be from 1 to 10"):
        Quota("q", 10, 100, burst=11)


@pytest.mark.parametrize("name", ["", "x" * 65, 'a"b', "a\\b", "a\nb", "a\x00b", "a\x7fb", "Tag für Tag"])
def test_a_name_that_could_not_stand_in_a_header_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name: 1 to 64 printable ASCII characters"):
        Quota(name, 1, 1)


@pytest.mark.parametrize("name", [None, 1, b"minute"])
def test_a_name_that_is_not_text_is_refused(name: Any) -> None:
    with pytest.raises(TypeError, match="name: a str is needed"):
        Quota(name, 1, 1)


@given(quotas)
def test_a_quota_is_a_value(quota: Quota) -> None:
    same = Quota(quota.name, quota.limit, quota.period_ns, quota.burst)
    assert same == quota
    assert hash(same) == hash(quota)
    assert quota != Quota("other", quota.limit, quota.period_ns, quota.burst)
    assert quota != (quota.name, quota.limit, quota.period_ns, quota.burst)
    assert eval(repr(quota), {"Quota": Quota}) == quota  # noqa: S307 - our own text
    assert pickle.loads(pickle.dumps(quota)) == copy.deepcopy(quota) == quota  # noqa: S301 - our own bytes


@given(quotas, st.integers(1, 1_000))
def test_in_coarser_ticks_a_token_is_worth_whole_ticks_and_never_less(quota: Quota, tick_ns: int) -> None:
    if quota.limit * tick_ns > quota.period_ns:
        with pytest.raises(ValueError, match="more than one in each tick"):
            quota.in_ticks_of(tick_ns)
        return
    coarse = quota.in_ticks_of(tick_ns)
    assert coarse.interval_ns % tick_ns == 0
    assert 0 <= coarse.interval_ns - Fraction(quota.period_ns, quota.limit) < tick_ns
    assert (coarse.policy, coarse.bucket, coarse.burst) == (quota.policy, quota.bucket, quota.burst)
    assert coarse.capacity_ns == coarse.burst * coarse.interval_ns
    assert coarse.in_ticks_of(tick_ns) is coarse
    assert coarse.in_ticks_of(1) == quota
    assert (coarse == quota) == (tick_ns == 1)
    assert eval(repr(coarse), {"Quota": Quota}) == coarse  # noqa: S307 - our own text
    assert pickle.loads(pickle.dumps(coarse)) == coarse  # noqa: S301 - our own bytes


def test_a_quota_cannot_be_changed() -> None:
    quota = Quota.per_minute(300)
    with pytest.raises(AttributeError, match="limit"):
        quota.limit = 1
    with pytest.raises(AttributeError, match="limit"):
        del quota.limit
    with pytest.raises(AttributeError, match="note"):
        quota.note = "x"
    assert quota == Quota.per_minute(300)


def test_a_quota_of_numbers_and_a_name_with_methods_of_their_own_says_what_they_are() -> None:
    class Name(str):
        __slots__ = ()

        def __str__(self) -> str:
            return '"\r\nSet-Cookie: a="'

        def __format__(self, spec: str) -> str:
            return str(self)

    class Number(int):
        __slots__ = ()
        __int__ = __index__ = lambda self: 10**9

        def __str__(self) -> str:
            return "many"

        __le__ = __ge__ = __lt__ = lambda self, other: True

        def __format__(self, spec: str) -> str:
            return str(self)

    quota = Quota(Name("minute"), Number(3), Number(60 * 10**9), Number(2), Number(1_000))
    assert quota.policy == '"minute";q=3;w=60'
    fields = (quota.name, quota.limit, quota.period_ns, quota.burst, quota.tick_ns)
    assert [type(field) for field in fields] == [str, int, int, int, int]
    assert quota == Quota("minute", 3, 60 * 10**9, 2, 1_000)
    with pytest.raises(ValueError, match="limit: it must be from 1"):
        Quota("minute", Number(0), 10**9)
