"""What is asked of the store, and what it answers: plans and costs as commands, replies as decisions. Pure."""

from __future__ import annotations

from struct import Struct, pack, unpack

from learnflow_core.limiter.checks import check, check_keys
from learnflow_core.limiter.decision import Decision, Refund, Reset
from storage_backends.valkey.cluster import slot_of
from storage_backends.valkey.resp import ErrorReply, ProtocolError, parse
from storage_backends.valkey.scripts import SCRIPTS

TYPE_CHECKING = False  # importing typing would take longer than the rest of the module
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from learnflow_core.limiter.leases import LeasedDecision
    from learnflow_core.limiter.quota import Quota
    from storage_backends.valkey.resp import Reply
    from storage_backends.valkey.scripts import Script

TICK_NS = 1_000
"""The store's clock, and with it every instant and every debt there, is in microseconds."""

MAX_QUOTAS = 1_000
"""How many quotas one decision may have: Lua passes them on its stack, which has room for some thousands."""

_EXACT = 1 << 53
"""Every figure is below it: what is told in doubles is exact up to here."""

_BITS_OF_EXACT = unpack("<Q", pack("<d", _EXACT))[0]
"""A double of no sign that is less has fewer bits; one with a sign, an infinity and what is no number have more."""

_REMEMBERED = 1_024
_make = object.__new__


class ValkeyDecision(Decision):
    """A decision of the store. Its figures stay as the store packed them, and are converted when they are read."""

    __slots__ = ("_call", "_figures", "allowed", "key", "receipt")

    key: str
    allowed: bool
    receipt: object | None
    _call: DecideCall
    _figures: tuple[float, ...]

    @property
    def quotas(self) -> Sequence[Quota]:  # type: ignore[override]
        """What was asked, in whole microseconds."""
        return self._call.quotas

    @property
    def cost(self) -> int:  # type: ignore[override]
        """What was asked."""
        return self._call.cost

    @property
    def now_ns(self) -> int:  # type: ignore[override]
        """The instant of the decision by the store's clock: Unix time."""
        return int(self._figures[1]) * TICK_NS

    @property
    def full_at_ns(self) -> Sequence[int]:  # type: ignore[override]
        """When each quota is full again, by the same clock."""
        return [int(instant) * TICK_NS for instant in self._figures[3:]]

    @property
    def era(self) -> float:
        """Which of the caller's eras it was made in; see `scripts`."""
        return self._figures[2]


class Call:
    """A script with its arguments, for whatever key, and how to read the reply."""

    __slots__ = ("_arguments", "_by_digest", "_by_text", "_prefix")

    def __init__(self, prefix: bytes, script: Script, arguments: Sequence[bytes]) -> None:
        start = b"*%d\r\n" % (4 + len(arguments))
        self._prefix = prefix
        self._by_digest = start + script.by_digest + b"$1\r\n1\r\n$"
        self._by_text = start + script.by_text + b"$1\r\n1\r\n$"
        self._arguments = b"\r\n" + b"".join([b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments])

    def stored_key(self, key: str) -> bytes:
        """The name under which the store keeps the caller: any text has one of its own, lone surrogates too."""
        return self._prefix + key.encode("utf-8", "surrogatepass")

    def slot(self, key: str) -> int:
        """The slot of a cluster that has the key."""
        return slot_of(self.stored_key(key))

    def request(self, key: str) -> bytes:
        """The command for a key, as the server reads it."""
        name = self._prefix + key.encode("utf-8", "surrogatepass")
        return b"".join((self._by_digest, b"%d\r\n" % len(name), name, self._arguments))

    def request_with_script(self, key: str) -> bytes:
        """The same for a server that does not know the script; it does afterwards."""
        name = self.stored_key(key)
        return b"".join((self._by_text, b"%d\r\n" % len(name), name, self._arguments))

    def read(self, data: bytes, at: int, key: str) -> tuple[object, int] | None:
        """The answer that begins there, or an ErrorReply, and where it ends; None when the rest has not arrived.

        Raises ProtocolError for what is no answer to this call.
        """
        parsed = parse(data, at)
        if parsed is None:
            return None
        reply, end = parsed
        return (reply if isinstance(reply, ErrorReply) else self.answer(reply, key)), end

    def answer(self, reply: Reply, key: str) -> object:
        """What a reply that is no error means; ProtocolError if it means nothing."""
        raise NotImplementedError


