"""Leases as a model: a shared bucket with leases, processes with clocks of their own, and whoever is against them.

`ClassicBucket` says what is meant, in tokens and exact fractions. `IntegerBucket` is the same in the integers that the
store keeps, with each of its rules to be left out. A `World` has a store, holders, and what is under way between them;
its methods are what an adversary can do. What the holders do is the limiter's own code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple, Protocol

from learnflow_core.limiter import Quota
from learnflow_core.limiter.leases import LEAST, TERM_NS, USABLE_NS, Hand, Lease, Reply, Request, Settlement


class Buckets(Protocol):
    """A store, seen by one caller under one plan: it does what a `Request` says, at an instant of its clock."""

    def run(self, request: Request, now: int) -> Reply: ...

    def flush(self) -> None: ...


class ClassicBucket:
    """The token bucket of the textbooks, which refills only to what its leases leave."""

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.tokens = Fraction(quota.burst)
        self.at = 0
        self.leases: dict[str, tuple[int, int]] = {}

    @property
    def full_at(self) -> int:
        full_at = self.at + (self.quota.burst - self.tokens) * self.quota.interval_ns
        assert full_at.denominator == 1
        return int(full_at)

    def refill(self, now: int) -> None:
        room = self.quota.burst - sum(tokens for tokens, _ in self.leases.values())
        self.tokens = min(Fraction(room), self.tokens + self._flowed(now))
        self.at = now

    def _flowed(self, now: int) -> Fraction:
        return Fraction(now - self.at, self.quota.interval_ns)

    def step_back(self, now: int) -> None:
        """The clock went back to `now`: nobody owes longer than one filling, no lease lasts longer than its term."""
        self.tokens = max(self.tokens + self._flowed(now), Fraction(self.quota.burst - self.quota.limit))
        self.at = now
        self.leases = {name: (tokens, min(end, now + TERM_NS)) for name, (tokens, end) in self.leases.items()}

    def settle(self, now: int) -> None:
        if now < self.at:
            self.step_back(now)
        for name, (_, end) in sorted(self.leases.items(), key=lambda item: item[1][1]):
            if end <= now:
                self.refill(end)
                del self.leases[name]
        self.refill(now)

    def tell(self, settlement: Settlement) -> bool:
        name, left, final = settlement
        if name not in self.leases:
            return False
        tokens, end = self.leases[name]
        self.leases[name] = (min(tokens, left), end)
        if final:
            self.tokens += self.leases.pop(name)[0]
        return True

    def take(self, tokens: int) -> None:
        self.tokens -= tokens

    def may_lease(self, name: str, share: int) -> int:
        return 0 if name in self.leases else int(self.tokens) // share

    def lease(self, name: str, tokens: int) -> None:
        self.tokens -= tokens
        self.leases[name] = (tokens, self.at + TERM_NS)


class IntegerRules(NamedTuple):
    """The store's rules; the model is run with each of them left out."""

    floor: bool = True
    floor_before_a_report: bool = True
    floor_at_the_end: bool = True
    floor_for_each_end: bool = True
    ends_in_order: bool = True
    only_known_leases: bool = True
    one_lease_of_a_name: bool = True


class IntegerBucket:
    """The same as the store keeps it: the instant at which it is full again, and of each lease its debt and its end."""

    def __init__(self, quota: Quota, rules: IntegerRules) -> None:
        self.quota = quota
        self.rules = rules
        self.full_at = 0
        self.at = 0
        self.leases: dict[str, tuple[int, int]] = {}

    @property
    def held(self) -> int:
        return sum(debt for debt, _ in self.leases.values())

    @property
    def tokens(self) -> Fraction:
        return Fraction(self.quota.capacity_ns - (self.full_at - self.at), self.quota.interval_ns)

    def floor(self, now: int) -> None:
        if self.rules.floor:
            self.full_at = max(self.full_at, now + self.held)

    def settle(self, now: int) -> None:
        self.full_at = min(self.full_at, now + self.quota.longest_ns)
        self.leases = {name: (debt, min(end, now + TERM_NS)) for name, (debt, end) in self.leases.items()}
        ends = sorted((end, name) for name, (_, end) in self.leases.items() if end <= now)
        if not self.rules.floor_for_each_end and ends:
            self.floor(ends[0][0])
        for end, name in ends if self.rules.ends_in_order else reversed(ends):
            if self.rules.floor_at_the_end and self.rules.floor_for_each_end:
                self.floor(end)
            del self.leases[name]
        self.full_at = max(self.full_at, now)
        if self.rules.floor_before_a_report:
            self.floor(now)
        self.at = now

    def tell(self, settlement: Settlement) -> bool:
        name, left, final = settlement
        debt = left * self.quota.interval_ns
        if name in self.leases:
            self.leases[name] = (min(debt, self.leases[name][0]), self.leases[name][1])
            debt = self.leases[name][0]
        elif self.rules.only_known_leases:
            return False
        if final:
            self.leases.pop(name, None)
            self.full_at -= debt
        return True

    def take(self, tokens: int) -> None:
        self.floor(self.at)
        self.full_at = max(self.full_at, self.at) + tokens * self.quota.interval_ns

    def may_lease(self, name: str, share: int) -> int:
        made_before = name in self.leases and self.rules.one_lease_of_a_name
        return 0 if made_before else int(self.tokens) // share

    def lease(self, name: str, tokens: int) -> None:
        self.take(tokens)
        self.leases[name] = (tokens * self.quota.interval_ns, self.at + TERM_NS)


