"""Tokens leased from a shared bucket: what a process has in hand, as a state machine without I/O and without a clock.

`docs/leases.md` has the promise, the rules, and why they are enough. In short: a lease takes tokens out of the shared
bucket; until the store hears that they were used, has them back, or the lease ends, they are outstanding, and the
bucket refills only to what they leave. The holder stops before the store ends the lease.

A `Hand` makes requests and takes in replies; who carries them may lose, delay or repeat them. Instants named `now_ns`
are of the holder's own clock; where they are of the store's, that is said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from learnflow_core.limiter.decision import Decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from learnflow_core.limiter.quota import Quota

TERM_NS = 1_000_000_000
"""How long a lease lasts, from its making, by the store's clock."""
USABLE_NS = TERM_NS * 7 // 8
"""How long it may be used, from before it was asked for, by the holder's clock.

The rest lets a clock be slow by an eighth, and what is given back at the last moment arrive.
"""
SHARE = 8
"""A lease takes at most one part in so many of the tokens that are there: what is scarce is not held by one process."""

LEAST = 2
"""A lease is of so many tokens at least: below that, a decision of the store costs no more."""


def block_for(used: int, elapsed_ns: int) -> int:
    """How many tokens to lease for whoever used so many in so long: what half a term needs at that pace.

    A block is at most four times what was used, so that it grows by steps that are borne out; below `LEAST` it is none.
    """
    block = min(used * (TERM_NS // 2) // max(1, elapsed_ns), 4 * used)
    return block if block >= LEAST else 0


class Settlement(NamedTuple):
    """How many tokens of a lease are left; a final one gives them back."""

    lease: str
    left: int
    final: bool


class Request(NamedTuple):
    """What a holder asks of the store in one step, for one caller under one plan.

    The store first takes in the `settlements`. Then it decides each of the `costs`, in turn, as a request that takes so
    many tokens or none. Then it makes a lease by the name `lease`, of `block` tokens, or of as many as are one part in
    `share` of what is there, unless that is below `LEAST`.
    """

    lease: str
    settlements: tuple[Settlement, ...]
    costs: tuple[int, ...]
    block: int
    asked_ns: int
    share: int = SHARE


class Reply(NamedTuple):
    """What the store answers: `now_ns` by its clock, and for each quota when it was full again before the costs.

    `known` says of each settlement whether the store still had the lease, `allowed` of each cost whether it was taken,
    and `block` how many tokens were leased. `era` is the store's name for the caller's history since it was last
    broken, as by a reset.
    """

    now_ns: int
    full_at_ns: Sequence[int]
    known: Sequence[bool]
    allowed: Sequence[bool]
    block: int
    era: float = 0.0


class Lease:
    """Tokens in hand. `left` may be used as long as the holder's clock is before `stop_ns`.

    `told` is what the store believes to be left at the most: never less than what is. `marked` is what was left when
    the pace was last measured. When no more than `low` are left, it is time to ask for the next.
    """

    __slots__ = ("id", "left", "low", "marked", "stop_ns", "told")

    def __init__(self, lease_id: str, tokens: int, stop_ns: int) -> None:
        self.id = lease_id
        self.left = self.told = self.marked = tokens
        self.stop_ns = stop_ns
        self.low = tokens // 4

    def close(self) -> Settlement:
        """Let go of what is left, and say so; nothing of this lease is in hand afterwards."""
        settlement = Settlement(self.id, self.left, final=True)
        self.left = self.told = self.marked = 0
        return settlement

    def report(self) -> Settlement:
        """Say what is left; what was used before is not undone in hand from now on."""
        self.told = self.left
        return Settlement(self.id, self.left, final=False)

    def undo(self, cost: int, now_ns: int) -> bool:
        """Put back what a decision took, if the store still takes it to be in hand; whether that was so."""
        if now_ns >= self.stop_ns or self.left + cost > self.told:
            return False
        self.left += cost
        return True


class Shared:
    """What the store last said: its clock is `ahead_ns` of the holder's, or more, by no more than a round trip.

    `full_at_ns` are the buckets after that reply, by the store's clock, with what this process had in hand taken;
    `outstanding` is how much of it the store knew to be in hand. `era` is as in `Reply`.
    """

    __slots__ = ("ahead_ns", "era", "full_at_ns", "outstanding")

    def __init__(self, ahead_ns: int, full_at_ns: Sequence[int], outstanding: int, era: float) -> None:
        self.ahead_ns = ahead_ns
        self.full_at_ns = full_at_ns
        self.outstanding = outstanding
        self.era = era

    def levels(self, quotas: Sequence[Quota], now_ns: int, in_hand: int) -> list[int]:
        """Where the buckets are at `now_ns` of the store's clock if nobody else took or gave since: as in the store,
        at the floor or above, less what is still in hand."""
        return [
            max(full_at, now_ns + self.outstanding * quota.interval_ns) - in_hand * quota.interval_ns
            for quota, full_at in zip(quotas, self.full_at_ns, strict=True)
        ]


class LeasedDecision(Decision):
    """A decision that was made from memory. It allows; what memory cannot allow is for the store to decide.

    Its figures are those of the shared buckets as they were when last heard of, with what this process took since; what
    others took or gave back since is not in them. `receipt` is the lease whose tokens were taken, `clock_ns` the
    instant by the holder's clock, and `in_hand` what was left.
    """

    __slots__ = ("clock_ns", "cost", "in_hand", "key", "quotas", "receipt", "shared")

    key: str
    quotas: Sequence[Quota]
    cost: int
    allowed: bool = True
    receipt: Lease | None
    clock_ns: int
    in_hand: int
    shared: Shared

    @property
    def now_ns(self) -> int:  # type: ignore[override]
        """The instant by the store's clock as far as the holder knows it, in its ticks: it is never ahead."""
        now_ns = self.clock_ns + self.shared.ahead_ns
        return now_ns - now_ns % self.quotas[0].tick_ns

    @property
    def full_at_ns(self) -> Sequence[int]:  # type: ignore[override]
        """When each quota is full again, by the store's clock, if everybody gives back what they have in hand."""
        return self.shared.levels(self.quotas, self.now_ns, self.in_hand)

    @property
    def era(self) -> float:
        """The caller's history in which it was made, as the store names it."""
        return self.shared.era


class Hand:
    """The leases of one process for one caller under one plan: `lease` is in use, others wait behind it."""

    __slots__ = ("_ended", "_spares", "_used", "_used_since_ns", "aside", "lease", "shared")

    def __init__(self) -> None:
        self.lease = Lease("", 0, 0)
        self.shared = Shared(0, (), 0, 0.0)
        self.aside = 0
        self._spares: list[Lease] = []
        self._ended: list[Lease] = []
        self._used = 0
        self._used_since_ns: int | None = None

    def spend(self, cost: int, now_ns: int) -> bool:
        """Use `cost` tokens of one lease; false when none that may be used has as many. Those before it are ended."""
        while self.lease.left < cost or now_ns >= self.lease.stop_ns:
            if not self._spares:
                return False
            self._ended.append(self.lease)
            self.lease = self._spares.pop(0)
            self.aside -= self.lease.left
        self.lease.left -= cost
        return True

    def renewal(self, lease_id: str, block: int, now_ns: int) -> Request:
        """Ask for another block while those in hand go on being used."""
        self._measure()
        settlements = [lease.close() for lease in self._take_ended()]
        settlements += [lease.report() for lease in self.leases]
        self.lease.low = -1
        return Request(lease_id, tuple(settlements), (), block, now_ns)

    def closing(self, lease_id: str, costs: tuple[int, ...], block: int, now_ns: int) -> Request:
        """Give everything back; then decide `costs` in the store, where all of it is, and begin with a new block."""
        self._measure()
        settlements = [lease.close() for lease in [*self._take_ended(), *self.leases]]
        self._spares.clear()
        self.lease = Lease("", 0, 0)
        self.aside = 0
        return Request(lease_id, tuple(settlements), costs, block, now_ns)

    def giving_back(self, lease_id: str, now_ns: int) -> Request:
        """Give back what is left of leases that may not be used any more."""
        self._measure()
        over = [lease for lease in self.leases if now_ns >= lease.stop_ns]
        self._spares = [lease for lease in self._spares if lease not in over]
        self.aside = sum(lease.left for lease in self._spares)
        settlements = [lease.close() for lease in [*self._take_ended(), *over]]
        if self.lease in over:
            self.lease = Lease("", 0, 0)
        return Request(lease_id, tuple(settlements), (), 0, now_ns)

    def receive(self, quotas: Sequence[Quota], request: Request, reply: Reply, now_ns: int) -> None:
        """Take in the reply to a request, at most once."""
        self._drop_unknown(request, reply)
        taken = sum(cost for cost, allowed in zip(request.costs, reply.allowed, strict=True) if allowed)
        self.count(taken)
        stop_ns = request.asked_ns + USABLE_NS
        if reply.block and now_ns < stop_ns:
            self._add(Lease(request.lease, reply.block, stop_ns))
        elif self.lease.low < 0:
            self.renewal_failed()
        taken += reply.block
        full_at_ns = [
            full_at + taken * quota.interval_ns for quota, full_at in zip(quotas, reply.full_at_ns, strict=True)
        ]
        outstanding = sum(lease.told for lease in self.leases)
        self.shared = Shared(reply.now_ns - now_ns, full_at_ns, outstanding, reply.era)

    def renewal_failed(self) -> None:
        """No block came: ask again when half of what is left is used, and not for each token."""
        self.lease.low = self.lease.left // 2

    def has(self, cost: int, now_ns: int) -> bool:
        """Whether `spend` would find so many tokens."""
        return any(cost <= lease.left and now_ns < lease.stop_ns for lease in self.leases)

    def count(self, used: int) -> None:
        """Count tokens that passed without a lease into the pace."""
        self._used += used

    def pace(self, now_ns: int) -> tuple[int, int]:
        """How many tokens passed since this was last asked, and how long ago that was; nothing the first time."""
        self._measure()
        used, since_ns = self._used, self._used_since_ns
        self._used, self._used_since_ns = 0, now_ns
        return (used, now_ns - since_ns) if since_ns is not None else (0, 0)

    def _measure(self) -> None:
        for lease in (*self._ended, *self.leases):
            self._used += lease.marked - lease.left
            lease.marked = lease.left

    @property
    def leases(self) -> list[Lease]:
        """Those in hand, in the order in which they are used."""
        return [lease for lease in (self.lease, *self._spares) if lease.id]

    def _take_ended(self) -> list[Lease]:
        ended, self._ended = self._ended, []
        return [lease for lease in ended if lease.id]

    def _add(self, lease: Lease) -> None:
        if self.lease.left:
            self._spares.append(lease)
            self.aside += lease.left
        else:
            self._ended.append(self.lease)
            self.lease = lease

    def _drop_unknown(self, request: Request, reply: Reply) -> None:
        """Let go of leases of which the store has nothing: it was restarted, or its clock stepped."""
        told = zip(request.settlements, reply.known, strict=True)
        unknown = {settlement.lease for settlement, known in told if not known and not settlement.final}
        for lease in self.leases:
            if lease.id in unknown:
                lease.close()
        self.aside = sum(lease.left for lease in self._spares)
