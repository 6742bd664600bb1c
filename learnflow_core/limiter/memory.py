"""The limiter in this process's memory: exact under threads, bounded whatever keys arrive."""

from __future__ import annotations

import os
import time
from collections import deque
from weakref import WeakSet

from learnflow_core.limiter.bucket import given_back, settled, take
from learnflow_core.limiter.checks import check, check_key, check_names, never_fits
from learnflow_core.limiter.decision import BareDecision, Decision, Decisions, PlainDecision, Refund, Reset

TYPE_CHECKING = False  # importing typing would take longer than the rest of the package
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import ParamSpec, TypeVar

    from learnflow_core.limiter.quota import Quota

    P = ParamSpec("P")
    T = TypeVar("T")

_NOTHING: dict[str, int] = {}
_TURN = "turn"
_ONE = 1
_PLANS = 1_024


class MemoryLimiter:
    """Token buckets in a table of this process; every method answers at once, from any thread.

    Decisions are exact under threads: one is made after the other (so do not decide in a signal handler or a
    finalizer). A process that forks hands its child a copy of what was taken; from then on they count apart.

    At most `max_buckets` buckets are kept, and one that is full again is forgotten: two are looked at for each new
    one, so that no call waits for a sweep. While as many as that owe, unknown keys share `overflow_buckets` more for
    each name and period of a quota, by a hash that nobody outside the process can foresee. Those that share may be
    refused for what others took, and `overflow_hits` counts their decisions; a bucket that owes is never forgotten,
    and a key that gets a bucket of its own takes the shared debt along. Keys are kept as they come: where strangers
    choose them, bound their length.

    `clock` gives whole nanoseconds, should not step, and must not ask the limiter. Where it steps back, nothing is
    granted, and no one waits longer than a quota takes to fill; where it steps ahead, at most one filling is granted.
    """

    implementation = "python"

    def __init__(
        self,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        max_buckets: int = 1_000_000,
        overflow_buckets: int = 4_096,
    ) -> None:
        for name, value in (("clock", clock()), ("max_buckets", max_buckets), ("overflow_buckets", overflow_buckets)):
            if type(value) is not int:
                raise TypeError(f"{name}: an int is needed, not {type(value).__name__}")
        if max_buckets < 1 or overflow_buckets < 1:
            raise ValueError("max_buckets, overflow_buckets: each must be at least 1")
        self.overflow_hits = 0
        self._clock = clock
        self._max_buckets = max_buckets
        self._overflow_buckets = overflow_buckets
        self._plan: Sequence[Quota] = ()
        self._plans: dict[int, Sequence[Quota]] = {}
        self._tables: dict[str, dict[str, int]] = {}
        self._shared: dict[str, int] = {}
        # Every bucket once, in the order in which they are looked at: its table in one, its key there in the other.
        # (One of pairs would take 56 bytes more for each.)
        self._turn_tables: deque[dict[str, int]] = deque()
        self._turn_keys: deque[str] = deque()
        self._secret = os.urandom(16).hex()
        self._receipt = object()
        # A lock that is free while its one entry is there: deleting the entry takes it, setting it again releases it.
        # Each is one step of the interpreter, which nothing interrupts, at a third of the price of `with lock`.
        self._free = {_TURN: True}
        _limiters.add(self)

    def __len__(self) -> int:
        """How many buckets are kept, shared ones too: those that owe, and those full again but not yet looked at."""
        return len(self._turn_keys)

    def hit(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Decision:  # noqa: C901 - calls cost time
        """Take `cost` tokens from each of the key's quotas, or none from any of them; see `Limiter`."""
        if cost is not _ONE and (type(cost) is not int or cost < 1):
            check(key, quotas, cost)
        if quotas is not self._plan:
            self._learn(quotas)
        tables = self._tables
        taken: list[int] = []
        free = self._free
        while True:  # as in _alone(); it, take() and PlainDecision() are written out, since calls cost time
            try:
                del free[_TURN]
            except KeyError:
                time.sleep(0)
            else:
                break
        try:
            now = self._clock()
            try:
                for quota in quotas:
                    table = tables[quota.bucket]
                    full_at = table[key]
                    debt = quota.interval_ns if cost is _ONE else cost * quota.interval_ns
                    full_at = full_at + debt if full_at > now else now + debt
                    if full_at - now > quota.capacity_ns:
                        break
                    table[key] = full_at
                    taken.append(full_at)
                else:
                    decision = BareDecision()
                    decision.key = key
                    decision.quotas = quotas
                    decision.cost = cost
                    decision.now_ns = now
                    decision.full_at_ns = taken
                    decision.allowed = True
                    decision.receipt = self._receipt
                    return decision
            except KeyError:
                decide = self._hit_unknown
            else:
                decide = self._refuse
            for quota, full_at in zip(quotas, taken):  # noqa: B905 - put back in those that were reached
                tables[quota.bucket][key] = full_at - cost * quota.interval_ns
            return decide(key, quotas, cost, now)
        finally:
            free[_TURN] = True

    def hit_many(self, keys: Iterable[str], quotas: Sequence[Quota], cost: int = 1) -> Decisions:
        """One `hit` for each of the keys, in their order; see `Limiter`. If one is no str, none is made."""
        keys = [*keys]
        check("", quotas, cost)
        for key in keys:
            check_key(key)
        return Decisions([self.hit(key, quotas, cost) for key in keys])

    def _refuse(self, key: str, quotas: Sequence[Quota], cost: int, now: int) -> Decision:
        for quota in quotas:
            if cost > quota.burst:
                raise never_fits(quota)
        return PlainDecision(key, quotas, cost, now, [self._level(key, quota, now) for quota in quotas], False)

    def _learn(self, quotas: Sequence[Quota]) -> None:
        """Check a plan, and remember it by identity, so that those in use need not be checked at each decision."""
        if self._plans.get(id(quotas)) is not quotas:
            check_names(quotas)
            if type(quotas) is not tuple:  # what can change is checked each time
                return
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            self._plans[id(quotas)] = quotas
        self._plan = quotas

    def _hit_unknown(self, key: str, quotas: Sequence[Quota], cost: int, now: int) -> Decision:
        """Decide for a key that has not a bucket of its own for every quota."""
        check(key, quotas, cost)
        levels, after = self._consider(key, quotas, cost, now)
        if after is None:
            self.overflow_hits += any(self._shares(key, quota.bucket) for quota in quotas)
            return PlainDecision(key, quotas, cost, now, levels, False)
        shared = [self._store(key, quota.bucket, full_at, now) for quota, full_at in zip(quotas, after, strict=True)]
        self.overflow_hits += any(shared)
        return PlainDecision(key, quotas, cost, now, after, True, self._receipt)

    def _consider(self, key: str, quotas: Sequence[Quota], cost: int, now: int) -> tuple[list[int], list[int] | None]:
        """The buckets as they are, and as the taking would leave them: None when one of them holds too little."""
        levels: list[int] = []
        after: list[int] = []
        for quota in quotas:
            level = self._level(key, quota, now)
            levels.append(level)
            full_at = take(level, now, cost * quota.interval_ns, quota.capacity_ns)
            if full_at is not None:
                after.append(full_at)
        return levels, after if len(after) == len(levels) else None

    def peek(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Decision:
        """What `hit` would answer now, without taking anything; see `Limiter`."""
        check(key, quotas, cost)
        return self._alone(self._peek, key, quotas, cost)

    def _peek(self, key: str, quotas: Sequence[Quota], cost: int) -> Decision:
        now = self._clock()
        levels, after = self._consider(key, quotas, cost, now)
        return PlainDecision(key, quotas, cost, now, levels, after is not None)

    def refund(self, decision: Decision) -> Refund:
        """Give back what an allowed decision of this limiter took, once; whether it was still to be given back.

        Returned is what time has not paid back by itself: at once all of it, and nothing once the decision is older
        than `cost` intervals. So refunds never let more pass than the quotas promise. What was taken from a shared
        bucket stays taken. A reset of any key, and a clock found to have stepped back, end the refunds of decisions
        made before: their tokens may have come back by that.
        """
        return self._alone(self._refund, decision)

    def _refund(self, decision: Decision) -> Refund:
        if not isinstance(decision, BareDecision) or decision.receipt is not self._receipt:
            return Refund(False)
        decision.receipt = None
        now = self._clock()
        for quota in decision.quotas:
            table = self._tables.get(quota.bucket, _NOTHING)
            if decision.key in table:
                debt = decision.cost * quota.interval_ns
                table[decision.key] = given_back(table[decision.key], now, debt, decision.now_ns)
        return Refund(True)

    def reset(self, key: str, quotas: Sequence[Quota]) -> Reset:
        """Fill the key's buckets. What it owes in a shared bucket stays owed, since others owe it too."""
        return self._alone(self._reset, key, quotas)

    def _reset(self, key: str, quotas: Sequence[Quota]) -> Reset:
        self._receipt = object()
        now = self._clock()
        for quota in quotas:
            table = self._tables.get(quota.bucket, _NOTHING)
            if key in table:
                table[key] = now
        return Reset()

    def _alone(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a step answers that has the buckets to itself. Whoever comes meanwhile lets other threads go first."""
        free = self._free
        while True:
            try:
                del free[_TURN]
            except KeyError:
                time.sleep(0)
            else:
                break
        try:
            return step(*args, **kwargs)
        finally:
            free[_TURN] = True

    def _level(self, key: str, quota: Quota, now: int) -> int:
        """The key's bucket: its own, or the shared one that stands for it as long as it has none, or a full one."""
        table = self._tables.get(quota.bucket, _NOTHING)
        if key not in table:
            if not self._shared:
                return now
            table, key = self._shared, self._slot(key, quota.bucket)
        full_at = table.get(key, now)
        level = settled(full_at, now, quota.longest_ns)
        if level < full_at:
            table[key] = level
            self._receipt = object()
        return level

    def _shares(self, key: str, bucket: str) -> bool:
        return key not in self._tables.get(bucket, _NOTHING) and self._slot(key, bucket) in self._shared

    def _slot(self, key: str, bucket: str) -> str:
        # Python's own hash of a str is keyed unless PYTHONHASHSEED is set; the secret in front keys it even then.
        return f"{bucket}\0{hash(self._secret + key) % self._overflow_buckets}"

    def _store(self, key: str, bucket: str, full_at: int, now: int) -> bool:
        """Keep what a taking left, in the key's own bucket or, without room for one, in the shared one: true if so."""
        table = self._tables.setdefault(bucket, {})
        if key not in table:
            self._forget_some(now)
            if len(self._turn_keys) - len(self._shared) >= self._max_buckets:
                table, key = self._shared, self._slot(key, bucket)
            if key not in table:
                # The turn first: a copy that a fork takes in between has a turn too many, which comes to nothing.
                self._turn_tables.append(table)
                self._turn_keys.append(key)
        table[key] = full_at
        return table is self._shared

    def _forget_some(self, now: int) -> None:
        """Look at the two buckets whose turn it is, and forget those that are full again."""
        tables, keys = self._turn_tables, self._turn_keys
        for _ in range(min(2, len(keys))):
            table, key = tables.popleft(), keys.popleft()
            if table.get(key, now) > now:
                tables.append(table)
                keys.append(key)
            else:
                table.pop(key, None)


_limiters: WeakSet[MemoryLimiter] = WeakSet()


def _release() -> None:
    """Another thread of the parent may have been deciding at the fork; in the child it would never come to its end."""
    for limiter in _limiters:
        limiter._free[_TURN] = True  # noqa: SLF001 - this module's own class


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release)
