"""The limiter in this process's memory: exact under threads, bounded whatever keys arrive."""

from __future__ import annotations

import time

from learnflow_core.limiter.bucket import given_back, settled, take
from learnflow_core.limiter.checks import check, check_fits, check_key, check_keys
from learnflow_core.limiter.decision import BareDecision, Decision, Decisions, PlainDecision, Refund, Reset
from learnflow_core.limiter.table import Table
from learnflow_core.limiter.turns import TURN, Turn, wait

TYPE_CHECKING = False  # importing typing would take longer than the rest of the package
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import NoReturn

    from learnflow_core.limiter.quota import Quota

_ONE = 1
_PLANS = 1_024
_FARTHEST_NS = 2**62


class MemoryLimiter:
    """Token buckets in a table of this process; every method answers at once, from any thread.

    Decisions are exact under threads: one is made after the other (so do not decide in a signal handler or a
    finalizer). A process that forks hands its child a copy of what was taken; from then on they count apart. There are
    no other copies: to copy or to pickle a limiter is a TypeError.

    At most `max_buckets` buckets are kept, and one that is full again is forgotten: two are looked at for each new
    one, so that no call waits for a sweep. At the cap, an unknown key shares one of `overflow_buckets` more for each
    name and period of a quota, by a hash that nobody outside the process can foresee, whenever the two that were
    looked at both owe. Those that share may be refused for what others took, and `overflow_hits` counts their
    decisions; a bucket that owes is never forgotten, and a key that gets a bucket of its own takes the shared debt
    along. Keys are kept as their text: where strangers choose them, bound their length.

    `clock` gives whole nanoseconds within 2**62 of zero (TypeError, ValueError), should not step, and must not ask the
    limiter (RuntimeError). Where it steps back, nothing is granted, and no one waits longer than a quota takes to fill,
    the slowest of one name and period under which `hit` was called; where it steps ahead, at most one filling is
    granted.
    """

    implementation = "python"

    def __init__(
        self,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        max_buckets: int = 1_000_000,
        overflow_buckets: int = 4_096,
    ) -> None:
        self._clock = checked_clock(clock)
        self._clock()
        for name, value in (("max_buckets", max_buckets), ("overflow_buckets", overflow_buckets)):
            if type(value) is not int:
                raise TypeError(f"{name}: an int is needed, not {type(value).__name__}")
        if max_buckets < 1 or overflow_buckets < 1:
            raise ValueError("max_buckets, overflow_buckets: each must be at least 1")
        self._plan: Sequence[Quota] | None = None
        self._plans: dict[int, Sequence[Quota]] = {}
        self._longest: dict[str, int] = {}
        self._turn = Turn()
        self._free = self._turn.free
        self._table = Table(self._turn, max_buckets, overflow_buckets)
        self._own = self._table.own
        self._overflow_hits = 0
        self._receipt = object()

    def __len__(self) -> int:
        """How many buckets are kept, shared ones too: those that owe, and those full again but not yet looked at."""
        return len(self._table)

    def __bool__(self) -> bool:
        return True

    def __reduce__(self) -> NoReturn:
        raise TypeError("a MemoryLimiter cannot be copied or pickled: its buckets are in this process alone")

    @property
    def overflow_hits(self) -> int:
        """How many decisions were made by buckets that keys share."""
        return self._overflow_hits

    def hit(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Decision:  # noqa: C901, PLR0912, PLR0915 - calls cost time
        """Take `cost` tokens from each of the key's quotas, or none from any of them; see `Limiter`."""
        if cost is not _ONE and (type(cost) is not int or cost < 1):
            check(key, quotas, cost)
        if type(key) is not str:
            key = check_key(key)
        if quotas is not self._plan:
            quotas = self._learn(key, quotas, cost)
        own = self._own
        after: list[int] = []
        full: tuple[tuple[dict[str, int], int], ...] = ()
        free, taken = self._free, None
        now: int | None = None
        try:
            try:
                while taken is None:  # as in Turn.alone(); it, take() and PlainDecision() are written out: calls cost
                    try:
                        del free[TURN]; taken = free  # fmt: skip  # noqa: E702
                    except KeyError:
                        wait(free)
                now = self._clock()
                for quota in quotas:
                    table = own[quota.bucket]
                    full_at = table[key]
                    debt = quota.interval_ns if cost is _ONE else cost * quota.interval_ns
                    if full_at > now:
                        full_at += debt
                    else:
                        full = (*full, (table, full_at))
                        full_at = now + debt
                    if full_at - now > quota.capacity_ns:
                        decide = self._refuse
                        break
                    table[key] = full_at
                    after.append(full_at)
                else:
                    decision = BareDecision()
                    decision.key = key
                    decision.quotas = quotas
                    decision.cost = cost
                    decision.now_ns = now
                    decision.full_at_ns = after
                    decision.allowed = True
                    decision.receipt = self._receipt
                    free[TURN], taken = True, None
                    return decision
            except KeyError:
                if now is None:
                    raise
                decide = self._hit_unknown
            for quota, full_at in zip(quotas, after):  # noqa: B905 - put back in those that were reached
                own[quota.bucket][key] = full_at - cost * quota.interval_ns
            for table, full_at in full:
                table[key] = full_at
            decision = decide(key, quotas, cost, now)
            free[TURN], taken = True, None
            return decision  # noqa: TRY300 - nothing may come between this and the line before
        except BaseException:
            if taken is not None:
                free[TURN] = True
            raise

    def hit_many(self, keys: Iterable[str], quotas: Sequence[Quota], cost: int = 1) -> Decisions:
        """One `hit` for each of the keys, in their order; see `Limiter`. If one is no str, none is made.

        A class of one's own that has another `hit` needs another `hit_many` as well.
        """
        asked = check_keys(keys)
        quotas = tuple(quotas)
        check("", quotas, cost)
        return Decisions([MemoryLimiter.hit(self, key, quotas, cost) for key in asked])

    def _refuse(self, key: str, quotas: Sequence[Quota], cost: int, now: int) -> BareDecision:
        check_fits(quotas, cost)
        return PlainDecision(key, quotas, cost, now, [self._level(key, quota, now) for quota in quotas], False)

    def _learn(self, key: str, quotas: Sequence[Quota], cost: int) -> Sequence[Quota]:
        """Check what is asked, and remember a tuple by identity: those in use need not be checked at each decision."""
        if self._plans.get(id(quotas)) is not quotas:
            given, quotas = quotas, tuple(quotas)
            check(key, quotas, cost)
            if any(quota.longest_ns > self._longest.get(quota.bucket, 0) for quota in quotas):
                self._turn.alone(self._lengthen, quotas)
            if given is not quotas or not quotas:  # what can change is checked each time; under no quotas, each key is
                return quotas
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            self._plans[id(quotas)] = quotas
        self._plan = quotas
        return quotas

    def _lengthen(self, quotas: Sequence[Quota]) -> None:
        for quota in quotas:
            self._longest[quota.bucket] = max(quota.longest_ns, self._longest.get(quota.bucket, 0))

    def _hit_unknown(self, key: str, quotas: Sequence[Quota], cost: int, now: int) -> BareDecision:
        """Decide for a key that has not a bucket of its own for every quota."""
        check_fits(quotas, cost)
        levels, after = self._consider(key, quotas, cost, now)
        if after is None:
            self._overflow_hits += any(self._table.shares(key, quota.bucket) for quota in quotas)
            return PlainDecision(key, quotas, cost, now, levels, False)
        store = self._table.store
        shared = [store(key, quota.bucket, full_at, now) for quota, full_at in zip(quotas, after, strict=True)]
        self._overflow_hits += any(shared)
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
        key, quotas = check_key(key), tuple(quotas)
        check(key, quotas, cost)
        return self._turn.alone(self._peek, key, quotas, cost)

    def _peek(self, key: str, quotas: Sequence[Quota], cost: int) -> Decision:
        now = self._clock()
        levels, after = self._consider(key, quotas, cost, now)
        return PlainDecision(key, quotas, cost, now, levels, after is not None)

    def refund(self, decision: Decision) -> Refund:
        """Give back what an allowed decision of this limiter took, once; true when that counts.

        Returned is what time has not paid back by itself: at once all of it, and nothing once the decision is older
        than `cost` intervals. So refunds never let more pass than the quotas promise. What was taken from a shared
        bucket stays taken. A reset of any key, and a clock found to have stepped back, end the refunds of decisions
        made before: their tokens may have come back by that.
        """
        return self._turn.alone(self._refund, decision)

    def _refund(self, decision: Decision) -> Refund:
        if not isinstance(decision, BareDecision) or decision.receipt is not self._receipt:
            return Refund(False)
        now = self._clock()
        decision.receipt = None
        for quota in decision.quotas:
            table = self._own.get(quota.bucket)
            if table is not None and decision.key in table:
                debt = decision.cost * quota.interval_ns
                table[decision.key] = given_back(table[decision.key], now, debt, decision.now_ns)
        return Refund(True)

    def reset(self, key: str, quotas: Sequence[Quota]) -> Reset:
        """Fill the key's buckets. What it owes in a shared bucket stays owed, since others owe it too."""
        return self._turn.alone(self._reset, check_key(key), [quota.bucket for quota in quotas])

    def _reset(self, key: str, buckets: list[str]) -> Reset:
        now = self._clock()
        self._receipt = object()
        for bucket in buckets:
            table = self._own.get(bucket)
            if table is not None and key in table:
                table[key] = now
        return Reset()

    def _level(self, key: str, quota: Quota, now: int) -> int:
        """The key's bucket: its own, or the shared one that stands for it as long as it has none, or a full one."""
        place = self._table.place(key, quota.bucket)
        if place is None:
            return now
        table, name = place
        level = settled(table[name], now, max(quota.longest_ns, self._longest.get(quota.bucket, 0)))
        if level < table[name]:
            table[name] = level
            self._receipt = object()
        return level


def checked_clock(clock: Callable[[], int]) -> Callable[[], int]:
    """A clock that raises TypeError for what is no int, and ValueError for an instant beyond what can be counted."""
    if clock is time.monotonic_ns:
        return clock

    def read() -> int:
        now = clock()
        if type(now) is not int:
            raise TypeError(f"clock: an int is needed, not {type(now).__name__}")
        if not -_FARTHEST_NS < now < _FARTHEST_NS:
            raise ValueError("clock: it must stay within 2**62 ns of zero")
        return now

    return read
