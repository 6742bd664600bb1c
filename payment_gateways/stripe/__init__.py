"""Stripe: payments charged off-session to cards that it keeps, and the webhooks it sends.

Needs the extra `stripe`.
"""

from payment_gateways.stripe.events import StripeEvents
from payment_gateways.stripe.gateway import StripeGateway

__all__ = ["StripeEvents", "StripeGateway"]
