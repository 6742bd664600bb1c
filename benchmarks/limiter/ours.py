"""The project's own limiters as they are asked, and the floors below any limiter in memory."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from time import monotonic_ns, time_ns
from typing import Any

from benchmarks.limiter.names import ACCELERATED, PURE
from benchmarks.limiter.usage import BATCHES, FIGURES, HIT, Plan, Usage
from learnflow_core.limiter import MemoryLimiter, Quota, headers
from learnflow_core.limiter.quota import MAX_PERIOD_NS, SECOND_NS

MAX_KEYS = 1_000_000

# A token is worth half a minute: a caller who has asked once owes while the others are met, and one who asks all the
# time has tokens enough. The last quota is dry for ten years after one request.
MINUTE, DAY = (
    Quota(name, limit, limit * 30 * SECOND_NS) for name, limit in (("minute", 8_000_000), ("day", 10_000_000))
)
DRY = Quota("day", 1, MAX_PERIOD_NS)
MINUTE_ALLOWED, ALLOWED = "minute: allowed", "minute + day: allowed"
PLANS: dict[str, Plan] = {
    MINUTE_ALLOWED: (MINUTE,),
    "minute: denied": (DRY,),
    ALLOWED: (MINUTE, DAY),
    "minute + day: denied by the day": (MINUTE, DRY),
}


def implementations() -> dict[str, Callable[..., MemoryLimiter]]:
    """The limiters in memory that this installation has, by the name of what decides."""
    pure: Callable[..., MemoryLimiter] = import_module("learnflow_core.limiter.memory").MemoryLimiter
    return {PURE: pure} if pure is MemoryLimiter else {PURE: pure, ACCELERATED: MemoryLimiter}


def ours(make: Callable[..., MemoryLimiter], plan: Plan) -> Usage:
    """A limiter with room for every key. `hit` returns the whole decision; its figures are computed when read."""
    limiter = make(max_buckets=4 * MAX_KEYS)
    hit = "allowed = hit(key, plan)"
    ways = {
        HIT: hit,
        FIGURES: f"{hit}\ntold = allowed.binding\ntold.remaining, told.reset_after_ns",
        **dict.fromkeys(BATCHES, "allowed = hit_many(key, plan)[-1]"),
    }
    return Usage(ways, {"hit": limiter.hit, "hit_many": limiter.hit_many, "plan": plan})


def served(make: Callable[..., Any], plan: Plan) -> Usage:
    """What the HTTP server does for a request: it awaits the decision, and encodes all its header fields."""
    hit = "allowed = await hit(key, plan)"
    fields = '[(name.lower().encode("ascii"), value.encode("ascii")) for name, value in headers(allowed, time_ns())]'
    names = {"hit": make(max_buckets=4 * MAX_KEYS).hit, "plan": plan, "headers": headers, "time_ns": time_ns}
    return Usage({HIT: f"{hit}\n{fields}"}, names, awaits=True)


def empty(plan: Plan) -> Usage:
    """What calling anything costs."""

    def call(key: str, plan: Plan) -> None:
        pass

    return Usage({HIT: "allowed = call(key, plan)"}, {"call": call, "plan": plan}, checked=False)


def look_up(plan: Plan) -> Usage:
    """The least that a limiter in memory does: it finds what it knows of the key, and reads the clock."""
    table: dict[str, int] = {}

    def call(key: str, plan: Plan) -> int:
        if table.get(key) is None:
            table[key] = 0
        return monotonic_ns()

    return Usage({HIT: "allowed = call(key, plan)"}, {"call": call, "plan": plan}, checked=False)
