"""What is decided while the store does not answer: the three policies."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from learnflow_core.limiter import Decision, MemoryLimiter, Quota, QuotaState, Refund
from learnflow_core.limiter.decision import PlainDecision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage_backends.valkey.calls import DecideCall

Policy: TypeAlias = Literal["open", "closed", "local"]
POLICIES: Final = ("open", "closed", "local")

MAX_BUCKETS: Final = 1_000_000
"""How many buckets of this process's share are kept, unless told otherwise."""


class OpenDecision(PlainDecision):
    """Everything passes, as if the buckets had been full."""

    __slots__ = ()

    fallback = "open"


class ClosedDecision(PlainDecision):
    """Nothing passes; every quota says to come back when the store is asked again, in `rest_ns`, and has none left."""

    __slots__ = ("rest_ns",)

    fallback = "closed"

    def __init__(self, key: str, quotas: Sequence[Quota], cost: int, rest_ns: int) -> None:
        now = time.time_ns()
        full_at = [now + min(rest_ns, quota.longest_ns) for quota in quotas]
        super().__init__(key, quotas, cost, now, full_at, allowed=False)
        self.rest_ns = rest_ns

    @property
    def states(self) -> list[QuotaState]:
        """Nobody knows how the quotas stand; what is known is when to ask again."""
        states = super().states
        for state in states:
            state.remaining = 0
            state.next_token_ns = state.retry_after_ns = self.rest_ns
            state.rank = (self.rest_ns, 0, state.reset_after_ns)
        return states


class LocalRefusal(ClosedDecision):
    """A request that costs more than this process's share can ever hold: only the store can let it pass."""

    __slots__ = ()

    fallback = "local"


class LocalDecision(PlainDecision):
    """A decision by this process's share of the quotas, which are the ones it tells of."""

    __slots__ = ()

    fallback = "local"


class Fallback:
    """Decides by `policy`. With `local`, each of `processes` enforces its share: the limits divided by their number.

    A share is at least one token. It is kept in memory from the first outage on, so that outages that follow one
    another do not each begin with full buckets; `max_buckets` bounds how much that is, as it does a `MemoryLimiter`'s.
    """

    def __init__(self, policy: Policy, processes: int, max_buckets: int = MAX_BUCKETS) -> None:
        if policy not in POLICIES:
            raise ValueError(f"fallback: one of {', '.join(POLICIES)} is needed")
        if type(processes) is not int:
            raise TypeError(f"processes: an int is needed, not {type(processes).__name__}")
        if processes < 1:
            raise ValueError("processes: it must be at least 1")
        self.policy = policy
        self._processes = processes
        self._memory = MemoryLimiter(max_buckets=max_buckets)
        self._shares: dict[Sequence[Quota], tuple[Quota, ...]] = {}

    def decide(self, call: DecideCall, key: str, rest_ns: int) -> Decision:
        """What `call` is answered, when the store is asked again in `rest_ns`."""
        if self.policy == "closed":
            return ClosedDecision(key, call.quotas, call.cost, rest_ns)
        if self.policy == "open":
            now = time.time_ns()
            taken = call.cost if call.take else 0
            full_at = [now + taken * quota.interval_ns for quota in call.quotas]
            return OpenDecision(key, call.quotas, call.cost, now, full_at, allowed=True)
        share = self._share(call.quotas)
        if any(call.cost > quota.burst for quota in share):
            return LocalRefusal(key, share, call.cost, rest_ns)
        decide = self._memory.hit if call.take else self._memory.peek
        made = decide(key, share, call.cost)
        receipt = made if call.take and made.allowed else None
        return LocalDecision(key, share, made.cost, made.now_ns, made.full_at_ns, made.allowed, receipt)

    def refund(self, decision: LocalDecision) -> Refund:
        """Give back what a decision by the share took."""
        made = decision.receipt
        return self._memory.refund(made) if isinstance(made, Decision) else Refund(False)

    def _share(self, quotas: Sequence[Quota]) -> tuple[Quota, ...]:
        share = self._shares.get(quotas)
        if share is None:
            if len(self._shares) >= 1_024:
                self._shares.clear()
            share = self._shares[quotas] = tuple([self._part(quota) for quota in quotas])
        return share

    def _part(self, quota: Quota) -> Quota:
        limit, burst = (max(1, whole // self._processes) for whole in (quota.limit, quota.burst))
        return Quota(quota.name, limit, quota.period_ns, burst)
