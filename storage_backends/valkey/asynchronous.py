"""The limiter of many processes, for a program with an event loop."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from learnflow_core.limiter.decision import Decision, Decisions, Refund, Reset
from storage_backends.valkey.fallback import MAX_BUCKETS
from storage_backends.valkey.nodes import Nodes
from storage_backends.valkey.store import BUDGET_NS, CHUNK, Store, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence
    from types import TracebackType
    from typing import Self

    from learnflow_core.limiter.quota import Quota
    from storage_backends.valkey.calls import Call
    from storage_backends.valkey.fallback import Policy
    from storage_backends.valkey.health import Counts
    from storage_backends.valkey.node import Waiter


class AsyncValkeyLimiter:
    """Token buckets in a Valkey or Redis that many processes share; fulfils `learnflow_core.limiter.Limiter`.

    `url` names a server or a cluster; see `address.locate`. A decision is one round trip, and those asked for in one
    turn of the event loop leave together. It is exact by the store's clock, in microseconds, however many processes
    take from a bucket. `prefix` begins every key that is kept there.

    `hit`, `hit_many` and `peek` never raise because of the store, and never wait for it longer than `budget_ns`
    (25 ms), connecting included: then `fallback` decides, and the decision's `fallback` says so. `open` lets
    everything pass; `closed` nothing; `local` enforces this process's share in memory, the limits divided by
    `processes`, in at most `max_buckets` buckets as `MemoryLimiter` has them. While the store is away it is asked by
    one caller at a time: after 50 ms, after twice as long each time, and once a second in the end. `counts` says what
    happened.

    `refund` answers false when the store cannot be asked. `reset` raises StoreUnavailableError, which is
    a ConnectionError, since a reset must not be pretended. TypeError and ValueError are for nonsense.

    A task that is cancelled while it waits may have taken its tokens. A limiter belongs to the event loop that uses
    it: while that runs, another one gets a RuntimeError, and should have a limiter of its own. A loop after it, and the
    child of a fork, begin with connections of their own. `aclose` answers those who still wait by the policy; whoever
    asks afterwards gets a RuntimeError.
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
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._nodes: Nodes | None = None
        _limiters.add(self)

    @property
    def counts(self) -> Counts:
        """What this limiter has done so far."""
        return self._store.counts

    def hit(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Awaitable[Decision]:
        """Take `cost` tokens from each of the key's quotas, or none from any of them; see `Limiter`."""
        call = self._calls.hit(key, quotas, cost)
        return self._ask(call, key) if call.quotas else self._store.unlimited(call, key)

    def peek(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Awaitable[Decision]:
        """What `hit` would answer now, without taking anything; see `Limiter`."""
        call = self._calls.peek(key, quotas, cost)
        return self._ask(call, key) if call.quotas else self._store.unlimited(call, key)

    async def hit_many(self, keys: Iterable[str], quotas: Sequence[Quota], cost: int = 1) -> Decisions:
        """One `hit` for each of the keys, in their order, sent together; see `Limiter`."""
        call, asked = self._calls.hit_many(keys, quotas, cost)
        if not call.quotas:
            return Decisions([self._store.unlimited(call, key) for key in asked])
        made = Decisions()
        for start in range(0, len(asked), CHUNK):
            waiting = [self._ask(call, key) for key in asked[start : start + CHUNK]]
            made += [await decision for decision in waiting]
        return made

    async def refund(self, decision: Decision) -> Refund:
        """Give back what a decision of this limiter took, once; whether it was still to be given back.

        Returned is what time has not paid back by itself. A reset of the key, a clock found to have stepped back, and
        whatever makes the store forget the key end the refunds of decisions made before. When the store cannot be
        asked, or its answer is lost, the answer is false, and the decision cannot be refunded again.
        """
        asked = self._store.refund(decision)
        if isinstance(asked, Refund):
            return asked
        refund: Refund = await self._ask(asked, decision.key)
        return refund

    async def reset(self, key: str, quotas: Sequence[Quota]) -> Reset:
        """Fill the key's buckets, and end the refunds of the key's decisions made before."""
        done: Reset | None = await self._ask(self._calls.reset(key, quotas), key)
        if done is None:
            raise StoreUnavailableError("the store did not confirm the reset")
        return done

    async def aclose(self) -> None:
        """Answer all that wait by the policy, and close the connections."""
        self._closed = True
        if self._nodes is not None and self._loop is asyncio.get_running_loop():
            nodes, self._nodes, self._loop = self._nodes, None, None
            await nodes.close()
        else:
            self._part()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _ask(self, call: Call, key: str) -> asyncio.Future[Any]:
        waiter = asyncio.get_running_loop().create_future()
        self._put(waiter, call, key)
        return waiter

    def _put(self, waiter: Waiter, call: Call, key: str) -> None:
        loop = asyncio.get_running_loop()
        nodes = self._nodes if loop is self._loop else None
        if nodes is None:
            nodes = self._begin(loop)
        nodes.put(waiter, call, key)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> Nodes:
        if self._closed:
            raise RuntimeError("the limiter is closed")
        self._check_alone()
        self._part()
        self._loop = loop
        self._nodes = Nodes(self._store)
        return self._nodes

    def _check_alone(self) -> None:
        if self._loop is not None and self._loop.is_running():
            raise RuntimeError("the limiter is used by another event loop, which is running")

    def _part(self) -> None:
        """Have the loop before, if it ever runs again, close its connections; those of a closed one are closed with
        its sockets."""
        nodes, loop, self._nodes, self._loop = self._nodes, self._loop, None, None
        if nodes is not None and loop is not None:
            with suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(nodes.end)

    def abandon_connections(self) -> None:
        """In the child of a fork: leave the parent's connections to the parent, and begin anew.

        The loop that has them may not be told to close them, since it would end them for the parent too. So each
        number is given to another file, which closes the child's copy of the socket, and nothing else.
        """
        nodes, self._nodes, self._loop = self._nodes, None, None
        self._store.begin_anew()
        if nodes is not None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for number in nodes.descriptors():
                os.dup2(nowhere, number, inheritable=False)
            os.close(nowhere)


_limiters: WeakSet[AsyncValkeyLimiter] = WeakSet()


def _abandon_all() -> None:
    for limiter in _limiters:
        limiter.abandon_connections()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
