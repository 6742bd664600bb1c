"""What a process has in hand of its callers' tokens, and what it asks of the store for them; no I/O, any thread.

docs/leases.md has the rules, `learnflow_core.limiter.leases` what one hand does. Here is who has a hand, what is
decided from it, who waits for the store, and when what is not used goes back.
"""

from __future__ import annotations

import os
import time
from collections import deque
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from learnflow_core.limiter.decision import Decision, Refund
from learnflow_core.limiter.leases import TERM_NS, LeasedDecision, Reply
from storage_backends.valkey.exchange import CallerHand, Exchange, Waiting
from storage_backends.valkey.lease_calls import LeaseCall
from storage_backends.valkey.recent import Recent
from storage_backends.valkey.store import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from learnflow_core.limiter.leases import Request
    from learnflow_core.limiter.quota import Quota
    from storage_backends.valkey.calls import DecideCall, RefundCall
    from storage_backends.valkey.store import Store

LOOK_NS: Final = TERM_NS // 16
"""How often a hand is looked at, so that what may not be used any more is given back well before the store ends it."""

WAKE_S: Final = LOOK_NS / 4e9
"""How often to see whose turn it is to be looked at, so that not all are looked at together."""

QUIET_LOOKS: Final = 4
"""After so many looks at which nothing had been used everything is given back; a hand that is empty is dropped."""

MAX_HANDS: Final = 16_384
"""So many callers have hands; those beyond are decided in the store, as by a limiter without leases."""

_PLANS = 1_024
_ONE = 1
_TURN = "turn"
_make = object.__new__

boot_clock: Final[Callable[[], int]] = (
    partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic_ns
)
"""A clock that never steps and, where there is one, goes on while the machine sleeps."""


class _Alone:
    """A lock that is free while its one entry is there; see `MemoryLimiter`, whose hot path has the same."""

    __slots__ = ("free",)

    def __init__(self) -> None:
        self.free = {_TURN: True}

    def __enter__(self) -> None:
        while self.free.pop(_TURN, None) is None:
            time.sleep(0)

    def __exit__(self, *_: object) -> None:
        self.free[_TURN] = True


_Told: TypeAlias = list[tuple[Any, Decision]]
_Table: TypeAlias = dict[str, CallerHand]
_NO_TABLE: tuple[Sequence[Quota], _Table] = ((), {})


