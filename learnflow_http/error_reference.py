"""The reference of error codes, as the page `/docs/errors` and as `docs/errors.md`: `error.doc_url` points into it.

`python -m learnflow_http.error_reference` prints the Markdown; a test holds the file to it.
"""

from __future__ import annotations

import sys
from functools import cache
from html import escape
from itertools import groupby
from typing import Final

from learnflow_core.errors import MESSAGES, Code
from learnflow_http.docs_page import ASSETS_PATH, assets
from learnflow_http.errors import STATUS

PATH: Final = "/docs/errors"

ADVICE: Final[dict[Code, str]] = {
    Code.INVALID_REQUEST: "The request line, a header or the query could not be read: a malformed Host, both "
    "Content-Length and Transfer-Encoding, more than 100 headers or 32 KiB of them, a query that is not UTF-8. "
    "A client library does not send such requests by itself; look at what stands between it and the server.",
    Code.INVALID_PARAMETER: "`error.param` names the parameter and the message says what is allowed. Correct it; "
    "the same request will fail again.",
    Code.MISSING_PARAMETER: "`error.param` names the field that is needed.",
    Code.UNKNOWN_PARAMETER: "`error.param` names a field of the body that the operation does not have: most likely a "
    "slip of the pen, which is why it is not ignored.",
    Code.INVALID_JSON: "The body is not JSON in UTF-8, or is nested too deeply.",
    Code.INVALID_PAYMENT_METHOD: "`payment_method_id` names no payment method of this user, or the payment service "
    "does not know it any more. Nothing was charged. Add a payment method, then try again with its id.",
    Code.EMAIL_TAKEN: "Another user of the account, in the same mode, has this email; upper and lower case make no "
    "difference. Find the user instead, or choose another email.",
    Code.IDEMPOTENCY_KEY_REUSED: "An `Idempotency-Key` stands for one request. Use a new key for a new body; to retry, "
    "send the same body.",
    Code.MISSING_TOKEN: "Send `Authorization: Bearer <credential>`, with an API key or an access token.",
    Code.INVALID_TOKEN: "The token is expired, revoked, or not ours; or the header is not of the form "
    "`Bearer <credential>`. Refresh the access token, or sign in again when the refresh token is refused too.",
    Code.INVALID_API_KEY: "The key is mistyped, expired, rotated past its overlap, or revoked. A key has 44 characters "
    "and begins with `sk_live_` or `sk_test_`.",
    Code.INVALID_CREDENTIALS: "Email and password do not belong together, or the email has people in several accounts: "
    "then name the `account`. Which of these it is, is not told. Thirty failures a minute from one address are "
    "allowed.",
    Code.INSUFFICIENT_SCOPE: "`error.details.scope` names the scope that the key, or the key that minted "
    "the token, does not have. Make a key with that scope.",
    Code.FORBIDDEN: "The user's role does not allow this, the course belongs to somebody else, or the request would "
    "grant more than the caller has (`error.details.scopes`).",
    Code.ACCOUNT_SUSPENDED: "The operator has suspended the account; every request of its keys and people is refused.",
    Code.INSUFFICIENT_FUNDS: "The payment service refused the charge. Nothing was charged, and the user is not "
    "enrolled. Try another payment method.",
    Code.CARD_DECLINED: "The payment service refused the charge. Nothing was charged, and the user is not enrolled. "
    "Try another payment method.",
    Code.AUTHENTICATION_REQUIRED: "The holder of the card must authenticate this payment (3-D Secure). Nothing was "
    "charged, and the user is not enrolled.",
    Code.LICENSE_EXHAUSTED: "All licences that were agreed with the Enterprise account are held by live enrolments. "
    "One is free again when an enrolment is cancelled.",
    Code.COURSE_FULL: "All seats are taken by live enrolments. Nothing was charged. A seat is free again when somebody "
    "leaves.",
    Code.COURSE_NOT_AVAILABLE: "The course is archived, or still a draft (`error.details.status`). As with every rule "
    "of enrolling, `error.details.rule` names it, and `error.details.passes_from` is when it would pass (null: nobody "
    "can tell); `?dry_run=true` shows all rules at once.",
    Code.ENROLLMENT_CLOSED: "The course takes nobody now: enrolling has not begun (`error.details.passes_from` tells "
    "when it does) or is over (`error.details.closed_at`), or the course has no seats at all (`error.details.rule` is "
    "`seats`).",
    Code.PREREQUISITE_NOT_MET: "`error.details.missing` lists the courses that the user must complete first.",
    Code.ENROLLMENT_NOT_ACTIVE: "The enrolment is pending, completed, cancelled, refunded or expired "
    "(`error.details.status`), and this cannot be done to it any more.",
    Code.REFUND_WINDOW_CLOSED: "A paid enrolment is refunded within the refund window only, and this one is older; "
    "`error.details.closed_at` is when the window ended.",
    Code.NOT_FOUND: "Check the path: API paths begin with `/v1`, and have no slash at the end.",
    Code.COURSE_NOT_FOUND: "There is no such course, or it is a draft of another account.",
    Code.USER_NOT_FOUND: "There is no such user, or the caller cannot see them: users are seen by the keys and admins "
    "of their account in their mode, and by themselves.",
    Code.ENROLLMENT_NOT_FOUND: "There is no such enrolment, or the caller cannot see it.",
    Code.CERTIFICATE_NOT_FOUND: "There is no such certificate, or the caller cannot see it. Anyone can verify one by "
    "its id.",
    Code.API_KEY_NOT_FOUND: "There is no such key in the account; or it works no more, and cannot be rotated.",
    Code.PAYMENT_METHOD_NOT_FOUND: "The user has no such payment method.",
    Code.WEBHOOK_ENDPOINT_NOT_FOUND: "There is no such webhook endpoint in the account.",
    Code.EVENT_NOT_FOUND: "There is no such event in the account.",
    Code.METHOD_NOT_ALLOWED: "The `Allow` header names the methods of this address.",
    Code.PAYLOAD_TOO_LARGE: "No operation needs a body of more than 1 MiB.",
    Code.UNSUPPORTED_MEDIA_TYPE: "Send the body as `Content-Type: application/json`, in UTF-8.",
    Code.RATE_LIMIT_EXCEEDED: "Wait as many seconds as `Retry-After` says; then the next request passes. "
    "`GET /v1/rate-limit` costs nothing and shows every quota.",
    Code.INTERNAL_ERROR: "This is our fault. Repeating the request may help; if it does not, tell the operator the "
    "`request_id`.",
    Code.SERVICE_UNAVAILABLE: "The database or the payment service cannot be used now. Repeat the request after "
    "`Retry-After` seconds: an enrolment is never charged twice.",
}
"""What each code means for whoever meets it, in Markdown without headings."""

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1a2330; --soft: #5a6675; --line: #dde3ea; --paper: #fff; --code: #eef2f6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6ebf1; --soft: #9aa7b5; --line: #2b3440; --paper: #12171d; --code: #1e2630; }
}
body { font: 16px/1.6 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
  max-width: 46rem; padding: 2rem 1.25rem 6rem; }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); }
