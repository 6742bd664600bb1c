"""The limiters of others in memory: each asked in the fastest way that its documentation shows and that is correct.

Terms are the plan's own. Where a library has no decision over several quotas, it is asked once for each, in one
expression, and not asked for the day where the minute has refused. All of them live in the table that the library
makes; room for every key is given where the library has a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from time import monotonic_ns
from types import ModuleType
from typing import Any, NamedTuple

from benchmarks.limiter.ours import MAX_KEYS
from benchmarks.limiter.usage import FIGURES, HIT, Plan, Usage
from learnflow_core.limiter import Quota
from learnflow_core.limiter.quota import SECOND_NS

DIRECT = "its bucket, without its Limiter"


class Peer(NamedTuple):
    """Somebody else's limiter: what to install, what to import, and what its rows do not do."""

    distribution: str
    module: str
    usage: Callable[[Plan], Usage]
    lacks: str
    """As docs/benchmarks.md says it."""
    ways: Sequence[str] = (HIT,)
    quotas: int = 2
    """For how many quotas it can be asked without waiting."""
    in_threads: str = HIT
    """The way that several threads can ask at once."""

    def installed(self) -> bool:
        """Whether it can be imported here; nothing of it is, by that."""
        return find_spec(self.module) is not None


def limits(plan: Plan) -> Usage:
    """FixedWindowRateLimiter is its fastest strategy; the moving window keeps an object for every request."""
    storage, strategies = import_module("limits.storage"), import_module("limits.strategies")
    return limits_usage(strategies.FixedWindowRateLimiter(storage.MemoryStorage()), plan)


def limits_usage(limiter: Any, plan: Plan, *, awaits: bool = False) -> Usage:
    """One of its limiters, whose figures are asked for in a call of their own."""
    per_second = import_module("limits").RateLimitItemPerSecond
    items = {quota.name: per_second(quota.limit, seconds(quota)) for quota in plan}
    wait = "await " * awaits
    hit = "allowed = " + " and ".join(f"{wait}hit({name}, key)" for name in items)
    figures = (f"{name}_told = {wait}stats({name}, key)" for name in items)
    names = {**items, "hit": limiter.hit, "stats": limiter.get_window_stats}
    return Usage({HIT: hit, FIGURES: lines(hit, *figures)}, names, awaits)


def throttled(plan: Plan) -> Usage:
    """Its store in memory keeps 1,024 keys unless told to keep more."""
    library = import_module("throttled")
    return throttled_usage(library, library.MemoryStore(options={"MAX_SIZE": 4 * MAX_KEYS}), plan)


def throttled_usage(library: ModuleType, store: Any, plan: Plan, *, awaits: bool = False) -> Usage:
    """A result has every figure, in an object that is made when it is read."""
    limit = {}
    for quota in plan:
        rate = library.Rate(timedelta(seconds=seconds(quota)), quota.limit)
        terms = library.rate_limiter.Quota(rate, burst=quota.burst)
        limit[quota.name] = library.Throttled(using="gcra", quota=terms, store=store, key_prefix=quota.name).limit
    wait = "await " * awaits
    refused = " or ".join(f"{name}_told.limited" for name in limit)
    hit = lines(*(f"{name}_told = {wait}{name}(key)" for name in limit), f"allowed = not ({refused})")
    figures = (f"{name}_told.state.remaining, {name}_told.state.reset_after" for name in limit)
    return Usage({HIT: hit, FIGURES: lines(hit, *figures)}, limit, awaits)


def pyrate_limiter(plan: Plan) -> Usage:
    """A bucket in memory keeps what one caller owes."""
    library = import_module("pyrate_limiter")
    return pyrate_usage(lambda rates, algorithm, key: library.StateBucket(rates, algorithm), monotonic_ns, plan)


