"""Charging, refunding and keeping cards at Stripe, through its own library.

A payment is one PaymentIntent, created and confirmed in one request under the payment's id as `Idempotency-Key`. Stripe
answers a repeated request as it answered the first, for 24 hours at least, also with the error that came first. So it
is repeated for CREATED_WITHIN, and then never again: from then on Stripe is asked which PaymentIntents there are of the
card's customer, and one that has not come to an end is cancelled, which Stripe does for good. What it does not know
after UNKNOWN_UNTIL will not come: by then, no request that creates one can be on its way any more.

Each means of payment is kept with a customer of its own, so that its token here, `cus_…/pm_…`, says all that charging
takes, and the customer's PaymentIntents are few.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Final, Literal, TypeVar

import stripe

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import SECOND, Instant, Payment, User
from payment_gateways.stripe.amounts import smallest_units
from payment_gateways.stripe.errors import declined, explained, facts, of_card, of_request

T = TypeVar("T")

logger: Final = logging.getLogger("learnflow.payments")

API: Final = "https://api.stripe.com"
PAYMENT: Final = "learnflow_payment"
"""The metadata that says which of our payments a PaymentIntent, or a charge of it, belongs to."""
_USER: Final = "learnflow_user"
_OLDER_TOKEN: Final = re.compile(r"tok_[0-9A-Za-z_]+")

CREATED_WITHIN: Final[Instant] = 3_600 * SECOND
"""For how long after its beginning a payment may still be charged: longer than most troubles of networks and of Stripe,
and not so long that people are charged for what they gave up."""
UNKNOWN_UNTIL: Final[Instant] = CREATED_WITHIN + 600 * SECOND
"""When what Stripe does not know was never charged: past the longest request, and the difference of clocks."""
_NOTHING_TO_REFUND: Final = frozenset({"charge_already_refunded", "charge_disputed", "refund_disputed_payment"})
_CLOCKS_DIFFER_S: Final = 86_400
"""By how much our clock may be ahead of Stripe's for a payment to be found: the lists are short."""
_DEADLINE_S: Final = 45.0
"""How long anything that is asked of this takes at most, with all questions to Stripe and their repetitions: what comes
of it is written down within a minute of when it was asked for."""

stripe.enable_telemetry = False  # it would write an id into the home folder, and measure requests for Stripe