class Hands:
    """The hands of one limiter. `take` decides; where it cannot, `find` the hand, and `wait` for what is asked for it.

    `on_low` is told of a hand whose lease is running low; `renewal` says what to ask for it then.
    """

    def __init__(self, store: Store, on_low: Callable[[CallerHand], None]) -> None:
        self.clock = boot_clock
        self._store = store
        self._counts = store.counts
        self._on_low = on_low
        self.begin_anew()

    def begin_anew(self) -> None:
        """Nothing is in hand, and the names of leases are new: in the child of a fork, who has no lease."""
        self._name = os.urandom(8).hex()
        self._made = count(1)
        self._alone = _Alone()
        self._free = self._alone.free
        self.forget()

    def forget(self) -> None:
        """Drop every hand. What was in it comes back when its leases end."""
        self._tables: dict[Sequence[Quota], _Table] = {}
        self._given: dict[int, tuple[Sequence[Quota], _Table]] = {}
        self._current: tuple[Sequence[Quota], _Table] = _NO_TABLE
        self._looks: deque[tuple[int, CallerHand]] = deque()
        self._recent = Recent()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._looks)

    def take(self, key: str, quotas: Sequence[Quota], cost: int) -> LeasedDecision | None:
        """Decide from memory; None where the store is to be asked, or for nonsense."""
        given, hands = self._current
        if quotas is not given:
            hands = self._hands_of(quotas)
        if cost is not _ONE and (type(cost) is not int or cost < 1):
            return None
        hand = hands.get(key)
        if hand is None:
            return None
        free = self._free
        while True:  # as in _Alone; it and _decision() are written out, since calls cost time
            try:
                del free[_TURN]
            except KeyError:
                time.sleep(0)
            else:
                break
        try:
            now_ns = self.clock()
            lease = hand.lease
            left = lease.left - cost
            if left < 0 or now_ns >= lease.stop_ns:
                if not hand.spend(cost, now_ns):
                    return None
                lease = hand.lease
                left = lease.left
            else:
                lease.left = left
            self._counts.by_lease += 1
            decision = LeasedDecision()
            decision.key = key
            decision.quotas = hand.quotas
            decision.cost = cost
            decision.receipt = lease
            decision.clock_ns = now_ns
            decision.in_hand = left + hand.aside
            decision.shared = hand.shared
        finally:
            free[_TURN] = True
        if left <= lease.low:
            self._on_low(hand)
        return decision

    def _hands_of(self, quotas: Sequence[Quota]) -> _Table:
        """The table of a plan that is remembered by its identity, as the last one asked for."""
        found = self._given.get(id(quotas))
        if found is None or found[0] is not quotas:
            return {}
        self._current = found
        return found[1]

    def find(self, call: DecideCall, key: str, quotas: Sequence[Quota]) -> CallerHand | None:
        """The caller's hand under the plan, `quotas` as it was given; none for one who is rare."""
        with self._alone:
            hands = self._tables.get(call.quotas)
            hand = hands.get(key) if hands else None
            if hand is None:
                return self._open(call.quotas, key)
            if type(quotas) is tuple and hands is not None:
                if len(self._given) >= _PLANS:
                    self._given.clear()
                self._given[id(quotas)] = self._current = (quotas, hands)
            return hand

    def _open(self, quotas: Sequence[Quota], key: str) -> CallerHand | None:
        """A new hand for a caller who was seen lately."""
        now_ns = self.clock()
        if not self._recent.has_seen(key, now_ns) or len(self._looks) >= MAX_HANDS:
            return None
        hand = self._tables.setdefault(quotas, {})[key] = CallerHand(key, quotas)
        self._looks.append((now_ns + LOOK_NS, hand))
        return hand

    def wait(self, hand: CallerHand, call: DecideCall, waiter: object) -> LeasedDecision | None:
        """The decision from memory or, if there is none, a place in the line of those who wait."""
        with self._alone:
            now_ns = self.clock()
            if not hand.spend(call.cost, now_ns):
                hand.waiting.append(Waiting(waiter, call, now_ns))
                return None
            self._counts.by_lease += 1
            return self._decision(hand, call.cost, now_ns)

    def give_up(self, hand: CallerHand, waiter: object) -> None:
        """Leave the line, if one is still in it."""
        with self._alone:
            hand.waiting = [waiting for waiting in hand.waiting if waiting.waiter is not waiter]

    def peek(self, call: DecideCall, key: str) -> LeasedDecision | None:
        """What `take` would answer, without taking anything."""
        with self._alone:
            now_ns = self.clock()
            hand = self._tables.get(call.quotas, {}).get(key)
            if hand is None or not hand.has(call.cost, now_ns):
                return None
            decision = self._decision(hand, call.cost, now_ns)
            decision.receipt = None
            return decision

    def _decision(self, hand: CallerHand, cost: int, now_ns: int) -> LeasedDecision:
        decision = _make(LeasedDecision)
        decision.key = hand.key
        decision.quotas = hand.quotas
        decision.cost = cost
        decision.receipt = hand.lease
        decision.clock_ns = now_ns
        decision.in_hand = hand.lease.left + hand.aside
        decision.shared = hand.shared
        return decision

    def undo(self, decision: LeasedDecision) -> RefundCall | Refund:
        """Put back in hand what a decision took; where that cannot be, what to ask of the store, once."""
        with self._alone:
            lease = decision.receipt
            if lease is None or not lease.id.startswith(self._name):
                return Refund(False)
            decision.receipt = None
            if lease.undo(decision.cost, self.clock()):
                return Refund(True)
        return self._store.calls.refund(decision)

    def renewal(self, hand: CallerHand) -> Exchange | None:
        """Ask for the next block; nothing where the pace does not need one, or it has been asked for."""
        with self._alone:
            now_ns = self.clock()
            if hand.lease.left > hand.lease.low:
                return None
            block = hand.next_block(now_ns)
            if not block:
                hand.renewal_failed()
                return None
            return self._exchange(hand, hand.renewal(self._next_id(), block, now_ns))

    def closing(self, hand: CallerHand) -> Exchange | None:
        """Have the store decide for those who wait, if any do: `CHUNK` of them at most, the first in line."""
        with self._alone:
            waiting, hand.waiting = hand.waiting[:CHUNK], hand.waiting[CHUNK:]
            if not waiting:
                return None
            now_ns = self.clock()
            costs = tuple([call.cost for _, call, _ in waiting])
            block = hand.next_block(now_ns)
            return self._exchange(hand, hand.closing(self._next_id(), costs, block, now_ns), waiting)

    def give_back(self, key: str, but: CallerHand | None = None) -> list[Exchange]:
        """Give back all that is in hand for a caller under any plan, so that the store sees it; `but` is left out."""
        with self._alone:
            hands = [table[key] for table in self._tables.values() if key in table]
            return [self._emptied(hand) for hand in hands if hand is not but and hand.leases]

    def give_back_all(self) -> list[Exchange]:
        """Give back everything."""
        with self._alone:
            return [self._emptied(hand) for _, hand in self._looks if hand.leases]

    def look(self) -> list[Exchange]:
        """What to give back now; the turns of those hands are taken. A hand that stays empty is dropped."""
        exchanges = []
        with self._alone:
            now_ns = self.clock()
            while self._looks and self._looks[0][0] <= now_ns:
                _, hand = self._looks.popleft()
                quiet = hand.quiet_looks()
                if hand.turn.acquire(blocking=False):
                    exchange = self._surplus(hand, now_ns, quiet)
                    if exchange is None:
                        hand.turn.release()
                    else:
                        exchanges.append(exchange)
                    if quiet >= QUIET_LOOKS and exchange is None and not hand.waiting:
                        self._drop(hand)
                        continue
                self._looks.append((now_ns + LOOK_NS, hand))
        return exchanges

    def _surplus(self, hand: CallerHand, now_ns: int, quiet: int) -> Exchange | None:
        if quiet >= QUIET_LOOKS and hand.leases:
            return self._emptied(hand)
        if any(now_ns >= lease.stop_ns for lease in hand.leases):
            return self._exchange(hand, hand.giving_back(self._next_id(), now_ns))
        return None

    def _drop(self, hand: CallerHand) -> None:
        table = self._tables.get(hand.quotas, {})
        table.pop(hand.key, None)
        if not table:
            self._tables.pop(hand.quotas, None)
            self._given.clear()
            self._current = _NO_TABLE

    def take_in(self, exchange: Exchange, answer: object) -> _Told:
        """What those are told who waited: by the reply, by the store's policy, or from memory if there is a block."""
        hand = exchange.hand
        with self._alone:
            now_ns = self.clock()
            decisions: Iterable[Decision]
            if isinstance(answer, Reply):
                hand.receive(hand.quotas, exchange.request, answer, now_ns)
                decisions = exchange.decisions(answer)
            elif isinstance(answer, Decision):
                hand.count(answer.cost * (answer.allowed and answer.fallback is None))
                decisions = [answer]
            else:
                assert isinstance(answer, list)
                hand.renewal_failed()
                decisions = answer
            told: _Told = []
            if exchange.waiting:  # unless they were told meanwhile, since it took too long
                told += [(one.waiter, made) for one, made in zip(exchange.waiting, decisions, strict=True)]
            while hand.waiting and hand.spend(hand.waiting[0].call.cost, now_ns):
                one = hand.waiting.pop(0)
                self._counts.by_lease += 1
                told.append((one.waiter, self._decision(hand, one.call.cost, now_ns)))
        return told

    def everyone(self) -> list[CallerHand]:
        """Every hand there is."""
        with self._alone:
            return [hand for _, hand in self._looks]

    def _emptied(self, hand: CallerHand) -> Exchange:
        now_ns = self.clock()
        return self._exchange(hand, hand.closing(self._next_id(), (), 0, now_ns))

    def _exchange(self, hand: CallerHand, request: Request, waiting: Sequence[Waiting] = ()) -> Exchange:
        hand.asked += 1
        calls = self._store.calls
        hits = [call for _, call, _ in waiting]
        if len(hits) == 1 and not request.block and not request.settlements:
            return Exchange(hand, request, hits[0], waiting)
        call = LeaseCall(calls.prefix, calls.scripts.lease, hand.quotas, request, hits)
        return Exchange(hand, request, call, waiting)

    def _next_id(self) -> str:
        return f"{self._name}.{next(self._made):x}"
