"""A rate-limit engine to embed: token buckets of one integer each, exact, bounded, and without dependencies.

    from learnflow_core.limiter import MemoryLimiter, Quota, headers

    limiter = MemoryLimiter()
    plan = (Quota.per_minute(300), Quota.per_day(25_000))
    decision = limiter.hit("acct_1", plan)
    if not decision.allowed:
        ...  # answer 429 with headers(decision, time.time_ns())

In reading order: `quota` (what is promised), `bucket` (the arithmetic), `decision` (the answer), `port` (what a caller
needs of any limiter), `checks` (what each refuses), `turns`, `table` and `memory` (the limiter of one process),
`leases` (what one behind a network keeps in hand), `fields` (the answer as HTTP fields). Around these: `asking` (whom
to ask, and for what), `decorator` (a limit on a function), `asgi` and `wsgi` (a limit in front of an app), `address`
(a client's network as a key), and `plans` (the published ones).
"""

from __future__ import annotations

from learnflow_core.limiter.decision import Decision, Decisions, QuotaState, Refund, Reset
from learnflow_core.limiter.fields import header_lines, headers, seconds_up
from learnflow_core.limiter.quota import Quota

TYPE_CHECKING = False
if TYPE_CHECKING:
    from learnflow_core.limiter.decorator import LimitExceeded, limited
    from learnflow_core.limiter.memory import MemoryLimiter
    from learnflow_core.limiter.port import Limiter
else:
    try:
        from _learnflow_limiter import MemoryLimiter  # the same in C, where the package was installed with a compiler
    except ImportError:
        from learnflow_core.limiter.memory import MemoryLimiter

__all__ = [
    "Decision",
    "Decisions",
    "LimitExceeded",
    "Limiter",
    "MemoryLimiter",
    "Quota",
    "QuotaState",
    "Refund",
    "Reset",
    "header_lines",
    "headers",
    "limited",
    "seconds_up",
]

_MODULES = {"LimitExceeded": "decorator", "Limiter": "port", "limited": "decorator"}


def __getattr__(name: str) -> object:
    """Import when it is asked for what needs typing or inspect, which take longer than the whole engine."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - see above

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
