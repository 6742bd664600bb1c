"""Decisions: which quota they tell of, how they read, and the header fields made of them."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_core.limiter import Decision, LimitExceeded, Quota, QuotaState, header_lines, headers, seconds_up
from learnflow_core.limiter.asking import EXEMPT
from tests.limiting import (
    EVERY_LIMITER,
    MINUTE_AND_DAY,
    SECOND,
    Clock,
    Plan,
    Requests,
    new_limiter,
    quotas,
    requests,
    tick,
    waits,
)

pytestmark = EVERY_LIMITER

NOW_UNIX_NS = 1_705_312_740 * SECOND


def decisions(plan: Plan, asked: Requests) -> list[Decision]:
    clock = Clock()
    limiter = new_limiter(clock)
    made = []
    for wait, cost in asked:
        clock.now += wait
        made.append(limiter.hit("key", plan, cost))
    return made


def fields_of(decision: Decision, now_unix_ns: int = NOW_UNIX_NS) -> dict[str, str]:
    listed = headers(decision, now_unix_ns)
    assert len(dict(listed)) == len(listed)
    return dict(listed)


def items(field: str) -> dict[str, dict[str, int]]:
    """A structured field's list of strings with integer parameters (RFC 9651), strictly."""
    parsed = {}
    for item in field.split(", "):
        match = re.fullmatch(r'"([ !#-\[\]-~]+)"((?:;[a-z]+=\d{1,15})+)', item)
        assert match, item
        parsed[match[1]] = {name: int(value) for name, value in (p.split("=") for p in match[2][1:].split(";"))}
    return parsed


@given(requests)
def test_an_allowed_decision_tells_of_the_quota_with_the_fewest_left_or_of_the_one_that_is_full_last(
    case: tuple[Plan, Requests],
) -> None:
    for decision in decisions(*case):
        if decision.allowed:
            fewest = min(state.remaining for state in decision.states)
            latest = max(state.reset_after_ns for state in decision.states if state.remaining == fewest)
            assert (decision.remaining, decision.reset_after_ns) == (fewest, latest)
            assert decision.retry_after_ns == 0


@given(requests)
def test_a_denial_tells_of_the_quota_that_lets_the_request_pass_last(
    case: tuple[Plan, Requests],
) -> None:
    for decision in decisions(*case):
        if not decision.allowed:
            assert decision.binding is not None
            assert decision.binding.retry_after_ns == max(state.retry_after_ns for state in decision.states) > 0
            assert decision.retry_after_ns == decision.binding.retry_after_ns


def test_a_denial_by_the_minute_tells_of_the_minute_though_the_day_is_full_again_later() -> None:
    decision = decisions(MINUTE_AND_DAY, [(0, 300), (0, 300), (SECOND, 6)])[-1]
    assert not decision.allowed
    assert (decision.limit, decision.remaining) == (300, 5)
    assert decision.retry_after_ns == 200_000_000
    assert decision.reset_after_ns == 59 * SECOND


def test_the_day_binds_as_soon_as_it_has_fewer_left() -> None:
    plan = (Quota.per_minute(5), Quota.per_day(7))
    told = [decision.limit for decision in decisions(plan, [(0, 5), (60 * SECOND, 1), (0, 1), (0, 1)])]
    assert told == [5, 7, 7, 7]


def test_on_a_tie_the_one_that_is_full_again_last_is_told() -> None:
    for plan in [(Quota.per_minute(5), Quota.per_day(5)), (Quota.per_day(5), Quota.per_minute(5))]:
        [decision] = decisions(plan, [(0, 2)])
        assert decision.binding is not None
        assert (decision.binding.name, decision.remaining) == ("day", 3)


def test_without_quotas_everything_is_allowed_and_the_decision_says_so() -> None:
    [decision] = decisions((), [(0, 1_000_000)])
    assert decision.allowed
    assert decision.unlimited
    assert (decision.binding, decision.limit, decision.remaining) == (None, None, None)
    assert decision.reset_after_ns == decision.retry_after_ns == 0
    assert decision.states == []
    assert headers(decision, NOW_UNIX_NS) == []


