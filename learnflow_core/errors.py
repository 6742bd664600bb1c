"""The error family: one exception, a frozen list of stable codes, one envelope.

A use case that refuses raises `LearnFlowError` with a `Code`. The code is what programs read, and it never
changes; the message is what people read, and may. Which HTTP status a code travels under is not known here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class Code(StrEnum):
    """Every code the API can answer with. Frozen: words are added, never renamed or removed."""

    INVALID_REQUEST = "invalid_request"
    INVALID_PARAMETER = "invalid_parameter"
    MISSING_PARAMETER = "missing_parameter"
    UNKNOWN_PARAMETER = "unknown_parameter"
    INVALID_JSON = "invalid_json"
    INVALID_PAYMENT_METHOD = "invalid_payment_method"
    EMAIL_TAKEN = "email_taken"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"

    MISSING_TOKEN = "missing_token"  # noqa: S105 - a code, not a secret
    INVALID_TOKEN = "invalid_token"  # noqa: S105 - a code, not a secret
    INVALID_API_KEY = "invalid_api_key"
    INVALID_CREDENTIALS = "invalid_credentials"

    INSUFFICIENT_SCOPE = "insufficient_scope"
    FORBIDDEN = "forbidden"
    ACCOUNT_SUSPENDED = "account_suspended"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    CARD_DECLINED = "card_declined"
    AUTHENTICATION_REQUIRED = "authentication_required"
    LICENSE_EXHAUSTED = "license_exhausted"
    COURSE_FULL = "course_full"
    COURSE_NOT_AVAILABLE = "course_not_available"
    ENROLLMENT_CLOSED = "enrollment_closed"
    PREREQUISITE_NOT_MET = "prerequisite_not_met"
    ENROLLMENT_NOT_ACTIVE = "enrollment_not_active"
    REFUND_WINDOW_CLOSED = "refund_window_closed"

    NOT_FOUND = "not_found"
    COURSE_NOT_FOUND = "course_not_found"
    USER_NOT_FOUND = "user_not_found"
    ENROLLMENT_NOT_FOUND = "enrollment_not_found"
    CERTIFICATE_NOT_FOUND = "certificate_not_found"
    API_KEY_NOT_FOUND = "api_key_not_found"
    PAYMENT_METHOD_NOT_FOUND = "payment_method_not_found"
    WEBHOOK_ENDPOINT_NOT_FOUND = "webhook_endpoint_not_found"
    EVENT_NOT_FOUND = "event_not_found"

    METHOD_NOT_ALLOWED = "method_not_allowed"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded"
    INTERNAL_ERROR = "internal_error"
    SERVICE_UNAVAILABLE = "service_unavailable"


MESSAGES: dict[Code, str] = {
    Code.INVALID_REQUEST: "The request is not valid HTTP, or is larger than this server reads.",
    Code.INVALID_PARAMETER: "A parameter has a value that is not allowed.",
    Code.MISSING_PARAMETER: "A required parameter is missing.",
    Code.UNKNOWN_PARAMETER: "The request has a field this operation does not know.",
    Code.INVALID_JSON: "The body is not valid JSON.",
    Code.INVALID_PAYMENT_METHOD: "The payment method does not exist or cannot be used by this user.",
    Code.EMAIL_TAKEN: "A user with this email exists already in the account.",
    Code.IDEMPOTENCY_KEY_REUSED: "This Idempotency-Key was used before with a different body.",
    Code.MISSING_TOKEN: "This operation needs an access token or an API key in the Authorization header.",
    Code.INVALID_TOKEN: "The access token provided is expired or invalid.",
    Code.INVALID_API_KEY: "The API key provided is unknown, expired or revoked.",
    Code.INVALID_CREDENTIALS: "The email or the password is wrong.",
    Code.INSUFFICIENT_SCOPE: "The credential lacks a scope that this operation needs.",
    Code.FORBIDDEN: "The caller's role does not allow this operation.",
    Code.ACCOUNT_SUSPENDED: "The account is suspended.",
    Code.INSUFFICIENT_FUNDS: "The payment method has insufficient funds.",
    Code.CARD_DECLINED: "The payment method was declined.",
    Code.AUTHENTICATION_REQUIRED: "The payment needs to be authenticated by the card's holder.",
    Code.LICENSE_EXHAUSTED: "Every licence of the account is in use.",
    Code.COURSE_FULL: "Every seat of the course is taken.",
    Code.COURSE_NOT_AVAILABLE: "The course is not published.",
    Code.ENROLLMENT_CLOSED: "The course takes no enrolments.",
    Code.PREREQUISITE_NOT_MET: "A course that must be completed first has not been completed.",
    Code.ENROLLMENT_NOT_ACTIVE: "The enrolment is not active.",
    Code.REFUND_WINDOW_CLOSED: "The time in which this enrolment could be refunded is over.",
    Code.NOT_FOUND: "There is nothing at this address.",
    Code.COURSE_NOT_FOUND: "No such course.",
    Code.USER_NOT_FOUND: "No such user.",
    Code.ENROLLMENT_NOT_FOUND: "No such enrolment.",
    Code.CERTIFICATE_NOT_FOUND: "No such certificate.",
    Code.API_KEY_NOT_FOUND: "No such API key.",
    Code.PAYMENT_METHOD_NOT_FOUND: "No such payment method.",
    Code.WEBHOOK_ENDPOINT_NOT_FOUND: "No such webhook endpoint.",
    Code.EVENT_NOT_FOUND: "No such event.",
    Code.METHOD_NOT_ALLOWED: "This address does not support the method; Allow names those it does.",
    Code.PAYLOAD_TOO_LARGE: "The body is larger than 1 MiB.",
    Code.UNSUPPORTED_MEDIA_TYPE: "The body must be sent as application/json.",
    Code.RATE_LIMIT_EXCEEDED: "The rate limit is exceeded; try again when Retry-After says.",
    Code.INTERNAL_ERROR: "Something went wrong on our side; the request_id identifies it.",
    Code.SERVICE_UNAVAILABLE: "The service cannot answer right now; try again when Retry-After says.",
}
"""What each code says to a person where the place that raises it has nothing more exact to say."""


class LearnFlowError(Exception):
    """A refusal with a stable code: the one exception that use cases and ports raise on purpose.

    `param` names the offending parameter as the client wrote it (`price.amount`, `page`); `details` is JSON data
    for programs (which prerequisite, which rule); `retry_after_s` says in whole seconds when trying again can help.
    """

    def __init__(
        self,
        code: Code,
        message: str | None = None,
        *,
        param: str | None = None,
        details: dict[str, Any] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message or MESSAGES[code]
        self.param = param
        self.details = details
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        where = f" ({self.param})" if self.param else ""
        return f"{self.code.value}{where}: {self.message}"


def envelope(error: LearnFlowError, request_id: str, *, doc_url: str | None = None) -> dict[str, Any]:
    """The body that every error of the API has: `{"error": {"code", "message", "request_id"}}`.

    `param`, `details` and `doc_url` follow the three published fields, and only where there is something to say.
    """
    body: dict[str, Any] = {"code": error.code.value, "message": error.message, "request_id": request_id}
    if error.param is not None:
        body["param"] = error.param
    if error.details is not None:
        body["details"] = error.details
    if doc_url is not None:
        body["doc_url"] = doc_url
    return {"error": body}