class StripeGateway:
    """`learnflow_core.ports.PaymentGateway` over Stripe's API.

    `clock_ns` tells Unix time. A request is repeated `retries` times, with the same key, after a failure that may pass;
    each has `timeout_s`. Made, used and closed in one event loop.
    """

    builtin_methods: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self,
        secret_key: str,
        *,
        clock_ns: Callable[[], int],
        api: str = API,
        timeout_s: float = 15.0,
        retries: int = 1,
    ) -> None:
        self._clock_ns = clock_ns
        self._http = stripe.HTTPXClient(timeout=timeout_s)
        client = stripe.StripeClient(
            secret_key, base_addresses={"api": api}, max_network_retries=retries, http_client=self._http
        )
        self._api = client.v1

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self._http.close_async()  # type: ignore[no-untyped-call] # the library has no type for it

    async def keep(self, token: str, user: User) -> str:
        """Attach a PaymentMethod (`pm_…`, or the older `tok_…`) to a customer that is the user's.

        It is set up for being charged while the user is away, which the bank may want the user to agree to: then
        `details.client_secret` is the SetupIntent's, for Stripe.js (`stripe.confirmCardSetup`), and the same token can
        be sent again when that is done.
        """
        try:
            async with _in_time():
                method = await self._method(token, user)
                if method.customer is None:
                    return f"{await self._set_up(method.id, user)}/{method.id}"
                customer = method.customer if isinstance(method.customer, str) else method.customer.id
                if await self._owner(customer) == user.id:
                    return f"{customer}/{method.id}"
        except stripe.CardError as error:
            raise LearnFlowError(of_card(error), param="token") from error
        except stripe.InvalidRequestError as error:
            _untaken(error)
            raise LearnFlowError(Code.INVALID_PAYMENT_METHOD, param="token") from error
        raise LearnFlowError(Code.INVALID_PAYMENT_METHOD, param="token")

    async def forget(self, token: str) -> None:
        """Detach the PaymentMethod; its customer stays, by whom past payments are found."""
        try:
            async with _in_time():
                await _answer(self._api.payment_methods.detach_async(_parts(token)[1]))
        except stripe.InvalidRequestError as error:
            logger.info("Stripe had forgotten a payment method already", extra=facts(error))

    async def charge(self, payment: Payment) -> Code | None:
        """Create the PaymentIntent, or find out what became of it."""
        customer, method = _parts(payment.token)
        amount = smallest_units(payment.amount)
        if not customer:  # it was kept for another payment service
            return Code.INVALID_PAYMENT_METHOD
        if amount is None:
            return _unchargeable(payment, "cannot write such an amount")
        async with _in_time():
            age = self._clock_ns() // 1_000 - payment.created_at
            if age < CREATED_WITHIN:
                return await self._create(payment, amount, customer, method)
            intent = await self._find(payment)
            if intent is not None:
                return await self._end(intent)
        if age < UNKNOWN_UNTIL:
            raise LearnFlowError(Code.SERVICE_UNAVAILABLE)
        return Code.SERVICE_UNAVAILABLE

    async def refund(self, payment: Payment) -> None:
        """Refund the PaymentIntent whole, of which Stripe itself sees to it that this happens once: what has been
        refunded is refused another refund, and so is what the bank has taken back after a dispute."""
        if not _parts(payment.token)[0]:
            logger.warning("a payment of another payment service was not refunded", extra={"payment": payment.id})
            return
        async with _in_time():
            intent = await self._find(payment)
            if intent is None:
                logger.error("Stripe does not know the payment to refund", extra={"payment": payment.id})
                raise LearnFlowError(Code.SERVICE_UNAVAILABLE)
            await self._give_back(intent, payment)

    async def payment_of(self, intent_id: str) -> str | None:
        """Which of our payments a PaymentIntent belongs to; None for one that is not ours."""
        try:
            async with _in_time():
                intent = await self._retrieve(intent_id)
        except stripe.InvalidRequestError:
            return None
        return _ours(intent)

    async def _give_back(self, intent: stripe.PaymentIntent, payment: Payment) -> None:
        try:
            refund = await _answer(
                self._api.refunds.create_async(
                    {"payment_intent": intent.id, "metadata": {PAYMENT: payment.id}, "reason": "requested_by_customer"}
                )
            )
        except stripe.InvalidRequestError as error:
            if error.code not in _NOTHING_TO_REFUND:
                raise _defect(error, payment) from error
            logger.info("nothing was left to refund", extra={"payment": payment.id, **facts(error)})
            return
        if refund.status in ("failed", "canceled"):
            logger.error("a refund has failed", extra={"payment": payment.id, "refund": refund.id})

    async def _create(self, payment: Payment, amount: int, customer: str, method: str) -> Code | None:
        try:
            intent = await _answer(
                self._api.payment_intents.create_async(
                    {
                        "amount": amount,
                        "currency": payment.amount.currency.lower(),
                        "customer": customer,
                        "payment_method": method,
                        "allowed_payment_method_types": ["card"],
                        "confirm": True,
                        "off_session": True,
                        "metadata": {PAYMENT: payment.id, "learnflow_enrollment": payment.enrollment_id},
                    },
                    {"idempotency_key": payment.id},
                )
            )
        except (stripe.CardError, stripe.InvalidRequestError) as error:
            return await self._refused(error, payment)
        except LearnFlowError as unknown:
            return await self._after_failure(unknown, payment)
        return await self._end(intent)

    async def _refused(self, error: stripe.CardError | stripe.InvalidRequestError, payment: Payment) -> Code | None:
        """The refusal for good: the PaymentIntent that there may be is ended first, and what it came to counts."""
        refusal = of_card(error) if isinstance(error, stripe.CardError) else of_request(error)
        intent = error.error.payment_intent if error.error else None
        if intent is not None:
            return await self._end(intent, refusal)
        if refusal is None:
            raise _defect(error, payment) from error
        if refusal is Code.COURSE_NOT_AVAILABLE:
            return _unchargeable(payment, str(error.user_message or error.code))
        if refusal is Code.INVALID_PAYMENT_METHOD:
            _untaken(error)
        return refusal

    async def _after_failure(self, unknown: LearnFlowError, payment: Payment) -> Code | None:
        """What became of a request at which Stripe failed: the same failure is all that repeating it would bring."""
        failure = unknown.__cause__
        if not isinstance(failure, stripe.APIError) or (failure.http_status or 0) < 500:
            raise unknown
        intent = await self._find(payment)
        if intent is None:
            raise unknown
        return await self._end(intent)

    async def _end(self, intent: stripe.PaymentIntent, refusal: Code | None = None) -> Code | None:
        """What a PaymentIntent has come to. One that still waits for something is cancelled: for a cardholder who is
        not there, for instance."""
        if intent.status == "processing":  # it may say so only because a request was repeated
            intent = await self._retrieve(intent.id)
        refusal = refusal or _refusal(intent)
        if intent.status not in ("succeeded", "canceled", "processing"):
            intent = await self._cancel(intent.id)
        if intent.status == "succeeded":
            return None
        if intent.status == "canceled":
            return refusal
        raise LearnFlowError(Code.SERVICE_UNAVAILABLE)

    async def _cancel(self, intent_id: str) -> stripe.PaymentIntent:
        """The PaymentIntent after an attempt to cancel it, which fails when it has come to its end."""
        try:
            return await _answer(self._api.payment_intents.cancel_async(intent_id))
        except stripe.InvalidRequestError:
            return await self._retrieve(intent_id)

    async def _retrieve(self, intent_id: str) -> stripe.PaymentIntent:
        return await _answer(self._api.payment_intents.retrieve_async(intent_id))

    async def _find(self, payment: Payment) -> stripe.PaymentIntent | None:
        """The payment's PaymentIntent, as it is now. Lists, unlike searches, know what was just created."""
        since = payment.created_at // SECOND - _CLOCKS_DIFFER_S
        try:
            page = await _answer(
                self._api.payment_intents.list_async(
                    {"customer": _parts(payment.token)[0], "created": {"gte": since}, "limit": 100}
                )
            )
            with explained():
                async for intent in page.auto_paging_iter():
                    if _ours(intent) == payment.id:
                        return intent
        except stripe.InvalidRequestError as error:
            raise _defect(error, payment) from error
        return None

    async def _method(self, token: str, user: User) -> stripe.PaymentMethod:
        """The PaymentMethod as it is now. A `tok_…` is good for one, which a repetition gets by the same key."""
        methods = self._api.payment_methods
        if _OLDER_TOKEN.fullmatch(token):
            made = await _answer(
                methods.create_async(
                    {"type": "card", "card": {"token": token}}, {"idempotency_key": f"method:{user.id}:{token}"}
                )
            )
            token = made.id
        if not token.startswith("pm_"):
            raise LearnFlowError(Code.INVALID_PAYMENT_METHOD, param="token")
        return await _answer(methods.retrieve_async(token))

    async def _owner(self, customer_id: str) -> str | None:
        customer = await _answer(self._api.customers.retrieve_async(customer_id))
        return customer.metadata.to_dict().get(_USER) if customer.metadata else None

    async def _set_up(self, method_id: str, user: User) -> str:
        """Attach a PaymentMethod to a new customer, in the way that makes later charges pass; the customer's id."""
        customer = await _answer(
            self._api.customers.create_async(
                {"metadata": {_USER: user.id, "learnflow_account": user.account_id}},
                {"idempotency_key": f"customer:{user.id}:{method_id}"},
            )
        )
        intent = await _answer(
            self._api.setup_intents.create_async(
                {
                    "customer": customer.id,
                    "payment_method": method_id,
                    "allowed_payment_method_types": ["card"],
                    "usage": "off_session",
                    "confirm": True,
                }
            )
        )
        if intent.status == "succeeded":
            return customer.id
        if intent.status != "requires_action":
            raise LearnFlowError(Code.SERVICE_UNAVAILABLE)
        raise LearnFlowError(
            Code.AUTHENTICATION_REQUIRED,
            "The bank wants the cardholder to agree: complete details.client_secret with Stripe.js, then send the token"
            " again.",
            param="token",
            details={"client_secret": intent.client_secret},
        )


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    """Give up what is done inside at the deadline: then it has no answer now."""
    try:
        async with asyncio.timeout(_DEADLINE_S):
            yield
    except TimeoutError as error:
        raise LearnFlowError(Code.SERVICE_UNAVAILABLE) from error