def test_a_decision_is_true_when_allowed_and_false_when_not() -> None:
    plan = (Quota.per_minute(1),)
    assert [bool(decision) for decision in decisions(plan, [(0, 1), (0, 1)])] == [True, False]


def test_a_decision_and_its_states_can_be_read_in_a_log() -> None:
    [decision] = decisions((Quota.per_minute(2),), [(0, 1)])
    assert repr(decision) == (
        "Decision(allowed=True, cost=1, states=[QuotaState(limit=2, name='minute', next_token_ns=30000000000, "
        "remaining=1, reset_after_ns=30000000000, retry_after_ns=0)])"
    )


async def test_a_decision_that_is_awaited_is_its_own_result() -> None:
    [decision] = decisions(MINUTE_AND_DAY, [(0, 1)])
    assert await decision is decision


def test_the_published_headers_stand_for_55_of_300_used() -> None:
    [decision] = decisions(MINUTE_AND_DAY, [(0, 55)])
    assert headers(decision, NOW_UNIX_NS) == [
        ("X-RateLimit-Limit", "300"),
        ("X-RateLimit-Remaining", "245"),
        ("X-RateLimit-Reset", "1705312751"),
        ("RateLimit-Policy", '"minute";q=300;w=60, "day";q=25000;w=86400'),
        ("RateLimit", '"minute";r=245;t=1, "day";r=24945;t=4'),
    ]


def test_a_denial_adds_retry_after() -> None:
    fields = fields_of(decisions(MINUTE_AND_DAY, [(0, 300), (0, 1)])[-1])
    assert fields["X-RateLimit-Remaining"] == "0"
    assert fields["X-RateLimit-Reset"] == "1705312800"
    assert fields["Retry-After"] == "1"


def test_a_period_that_is_not_whole_seconds_is_left_out_of_the_policy() -> None:
    [decision] = decisions((Quota("tick", 3, 100_000_000), Quota("odd", 3, 1_500_000_000)), [(0, 1)])
    assert fields_of(decision)["RateLimit-Policy"] == '"tick";q=3, "odd";q=3'


@given(st.integers(0, 10**20))
def test_seconds_are_rounded_up_and_never_by_a_whole_one(duration_ns: int) -> None:
    assert 0 <= seconds_up(duration_ns) * SECOND - duration_ns < SECOND


@given(requests, st.integers(0, 4 * 10**18))
def test_the_headers_say_what_the_decision_says_in_whole_seconds(case: tuple[Plan, Requests], now_unix_ns: int) -> None:
    for decision in decisions(*case):
        fields = fields_of(decision, now_unix_ns)
        assert fields["X-RateLimit-Limit"] == str(decision.limit)
        assert fields["X-RateLimit-Remaining"] == str(decision.remaining)
        full_at = int(fields["X-RateLimit-Reset"]) * SECOND
        assert 0 <= full_at - (now_unix_ns + decision.reset_after_ns) < SECOND
        assert ("Retry-After" in fields) is (not decision.allowed)
        assert fields.get("Retry-After", "0") == str(seconds_up(decision.retry_after_ns))


@given(requests, st.integers(0, 4 * 10**18))
def test_the_lines_of_what_is_allowed_are_its_headers(case: tuple[Plan, Requests], now_unix_ns: int) -> None:
    for decision in decisions(*case):
        if decision.allowed:
            lines = [f"{name.lower()}: {value}\r\n" for name, value in headers(decision, now_unix_ns)]
            assert header_lines(decision, now_unix_ns) == "".join(lines).encode()
    assert header_lines(EXEMPT, now_unix_ns) == b""