h3 { margin: 2rem 0 .25rem; }
h3 a { color: inherit; text-decoration: none; }
h3:target { background: var(--code); }
code { background: var(--code); border-radius: 4px; padding: .1em .3em; font-size: .92em; }
p { margin: .25rem 0; }
p.message { color: var(--soft); }
"""


def markdown() -> str:
    """The reference as `docs/errors.md`."""
    lines = ["# Errors", "", _INTRODUCTION]
    for status, codes in _by_status():
        lines += ["", f"## {status}"]
        for code in codes:
            lines += ["", f"### {code.value}", "", f"*{MESSAGES[code]}*", "", ADVICE[code]]
    return "\n".join(lines) + "\n"


@cache
def page() -> bytes:
    """The reference as a page of its own."""
    icon = f"{ASSETS_PATH}favicon.svg?v={assets()['favicon.svg'].digest}"
    sections = "".join(f"<h2>{status}</h2>\n" + "".join(map(_section, codes)) for status, codes in _by_status())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>LearnFlow errors</title>
<link rel="icon" type="image/svg+xml" href="{icon}">
<style>{_STYLE}</style>
</head>
<body>
<h1>Errors</h1>
<p>{_inline(_INTRODUCTION)}</p>
{sections}</body>
</html>
""".encode()


def _by_status() -> list[tuple[int, list[Code]]]:
    return [(status, list(codes)) for status, codes in groupby(Code, key=STATUS.__getitem__)]


def _section(code: Code) -> str:
    name = code.value
    return (
        f'<h3 id="{name}"><a href="#{name}"><code>{name}</code></a></h3>\n'
        f'<p class="message">{escape(MESSAGES[code])}</p>\n<p>{_inline(ADVICE[code])}</p>\n'
    )


def _inline(text: str) -> str:
    """Markdown's code spans as HTML; these texts have no other markup."""
    parts = escape(text, quote=False).split("`")
    return "".join(part if index % 2 == 0 else f"<code>{part}</code>" for index, part in enumerate(parts))


_INTRODUCTION: Final = (
    "Every error has the same shape: `error.code` is one of the words below and never changes its meaning, "
    "`error.message` is for people, and `error.request_id` (also in `X-Request-Id`) finds the request in the server's "
    "logs. `error.param` names a parameter that is wrong, `error.details` has more for programs."
)

if __name__ == "__main__":
    sys.stdout.write(markdown())
