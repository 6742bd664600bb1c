"""What the two clients share: one store with its calls, its policy, its counts, and who may have a refund."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from learnflow_core.limiter.decision import Decision, PlainDecision, Refund
from storage_backends.valkey.address import Address, locate
from storage_backends.valkey.calls import Calls, DecideCall, RefundCall, ValkeyDecision
from storage_backends.valkey.fallback import Fallback, LocalDecision, Policy
from storage_backends.valkey.health import Counts, Health
from storage_backends.valkey.lease_calls import LeaseCall

if TYPE_CHECKING:
    from storage_backends.valkey.calls import Call
    from storage_backends.valkey.cluster import Command

BUDGET_NS: Final = 25_000_000
"""How long a decision waits for the store, making a connection included, unless told otherwise."""

CHUNK: Final = 256
"""So many keys of one call are asked for at once: each chunk has the whole budget, and others get in between."""


class StoreUnavailableError(ConnectionError):
    """The store did not do what must not be pretended: a reset."""


class Store:
    """One store, as its URL and the limiter's options say; see `AsyncValkeyLimiter` for what they mean and raise."""

    def __init__(
        self, url: str, *, fallback: Policy, processes: int, budget_ns: int, prefix: str, max_buckets: int
    ) -> None:
        if type(budget_ns) is not int:
            raise TypeError(f"budget_ns: an int is needed, not {type(budget_ns).__name__}")
        if budget_ns < 1_000_000:
            raise ValueError("budget_ns: it must be at least a millisecond")
        self.location = locate(url)
        self.counts = Counts()
        self.calls = Calls(prefix)
        self.budget_ns = budget_ns
        self._fallback = Fallback(fallback, processes, max_buckets)
        self._lock = threading.Lock()

    def health(self, address: Address) -> Health:
        """The health of one server, about which nothing is known yet."""
        return Health(f"the limiter's store at {address}", self._fallback.policy, self.counts, self.budget_ns)

    def otherwise(self, call: Call | Command, key: str, rest_ns: int) -> object:
        """What is answered without the store, which is asked again in `rest_ns`: None where that cannot be.

        For a request of a holder of leases it is what each of its costs is answered.
        """
        if isinstance(call, DecideCall):
            with self._lock:
                self.counts.by_fallback += 1
            return self._fallback.decide(call, key, rest_ns)
        if isinstance(call, LeaseCall):
            return [self.otherwise(hit, key, rest_ns) for hit in call.hits]
        return Refund(False) if isinstance(call, RefundCall) else None

    def answered(self) -> None:
        """Count an answer of the store."""
        with self._lock:
            self.counts.by_store += 1

    def unlimited(self, call: DecideCall, key: str) -> Decision:
        """The decision over no quotas, for which nobody needs to be asked."""
        receipt = self.calls.own if call.take else None
        return PlainDecision(key, (), call.cost, time.time_ns(), (), allowed=True, receipt=receipt)

    def refund(self, decision: Decision) -> RefundCall | Refund:
        """What to ask the store for, or the answer if it is known without. A decision's receipt is good for one."""
        if isinstance(decision, LocalDecision):
            return self._fallback.refund(decision)
        if not isinstance(decision, ValkeyDecision | PlainDecision):
            return Refund(False)
        with self._lock:
            own = decision.receipt is self.calls.own
            if own:
                decision.receipt = None
        if own and isinstance(decision, ValkeyDecision):
            return self.calls.refund(decision)
        return Refund(own)

    def begin_anew(self) -> None:
        """In the child of a fork: another thread of the parent may have held the lock, and what was decided before the
        fork is the parent's to refund."""
        self._lock = threading.Lock()
        self.calls.disown()
