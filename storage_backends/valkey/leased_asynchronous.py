"""The limiter of many processes that decides from leased tokens, for a program with an event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from learnflow_core.limiter.decision import Decision, Decisions, Refund, Reset
from learnflow_core.limiter.leases import LeasedDecision
from storage_backends.valkey.asynchronous import AsyncValkeyLimiter
from storage_backends.valkey.breaker import PAUSE_NS
from storage_backends.valkey.fallback import MAX_BUCKETS
from storage_backends.valkey.hands import WAKE_S, Hands
from storage_backends.valkey.store import BUDGET_NS, CHUNK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from learnflow_core.limiter.quota import Quota
    from storage_backends.valkey.calls import Call, RefundCall
    from storage_backends.valkey.exchange import CallerHand, Exchange
    from storage_backends.valkey.fallback import Policy
    from storage_backends.valkey.nodes import Nodes


class AsyncLeasedValkeyLimiter(AsyncValkeyLimiter):
    """An `AsyncValkeyLimiter` that leases tokens of callers who ask often, and decides from memory while they last.

    It promises the same, shares its buckets with limiters of the other kind, and takes the same options. A decision
    from memory is a `LeasedDecision`, at once; awaited, it is its own result. Where nothing is in hand for a caller
    the store decides, for all who wait for it together, and sees all tokens but those that other processes have in
    hand. docs/leases.md says what may lie idle meanwhile, and why no more passes than without leases.

    While the store is away, what is in hand is used until its lease ends; then the policy decides. A refund is made in
    memory where the tokens are still in hand. `reset` fills the buckets to what other processes have leased. `peek`
    gives back what is in hand where that does not answer it. `aclose` gives everything back.
    """

    implementation = "valkey-leased"

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
        super().__init__(
            url,
            fallback=fallback,
            processes=processes,
            budget_ns=budget_ns,
            prefix=prefix,
            max_buckets=max_buckets,
        )
        self._hands = Hands(self._store, self._renew)
        self._take = self._hands.take
        self._ready: list[CallerHand] = []
        self._timer: asyncio.TimerHandle | None = None

    def hit(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Awaitable[Decision]:
        """Take `cost` tokens from each of the key's quotas, or none from any of them; see `Limiter`."""
        decision = self._take(key, quotas, cost)
        if decision is not None:
            return decision
        call = self._calls.hit(key, quotas, cost)
        if not call.quotas:
            return self._store.unlimited(call, key)
        loop = self._running_loop()
        hand = self._hands.find(call, key, quotas)
        if hand is None:
            self._give_back(key)
            return self._ask(call, key)
        self._watch(loop)
        waiter = loop.create_future()
        decision = self._hands.wait(hand, call, waiter)
        if decision is not None:
            return decision
        self._soon(loop, hand)
        return waiter

    async def hit_many(self, keys: Iterable[str], quotas: Sequence[Quota], cost: int = 1) -> Decisions:
        """One `hit` for each of the keys, in their order, those for the store sent together; see `Limiter`."""
        _, asked = self._calls.hit_many(keys, quotas, cost)
        made = Decisions()
        for start in range(0, len(asked), CHUNK):
            waiting = [self.hit(key, quotas, cost) for key in asked[start : start + CHUNK]]
            made += [await decision for decision in waiting]
        return made

    def peek(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Awaitable[Decision]:
        """What `hit` would answer now, without taking anything; see `Limiter`."""
        call = self._calls.peek(key, quotas, cost)
        if not call.quotas:
            return self._store.unlimited(call, key)
        decision = self._hands.peek(call, key)
        if decision is not None:
            return decision
        self._give_back(key)
        return self._ask(call, key)

    async def refund(self, decision: Decision) -> Refund:
        """Give back what a decision of this limiter took, once; see `AsyncValkeyLimiter.refund`."""
        asked = self._refund(decision)
        if isinstance(asked, Refund):
            return asked
        refund: Refund = await self._ask(asked, decision.key)
        self._give_back(decision.key)  # what is known of the buckets is not true any more
        return refund

    async def reset(self, key: str, quotas: Sequence[Quota]) -> Reset:
        """Fill the key's buckets, and end the refunds of this limiter's decisions made before."""
        self._calls.reset(key, quotas)
        self._give_back(key)
        return await super().reset(key, quotas)

    async def aclose(self) -> None:
        """Answer all that wait by the policy, give back what is in hand, and close the connections."""
        self._closed = True
        self._ready.clear()
        for hand in self._hands.everyone():
            self._answer_without(hand)
        if self._nodes is not None and self._loop is asyncio.get_running_loop():
            for _ in range(2):  # the second time what had been asked for before
                await asyncio.gather(*map(self._have_back, self._hands.give_back_all()))
        self._hands.forget()
        await super().aclose()

    def abandon_connections(self) -> None:
        """In the child of a fork: nothing is in hand, and the parent's connections are left to the parent."""
        super().abandon_connections()
        self._hands.begin_anew()
        self._ready.clear()
        self._timer = None

    def _refund(self, decision: Decision) -> RefundCall | Refund:
        return self._hands.undo(decision) if isinstance(decision, LeasedDecision) else self._store.refund(decision)

    async def _have_back(self, back: Exchange) -> None:
        await super()._ask(back.call, back.hand.key)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        """The loop, if the limiter is open."""
        if self._closed:
            raise RuntimeError("the limiter is closed")
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._begin(loop)
        return loop

    def _begin(self, loop: asyncio.AbstractEventLoop) -> Nodes:
        """In another loop than before nothing is in hand, nor under way."""
        self._check_alone()
        self._hands.forget()
        self._ready.clear()
        self._timer = None
        return super()._begin(loop)

    def _ask(self, call: Call, key: str) -> asyncio.Future[Any]:
        self._running_loop()
        return super()._ask(call, key)

    def _soon(self, loop: asyncio.AbstractEventLoop, hand: CallerHand) -> None:
        """Ask the store at the end of this turn of the loop, for all who wait by then; unless it is being asked."""
        if hand.turn.acquire(blocking=False):
            if not self._ready:
                loop.call_soon(self._send)
            self._ready.append(hand)

    def _send(self) -> None:
        ready = self._ready[:]
        self._ready.clear()
        for hand in ready:
            self._give_back(hand.key, but=hand)
            exchange = self._hands.closing(hand)
            if exchange is None:
                hand.turn.release()
            else:
                self._limit_the_wait(exchange)
                self._carry(exchange, self._answered)

    def _limit_the_wait(self, exchange: Exchange) -> None:
        """Who waited behind another request has less than the budget left, which the connection does not know."""
        waited_ns = exchange.request.asked_ns - exchange.waiting[0].since_ns
        if waited_ns > self._store.budget_ns // 16:
            left_s = (self._store.budget_ns - waited_ns) / 1e9
            asyncio.get_running_loop().call_later(left_s, self._expire, exchange)

    def _expire(self, exchange: Exchange) -> None:
        waiting, exchange.waiting = exchange.waiting, ()
        for waiter, call, _ in waiting:
            if not waiter.done():
                waiter.set_result(self._store.otherwise(call, exchange.hand.key, PAUSE_NS))

    def _renew(self, hand: CallerHand) -> None:
        """Ask for the next block, in the background."""
        if self._closed:
            return
        self._running_loop()
        if hand.turn.acquire(blocking=False):
            exchange = self._hands.renewal(hand)
            if exchange is None:
                hand.turn.release()
            else:
                self._carry(exchange, self._answered)

    def _give_back(self, key: str, but: CallerHand | None = None) -> None:
        for exchange in self._hands.give_back(key, but):
            self._carry(exchange, self._tell)

    def _carry(self, exchange: Exchange, then: Callable[[Exchange, object], None]) -> None:
        self._put(_Carried(exchange, then), exchange.call, exchange.hand.key)

    def _answered(self, exchange: Exchange, answer: object) -> None:
        """The answer to a request that had the turn."""
        self._tell(exchange, answer)
        hand = exchange.hand
        hand.turn.release()
        if hand.waiting and self._closed:
            self._answer_without(hand)
        elif hand.waiting:
            self._soon(asyncio.get_running_loop(), hand)

    def _tell(self, exchange: Exchange, answer: object) -> None:
        for waiter, decision in self._hands.take_in(exchange, answer):
            if not waiter.done():
                waiter.set_result(decision)

    def _answer_without(self, hand: CallerHand) -> None:
        waiting, hand.waiting = hand.waiting, []
        for waiter, call, _ in waiting:
            if not waiter.done():
                waiter.set_result(self._store.otherwise(call, hand.key, PAUSE_NS))

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look after the hands as long as there are any."""
        if self._timer is None and len(self._hands):
            self._timer = loop.call_later(WAKE_S, self._look)

    def _look(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            for exchange in self._hands.look():
                self._carry(exchange, self._answered)
            self._watch(loop)


class _Carried:
    """Waits for the answer to a request, and passes it on, once."""

    __slots__ = ("_exchange", "_is_done", "_then")

    def __init__(self, exchange: Exchange, then: Callable[[Exchange, object], None]) -> None:
        self._exchange = exchange
        self._then = then
        self._is_done = False

    def done(self) -> bool:
        return self._is_done

    def set_result(self, answer: Any, /) -> None:
        self._is_done = True
        self._then(self._exchange, answer)