def pyrate_usage(
    bucket: Callable[[Any, Any, str], Any], clock: Callable[[], int], plan: Plan, *, awaits: bool = False
) -> Usage:
    """A bucket is one caller's, so a factory keeps a bucket for each caller, as its documentation shows."""
    library = import_module("pyrate_limiter")
    base: Any = library.BucketFactory

    class Buckets(base):  # type: ignore[misc]  # types are checked where no peer is installed
        def __init__(self) -> None:
            self.buckets: dict[str, Any] = {}

        def wrap_item(self, name: str, weight: int = 1) -> Any:
            return library.RateItem(name, clock() // 1_000_000, weight)

        def get(self, item: Any) -> Any:
            of_caller = self.buckets.get(item.name)
            if of_caller is None:
                of_caller = self.buckets[item.name] = bucket(rates, algorithm, item.name)
            return of_caller

    rates = [library.Rate(limit, period_ms, burst) for limit, period_ms, burst in rising(plan)]
    algorithm = library.GCRA()
    factory = Buckets()
    limiter = library.Limiter(factory)
    put = "bucket_of(item).put_decision(item)"
    ways = {
        HIT: f"allowed = {'await ' * awaits}acquire(key, blocking=False)",
        DIRECT: f"item = wrap(key)\nallowed = {f'(await {put})' if awaits else put}.allowed",
    }
    acquire = limiter.try_acquire_async if awaits else limiter.try_acquire
    return Usage(ways, {"acquire": acquire, "wrap": factory.wrap_item, "bucket_of": factory.get}, awaits)


def token_bucket(plan: Plan) -> Usage:
    """A Limiter is one quota for every key."""
    library = import_module("token_bucket")
    consume = {}
    for quota in plan:
        rate = quota.limit / seconds(quota)
        consume[quota.name] = library.Limiter(rate, quota.limit, library.MemoryStorage()).consume
    return Usage({HIT: "allowed = " + " and ".join(f"{name}(key)" for name in consume)}, consume)


def aiolimiter(plan: Plan) -> Usage:
    """A limiter is one bucket, and `acquire` waits; who does not want to wait asks for room first."""
    (quota,) = plan
    statement = lines(
        "bucket = buckets.get(key)",
        "if bucket is None:",
        "    bucket = buckets[key] = AsyncLimiter(limit, period)",
        "if allowed := bucket.has_capacity():",
        "    await bucket.acquire()",
    )
    names = {
        "buckets": {},
        "AsyncLimiter": import_module("aiolimiter").AsyncLimiter,
        "limit": quota.limit,
        "period": seconds(quota),
    }
    return Usage({HIT: statement}, names, awaits=True)


def floodgate(plan: Plan) -> Usage:
    """`trigger` returns None, or for how long to wait."""
    mapping = import_module("floodgate").FixedMapping
    names = {}
    for quota in plan:
        of_quota = mapping(quota.limit, timedelta(seconds=seconds(quota)))
        for method in ("trigger", "tokens", "next_reset"):
            names[f"{quota.name}_{method}"] = getattr(of_quota, method)
    hit = "allowed = " + " and ".join(f"{quota.name}_trigger(key) is None" for quota in plan)
    figures = (f"{quota.name}_tokens(key), {quota.name}_next_reset(key)" for quota in plan)
    return Usage({HIT: hit, FIGURES: lines(hit, *figures)}, names)


def rust_py_rate_limit(plan: Plan) -> Usage:
    """`allow` says yes or no, `check` returns a dict with every figure."""
    limiter = import_module("rust_py_rate_limit").RateLimiter
    names = {quota.name: limiter(quota.limit, seconds(quota)) for quota in plan}
    ways = {
        HIT: "allowed = " + " and ".join(f"{name}.allow(key)" for name in names),
        FIGURES: "allowed = " + " and ".join(f'{name}.check(key)["allowed"]' for name in names),
    }
    return Usage(ways, names)


def seconds(quota: Quota) -> int:
    """The quota's period as the libraries of others take it."""
    return quota.period_ns // SECOND_NS


def rising(plan: Plan) -> list[tuple[int, int, int]]:
    """Each quota as pyrate-limiter's limit, milliseconds and burst.

    It wants a longer period to have a higher limit. For GCRA only their ratio and the burst matter, so both are
    multiplied where the plan has it otherwise.
    """
    terms: list[tuple[int, int, int]] = []
    for quota in plan:
        times = 1 if not terms else max(1, terms[-1][0] // quota.limit + 1)
        terms.append((quota.limit * times, seconds(quota) * 1_000 * times, quota.burst))
    return terms


def lines(*statements: str) -> str:
    """Several lines of code as one text."""
    return "\n".join(statements)


FIXED = "lets twice the limit pass across the edge of a window"
TWO_CALLS = "a refusal by the day has spent the minute"
STAYS = "keeps who came once for ever"
WITH_FIGURES = (HIT, FIGURES)
PEERS = {
    peer.distribution: peer
    for peer in (
        Peer("limits", "limits", limits, f"{FIXED}; {TWO_CALLS}", WITH_FIGURES),
        Peer("throttled-py", "throttled", throttled, f"{TWO_CALLS}; forgets who owes, at its cap", WITH_FIGURES),
        Peer(
            "pyrate-limiter",
            "pyrate_limiter",
            pyrate_limiter,
            f"says yes or no; {STAYS}; its Limiter refuses while another thread asks",
            (HIT, DIRECT),
            in_threads=DIRECT,
        ),
        Peer("token-bucket", "token_bucket", token_bucket, f"says yes or no; {STAYS}; {TWO_CALLS}; has no lock"),
        Peer("aiolimiter", "aiolimiter", aiolimiter, f"says yes or no; {STAYS}; one quota, one event loop", quotas=1),
        Peer("floodgate-rs", "floodgate", floodgate, f"{FIXED}; {TWO_CALLS}", WITH_FIGURES),
        Peer(
            "rust-py-rate-limit",
            "rust_py_rate_limit",
            rust_py_rate_limit,
            f"{FIXED}; {TWO_CALLS}; {STAYS} unless told",
            WITH_FIGURES,
        ),
    )
}