class ModelStore:
    """Buckets of either kind, doing what a request says: the order of the steps is written here once for both."""

    def __init__(self, new_buckets: Callable[[], Sequence[ClassicBucket | IntegerBucket]]) -> None:
        self._new_buckets = new_buckets
        self.flush()

    def flush(self) -> None:
        self.buckets = self._new_buckets()

    def run(self, request: Request, now: int) -> Reply:
        for bucket in self.buckets:
            bucket.settle(now)
        known = [self._tell(settlement) for settlement in request.settlements]
        full_at = [bucket.full_at for bucket in self.buckets]
        allowed = [self._take(cost) for cost in request.costs]
        blocks = [bucket.may_lease(request.lease, request.share) for bucket in self.buckets]
        block = min(request.block, *blocks)
        block = block if block >= LEAST else 0
        if block:
            for bucket in self.buckets:
                bucket.lease(request.lease, block)
        return Reply(now, full_at, known, allowed, block)

    def _tell(self, settlement: Settlement) -> bool:
        told = {bucket.tell(settlement) for bucket in self.buckets}
        assert len(told) == 1
        return told.pop()

    def _take(self, cost: int) -> bool:
        allowed = all(bucket.tokens >= cost for bucket in self.buckets)
        if allowed:
            for bucket in self.buckets:
                bucket.take(cost)
        return allowed


def classic(plan: Sequence[Quota]) -> ModelStore:
    return ModelStore(lambda: [ClassicBucket(quota) for quota in plan])


def integer(plan: Sequence[Quota], rules: IntegerRules = IntegerRules()) -> ModelStore:  # noqa: B008 - it is immutable
    return ModelStore(lambda: [IntegerBucket(quota, rules) for quota in plan])


class LocalClock:
    """A process's own clock: it began anywhere, runs at a rate of its own, and may stand still in sleep."""

    def __init__(self, rate: Fraction = Fraction(1), began: int = 0, *, stands_in_sleep: bool = False) -> None:
        self._rate = rate
        self._began = began
        self._stands_in_sleep = stands_in_sleep
        self._slept = 0

    def sleep(self, duration: int) -> None:
        self._slept += duration * self._stands_in_sleep

    def at(self, now: int) -> int:
        return self._began + int((now - self._slept) * self._rate)


@dataclass(eq=False)
class Holder:
    """A process: its clock, what it has in hand, and the requests whose replies it waits for."""

    name: str
    clock: LocalClock = field(default_factory=LocalClock)
    hand: Hand = field(default_factory=Hand)
    asked: int = 0
    waiting: set[str] = field(default_factory=set)

    def next_id(self) -> str:
        self.asked += 1
        return f"{self.name}.{self.asked}"


class Message(NamedTuple):
    """A request under way to the store, or a reply to it under way back."""

    holder: Holder
    request: Request
    reply: Reply | None = None


@dataclass(eq=False)
class Pass:
    """An admission: when, how many tokens, and of which lease if it was from memory."""

    instant: int
    cost: int
    lease: Lease | None = None


@dataclass(eq=False)
class Filling:
    """The store lost or forgave everything at this instant, while so many tokens were in hand."""

    instant: int
    in_hand: int


