"""The limiter of many processes, for a program without an event loop."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from learnflow_core.limiter.decision import Decision, Decisions, Refund, Reset
from storage_backends.valkey.fallback import MAX_BUCKETS
from storage_backends.valkey.servers import Servers
from storage_backends.valkey.store import BUDGET_NS, CHUNK, Store, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType
    from typing import Self

    from learnflow_core.limiter.quota import Quota
    from storage_backends.valkey.calls import Call
    from storage_backends.valkey.fallback import Policy
    from storage_backends.valkey.health import Counts


class ValkeyLimiter:
    """Token buckets in a Valkey or Redis that many processes share, for threads and plain programs.

    It promises what `AsyncValkeyLimiter` promises, and shares its buckets with it. Every method answers at once with
    the result itself, from any thread; each thread that is waiting has a connection, and connections are used again.
    `close` closes those that are not in use; whoever asks afterwards gets a RuntimeError. The child of a fork begins
    with connections of its own.
    """

    implementation = "valkey"

    def __init__(
        self,
        url: str,
        *,
        fallback: Policy = "local",
        processes: int = 1,
        budget_ns: int = BUDGET_NS,
        prefix: str = "limiter:",
        max_buckets: int = MAX_BUCKETS,
    ) -> None:
        self._store = Store(
            url,
            fallback=fallback,
            processes=processes,
            budget_ns=budget_ns,
            prefix=prefix,
            max_buckets=max_buckets,
        )
        self._calls = self._store.calls
        self._servers = Servers(self._store)
        self._closed = False
        _limiters.add(self)

    @property
    def counts(self) -> Counts:
        """What this limiter has done so far."""
        return self._store.counts

    def hit(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Decision:
        """Take `cost` tokens from each of the key's quotas, or none from any of them; see `Limiter`."""
        call = self._calls.hit(key, quotas, cost)
        decision: Decision = self._ask(call, key) if call.quotas else self._store.unlimited(call, key)
        return decision

    def peek(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Decision:
        """What `hit` would answer now, without taking anything; see `Limiter`."""
        call = self._calls.peek(key, quotas, cost)
        decision: Decision = self._ask(call, key) if call.quotas else self._store.unlimited(call, key)
        return decision

    def hit_many(self, keys: Iterable[str], quotas: Sequence[Quota], cost: int = 1) -> Decisions:
        """One `hit` for each of the keys, in their order, sent together; see `Limiter`."""
        call, asked = self._calls.hit_many(keys, quotas, cost)
        if not call.quotas:
            return Decisions([self._store.unlimited(call, key) for key in asked])
        self._check_open()
        made = Decisions()
        for start in range(0, len(asked), CHUNK):
            made += self._servers.ask_many([(call, key) for key in asked[start : start + CHUNK]])
        return made

    def refund(self, decision: Decision) -> Refund:
        """Give back what a decision of this limiter took, once; see `AsyncValkeyLimiter.refund`."""
        asked = self._store.refund(decision)
        if isinstance(asked, Refund):
            return asked
        refund: Refund = self._ask(asked, decision.key)
        return refund

    def reset(self, key: str, quotas: Sequence[Quota]) -> Reset:
        """Fill the key's buckets; see `AsyncValkeyLimiter.reset`."""
        done: Reset | None = self._ask(self._calls.reset(key, quotas), key)
        if done is None:
            raise StoreUnavailableError("the store did not confirm the reset")
        return done

    def close(self) -> None:
        """Close the connections: those in use when they have served."""
        self._closed = True
        self._servers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def abandon_connections(self) -> None:
        """In the child of a fork: leave the parent's connections to the parent, and begin anew."""
        self._store.begin_anew()
        self._servers.abandon()

    def _ask(self, call: Call, key: str) -> Any:
        self._check_open()
        return self._servers.ask(call, key)

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the limiter is closed")


_limiters: WeakSet[ValkeyLimiter] = WeakSet()


def _abandon_all() -> None:
    for limiter in _limiters:
        limiter.abandon_connections()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
