"""The payment service: a world of its own, which remembers what it was asked, and whose answers may be lost.

It tells by itself what has become of a payment, late, several times and in any order, until it is heard.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Any

import msgspec

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import Payment
from learnflow_core.ports import PaymentNews, Storage
from payment_gateways.sandbox import OUTCOMES, SandboxGateway
from tests.simulator.faults import Answer, Faults
from tests.simulator.loop import SimulatedLoop
from tests.simulator.trace import Trace

PATIENCE_S = 10.0
"""How long a gateway waits for an answer."""


class Charge:
    """What the service did under one idempotency key."""

    def __init__(self, payment: Payment) -> None:
        self.payment = payment
        self.refusal = OUTCOMES[payment.token]
        self.refunded = False
        self.returned = False
        """Whether it was the service that gave it back, unasked."""

    @property
    def holds_money(self) -> bool:
        """Whether the payer's money has been taken and not given back."""
        return self.refusal is None and not self.refunded


class PaymentService:
    """Charges once under a key, whatever happens to its callers. `complaints` are what it was asked against reason,
    and `news` what it has to tell."""

    def __init__(self, loop: SimulatedLoop, faults: Faults, trace: Trace) -> None:
        self.charges: dict[str, Charge] = {}
        self.complaints: list[str] = []
        self.news: list[PaymentNews] = []
        self._loop = loop
        self._faults = faults
        self._trace = trace

    async def ask(self, call: str, payment: Payment) -> Code | None:
        """A call over the network: what the service says, or `service_unavailable` when it says nothing."""
        answer = self._faults.of_payment(call)
        heard = self._loop.create_future()
        # A context of nobody: what is under way reaches the service, whether or not its sender is still there.
        self._loop.call_later(answer.heard_after_s, self._hear, call, payment, answer, heard, context=Context())
        try:
            async with asyncio.timeout(PATIENCE_S):
                said: Code | None = await heard
        except TimeoutError as error:
            raise LearnFlowError(Code.SERVICE_UNAVAILABLE, retry_after_s=1) from error
        return said

    def give_back(self, charge: Charge) -> None:
        """Give money back because somebody at the service wants it so."""
        charge.refunded = charge.returned = True
        self._trace.note(f"{charge.payment.id} is given back by the service itself")
        self.news.append(PaymentNews(charge.payment.id, "returned"))

    def _hear(self, call: str, payment: Payment, answer: Answer, heard: asyncio.Future[Any]) -> None:
        said = None
        for _ in range(answer.done):
            said = (self._charge if call == "charge" else self._refund)(payment)
        if answer.told_after_s is not None:
            self._loop.call_later(answer.told_after_s, _tell, heard, said, answer.fails, context=Context())

    def _charge(self, payment: Payment) -> Code | None:
        charge = self.charges.get(payment.id)
        if charge is None:
            charge = self.charges[payment.id] = Charge(payment)
            self.news.append(PaymentNews(payment.id, "changed" if charge.refusal else "paid"))
        first = charge.payment
        if (first.amount, first.token) != (payment.amount, payment.token):
            self.complaints.append(f"{payment.id} was charged with other parameters than the first time")
        self._trace.note(f"charge {payment.id}: {charge.refusal or 'paid'}")
        return charge.refusal

    def _refund(self, payment: Payment) -> Code | None:
        charge = self.charges.get(payment.id)
        if charge is None or charge.refusal is not None:
            self.complaints.append(f"{payment.id} was to be given back, but nothing was taken")
            return None
        if not charge.refunded:
            self.news.append(PaymentNews(payment.id, "returned"))
        charge.refunded = True
        self._trace.note(f"refund {payment.id}")
        return None


def _tell(heard: asyncio.Future[Any], said: Code | None, fails: bool) -> None:
    if heard.done():
        return
    if fails:
        heard.set_exception(LearnFlowError(Code.SERVICE_UNAVAILABLE, retry_after_s=1))
    else:
        heard.set_result(said)


class SimulatedNews:
    """`learnflow_core.ports.PaymentNewsReader` of what the simulated service posts; it needs no signature."""

    async def read(self, body: bytes, signature: str) -> PaymentNews | None:
        return msgspec.json.decode(body, type=PaymentNews)


class SimulatedGateway(SandboxGateway):
    """The gateway of one process: the sandbox's means of payment, and the simulated service's answers."""

    def __init__(self, storage: Storage, service: PaymentService) -> None:
        super().__init__(storage)
        self._service = service

    async def charge(self, payment: Payment) -> Code | None:
        return await self._service.ask("charge", payment)

    async def refund(self, payment: Payment) -> None:
        await self._service.ask("refund", payment)
