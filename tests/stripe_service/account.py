"""The objects of an account at Stripe, and what each request does to them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.stripe_service.ledger import Ledger

Form = dict[str, str]
Object = dict[str, Any]


class RefusedError(Exception):
    """A request that is refused; `begun` says that its work had begun, so that its key stands for the refusal."""

    def __init__(self, status: int, kind: str, *, begun: bool = True, **facts: Any) -> None:
        super().__init__(status, kind, facts)
        self.status = status
        self.begun = begun
        self.body = {"error": {"type": kind, "message": "refused", **facts}}


@dataclass(frozen=True)
class Card:
    """What comes of setting a test card up, and of charging it while its holder is away: a decline code, `action` for a
    bank that wants to see its holder, `processing`, or nothing when it passes."""

    set_up: str = ""
    charged: str = ""


CARDS = {
    "pm_card_visa": Card(),
    "pm_card_chargeDeclined": Card("generic_decline", "generic_decline"),
    "pm_card_chargeDeclinedInsufficientFunds": Card("insufficient_funds", "insufficient_funds"),
    "pm_card_chargeCustomerFail": Card("", "generic_decline"),
    "pm_card_authenticationRequired": Card("action", "authentication_required"),
    "pm_card_authenticationRequiredOnSetup": Card("action"),
    "pm_card_poorLater": Card("", "insufficient_funds"),
    "pm_card_waryLater": Card("", "authentication_required"),
    "pm_card_actionLater": Card("", "action"),
    "pm_card_processingLater": Card("", "processing"),
    "pm_card_blocksInvalid": Card("", "invalid_method"),
}
"""Stripe's own test cards; `…Later` are ours, since what they do takes several of Stripe's settings."""

MINIMUM = {"usd": 50, "jpy": 50, "kwd": 150, "isk": 6_000, "ugx": 200_000}
HUNDREDS = {"isk", "ugx"}
THREE_DECIMALS = {"bhd", "jod", "kwd", "omr", "tnd"}
UNSUPPORTED = {"iqd", "lyd"}
OPEN = {"requires_payment_method", "requires_action", "requires_confirmation", "requires_capture", "processing"}


class Account:
    """Customers, payment methods, intents and refunds, and the events that they make.

    `disputed_code` is what a refund of disputed money is refused with: Stripe documents two codes for it.
    """

    disputed_code = "charge_disputed"

    def __init__(self, ledger: Ledger, clock: Callable[[], float], emit: Callable[[str, Object], None]) -> None:
        self.ledger = ledger
        self.objects: dict[str, Object] = {}
        self._clock = clock
        self._emit = emit
        self._numbers = itertools.count(1)
        self._used_tokens: set[str] = set()

    # Making

    def _new(self, prefix: str, kind: str, **fields: Any) -> Object:
        made = {"id": f"{prefix}_{next(self._numbers):08d}", "object": kind, "created": int(self._clock()), **fields}
        self.objects[made["id"]] = made
        return made

    def get(self, object_id: str, kind: str, param: str = "id") -> Object:
        """An object, or Stripe's 404."""
        found = self.objects.get(object_id)
        if found is None or found["object"] != kind:
            raise RefusedError(404, "invalid_request_error", code="resource_missing", param=param, begun=False)
        return found

    def create_method(self, form: Form) -> Object:
        """A token is good once, except Stripe's own for tests, which are treated here as those of real cards."""
        token = form["card[token]"]
        if token in self._used_tokens:
            raise RefusedError(400, "invalid_request_error", code="token_already_used", begun=False)
        method = self._method("pm_card_" + token.removeprefix("tok_"))
        self._used_tokens.add(token)
        return method

    def retrieve_method(self, method_id: str) -> Object:
        return (
            self._method(method_id) if method_id in CARDS else self.get(method_id, "payment_method", "payment_method")
        )

    def _method(self, card: str) -> Object:
        if card not in CARDS:
            raise RefusedError(
                404, "invalid_request_error", code="resource_missing", param="payment_method", begun=False
            )
        return self._new("pm", "payment_method", type="card", customer=None, card_of_test=card, used=False)

    def detach(self, method_id: str) -> Object:
        method = self.get(method_id, "payment_method", "payment_method")
        if method["customer"] is None:
            raise RefusedError(
                400, "invalid_request_error", code="resource_missing", param="payment_method", begun=False
            )
        method.update(customer=None, used=True)
        return method

    def create_customer(self, form: Form) -> Object:
        return self._new("cus", "customer", metadata=metadata(form))

    # Setting up

    def create_setup(self, form: Form) -> Object:
        method = self.get(form["payment_method"], "payment_method", "payment_method")
        customer = self.get(form["customer"], "customer", "customer")
        if method["used"] or method["customer"] not in (None, customer["id"]):
            raise RefusedError(400, "invalid_request_error", code="payment_method_unexpected_state", begun=False)
        outcome = CARDS[method["card_of_test"]].set_up
        setup = self._new("seti", "setup_intent", customer=customer["id"], payment_method=method["id"])
        setup["client_secret"] = f"{setup['id']}_secret_abc"
        if outcome and outcome != "action":
            raise RefusedError(402, "card_error", code="card_declined", decline_code=outcome)
        setup["status"] = "requires_action" if outcome else "succeeded"
        if not outcome:
            method["customer"] = customer["id"]
        return setup

    def authenticate(self, client_secret: str) -> None:
        """What the cardholder does in the browser, by Stripe.js."""
        setup = self.get(client_secret.partition("_secret_")[0], "setup_intent")
        setup["status"] = "succeeded"
        self.objects[setup["payment_method"]]["customer"] = setup["customer"]

    # Paying

    def _check_intent(self, form: Form) -> None:
        """What Stripe looks at before it begins."""
        amount, currency = int(form["amount"]), form["currency"]
        if currency != currency.lower() or currency in UNSUPPORTED:
            raise RefusedError(400, "invalid_request_error", param="currency", begun=False)
        if amount < MINIMUM.get(currency, 1):
            raise RefusedError(400, "invalid_request_error", code="amount_too_small", param="amount", begun=False)
        if amount > 99_999_999:
            raise RefusedError(400, "invalid_request_error", code="amount_too_large", param="amount", begun=False)
        if (currency in HUNDREDS and amount % 100) or (currency in THREE_DECIMALS and amount % 10):
            code = "invalid_charge_amount_no_decimal_compatible" if currency in HUNDREDS else None
            raise RefusedError(400, "invalid_request_error", code=code, param="amount", begun=False)
        method = self.get(form["payment_method"], "payment_method", "payment_method")
        self.get(form["customer"], "customer", "customer")
        if method["customer"] != form["customer"]:
            raise RefusedError(400, "invalid_request_error", code="payment_method_unexpected_state", begun=False)

    def create_intent(self, form: Form) -> Object:
        self._check_intent(form)
        assert form["confirm"] == form["off_session"] == "true", "this server knows this way of paying only"
        method = self.objects[form["payment_method"]]
        intent = self._new(
            "pi",
            "payment_intent",
            amount=int(form["amount"]),
            currency=form["currency"],
            customer=form["customer"],
            payment_method=method["id"],
            metadata=metadata(form),
            status="requires_confirmation",
            last_payment_error=None,
            latest_charge=None,
        )
        return self._confirm(intent, CARDS[method["card_of_test"]].charged)

    def _confirm(self, intent: Object, outcome: str) -> Object:
        if outcome in ("action", "processing"):
            intent["status"] = "requires_action" if outcome == "action" else "processing"
            return intent
        if outcome == "invalid_method":
            raise RefusedError(
                400, "invalid_request_error", code="payment_method_not_available", param="payment_method"
            )
        if outcome:
            self._decline(intent, outcome)
        self.succeed(intent)
        return intent

    def _decline(self, intent: Object, decline_code: str) -> None:
        code = "authentication_required" if decline_code == "authentication_required" else "card_declined"
        error = {"type": "card_error", "code": code, "decline_code": decline_code}
        intent.update(status="requires_payment_method", last_payment_error=error)
        self._emit("payment_intent.payment_failed", intent)
        raise RefusedError(402, "card_error", code=code, decline_code=decline_code, payment_intent=dict(intent))

    def succeed(self, intent: Object) -> None:
        """Take the money of an intent."""
        facts = {"payment_intent": intent["id"], "amount": intent["amount"], "currency": intent["currency"]}
        charge = self._new("ch", "charge", refunded=False, metadata=intent["metadata"], **facts)
        intent.update(status="succeeded", latest_charge=charge["id"])
        self._log("charged", intent)
        self._emit("payment_intent.succeeded", intent)

    def _log(self, what: str, intent: Object) -> None:
        names = {name.removeprefix("learnflow_"): value for name, value in intent["metadata"].items()}
        self.ledger.write(what, intent=intent["id"], amount=intent["amount"], currency=intent["currency"], **names)

    def cancel(self, intent_id: str) -> Object:
        intent = self.get(intent_id, "payment_intent", "intent")
        if intent["status"] not in OPEN - {"processing"}:
            raise RefusedError(
                400, "invalid_request_error", code="payment_intent_unexpected_state", payment_intent=dict(intent)
            )
        intent["status"] = "canceled"
        self._emit("payment_intent.canceled", intent)
        return intent

    def list_intents(self, form: Form) -> Object:
        since = int(form.get("created[gte]", "0"))
        found = [
            each
            for each in reversed(self.objects.values())
            if each["object"] == "payment_intent"
            and each["customer"] == form.get("customer", each["customer"])
            and each["created"] >= since
        ]
        if "starting_after" in form:
            found = found[1 + [each["id"] for each in found].index(form["starting_after"]) :]
        limit = int(form.get("limit", "10"))
        return {
            "object": "list",
            "url": "/v1/payment_intents",
            "has_more": len(found) > limit,
            "data": [dict(each) for each in found[:limit]],
        }

    # Paying back

    def create_refund(self, form: Form) -> Object:
        intent = self.get(form["payment_intent"], "payment_intent", "payment_intent")
        charge = self.objects.get(intent["latest_charge"] or "")
        if charge is None:
            raise RefusedError(400, "invalid_request_error", code="resource_missing", param="payment_intent")
        if charge["refunded"]:
            raise RefusedError(400, "invalid_request_error", code="charge_already_refunded")
        if charge.get("disputed"):
            raise RefusedError(400, "invalid_request_error", code=self.disputed_code)
        charge["refunded"] = True
        self._log("refunded", intent)
        self._emit("charge.refunded", charge)
        return self._new("re", "refund", status="succeeded", payment_intent=intent["id"], metadata=metadata(form))

    def dispute(self, intent: Object) -> Object:
        """The cardholder's bank takes the money back for the time being."""
        self.objects[intent["latest_charge"]]["disputed"] = True
        dispute = self._new(
            "du", "dispute", payment_intent=intent["id"], charge=intent["latest_charge"], metadata={}, status="open"
        )
        self._emit("charge.dispute.created", dispute)
        return dispute

    def lose(self, dispute: Object) -> None:
        """The dispute ends in the cardholder's favour."""
        dispute["status"] = "lost"
        self._log("refunded", self.objects[dispute["payment_intent"]])
        self._emit("charge.dispute.closed", dispute)

    def win(self, dispute: Object) -> None:
        """The dispute ends in the merchant's favour."""
        dispute["status"] = "won"
        self._emit("charge.dispute.closed", dispute)

    def intent_of(self, payment_id: str) -> Object:
        """The one intent of a payment of LearnFlow's."""
        (found,) = (
            each
            for each in self.objects.values()
            if each["object"] == "payment_intent" and each["metadata"].get("learnflow_payment") == payment_id
        )
        return found


def metadata(form: Form) -> dict[str, str]:
    """The metadata of a form: `metadata[name]=value`."""
    return {name[9:-1]: value for name, value in form.items() if name.startswith("metadata[")}
