"""What is counted of the payment service, the limiter's store and the database's connections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol, get_args

from learnflow_core.errors import Code
from learnflow_core.model import Mode, Payment, User
from learnflow_core.ports import PaymentGateway
from learnflow_http.metrics import OTHER, Family, Metrics, Series

_REFUSALS: Final = (
    Code.CARD_DECLINED.value,
    Code.INSUFFICIENT_FUNDS.value,
    Code.AUTHENTICATION_REQUIRED.value,
    Code.INVALID_PAYMENT_METHOD.value,
)
_FAILURES: Final = ("connect", "timeout", "lost", "protocol")
_ERROR: Final = "error"
"""Any error that the store itself answered: their codes are its own."""


class CountedGateway:
    """A payment service whose answers are counted; fulfils `learnflow_core.ports.PaymentGateway`."""

    def __init__(self, gateway: PaymentGateway, payments: Family) -> None:
        self.builtin_methods = gateway.builtin_methods
        self._gateway = gateway
        outcomes = ("paid", *_REFUSALS, OTHER, "unknown")
        modes: tuple[Mode, ...] = get_args(Mode)
        self._charges = {(mode, each): payments.series(mode, "charge", each) for mode in modes for each in outcomes}
        self._refunds = {
            (mode, each): payments.series(mode, "refund", each) for mode in modes for each in ("refunded", "unknown")
        }

    async def keep(self, token: str, user: User) -> str:
        return await self._gateway.keep(token, user)

    async def forget(self, token: str) -> None:
        await self._gateway.forget(token)

    async def charge(self, payment: Payment) -> Code | None:
        outcome = "unknown"
        try:
            refusal = await self._gateway.charge(payment)
            outcome = "paid" if refusal is None else refusal.value if refusal in _REFUSALS else OTHER
        finally:
            self._charges[payment.mode, outcome].add()
        return refusal

    async def refund(self, payment: Payment) -> None:
        outcome = "unknown"
        try:
            await self._gateway.refund(payment)
            outcome = "refunded"
        finally:
            self._refunds[payment.mode, outcome].add()


def payment_family(metrics: Metrics) -> Family:
    """Where the answers of payment services are counted."""
    return metrics.family(
        "counter", "learnflow_payment_answers", "What the payment service answered.", "mode", "call", "outcome"
    )


class StoreCounts(Protocol):
    """What a limiter over a store has done so far."""

    by_store: int
    by_lease: int
    by_fallback: int
    failures: dict[str, int]


def watch_store(metrics: Metrics, counts: StoreCounts) -> None:
    """Tell what the limiter's store answered, what was decided without it, and its failures by kind."""
    decisions = metrics.family(
        "counter", "learnflow_limiter_store_decisions", "Decisions with a shared store, by what made them.", "by"
    )
    failures = metrics.family("counter", "learnflow_limiter_store_failures", "Failures of the limiter's store.", "kind")
    made = {by: decisions.series(by) for by in ("store", "lease", "fallback")}
    failed = {kind: failures.series(kind) for kind in (*_FAILURES, _ERROR)}
    seen: Counter[str] = Counter()

    def read() -> None:
        for by, series in made.items():
            _grown(series, seen, by, getattr(counts, f"by_{by}"))
        for kind, number in counts.failures.copy().items():
            _grown(failed.get(kind, failed[_ERROR]), seen, f"failure {kind}", number)

    metrics.readers.append(read)


def _grown(series: Series, seen: Counter[str], what: str, number: int) -> None:
    """Add what came since it was last seen: a worker goes on where the one before it ended."""
    series.add(number - seen[what])
    seen[what] = number


class Connections(Protocol):
    """How a pool of connections to a database is used."""

    @property
    def in_use(self) -> int:
        """Connections that are lent."""

    @property
    def idle(self) -> int:
        """Connections that could be."""

    @property
    def waiting(self) -> int:
        """Callers who wait for one."""


def watch_connections(metrics: Metrics, connections: Callable[[], Connections]) -> None:
    """Tell how a pool of connections is used."""
    family = metrics.family("gauge", "learnflow_database_connections", "Connections to the database.", "state")
    in_use, idle = family.series("in_use"), family.series("idle")
    waiting = metrics.family(
        "gauge", "learnflow_database_waiting", "Transactions that wait for a connection to the database."
    ).series()

    def read() -> None:
        now = connections()
        in_use.put(now.in_use)
        idle.put(now.idle)
        waiting.put(now.waiting)

    metrics.readers.append(read)
