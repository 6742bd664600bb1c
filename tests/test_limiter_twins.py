"""The limiter in C beside the one in Python: to whatever is asked, both answer the same, and keep the same."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_core.limiter import Decision, Decisions, MemoryLimiter, Quota, memory
from tests.limiting import MINUTE_AND_DAY, SECOND, Clock, Plan, quota_named

pytestmark = pytest.mark.usefixtures("c_limiters")


class Twins:
    """Both limiters, by one clock and with one secret; every call is made to both."""

    def __init__(self, **caps: int) -> None:
        self.clock = Clock()
        with mock.patch.object(os, "urandom", bytes):
            self.both = [make(clock=self.clock, **caps) for make in (memory.MemoryLimiter, MemoryLimiter)]
        self.made: list[list[Decision]] = []

    def ask(self, method: str, *arguments: Any) -> None:
        """Call the method of both, with the same arguments: they answer the same, or raise the same."""
        answers = [_outcome(getattr(limiter, method), *arguments) for limiter in self.both]
        told = [_told(answer) for answer in answers]
        assert told[0] == told[1]
        if isinstance(answers[0], Decision):
            self.made.append(answers)
        elif isinstance(answers[0], Decisions):
            self.made += [list(pair) for pair in zip(*answers, strict=True)]
        assert len(self.both[0]) == len(self.both[1])
        assert self.both[0].overflow_hits == self.both[1].overflow_hits

    def refund(self, index: int) -> None:
        """Give back a decision made before, to the limiter that made it."""
        given_back = [bool(limiter.refund(made)) for limiter, made in zip(self.both, self.made[index], strict=True)]
        assert given_back[0] is given_back[1]
        assert _told(self.made[index][0]) == _told(self.made[index][1])


def _outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except (TypeError, ValueError) as error:
        return error


def _told(answer: Any) -> object:
    """All that can be read from an answer."""
    match answer:
        case Decisions():
            return [_told(decision) for decision in answer]
        case Decision():
            asked = answer.key, tuple(answer.quotas), answer.cost
            figures = answer.now_ns, tuple(answer.full_at_ns), answer.limit, answer.remaining, repr(answer)
            return asked, figures, answer.allowed, bool(answer), answer.unlimited, answer.receipt is None
        case Exception():
            return type(answer), str(answer)
        case _:
            return repr(answer)


names = st.sampled_from("abcde")
pool = st.lists(names.flatmap(lambda name: quota_named(name, 60) | quota_named(name)), min_size=6, max_size=6)
some_plan = st.lists(st.integers(0, 5), max_size=6, unique=True)
key = st.integers(0, 9)
cost = st.integers(-1, 14)
step = st.one_of(
    st.tuples(st.just("hit"), key, some_plan, cost),
    st.tuples(st.just("hit"), key, st.just([0, 1]), st.just(1)),
    st.tuples(st.just("hit_many"), st.lists(key, max_size=5), some_plan, cost),
    st.tuples(st.just("peek"), key, some_plan, cost),
    st.tuples(st.just("reset"), key, some_plan),
    st.tuples(st.just("refund"), st.integers(0, 30)),
    st.tuples(st.just("wait"), st.integers(-100, 200) | st.sampled_from([-(10**15), SECOND, 10**15])),
)


@given(pool, st.lists(step, max_size=60), st.integers(1, 12), st.integers(1, 3))
def test_decision_by_decision_they_are_the_same(
    among: list[Quota], steps: list[tuple[Any, ...]], max_buckets: int, overflow_buckets: int
) -> None:
    twins = Twins(max_buckets=max_buckets, overflow_buckets=overflow_buckets)
    for action, *arguments in steps:
        if action == "wait":
            twins.clock.now += arguments[0]
        elif action == "refund":
            if arguments[0] < len(twins.made):
                twins.refund(arguments[0])
        else:
            whom, which, *at_cost = arguments
            keys = [f"key {one}" for one in whom] if isinstance(whom, list) else f"key {whom}"
            twins.ask(action, keys, tuple(among[index] for index in which), *at_cost)


steps_near_a_refusal = st.lists(
    st.tuples(st.integers(0, 1), st.integers(-80, 120), st.booleans(), st.integers(1, 2)), max_size=30
)
"""Under which of two plans, how far the clock steps before in hundredths of a second, whether to look, and the cost."""


@given(steps_near_a_refusal)
def test_where_one_quota_refuses_after_another_gave_and_the_clock_steps_back_they_are_the_same(
    steps: list[tuple[int, int, bool, int]],
) -> None:
    twins = Twins()
    second, day = Quota.per_second(3), Quota.per_day(5)
    twins.clock.now = 10**12
    for which, hundredths, looks, cost in steps:
        twins.clock.now += hundredths * SECOND // 100
        twins.ask("hit", "key", ((second, day), (second,))[which], cost)
        if looks:
            twins.ask("peek", "key", (day, second))


def test_a_refusal_leaves_a_bucket_that_was_full_as_it_was_for_a_clock_that_steps_back() -> None:
    twins, plan = Twins(), (Quota.per_second(1), Quota.per_day(1))
    twins.clock.now = 100 * SECOND
    twins.ask("hit", "key", plan)
    twins.clock.now = 200 * SECOND
    twins.ask("hit", "key", plan)
    assert not twins.made[-1][0]
    twins.clock.now = 199 * SECOND + 1
    twins.ask("peek", "key", plan[:1])
    assert twins.made[-1][0].remaining == 1


@pytest.mark.parametrize("seed", range(4))
def test_over_thousands_of_keys_that_come_and_go_they_are_the_same(seed: int) -> None:
    chance = random.Random(seed)
    twins = Twins(max_buckets=[10**6, 3_000][seed % 2], overflow_buckets=7)
    plans: list[Plan] = [MINUTE_AND_DAY, MINUTE_AND_DAY[:1], (*MINUTE_AND_DAY, Quota.per_hour(70), Quota.per_second(2))]
    keys = 20
    for number in range(12_000):
        keys = chance.choice([keys, keys, keys + 60, 20_000 if number > 6_000 else keys])
        twins.clock.now += chance.choice([0, 1, 10**6, 10**8])
        twins.ask("hit", f"key {chance.randrange(keys)}", chance.choice(plans), chance.choice([1, 1, 2]))
        if number % 4_000 == 3_999:
            twins.clock.now += chance.choice([SECOND, 86_400 * SECOND, -SECOND])
        if number % 10 == 0:
            twins.refund(chance.randrange(len(twins.made)))


@pytest.mark.parametrize("seed", range(40))
def test_while_a_small_table_grows_fills_up_and_empties_they_are_the_same(seed: int) -> None:
    chance = random.Random(seed)
    twins = Twins(max_buckets=[4, 30, 10**6][seed % 3], overflow_buckets=1 + seed % 5)
    plans: list[Plan] = [(Quota.per_second(2),), (Quota.per_minute(5), Quota.per_second(2))]
    keys, longest_wait = chance.choice([3, 60, 150]), chance.choice([10**6, SECOND // 50, 2 * SECOND])
    for _ in range(300):
        twins.clock.now += chance.choice([0, chance.randrange(longest_wait)])
        twins.ask(chance.choice(["hit", "hit", "peek"]), f"key {chance.randrange(keys)}", chance.choice(plans))
        if chance.random() < 0.1:
            twins.refund(chance.randrange(len(twins.made)))


@pytest.mark.parametrize("size", [48, 96, 192, 384])
def test_keys_forgotten_while_the_table_grows_come_back_as_they_were(size: int) -> None:
    twins, plan = Twins(), (Quota.per_second(2),)
    keys = [f"key {number}" for number in range(size)]
    for key in keys:
        twins.ask("hit", key, plan)
    twins.clock.now += SECOND
    strangers = [f"stranger {number}" for number in range(size)]
    for key in ["one more", *keys, *strangers, *keys]:
        twins.ask("hit", key, plan)


@pytest.mark.parametrize("text", ["", "a", "ä", "ключ", "鍵", "🔑", "a\0b", "\ud800"])
def test_keys_of_any_alphabet_are_told_apart_by_their_text_alone(text: str) -> None:
    twins = Twins()
    for key in (text, text + "a", "a" + text, text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass")):
        twins.ask("hit", key, MINUTE_AND_DAY)
    assert twins.made[-1][1].remaining == 298
