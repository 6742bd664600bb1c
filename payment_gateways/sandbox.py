"""The sandbox payment service: it moves no money, and remembers what it was asked.

Its answer depends on the token alone, so that a developer can provoke each of them. The first answer under an
idempotency key is kept durably with its amount, and given again; another amount under the same key is a defect of who
asks, and raises ValueError.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from learnflow_core.errors import Code
from learnflow_core.model import Payment, SandboxCharge, User
from learnflow_core.ports import Storage

OUTCOMES: Mapping[str, Code | None] = MappingProxyType(
    {
        "tok_visa_4242": None,
        "tok_visa_0002": Code.CARD_DECLINED,
        "tok_visa_9995": Code.INSUFFICIENT_FUNDS,
        "tok_visa_3220": Code.AUTHENTICATION_REQUIRED,
    }
)
"""What charging each of the sandbox's tokens comes to: None is paid. Any other token is no payment method."""

PAID = "paid"
REFUNDED = "refunded"


class SandboxGateway:
    """`learnflow_core.ports.PaymentGateway` over a table of its own in the project's storage."""

    builtin_methods: Mapping[str, str] = MappingProxyType(
        {token.replace("tok_", "pm_", 1): token for token in OUTCOMES}
    )

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def keep(self, token: str, user: User) -> str:
        """Take any token: what it comes to shows when it is charged."""
        return token

    async def forget(self, token: str) -> None:
        """Nothing was kept."""

    async def charge(self, payment: Payment) -> Code | None:
        """Decide by the token, once for each payment."""
        refusal = OUTCOMES.get(payment.token, Code.INVALID_PAYMENT_METHOD)
        kept = await self._keep(payment.id, payment, PAID if refusal is None else refusal.value)
        return None if kept == PAID else Code(kept)

    async def refund(self, payment: Payment) -> None:
        """Keep that the payment was given back."""
        await self._keep(f"refund:{payment.id}", payment, REFUNDED)

    async def _keep(self, key: str, payment: Payment, outcome: str) -> str:
        asked = SandboxCharge(key, outcome, payment.amount, payment.updated_at)
        kept = await self._storage.write(lambda tx: tx.sandbox_charges.add(asked), subject=f"sandbox {key}")
        if kept.amount != payment.amount:
            raise ValueError(f"{key} was asked for before, with {kept.amount} and not {payment.amount}")
        return kept.outcome
