"""What Stripe's errors mean for a payment (https://docs.stripe.com/error-codes, https://docs.stripe.com/declines/codes)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import stripe

from learnflow_core.errors import Code, LearnFlowError

logger: Final = logging.getLogger("learnflow.payments")

_AUTHENTICATION: Final = frozenset(
    {
        "authentication_required",
        "authentication_not_handled",
        "offline_pin_required",
        "online_or_offline_pin_required",
        "payment_intent_authentication_failure",
        "setup_intent_authentication_failure",
    }
)
_AMOUNTS: Final = frozenset(
    {"amount_too_large", "amount_too_small", "invalid_charge_amount", "invalid_charge_amount_no_decimal_compatible"}
)


@contextmanager
def explained() -> Iterator[None]:
    """Say of a question that it has no answer now (`service_unavailable`); refusals pass as they are.

    Without an answer are connections that failed, time that ran out, too many requests, a request under the same key
    that is still being worked on, and whatever goes wrong at Stripe. So is a key that Stripe does not accept, which an
    operator has to see to: it is logged as an error.
    """
    try:
        yield
    except (stripe.CardError, stripe.InvalidRequestError):
        raise
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        logger.error("Stripe does not accept --stripe-secret-key", extra=facts(error))  # noqa: TRY400 - no trace helps
        raise LearnFlowError(Code.SERVICE_UNAVAILABLE) from error
    except stripe.IdempotencyError as error:
        logger.error("Stripe knows another request under this key", extra=facts(error))  # noqa: TRY400 - as above
        raise LearnFlowError(Code.SERVICE_UNAVAILABLE) from error
    except (stripe.StripeError, TimeoutError) as error:
        raise LearnFlowError(Code.SERVICE_UNAVAILABLE) from error


def facts(error: stripe.StripeError) -> dict[str, object]:
    """What a log may tell of an error, beside its message: nothing that came from a card."""
    return {"status": error.http_status, "error": error.code, "stripe_request": error.request_id}


def declined(code: str | None, decline_code: str | None) -> Code:
    """The refusal that a card's error stands for."""
    if "insufficient_funds" in (code, decline_code):
        return Code.INSUFFICIENT_FUNDS
    if {code, decline_code} & _AUTHENTICATION:
        return Code.AUTHENTICATION_REQUIRED
    return Code.CARD_DECLINED


def of_card(error: stripe.CardError) -> Code:
    """The refusal that a card's error stands for."""
    return declined(error.code, error.error.decline_code if error.error else None)


def of_request(error: stripe.InvalidRequestError) -> Code | None:
    """The refusal that an invalid request stands for; None where it can only be a defect, or Stripe's account."""
    param = (error.param or "").partition("[")[0]
    if error.code in _AMOUNTS or param in ("amount", "currency"):
        return Code.COURSE_NOT_AVAILABLE
    if param in ("payment_method", "customer") or (error.code or "").startswith("payment_method"):
        return Code.INVALID_PAYMENT_METHOD
    return None
