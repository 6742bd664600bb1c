"""One caller's hand, who waits for what the store decides, and what is asked of it for them. No I/O."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from learnflow_core.limiter.leases import LEAST, SHARE, Hand, Lease, Reply, block_for
from storage_backends.valkey.calls import TICK_NS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from learnflow_core.limiter.decision import Decision
    from learnflow_core.limiter.leases import Request
    from learnflow_core.limiter.quota import Quota
    from storage_backends.valkey.calls import Call, DecideCall


class Waiting(NamedTuple):
    """One who waits for a decision, by any means, and since when."""

    waiter: Any
    call: DecideCall
    since_ns: int


class CallerHand(Hand):
    """The hand for one caller under one plan, and who waits for what the store decides.

    Whoever asks the store for it has its `turn`, so that one request is under way at a time.
    """

    __slots__ = ("_leases_fit", "_quiet", "_seen", "asked", "key", "quotas", "turn", "waiting")

    def __init__(self, key: str, quotas: Sequence[Quota]) -> None:
        super().__init__()
        self.key = key
        self.quotas = quotas
        self.turn = threading.Lock()
        self.waiting: list[Waiting] = []
        self.asked = 0
        self._leases_fit = all(quota.burst >= SHARE * LEAST for quota in quotas)
        self._quiet = 0
        self._seen: tuple[Lease, int, int] | None = None

    def next_block(self, now_ns: int) -> int:
        """How many tokens to ask for, by the pace since this was last asked."""
        return block_for(*self.pace(now_ns)) if self._leases_fit else 0

    def quiet_looks(self) -> int:
        """At how many looks in a row, this one included, nothing had been used or asked since the one before."""
        seen = (self.lease, self.lease.left, self.asked)
        self._quiet = self._quiet + 1 if seen == self._seen else 0
        self._seen = seen
        return self._quiet


class Exchange:
    """A request for a hand, as a call, and those whose decisions are in the reply, in the order of its costs.

    Where it is no more than one decision, the call is that of the one who waits, and its answer the decision.
    """

    __slots__ = ("call", "hand", "request", "waiting")

    def __init__(self, hand: CallerHand, request: Request, call: Call, waiting: Sequence[Waiting]) -> None:
        self.hand = hand
        self.request = request
        self.call = call
        self.waiting = waiting

    def decisions(self, reply: Reply) -> Iterator[Decision]:
        """What the store decided, one after the other: each sees what those before it took."""
        levels = [level // TICK_NS for level in reply.full_at_ns]
        for (_, call, _), allowed in zip(self.waiting, reply.allowed, strict=True):
            if allowed:
                debts = [call.cost * (quota.interval_ns // TICK_NS) for quota in self.hand.quotas]
                levels = [level + debt for level, debt in zip(levels, debts, strict=True)]
            yield call.decision(self.hand.key, (allowed, reply.now_ns // TICK_NS, reply.era, *levels))