def check_figures(figures: Sequence[float]) -> None:
    """Raise ProtocolError unless each is a number from zero to 2^53, as the store's are."""
    if not all(0 <= figure < _EXACT for figure in figures):
        raise ProtocolError("a figure that no answer has")


class DecideCall(Call):
    """Take `cost` from each of the quotas or from none of them; or only look, and say what taking would do."""

    __slots__ = ("_bits", "_mark", "_own", "_size", "_skip", "_unpack", "cost", "quotas", "take")

    def __init__(
        self, prefix: bytes, script: Script, own: object, quotas: Sequence[Quota], cost: int, take: bool
    ) -> None:
        numbers = [float(take)]
        for quota in quotas:
            debt = cost * (quota.interval_ns // TICK_NS)
            numbers += debt, quota.capacity_ns // TICK_NS, quota.longest_ns // TICK_NS
        super().__init__(prefix, script, [pack(f"<{len(numbers)}d", *numbers), *_names(quotas)])
        self.quotas = quotas
        self.cost = cost
        self.take = take
        self._own = own if take else None
        figures = Struct(f"<{3 + len(quotas)}d")
        self._mark = b"$%d\r\n" % figures.size
        self._skip = len(self._mark)
        self._size = self._skip + figures.size + 2
        self._unpack = figures.unpack_from
        self._bits = Struct(f"<{3 + len(quotas)}Q").unpack_from

    def read(self, data: bytes, at: int, key: str) -> tuple[object, int] | None:
        start, end = at + self._skip, at + self._size
        if data[at:start] != self._mark or len(data) < end:
            return super().read(data, at, key)
        if data[end - 2 : end] != b"\r\n":
            raise ProtocolError("a string that does not end where it should")
        if max(self._bits(data, start)) >= _BITS_OF_EXACT:
            raise ProtocolError("a figure that no decision has")
        figures = self._unpack(data, start)
        decision = _make(ValkeyDecision)
        decision.key = key
        decision._call = self  # noqa: SLF001 - this module's own class, made without a call of its own
        decision._figures = figures  # noqa: SLF001
        if figures[0] == 1.0:
            decision.allowed = True
            decision.receipt = self._own
        elif figures[0] == 0.0:
            decision.allowed = False
            decision.receipt = None
        else:
            raise ProtocolError("neither a yes nor a no")
        return decision, end

    def decision(self, key: str, figures: tuple[float, ...]) -> ValkeyDecision:
        """What the store said, as this script says it, whichever script it was that did."""
        decision = _make(ValkeyDecision)
        decision.key = key
        decision._call = self  # noqa: SLF001 - this module's own class
        decision._figures = figures  # noqa: SLF001
        decision.allowed = bool(figures[0])
        decision.receipt = self._own if decision.allowed else None
        return decision

    def answer(self, reply: Reply, key: str) -> object:
        raise ProtocolError("a decision of another form")


class RefundCall(Call):
    """Give back what a decision of the store took."""

    __slots__ = ()

    def __init__(self, prefix: bytes, script: Script, decision: ValkeyDecision | LeasedDecision) -> None:
        debts = [decision.cost * (quota.interval_ns // TICK_NS) for quota in decision.quotas]
        numbers = pack(f"<{2 + len(debts)}d", decision.era, decision.now_ns // TICK_NS, *debts)
        super().__init__(prefix, script, [numbers, *_names(decision.quotas)])

    def answer(self, reply: Reply, key: str) -> object:
        if reply not in (0, 1):
            raise ProtocolError("neither a yes nor a no")
        return Refund(reply == 1)


class ResetCall(Call):
    """Fill the buckets of the quotas."""

    __slots__ = ()

    def __init__(self, prefix: bytes, script: Script, quotas: Sequence[Quota]) -> None:
        super().__init__(prefix, script, _names(quotas))

    def answer(self, reply: Reply, key: str) -> object:
        if reply != 1:
            raise ProtocolError("no confirmation")
        return Reset()


def _names(quotas: Sequence[Quota]) -> list[bytes]:
    return [quota.bucket.encode() for quota in quotas]


class _Plan:
    """Quotas as they were given, in the store's tick, and the calls made of them so far by their cost."""

    __slots__ = ("given", "hits", "peeks", "quotas")

    def __init__(self, given: tuple[Quota, ...]) -> None:
        if len(given) > MAX_QUOTAS:
            raise ValueError(f"quotas: at most {MAX_QUOTAS} in one decision")
        self.given = given
        self.quotas = tuple([quota.in_ticks_of(TICK_NS) for quota in given])
        self.hits: dict[int, DecideCall] = {}
        self.peeks: dict[int, DecideCall] = {}


class Calls:
    """Makes the calls of one limiter, whose keys all begin with `prefix`; plans and costs are prepared once.

    `own` is the receipt of its decisions: what proves, when a refund is asked for, that they are its own.
    """

    def __init__(self, prefix: str) -> None:
        self.own = object()
        self.scripts = SCRIPTS
        self.prefix = prefix.encode()
        self._plans: dict[int, _Plan] = {}
        self._plans_by_value: dict[tuple[Quota, ...], _Plan] = {}

    def hit(self, key: str, quotas: Sequence[Quota], cost: int) -> DecideCall:
        """Take. Raises TypeError and ValueError for nonsense, as `Limiter` says."""
        plan = self._plans.get(id(quotas))  # the plan holds on to its tuple, so that no other can have its identity
        if plan is not None and type(cost) is int and type(key) is str:
            call = plan.hits.get(cost)
            if call is not None:
                return call
        check(key, quotas, cost)
        return self._prepared(quotas, cost, take=True)

    def hit_many(self, keys: Iterable[str], quotas: Sequence[Quota], cost: int) -> tuple[DecideCall, list[str]]:
        """Take, for each of the keys; raises as `hit`, before anything is taken for one of them."""
        asked = check_keys(keys)
        return self.hit("", quotas, cost), asked

    def peek(self, key: str, quotas: Sequence[Quota], cost: int) -> DecideCall:
        """Look. Raises as `hit`."""
        check(key, quotas, cost)
        return self._prepared(quotas, cost, take=False)

    def refund(self, decision: ValkeyDecision | LeasedDecision) -> RefundCall:
        """Give back what it took."""
        return RefundCall(self.prefix, self.scripts.refund, decision)

    def reset(self, key: str, quotas: Sequence[Quota]) -> ResetCall:
        """Fill. Raises as `hit`."""
        check(key, quotas, 1)
        return ResetCall(self.prefix, self.scripts.reset, self._plan(quotas).quotas)

    def disown(self) -> None:
        """Make decisions under another receipt from now on: those made so far are no longer refunded here."""
        self.own = object()
        self._plans.clear()
        self._plans_by_value.clear()

    def _prepared(self, quotas: Sequence[Quota], cost: int, *, take: bool) -> DecideCall:
        plan = self._plan(quotas)
        calls = plan.hits if take else plan.peeks
        call = calls.get(cost)
        if call is None:
            call = DecideCall(self.prefix, self.scripts.decide, self.own, plan.quotas, cost, take)
            if len(calls) >= _REMEMBERED:
                calls.clear()
            calls[cost] = call
        return call

    def _plan(self, quotas: Sequence[Quota]) -> _Plan:
        given = tuple(quotas)
        plan = self._plans_by_value.get(given)
        if plan is None:
            plan = _Plan(given)
            if len(self._plans_by_value) >= _REMEMBERED:
                self._plans_by_value.clear()
            self._plans_by_value[given] = plan
        if given is quotas:
            if len(self._plans) >= _REMEMBERED:
                self._plans.clear()
            if plan.given is not given:
                plan = _alias(plan, given)
            self._plans[id(given)] = plan
        return plan


def _alias(plan: _Plan, given: tuple[Quota, ...]) -> _Plan:
    """The same plan for an equal tuple: it shares the prepared calls."""
    alias = object.__new__(_Plan)
    alias.given, alias.quotas, alias.hits, alias.peeks = given, plan.quotas, plan.hits, plan.peeks
    return alias
