"""What a limiter answers: one decision over all quotas of a request, with its figures computed when they are read."""

from __future__ import annotations

from learnflow_core.limiter.bucket import tokens, wait

TYPE_CHECKING = False  # importing typing would take longer than the rest of the package
if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from typing import ClassVar

    from learnflow_core.limiter.quota import Quota


class QuotaState:
    """How one quota stands at the instant of a decision. Durations are nanoseconds from that instant.

    `remaining` is what can be taken at once, and `next_token_ns` how long no more than that can be. After
    `reset_after_ns` the quota is full again. After `retry_after_ns` it lets the refused request pass: 0 where the
    request passed, and for a quota that would have let it pass. The state with the highest `rank` is the one to tell.
    """

    __slots__ = ("limit", "name", "next_token_ns", "rank", "remaining", "reset_after_ns", "retry_after_ns")

    def __init__(self, decision: Decision, quota: Quota, full_at_ns: int) -> None:
        owed = full_at_ns - decision.now_ns
        interval, capacity = quota.interval_ns, quota.capacity_ns
        self.name = quota.name
        self.limit = quota.limit
        self.remaining, self.next_token_ns = tokens(owed, interval, capacity)
        self.reset_after_ns = owed
        self.retry_after_ns = 0 if decision.allowed else wait(owed, decision.cost * interval, capacity)
        self.rank = (self.retry_after_ns, -self.remaining, owed)

    def __repr__(self) -> str:
        told = (field for field in self.__slots__ if field != "rank")
        return f"QuotaState({', '.join(f'{field}={getattr(self, field)!r}' for field in told)})"


def binding(states: list[QuotaState]) -> QuotaState | None:
    """The one of a decision's states to tell of, as `Decision.binding` says."""
    told = None
    for state in states:
        if told is None or state.rank > told.rank:
            told = state
    return told


class Decision:
    """Whether a request may pass, and how each of its quotas stands now.

    Made by limiters, each of which keeps the fields in its own way; the figures are computed when they are read. True
    when allowed, so that `if limiter.hit(...)` means what it seems to. It can be awaited and is then its own result, so
    that `await limiter.hit(...)` serves a limiter in memory as it serves one behind a network.

    `quotas`, `cost` and `allowed` are what was asked and answered; the quotas are in the tick of the store that
    answered. `now_ns` is the instant of the answer by the limiter's clock, and `full_at_ns` has, for each quota, the
    instant at which it is full again: never earlier than `now_ns`, nor later by more than the greatest `longest_ns` of
    the plans that share the bucket. `key` and `receipt` are the limiter's: whose tokens were taken, and the proof that
    a refund asks for.

    `fallback` is None, or the name of the policy by which the decision was made because the store did not answer.

    A decision that is copied or pickled says the same, and cannot be refunded: what it took comes back once.
    """

    __slots__ = ()

    fallback: ClassVar[str | None] = None

    key: str
    quotas: Sequence[Quota]
    cost: int
    now_ns: int
    full_at_ns: Sequence[int]
    allowed: bool
    receipt: object | None

    @property
    def unlimited(self) -> bool:
        """Whether there was no quota to ask: then the request is allowed, and there are no figures."""
        return not self.quotas

    @property
    def states(self) -> list[QuotaState]:
        """How each quota stands, in the order asked."""
        # Both have one length by construction, and to check that would take a quarter of the time.
        return [QuotaState(self, quota, full_at) for quota, full_at in zip(self.quotas, self.full_at_ns)]  # noqa: B905

    @property
    def binding(self) -> QuotaState | None:
        """The quota to tell of; None when unlimited.

        It is the one that lets the request pass last; where that makes no difference, as whenever it is allowed, the
        one with the fewest left; and on a tie the one that is full again last.
        """
        return binding(self.states)

    @property
    def limit(self) -> int | None:
        """The binding quota's limit; None when unlimited."""
        told = self.binding
        return told.limit if told else None

    @property
    def remaining(self) -> int | None:
        """What can be taken from the binding quota at once; None when unlimited."""
        told = self.binding
        return told.remaining if told else None

    @property
    def reset_after_ns(self) -> int:
        """How long until the binding quota is full again; 0 when unlimited."""
        told = self.binding
        return told.reset_after_ns if told else 0

    @property
    def retry_after_ns(self) -> int:
        """How long until the same request passes every quota, when nobody else takes from them; 0 when allowed.

        After that long it passes; one nanosecond earlier it does not.
        """
        told = self.binding
        return told.retry_after_ns if told else 0

    def __bool__(self) -> bool:
        return self.allowed

    def __await__(self) -> Generator[None, None, Decision]:
        yield from ()
        return self

    def __reduce__(self) -> tuple[object, ...]:
        fields = self.key, tuple(self.quotas), self.cost, self.now_ns, list(self.full_at_ns), self.allowed
        return PlainDecision, fields

    def __repr__(self) -> str:
        return f"Decision(allowed={self.allowed}, cost={self.cost}, states={self.states})"


class BareDecision(Decision):
    """A decision whose fields are attributes, which whoever makes it sets one by one: the quickest way there is."""

    __slots__ = ("allowed", "cost", "full_at_ns", "key", "now_ns", "quotas", "receipt")

    # Of its own class, such as one of a fallback, with every field but the receipt.
    __reduce__ = object.__reduce__  # type: ignore[assignment]

    def __getstate__(self) -> tuple[None, dict[str, object]]:
        fields: tuple[None, dict[str, object]] = object.__getstate__(self)  # type: ignore[assignment]
        return None, {**fields[1], "receipt": None}


class PlainDecision(BareDecision):
    """A decision made of its fields."""

    __slots__ = ()

    def __init__(
        self,
        key: str,
        quotas: Sequence[Quota],
        cost: int,
        now_ns: int,
        full_at_ns: Sequence[int],
        allowed: bool,
        receipt: object | None = None,
    ) -> None:
        self.key = key
        self.quotas = quotas
        self.cost = cost
        self.now_ns = now_ns
        self.full_at_ns = full_at_ns
        self.allowed = allowed
        self.receipt = receipt


class Decisions(list[Decision]):
    """The decisions of one call for many keys, in the order of the keys. Awaited, it is its own result."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, Decisions]:
        yield from ()
        return self


class Refund:
    """Whether a refund counted: then what time had not given back came back. Awaited, it is its own result."""

    __slots__ = ("given_back",)

    def __init__(self, given_back: bool) -> None:
        self.given_back = given_back

    def __bool__(self) -> bool:
        return self.given_back

    def __await__(self) -> Generator[None, None, Refund]:
        yield from ()
        return self

    def __repr__(self) -> str:
        return f"Refund(given_back={self.given_back})"


class Reset:
    """That a key's buckets were filled. Awaited, it is its own result."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, Reset]:
        yield from ()
        return self

    def __repr__(self) -> str:
        return "Reset()"
