"""Reading the webhooks that Stripe sends (https://docs.stripe.com/webhooks)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec
import stripe

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.ports import PaymentNews
from payment_gateways.stripe.gateway import PAYMENT, StripeGateway

TOLERANCE_S: Final = 300
"""How old a signature may be."""

Kind = Literal["changed", "paid", "returned", "disputed", "not_returned"]

KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "payment_intent.succeeded": "paid",
        "payment_intent.payment_failed": "changed",
        "payment_intent.canceled": "changed",
        "charge.refunded": "returned",
        "charge.dispute.created": "disputed",
        "charge.dispute.closed": "returned",
        "refund.failed": "not_returned",
    }
)
"""The events to subscribe to; others are for nobody here."""


class _Data(msgspec.Struct):
    object: dict[str, Any]


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
        except (msgspec.DecodeError, RecursionError) as error:
            raise LearnFlowError(Code.INVALID_JSON, "This is no event of Stripe.") from error
        kind = KINDS.get(event.type)
        if kind is None or not _matters(event):
            return None
        payment_id = await self._payment_of(event.data.object)
        return None if payment_id is None else PaymentNews(payment_id, kind)

    async def _payment_of(self, told: Mapping[str, Any]) -> str | None:
        """Which payment an event tells of. PaymentIntents and their charges say it; disputes say which PaymentIntent
        they are about."""
        named = (told.get("metadata") or {}).get(PAYMENT)
        if isinstance(named, str):
            return named
        intent_id = told.get("payment_intent")
        return await self._gateway.payment_of(intent_id) if isinstance(intent_id, str) else None


def _matters(event: _Event) -> bool:
    """Whether all of the money went back, where the event's name leaves that open."""
    if event.type == "charge.refunded":
        return event.data.object.get("refunded") is True
    if event.type == "charge.dispute.closed":
        return event.data.object.get("status") == "lost"
    return True


def _signed(body: bytes, signature: str, secret: str) -> bool:
    try:
        stripe.WebhookSignature.verify_header(body, signature, secret, TOLERANCE_S)
    except (stripe.SignatureVerificationError, ValueError, TypeError):  # of what is no UTF-8, and no ASCII
        return False
    return True
