"""A rate-limit engine to embed: token buckets of one integer each, exact, bounded, and without dependencies.

    from learnflow_core.limiter import MemoryLimiter, Quota, headers

    limiter = MemoryLimiter()
    plan = (Quota.per_minute(300), Quota.per_day(25_000))
    decision = limiter.hit("acct_1", plan)
    if not decision.allowed:
        ...  # answer 429 with headers(decision, time.time_ns())

In reading order: `quota` (what is promised), `bucket` (the arithmetic), `decision` (the answer), `port` (what a caller
needs of any limiter), `memory` (the limiter of one process), `fields` (the answer as HTTP fields).
"""

from __future__ import annotations

from learnflow_core.limiter.decision import Decision, Decisions, QuotaState, Refund, Reset
from learnflow_core.limiter.fields import headers, seconds_up
from learnflow_core.limiter.memory import MemoryLimiter
from learnflow_core.limiter.quota import Quota

TYPE_CHECKING = False
if TYPE_CHECKING:
    from learnflow_core.limiter.port import Limiter

__all__ = [
    "Decision",
    "Decisions",
    "Limiter",
    "MemoryLimiter",
    "Quota",
    "QuotaState",
    "Refund",
    "Reset",
    "headers",
    "seconds_up",
]


def __getattr__(name: str) -> object:
    """Import the port when it is asked for: a Protocol needs typing, which takes longer than the whole engine."""
    if name == "Limiter":
        from learnflow_core.limiter.port import Limiter  # noqa: PLC0415 - see above

        return Limiter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
