"""The limiter of many processes that decides from leased tokens, for a program without an event loop."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import ref

from learnflow_core.limiter.decision import Decision, Decisions, Refund, Reset
from learnflow_core.limiter.leases import LeasedDecision
from storage_backends.valkey.blocking import ValkeyLimiter
from storage_backends.valkey.breaker import PAUSE_NS
from storage_backends.valkey.fallback import MAX_BUCKETS
from storage_backends.valkey.hands import WAKE_S, Hands
from storage_backends.valkey.store import BUDGET_NS, CHUNK

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from learnflow_core.limiter.quota import Quota
    from storage_backends.valkey.calls import Call, DecideCall
    from storage_backends.valkey.exchange import CallerHand, Exchange
    from storage_backends.valkey.fallback import Policy


class LeasedValkeyLimiter(ValkeyLimiter):
    """A `ValkeyLimiter` that leases tokens of callers who ask often, and decides from memory while they last.

    It promises what `AsyncLeasedValkeyLimiter` promises, from any thread. The thread that finds a lease running low
    asks for the next one while the others go on; of threads that find nothing in hand, one asks the store for all. What
    is not used goes back by a thread of the limiter's own, which is there while anything is in hand. `close` gives
    everything back.
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
        self._watcher: threading.Thread | None = None

    def hit(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Decision:
        """Take `cost` tokens from each of the key's quotas, or none from any of them; see `Limiter`."""
        decision = self._take(key, quotas, cost)
        if decision is not None:
            return decision
        call = self._calls.hit(key, quotas, cost)
        if not call.quotas:
            return self._store.unlimited(call, key)
        self._check_open()
        hand = self._hands.find(call, key, quotas)
        if hand is not None:
            return self._decide(hand, call)
        made: Decision = self._ask_all(call, [key])[0]
        return made

    def hit_many(self, keys: Iterable[str], quotas: Sequence[Quota], cost: int = 1) -> Decisions:
        """One `hit` for each of the keys, in their order, those for the store sent together; see `Limiter`."""
        call, asked = self._calls.hit_many(keys, quotas, cost)
        if not call.quotas:
            return Decisions([self._store.unlimited(call, key) for key in asked])
        self._check_open()
        made = Decisions()
        for start in range(0, len(asked), CHUNK):
            made += self._decide_many(call, asked[start : start + CHUNK], quotas)
        return made

    def peek(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Decision:
        """What `hit` would answer now, without taking anything; see `Limiter`."""
        call = self._calls.peek(key, quotas, cost)
        if not call.quotas:
            return self._store.unlimited(call, key)
        self._check_open()
        decision: Decision | None = self._hands.peek(call, key)
        return self._ask_all(call, [key])[0] if decision is None else decision

    def refund(self, decision: Decision) -> Refund:
        """Give back what a decision of this limiter took, once; see `AsyncValkeyLimiter.refund`."""
        asked = self._hands.undo(decision) if isinstance(decision, LeasedDecision) else self._store.refund(decision)
        if isinstance(asked, Refund):
            return asked
        refund: Refund = self._ask(asked, decision.key)
        self._exchange_all(self._hands.give_back(decision.key))  # what is known of the buckets is not true any more
        return refund

    def reset(self, key: str, quotas: Sequence[Quota]) -> Reset:
        """Fill the key's buckets; see `AsyncLeasedValkeyLimiter.reset`."""
        self._calls.reset(key, quotas)
        self._check_open()
        self._exchange_all(self._hands.give_back(key))
        return super().reset(key, quotas)

    def close(self) -> None:
        """Give back what is in hand, and close the connections: those in use when they have served."""
        self._closed = True
        for _ in range(2):  # the second time what had been asked for before
            self._exchange_all(self._hands.give_back_all())
        self._hands.forget()
        super().close()

    def abandon_connections(self) -> None:
        """In the child of a fork: nothing is in hand, and the parent's connections are left to the parent."""
        super().abandon_connections()
        self._hands.begin_anew()
        self._watcher = None

    def _decide(self, hand: CallerHand, call: DecideCall) -> Decision:
        """From memory, or by the store, which is asked by one thread for all that wait; within the budget."""
        until = self._until()
        waiter = _Waiter()
        decision = self._hands.wait(hand, call, waiter)
        return self._decided(hand, call, waiter, until) if decision is None else decision

    def _decided(self, hand: CallerHand, call: DecideCall, waiter: _Waiter, until: int) -> Decision:
        """What comes of waiting."""
        self._watch()
        left_s = max(0, until - time.monotonic_ns()) / 1e9
        if not waiter.done() and hand.turn.acquire(timeout=left_s):
            try:
                while not waiter.done() and (exchange := self._hands.closing(hand)):
                    self._exchange_all([*self._hands.give_back(hand.key, but=hand), exchange], until)
            finally:
                hand.turn.release()
        if waiter.decision is None:
            self._hands.give_up(hand, waiter)
            return self._without(call, hand.key)
        return waiter.decision

    def _decide_many(self, call: DecideCall, keys: list[str], quotas: Sequence[Quota]) -> list[Decision]:
        """The same for many keys, of whom those that have no hand are asked for in the same write."""
        until = self._until()
        hands = {key: self._hands.find(call, key, quotas) for key in keys}
        waiters = [(hand, _Waiter()) for hand in map(hands.get, keys)]
        for hand, waiter in waiters:
            if hand and (decision := self._hands.wait(hand, call, waiter)):
                waiter.decision = decision  # else another thread may have it answered by now
        waited_for = [hand for hand in hands.values() if hand is not None and hand.waiting]
        turns = [hand for hand in waited_for if hand.turn.acquire(blocking=False)]
        try:
            asked = [exchange for hand in turns if (exchange := self._hands.closing(hand))]
            rare = iter(self._ask_all(call, [key for key in keys if hands[key] is None], asked, until))
        finally:
            for hand in turns:
                hand.turn.release()
        return [self._decided(hand, call, waiter, until) if hand else next(rare) for hand, waiter in waiters]

    def _until(self) -> int:
        return time.monotonic_ns() + self._store.budget_ns

    def _without(self, call: DecideCall, key: str) -> Decision:
        decision = self._store.otherwise(call, key, PAUSE_NS)
        assert isinstance(decision, Decision)
        return decision

    def _ask_all(
        self, call: Call, keys: list[str], exchanges: Sequence[Exchange] = (), until: int | None = None
    ) -> list[Any]:
        """What the store answers to the call for each of the keys, after having back what was in hand for them."""
        before = [back for key in dict.fromkeys(keys) for back in self._hands.give_back(key)] + list(exchanges)
        asked = [(exchange.call, exchange.hand.key) for exchange in before]
        answers = self._servers.ask_many([*asked, *((call, key) for key in keys)], until)
        self._take_in(before, answers[: len(before)])
        return answers[len(before) :]

    def _exchange_all(self, exchanges: Sequence[Exchange], until: int | None = None) -> None:
        if exchanges:
            asked = [(exchange.call, exchange.hand.key) for exchange in exchanges]
            self._take_in(exchanges, self._servers.ask_many(asked, until))

    def _take_in(self, exchanges: Sequence[Exchange], answers: Sequence[object]) -> None:
        for exchange, answer in zip(exchanges, answers, strict=True):
            for waiter, decision in self._hands.take_in(exchange, answer):
                waiter.decision = decision

    def _renew(self, hand: CallerHand) -> None:
        """Ask for the next block; other threads go on from memory meanwhile."""
        if hand.turn.acquire(blocking=False):
            try:
                exchange = self._hands.renewal(hand)
                self._exchange_all([exchange] if exchange else [])
            finally:
                hand.turn.release()

    def _watch(self) -> None:
        """Look after the hands as long as there are any."""
        if self._watcher is None or not self._watcher.is_alive():
            self._watcher = threading.Thread(target=_look_after, args=(ref(self),), daemon=True)
            with suppress(RuntimeError):  # the interpreter is about to end, and with it the need
                self._watcher.start()

    def look(self) -> bool:
        """Give back what is not used; whether there is anything left to look after."""
        for exchange in self._hands.look():
            try:
                self._exchange_all([exchange])
            finally:
                exchange.hand.turn.release()
        if not len(self._hands):
            self._watcher = None
        return len(self._hands) > 0


class _Waiter:
    """A thread that waits for a decision."""

    __slots__ = ("decision",)

    def __init__(self) -> None:
        self.decision: Decision | None = None

    def done(self) -> bool:
        """Whether there is one."""
        return self.decision is not None


def _look_after(watched: ref[LeasedValkeyLimiter]) -> None:
    limiter = watched()
    while limiter is not None and limiter.look():
        del limiter
        time.sleep(WAKE_S)
        limiter = watched()
