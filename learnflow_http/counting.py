"""What is counted of the payment service, the limiter's store and the database's connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, get_args

from learnflow_core.errors import Code
from learnflow_core.model import Mode, Payment
from learnflow_core.ports import PaymentGateway
from learnflow_http.metrics import Family, Metrics

_REFUSALS: Final = (
    Code.CARD_DECLINED,
    Code.INSUFFICIENT_FUNDS,
    Code.AUTHENTICATION_REQUIRED,
    Code.INVALID_PAYMENT_METHOD,
)
_FAILURES: Final = ("connect", "timeout", "lost", "protocol")
_ERROR: Final = "error"
"""Any error that the store itself answered: their codes are its own."""


class CountedGateway:
    """A payment service whose answers are counted; fulfils `learnflow_core.ports.PaymentGateway`."""

    def __init__(self, gateway: PaymentGateway, payments: Family) -> None:
        self.builtin_methods = gateway.builtin_methods
        self._gateway = gateway
        outcomes = ("paid", *_REFUSALS, "unknown")
        modes: tuple[Mode, ...] = get_args(Mode)
        self._charges = {(mode, each): payments.series(mode, "charge", each) for mode in modes for each in outcomes}
        self._refunds = {
            (mode, each): payments.series(mode, "refund", each) for mode in modes for each in ("refunded", "unknown")
        }

    async def charge(self, payment: Payment) -> Code | None:
        outcome: str = "unknown"
        try:
            refusal = await self._gateway.charge(payment)
            outcome = "paid" if refusal is None else refusal
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


def watch_store(metrics: Metrics, answers: Callable[[], dict[str, int]], failures: Callable[[], dict[str, int]]) -> None:
    """Count what a limiter's store answered, by who did, and its failures by their kind."""
