"""Reading the webhooks that Stripe sends (https://docs.stripe.com/webhooks)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal

import msgspec
import stripe

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.ports import PaymentNews
from payment_gateways.stripe.gateway import PAYMENT, StripeGateway

TOLERANCE_S: Final = 300
"""How old a signature may be."""

Kind = Literal["changed", "paid", "returned", "disputed", "kept", "not_returned"]

KINDS: Final[Mapping[str, Kind | Mapping[str, Kind]]] = MappingProxyType(
    {
        "payment_intent.succeeded": "paid",
        "payment_intent.payment_failed": "changed",
        "payment_intent.canceled": "changed",
        "charge.refunded": "returned",
        "charge.dispute.created": "disputed",
        "charge.dispute.closed": {"lost": "returned", "won": "kept"},
        "refund.failed": "not_returned",
    }
)
"""The events to subscribe to, and what they tell, by the object's `status` where they leave that open; others are for
nobody here."""


class _Told(msgspec.Struct):
    """What matters of the objects that KINDS tell of."""

    metadata: dict[str, str] | None = None
    payment_intent: str | None = None
    refunded: bool = False
    status: str | None = None


class _Data(msgspec.Struct):
    object: msgspec.Raw


class _Event(msgspec.Struct):
    type: str
    data: _Data


class StripeEvents:
    """`learnflow_core.ports.PaymentNewsReader` for Stripe. Any of the `secrets` may have signed, so that one can be
    replaced by another."""

    def __init__(self, secrets: Sequence[str], gateway: StripeGateway) -> None:
        self._secrets = secrets
        self._gateway = gateway

    async def read(self, body: bytes, signature: str) -> PaymentNews | None:
        if not any(_signed(body, signature, secret) for secret in self._secrets):
            raise LearnFlowError(Code.INVALID_REQUEST, "Stripe did not sign this, or longer than 5 minutes ago.")
        try:
            event = msgspec.json.decode(body, type=_Event)
            if event.type not in KINDS:
                return None
            told = msgspec.json.decode(event.data.object, type=_Told)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise LearnFlowError(Code.INVALID_JSON, "This is no event of Stripe.") from error
        kind = _kind(event.type, told)
        if kind is None:
            return None
        payment_id = await self._payment_of(told)
        return None if payment_id is None else PaymentNews(payment_id, kind)

    async def _payment_of(self, told: _Told) -> str | None:
        """Which payment an event tells of. PaymentIntents and their charges say it; disputes say which PaymentIntent
        they are about."""
        named = (told.metadata or {}).get(PAYMENT)
        if named is not None or told.payment_intent is None:
            return named
        return await self._gateway.payment_of(told.payment_intent)


def _kind(event: str, told: _Told) -> Kind | None:
    """What an event tells; None where it is nothing to us, such as that a part of the money went back."""
    kind = KINDS[event]
    if isinstance(kind, Mapping):
        return kind.get(told.status or "")
    return None if event == "charge.refunded" and not told.refunded else kind


def _signed(body: bytes, signature: str, secret: str) -> bool:
    try:
        stripe.WebhookSignature.verify_header(body, signature, secret, TOLERANCE_S)
    except (stripe.SignatureVerificationError, ValueError, TypeError):  # of what is no UTF-8, and no ASCII
        return False
    return True
