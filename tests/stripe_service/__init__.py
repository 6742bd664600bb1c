"""A server on 127.0.0.1 that speaks Stripe's protocol as it is documented, and misbehaves when it is told to.

It keeps to https://docs.stripe.com/api: requests in form encoding, idempotency keys, errors, lists with cursors, signed
webhooks. What it charged and refunded it writes into a log of its own (`tests.stripe_service.ledger`), so that a test
can ask it, rather than LearnFlow, how often somebody paid.
"""

from tests.stripe_service.faults import FAULTS, Fault
from tests.stripe_service.service import SECRET_KEY, WEBHOOK_SECRET, StripeService

__all__ = ["FAULTS", "SECRET_KEY", "WEBHOOK_SECRET", "Fault", "StripeService"]
