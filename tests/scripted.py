"""A payment service that goes wrong as a test has it written, around any other: for tests below HTTP and sockets."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import Payment, User
from learnflow_core.ports import PaymentGateway
from tests.stripe_service import Fault

T = TypeVar("T")
SLOW_TICKS = 20
"""For how many turns of the event loop what is slow waits."""


class ScriptedGateway:
    """Fulfils `learnflow_core.ports.PaymentGateway`. `fail` has the first calls of each payment go wrong, in one of the
    ways of `tests.stripe_service.FAULTS`; what is told of the outcome is then that it is not known.

    What is to be carried out `later` is done by `catch_up`, long after whoever asked has gone.
    """

    def __init__(self, inner: PaymentGateway) -> None:
        self.inner = inner
        self.builtin_methods: Mapping[str, str] = inner.builtin_methods
        self.asked: Counter[str] = Counter()
        self._fault: Fault | None = None
        self._times = 0
        self._failed: Counter[str] = Counter()
        self._later: list[Callable[[], Awaitable[object]]] = []

    def fail(self, fault: Fault | None, *, times: int = 1) -> None:
        """Have the first so many calls of each payment go wrong in this way; None: no more."""
        self._fault, self._times = fault, times
        self._failed.clear()

    async def catch_up(self) -> None:
        """Carry out what was put off."""
        later, self._later = self._later, []
        for call in later:
            await call()

    async def keep(self, token: str, user: User) -> str:
        return await self.inner.keep(token, user)

    async def forget(self, token: str) -> None:
        await self.inner.forget(token)

    async def charge(self, payment: Payment) -> Code | None:
        return await self._call(payment, lambda: self.inner.charge(payment))

    async def refund(self, payment: Payment) -> None:
        await self._call(payment, lambda: self.inner.refund(payment))

    async def _call(self, payment: Payment, call: Callable[[], Awaitable[T]]) -> T:
        self.asked[payment.id] += 1
        fault = self._fault
        if fault is None or self._failed[payment.id] >= self._times:
            return await call()
        self._failed[payment.id] += 1
        if fault.how == "slow":
            for _ in range(SLOW_TICKS):
                await asyncio.sleep(0)
            return await call()
        if fault.done == "before":
            await call()
        elif fault.done == "later":
            self._later.append(call)
        raise LearnFlowError(Code.SERVICE_UNAVAILABLE)
