"""What the limiter's tests share: which limiter they run on, a clock that is held, quotas, a classic token bucket.

A module whose tests hold for any limiter says `pytestmark = EVERY_LIMITER`, one about the table in memory
`pytestmark = EVERY_MEMORY_LIMITER`; both are run once for each implementation. Tests make limiters by `new_limiter`
or `memory_limiter`, and count time in `tick()`, so that they hold for a store with a coarser clock too.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import strategies as st

from learnflow_core.limiter import Decision, Decisions, MemoryLimiter, Quota, Refund, Reset, memory

ROOT = Path(__file__).resolve().parent.parent
SECOND = 10**9
MINUTE_AND_DAY = (Quota.per_minute(300), Quota.per_day(25_000))


@dataclass
class Clock:
    """A clock that stands until a test moves it."""

    now: int = 0

    def __call__(self) -> int:
        return self.now


class DirectLimiter(Protocol):
    """A limiter that answers at once; a test of one behind a network waits for its answers inside these methods."""

    def hit(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Decision: ...
    def hit_many(self, keys: Iterable[str], quotas: Sequence[Quota], cost: int = 1) -> Decisions: ...
    def peek(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Decision: ...
    def refund(self, decision: Decision) -> Refund: ...
    def reset(self, key: str, quotas: Sequence[Quota]) -> Reset: ...


@dataclass(frozen=True)
class Implementation:
    """How to make a limiter that is as good as new, by the clock it is given, and the tick in which it counts.

    `make` takes `clock`, and one in memory `max_buckets` and `overflow_buckets` too. The clock stands at whole ticks.
    """

    make: Callable[..., Any]
    tick_ns: int = 1


IN_MEMORY = ["python", "c"]
SHARED = ["shared_memory", "valkey", "valkey_asyncio", "valkey_leased", "valkey_leased_asyncio"]
"""What there is to test. For each name, conftest.py has a fixture `NAME_limiters` that gives the Implementation."""

_tested: list[Implementation] = []


@contextmanager
def running_on(implementation: Implementation) -> Generator[None]:
    _tested.append(implementation)
    yield
    _tested.pop()


def _on(names: list[str]) -> list[pytest.MarkDecorator]:
    of_module = pytest.mark.parametrize("implementation", names, indirect=True, scope="module")
    return [pytest.mark.usefixtures("implementation"), of_module]


EVERY_MEMORY_LIMITER = _on(IN_MEMORY)
SHARED_MEMORY_LIMITER = _on(["shared_memory"])
EVERY_LIMITER = _on(IN_MEMORY + SHARED)


def new_limiter(clock: Clock) -> DirectLimiter:
    limiter: DirectLimiter = _tested[-1].make(clock=clock)
    return limiter


def memory_limiter(clock: Callable[[], int], *, max_buckets: int = 1_000, overflow_buckets: int = 2) -> MemoryLimiter:
    limiter: MemoryLimiter = _tested[-1].make(clock=clock, max_buckets=max_buckets, overflow_buckets=overflow_buckets)
    return limiter


def memory_limiters_module() -> str:
    """Where a program of its own imports the MemoryLimiter under test from."""
    return str(_tested[-1].make.__module__)


def everything_has_its_turn(limiter: memory.MemoryLimiter) -> None:
    """Assert that of a limiter in Python each bucket, and nothing else, has one turn, that all count, and the cap."""
    table = limiter._table
    tables = [*table.own.values(), table.shared]
    turns = [*table._turns]
    kept = [(id(of), key) for of in tables for key in of]
    assert sorted((id(of), key) for of, key in zip(turns[::2], turns[1::2], strict=True)) == sorted(kept)
    assert len(limiter) == len(kept)
    assert len(kept) - len(table.shared) <= table._max_buckets


def tick() -> int:
    """The tick in which the limiter under test counts, in nanoseconds."""
    return _tested[-1].tick_ns if _tested else 1


def ticks(least: int, most: int) -> st.SearchStrategy[int]:
    """Durations of whole ticks, in nanoseconds."""
    return st.integers(least, most).map(lambda number: number * tick())


def quota_named(name: str, period_ns: int | None = None) -> st.SearchStrategy[Quota]:
    """Quotas in ticks, small enough to run dry in a test; most periods are no multiple of their limit, as in plans."""
    lengths = ticks(12, 200) | ticks(12, 200).map(lambda length: length + tick() // 3)
    periods = st.just(period_ns) if period_ns else lengths | st.sampled_from([60 * SECOND, 86_400 * SECOND])
    made = st.integers(1, 12).flatmap(
        lambda limit: st.builds(Quota, st.just(name), st.just(limit), periods, st.none() | st.integers(1, limit))
    )
    return made.map(lambda quota: quota.in_ticks_of(tick()))


quotas = quota_named("minute")
plans = st.tuples(quotas) | st.tuples(quotas, quota_named("day"))


def costs(*among: Quota) -> st.SearchStrategy[int]:
    """Costs that every one of the quotas can hold."""
    return st.integers(1, min(quota.burst for quota in among))


def waits(*among: Quota) -> st.SearchStrategy[int]:
    """Times to let pass: none, around one token, around a full bucket, or anything up to three of them."""
    edges = {edge for quota in among for edge in (quota.interval_ns, quota.capacity_ns)}
    near = [edge + shift * tick() for edge in sorted(edges) for shift in (-1, 0, 1)]
    return st.just(0) | st.sampled_from(near) | ticks(0, 3 * max(edges) // tick())


Plan = tuple[Quota, ...]
Requests = list[tuple[int, int]]

requests: st.SearchStrategy[tuple[Plan, Requests]] = plans.flatmap(
    lambda plan: st.tuples(st.just(plan), st.lists(st.tuples(waits(*plan), costs(*plan)), min_size=1, max_size=40))
)
"""A plan, and the requests under it: how long after the one before, and at which cost."""


def levels(limiter: DirectLimiter, key: str, plan: Plan) -> list[tuple[int, int]]:
    """What remains under each of a key's quotas, and how long until it is full again."""
    return [(state.remaining, state.reset_after_ns) for state in limiter.peek(key, plan).states]


class ClassicBucket:
    """The token bucket of the textbooks: it starts full, a token flows in every interval, what is over is lost."""

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.tokens = Fraction(quota.burst)
        self.at = 0

    def refill(self, now: int) -> None:
        self.tokens = min(Fraction(self.quota.burst), self.tokens + Fraction(now - self.at, self.quota.interval_ns))
        self.at = now

    def missing_ns(self, tokens: int) -> Fraction:
        """How long until it holds so many tokens, by exact fractions."""
        return max(Fraction(0), (tokens - self.tokens) * self.quota.interval_ns)


def within_the_promise(quota: Quota, passed: list[tuple[int, int]]) -> bool:
    """Whether in every span of length t at most `burst + t * limit / period` tokens were taken.

    `passed` has the instant and the cost of each admitted request, in order. Only spans that start and end at
    requests matter, since every other holds as few tokens in more time.
    """
    for first, (start, _) in enumerate(passed):
        total = 0
        for instant, cost in passed[first:]:
            total += cost
            if total * quota.period_ns > quota.burst * quota.period_ns + (instant - start) * quota.limit:
                return False
    return True