class World:
    """A store and its holders under one plan, and everything an adversary can do to them.

    Nothing arrives, is repeated, or passes unless a method is called; a process whose methods are not called is paused,
    or dead. Time is the store's, whose clock has stepped by `step` so far. `history` has all that was admitted; a
    request that the store admits counts from then on, whether or not its reply arrives.
    """

    def __init__(self, plan: Sequence[Quota], store: Buckets, *, share: int = 1) -> None:
        self.plan = plan
        self.store = store
        self.share = share
        self.now = 10_000 * TERM_NS  # Unix time: whatever steps back stays above zero
        self.step = 0
        self.history: list[Pass | Filling] = []
        self.under_way: list[Message] = []
        self.leased: dict[str, int] = {}
        self.holders: list[Holder] = []

    def holder(self, holder: Holder) -> Holder:
        self.holders.append(holder)
        return holder

    def sleep(self, duration: int) -> None:
        """Time passes while every machine sleeps but the store's."""
        for holder in self.holders:
            holder.clock.sleep(duration)
        self.now += duration

    def ask(self, holder: Holder, costs: tuple[int, ...] = (), block: int = 0, *, close: bool = False) -> Message:
        """The holder sends a request: one that has costs, or is to close, gives everything back first."""
        now = holder.clock.at(self.now)
        if costs or close:
            request = holder.hand.closing(holder.next_id(), costs, block, now)
        else:
            request = holder.hand.renewal(holder.next_id(), block, now)
        return self._leaving(holder, request)

    def give_back(self, holder: Holder) -> Message:
        """The holder sends back what it may not use any more."""
        return self._leaving(holder, holder.hand.giving_back(holder.next_id(), holder.clock.at(self.now)))

    def _leaving(self, holder: Holder, request: Request) -> Message:
        holder.waiting.add(request.lease)
        return Message(holder, request._replace(share=self.share))

    def arrive(self, message: Message) -> Message:
        """A request reaches the store, for the first time or again; the answer is under way."""
        reply = self.store.run(message.request, self.now + self.step)
        for cost, allowed in zip(message.request.costs, reply.allowed, strict=True):
            if allowed:
                self.history.append(Pass(self.now, cost))
        answered = message._replace(reply=reply)
        self.under_way.append(answered)
        if reply.block:
            self.leased[message.request.lease] = reply.block
        return answered

    def land(self, message: Message) -> None:
        """A reply reaches the holder, who takes in one to each request."""
        holder, request, reply = message
        assert reply
        self.under_way = [other for other in self.under_way if other.request.lease != request.lease]
        if request.lease in holder.waiting:
            holder.waiting.remove(request.lease)
            holder.hand.receive(self.plan, request, reply, holder.clock.at(self.now))

    def exchange(self, holder: Holder, costs: tuple[int, ...] = (), block: int = 0, *, close: bool = False) -> None:
        """A request and its reply without delay."""
        self.land(self.arrive(self.ask(holder, costs, block, close=close)))

    def spend(self, holder: Holder, cost: int = 1) -> bool:
        """The holder decides from memory, if it can."""
        spent = holder.hand.spend(cost, holder.clock.at(self.now))
        if spent:
            self.history.append(Pass(self.now, cost, holder.hand.lease))
        return spent

    def undo(self, holder: Holder, made: Pass | Filling) -> None:
        """The holder takes a decision of its own back, if it can in memory."""
        if isinstance(made, Pass) and made.lease and made.lease.undo(made.cost, holder.clock.at(self.now)):
            self.history.remove(made)

    def drain(self) -> None:
        """Everyone takes what there is, from memory and then from the store."""
        for holder in self.holders:
            while self.spend(holder):
                pass
        stranger = Holder("stranger")
        self.exchange(stranger, costs=(1,) * max(quota.burst for quota in self.plan))

    def step_clock(self, step: int) -> None:
        """The store's clock steps; ahead, the buckets may be full at once."""
        self.step += step
        if step > 0:
            self._fill()

    def flush(self) -> None:
        """The store is restarted empty."""
        self.store.flush()
        self._fill()

    def _fill(self) -> None:
        self.history.append(Filling(self.now, sum(self.usable().values())))

    def unused(self, lease: str) -> int:
        """How many tokens of a lease have not passed, wherever they are."""
        passes = (made for made in self.history if isinstance(made, Pass) and made.lease)
        return self.leased[lease] - sum(made.cost for made in passes if made.lease and made.lease.id == lease)

    def usable(self) -> dict[str, int]:
        """How many tokens of which leases may be used from memory, now or once the replies under way have landed."""
        in_hand = [
            (holder, lease.id, lease.left, lease.stop_ns) for holder in self.holders for lease in holder.hand.leases
        ]
        under_way = [
            (holder, request.lease, reply.block, request.asked_ns + USABLE_NS)
            for holder, request, reply in self.under_way
            if reply and holder in self.holders
        ]
        return {
            name: left
            for holder, name, left, stop_ns in in_hand + under_way
            if left and holder.clock.at(self.now) < stop_ns
        }

    def keeps_the_promise(self) -> bool:
        """Whether in every span of length t at most `burst + t * limit / period` tokens passed.

        A filling begins another count; until the leases of before have ended, what was in hand then may pass as well.
        """
        return all(self._keeps(quota) for quota in self.plan)

    def _keeps(self, quota: Quota) -> bool:
        # The level of a leaky bucket by the textbook: it overflows exactly if some span has too many. Below nothing
        # is what was in hand at a filling.
        level, at, leases_end = Fraction(0), 0, 0
        for event in self.history:
            leaked = level - Fraction((event.instant - at) * quota.limit, quota.period_ns)
            level = max(leaked, min(level, Fraction(0)) if event.instant < leases_end else Fraction(0))
            at = event.instant
            if isinstance(event, Filling):
                level, leases_end = Fraction(-event.in_hand), at + TERM_NS
            else:
                level += event.cost
            if level > quota.burst:
                return False
        return True
