"""The limiters of others over Valkey, at a Unix socket: synchronous ones, and those for an event loop.

Terms and statements are those of `benchmarks.limiter.peers`. Each has a pool of connections of redis-py's, which makes
as many as are in use at once.
"""

from __future__ import annotations

from importlib import import_module
from time import time_ns
from typing import Any

from benchmarks.limiter.peers import limits_usage, pyrate_usage, throttled_usage
from benchmarks.limiter.usage import Plan, Usage


def limits(plan: Plan, socket: str) -> Usage:
    """Its fixed window counts in one script and one round trip for each quota."""
    storage, strategies = import_module("limits.storage"), import_module("limits.strategies")
    return limits_usage(strategies.FixedWindowRateLimiter(storage.RedisStorage(f"redis+unix://{socket}")), plan)


def limits_async(plan: Plan, socket: str) -> Usage:
    """The same with redis-py's asynchronous client."""
    storage, strategies = import_module("limits.aio.storage"), import_module("limits.aio.strategies")
    redis = storage.RedisStorage(f"async+redis+unix://{socket}", implementation="redispy")
    return limits_usage(strategies.FixedWindowRateLimiter(redis), plan, awaits=True)


def throttled(plan: Plan, socket: str) -> Usage:
    """One script and one round trip for each quota."""
    library = import_module("throttled")
    return throttled_usage(library, library.RedisStore(server=f"unix://{socket}"), plan)


def throttled_async(plan: Plan, socket: str) -> Usage:
    """The same with redis-py's asynchronous client."""
    library = import_module("throttled.asyncio")
    return throttled_usage(library, library.RedisStore(server=f"unix://{socket}"), plan, awaits=True)


def pyrate_limiter(plan: Plan, socket: str) -> Usage:
    """All quotas of a caller in one script and one round trip, by the caller's clock, in milliseconds."""
    return _pyrate(import_module("redis").Redis(unix_socket_path=socket), plan, awaits=False)


def pyrate_limiter_async(plan: Plan, socket: str) -> Usage:
    """The same with redis-py's asynchronous client. Its Limiter lets one task at a time ask; its buckets do not."""
    return _pyrate(import_module("redis.asyncio").Redis(unix_socket_path=socket), plan, awaits=True)


def _pyrate(client: Any, plan: Plan, *, awaits: bool) -> Usage:
    library = import_module("pyrate_limiter")

    def bucket(rates: Any, algorithm: Any, key: str) -> Any:
        return library.StateBucket(rates, algorithm, store=library.RedisStateStore(client, f"pyrate:{key}"))

    return pyrate_usage(bucket, time_ns, plan, awaits=awaits)


SHARED_PEERS = {
    "limits": (limits, limits_async),
    "throttled-py": (throttled, throttled_async),
    "pyrate-limiter": (pyrate_limiter, pyrate_limiter_async),
}
"""Those of the peers that keep their buckets in Valkey: how each is asked without an event loop, and in one."""
