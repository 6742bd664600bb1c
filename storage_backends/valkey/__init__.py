"""The limiter's shared store: exact token buckets in Valkey or Redis, 6.2 and later, single or cluster.

    from storage_backends.valkey import ValkeyLimiter

    limiter = ValkeyLimiter("valkey://localhost:6379")
    decision = limiter.hit("acct_1", (Quota.per_minute(300), Quota.per_day(25_000)))

`ValkeyLimiter` is for threads and plain programs, `AsyncValkeyLimiter` for an event loop; both speak to the server
themselves, with the standard library alone. `LeasedValkeyLimiter` and `AsyncLeasedValkeyLimiter` decide from memory
where they have tokens in hand.

In reading order: `scripts` (what the server does), `calls` (what is asked, and the answer), `store` (what both clients
share) with `fallback`, `health` and `breaker` (what happens without the server), `address`, `greeting`, `resp` and
`cluster` (how one speaks to it), then the clients: `blocking`, `servers`, `connection`, `opening`, `names` for threads,
and `asynchronous`, `nodes`, `node`, `wire` for an event loop. Leases have `lease_scripts`, `lease_calls`, `exchange`,
`recent` and `hands` (what is in hand, and what is asked for it), and the clients `leased` and `leased_asynchronous`.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # importing typing would take longer than this module
if TYPE_CHECKING:
    from storage_backends.valkey.asynchronous import AsyncValkeyLimiter
    from storage_backends.valkey.blocking import ValkeyLimiter
    from storage_backends.valkey.health import Counts
    from storage_backends.valkey.leased import LeasedValkeyLimiter
    from storage_backends.valkey.leased_asynchronous import AsyncLeasedValkeyLimiter
    from storage_backends.valkey.store import StoreUnavailableError

__all__ = [
    "AsyncLeasedValkeyLimiter",
    "AsyncValkeyLimiter",
    "Counts",
    "LeasedValkeyLimiter",
    "StoreUnavailableError",
    "ValkeyLimiter",
]

_HOMES = {
    "AsyncLeasedValkeyLimiter": "leased_asynchronous",
    "AsyncValkeyLimiter": "asynchronous",
    "Counts": "health",
    "LeasedValkeyLimiter": "leased",
    "StoreUnavailableError": "store",
    "ValkeyLimiter": "blocking",
}


def __getattr__(name: str) -> object:
    """Import a name when it is asked for: who has no event loop does not load asyncio."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
