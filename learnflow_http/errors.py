"""Errors over HTTP: the one place that knows which status a code travels under."""

from __future__ import annotations

from typing import Final

from learnflow_core.errors import Code, LearnFlowError

_CODES: dict[int, tuple[Code, ...]] = {
    400: (
        Code.INVALID_REQUEST,
        Code.INVALID_PARAMETER,
        Code.MISSING_PARAMETER,
        Code.UNKNOWN_PARAMETER,
        Code.INVALID_JSON,
        Code.INVALID_PAYMENT_METHOD,
        Code.EMAIL_TAKEN,
        Code.IDEMPOTENCY_KEY_REUSED,
    ),
    401: (Code.MISSING_TOKEN, Code.INVALID_TOKEN, Code.INVALID_API_KEY, Code.INVALID_CREDENTIALS),
    403: (
        Code.INSUFFICIENT_SCOPE,
        Code.FORBIDDEN,
        Code.ACCOUNT_SUSPENDED,
        Code.INSUFFICIENT_FUNDS,
        Code.CARD_DECLINED,
        Code.AUTHENTICATION_REQUIRED,
        Code.LICENSE_EXHAUSTED,
        Code.COURSE_FULL,
        Code.COURSE_NOT_AVAILABLE,
        Code.ENROLLMENT_CLOSED,
        Code.PREREQUISITE_NOT_MET,
        Code.ENROLLMENT_NOT_ACTIVE,
        Code.REFUND_WINDOW_CLOSED,
    ),
    404: (
        Code.NOT_FOUND,
        Code.COURSE_NOT_FOUND,
        Code.USER_NOT_FOUND,
        Code.ENROLLMENT_NOT_FOUND,
        Code.CERTIFICATE_NOT_FOUND,
        Code.API_KEY_NOT_FOUND,
        Code.PAYMENT_METHOD_NOT_FOUND,
        Code.WEBHOOK_ENDPOINT_NOT_FOUND,
        Code.EVENT_NOT_FOUND,
    ),
    405: (Code.METHOD_NOT_ALLOWED,),
    413: (Code.PAYLOAD_TOO_LARGE,),
    415: (Code.UNSUPPORTED_MEDIA_TYPE,),
    429: (Code.RATE_LIMIT_EXCEEDED,),
    500: (Code.INTERNAL_ERROR,),
    503: (Code.SERVICE_UNAVAILABLE,),
}

STATUS: dict[Code, int] = {code: status for status, codes in _CODES.items() for code in codes}
"""The HTTP status of every code."""

RETRY_AFTER_S: Final = 1
"""When to try again after a failure that says nothing better: what fails or is full here may be well within a second,
and another process may have room at once."""


def challenge(error: LearnFlowError) -> str | None:
    """The `WWW-Authenticate` field of a refusal (RFC 6750, section 3), where there is one.

    A request without any credential is told the scheme only; a bad one and a missing scope are told what was wrong.
    """
    if error.code is Code.INSUFFICIENT_SCOPE:
        scope = (error.details or {}).get("scope", "")
        return f'Bearer realm="learnflow", error="insufficient_scope", scope="{scope}"'
    if STATUS[error.code] != 401:
        return None
    if error.code in (Code.MISSING_TOKEN, Code.INVALID_CREDENTIALS):
        return 'Bearer realm="learnflow"'
    return 'Bearer realm="learnflow", error="invalid_token"'
