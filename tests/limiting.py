"""What the limiter's tests share: a clock that is held, quotas of every shape, and a classic token bucket."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from hypothesis import strategies as st

from learnflow_core.limiter import MemoryLimiter, Quota

ROOT = Path(__file__).resolve().parent.parent
SECOND = 10**9
MINUTE_AND_DAY = (Quota.per_minute(300), Quota.per_day(25_000))


@dataclass
class Clock:
    """A clock that stands until a test moves it."""

    now: int = 0

    def __call__(self) -> int:
        return self.now


def quota_named(name: str, period_ns: int | None = None) -> st.SearchStrategy[Quota]:
    """Quotas small enough to run dry in a test; most periods are no multiple of their limit, as in real plans."""
    lengths = st.integers(12, 200) | st.sampled_from([60 * SECOND, 86_400 * SECOND])
    return st.integers(1, 12).flatmap(
        lambda limit: st.builds(
            Quota,
            st.just(name),
            st.just(limit),
            st.just(period_ns) if period_ns else lengths,
            st.none() | st.integers(1, limit),
        )
    )


quotas = quota_named("minute")
plans = st.tuples(quotas) | st.tuples(quotas, quota_named("day"))


def costs(*among: Quota) -> st.SearchStrategy[int]:
    """Costs that every one of the quotas can hold."""
    return st.integers(1, min(quota.burst for quota in among))


def waits(*among: Quota) -> st.SearchStrategy[int]:
    """Times to let pass: none, around one token, around a full bucket, or anything up to three of them."""
    edges = {edge for quota in among for edge in (quota.interval_ns, quota.capacity_ns)}
    near = [edge + shift for edge in sorted(edges) for shift in (-1, 0, 1)]
    return st.just(0) | st.sampled_from(near) | st.integers(0, 3 * max(edges))


Plan = tuple[Quota, ...]
Requests = list[tuple[int, int]]

requests: st.SearchStrategy[tuple[Plan, Requests]] = plans.flatmap(
    lambda plan: st.tuples(st.just(plan), st.lists(st.tuples(waits(*plan), costs(*plan)), min_size=1, max_size=40))
)
"""A plan, and the requests under it: how long after the one before, and at which cost."""


def new_limiter(clock: Clock, *, max_buckets: int = 1_000, overflow_buckets: int = 2) -> MemoryLimiter:
    return MemoryLimiter(clock=clock, max_buckets=max_buckets, overflow_buckets=overflow_buckets)


def levels(limiter: MemoryLimiter, key: str, plan: Plan) -> list[tuple[int, int]]:
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