@given(requests)
def test_the_structured_fields_list_every_quota(case: tuple[Plan, Requests]) -> None:
    plan, _ = case
    for decision in decisions(*case):
        fields = fields_of(decision)
        policy, limits = items(fields["RateLimit-Policy"]), items(fields["RateLimit"])
        assert list(policy) == list(limits) == [quota.name for quota in plan]
        for quota, state in zip(plan, decision.states, strict=True):
            seconds, rest = divmod(quota.period_ns, SECOND)
            assert policy[quota.name] == ({"q": quota.limit} if rest else {"q": quota.limit, "w": seconds})
            assert limits[quota.name] == {"r": state.remaining, "t": seconds_up(state.next_token_ns)}


@given(quotas.flatmap(lambda quota: st.tuples(st.just(quota), st.lists(waits(quota), min_size=1, max_size=20))))
def test_until_the_next_token_no_more_than_what_remains_can_be_taken_and_then_one_more(
    case: tuple[Quota, list[int]],
) -> None:
    quota, gaps = case
    state = decisions((quota,), [(gap, 1) for gap in gaps])[-1].states[0]
    taken_in_time = _greedy(quota, gaps, state, window_ns=state.next_token_ns - tick())
    assert taken_in_time == state.remaining
    assert _greedy(quota, gaps, state, window_ns=state.next_token_ns) == state.remaining + 1


def _greedy(quota: Quota, gaps: list[int], state: QuotaState, window_ns: int) -> int:
    """How many tokens a caller gets who takes all there are at once, and all there are when the window ends."""
    clock = Clock()
    limiter = new_limiter(clock)
    for gap in gaps:
        clock.now += gap
        limiter.hit("key", (quota,))
    for _ in range(state.remaining):
        assert limiter.hit("key", (quota,)).allowed
    clock.now += window_ns
    return state.remaining + (limiter.peek("key", (quota,)).remaining or 0)


@given(requests)
def test_retry_after_is_not_earlier_than_the_window_of_a_quota_that_denies(
    case: tuple[Plan, Requests],
) -> None:
    for decision in decisions(*case):
        for state in decision.states:
            if state.retry_after_ns:
                assert state.next_token_ns <= state.retry_after_ns <= decision.retry_after_ns


@pytest.mark.parametrize("name", ["plain", "with space", "a;b=1,c", "~!#$%&'()*+-./:<=>?@[]^_`{|}"])
def test_any_name_a_quota_may_have_survives_the_structured_field(name: str) -> None:
    [decision] = decisions((Quota.per_minute(2, name=name),), [(0, 1)])
    match = re.fullmatch(r'"([^"\\]*)";r=1;t=30', fields_of(decision)["RateLimit"])
    assert match
    assert match[1] == name


def pickled(made: Any, protocol: int = pickle.DEFAULT_PROTOCOL) -> Any:
    return pickle.loads(pickle.dumps(made, protocol))  # noqa: S301 - what was written just now


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, *(partial(pickled, protocol=n) for n in range(6))])
def test_a_decision_that_is_copied_or_pickled_says_the_same_and_is_not_refunded(
    copied: Callable[[Decision], Decision],
) -> None:
    limiter = new_limiter(Clock())
    limiter.hit("key", MINUTE_AND_DAY, 20)
    known, refused = limiter.hit("key", MINUTE_AND_DAY, 10), limiter.hit("key", MINUTE_AND_DAY, 300)
    for made in (known, refused):
        another = copied(made)
        assert repr(another) == repr(made)
        assert headers(another, NOW_UNIX_NS) == headers(made, NOW_UNIX_NS)
        assert (another.key, another.fallback, another.unlimited) == (made.key, None, False)
        assert not limiter.refund(another)
    assert limiter.refund(known)
    assert limiter.peek("key", MINUTE_AND_DAY).remaining == 280


def test_the_decisions_of_one_call_and_a_refusal_that_is_raised_can_be_pickled() -> None:
    together = new_limiter(Clock()).hit_many(["a", "b"], MINUTE_AND_DAY)
    assert repr(pickled(together)) == repr(together)
    refusal = pickled(LimitExceeded(together[0]))
    assert (type(refusal), repr(refusal.decision)) == (LimitExceeded, repr(together[0]))