async def _answer(question: Awaitable[T]) -> T:
    """The answer to a question; see `explained` for when there is none."""
    with explained():
        return await question


def _parts(token: str) -> tuple[str, str]:
    """The customer and the PaymentMethod; the customer is empty in the token of another payment service."""
    customer, _, method = token.rpartition("/")
    return customer, method


def _ours(intent: stripe.PaymentIntent) -> str | None:
    """The id of the payment that a PaymentIntent is for; None where we did not create it."""
    return intent.metadata.to_dict().get(PAYMENT)


def _refusal(intent: stripe.PaymentIntent) -> Code:
    if intent.status == "requires_action":
        return Code.AUTHENTICATION_REQUIRED
    error = intent.last_payment_error
    return declined(getattr(error, "code", None), getattr(error, "decline_code", None)) if error else Code.CARD_DECLINED


def _untaken(error: stripe.StripeError) -> None:
    """Leave a trace of what looks like a mistake of the client, and may be the operator's: a key of another account."""
    logger.info("Stripe does not take a means of payment", extra=facts(error))


def _unchargeable(payment: Payment, reason: str) -> Literal[Code.COURSE_NOT_AVAILABLE]:
    logger.error(
        "Stripe does not charge the price of a course",
        extra={
            "payment": payment.id,
            "amount_minor": payment.amount.amount_minor,
            "currency": payment.amount.currency,
            "reason": reason,
        },
    )
    return Code.COURSE_NOT_AVAILABLE


def _defect(error: stripe.StripeError, payment: Payment) -> LearnFlowError:
    """What has no answer that anybody who pays could act on; an operator can."""
    logger.error("Stripe refuses a request", extra={"payment": payment.id, "reason": str(error), **facts(error)})
    return LearnFlowError(Code.SERVICE_UNAVAILABLE)
