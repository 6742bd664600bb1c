"""The audit: one row for everything that happens to money, keys, tokens, passwords, roles, plans and licences.

A row is written in the transaction of the change it tells of, and never changed. It holds ids and words of closed
lists, nothing personal and no secret: when a person is erased, their id is all that stays, and it leads nowhere.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from learnflow_core.model import Instant

Event = Literal[
    # Of a payment: it comes to a status. `detail` of `declined` is the code of the refusal.
    "payment.charging",
    "payment.charged",
    "payment.declined",
    "payment.reversing",
    "payment.refunding",
    "payment.refunded",
    # Of an enrolment that a licence of the Enterprise plan stands in for.
    "license.taken",
    "license.returned",
    # Of an API key. `detail` of `rotated` is the successor's id. The end of a key is the end of all tokens it minted.
    "key.created",
    "key.rotated",
    "key.revoked",
    # Of a family of tokens, or (`revoked`) of a single token. `reused`: a retired one was shown, and the family ended.
    "token.minted",
    "token.revoked",
    "token.reused",
    # Of a user. `detail` of `created` and `role.set` is the role. A new password, and erasing, end all their tokens.
    "user.created",
    "user.erased",
    "role.set",
    "password.set",
    # Of an account. `detail` of `created` and `plan.set` is the plan.
    "account.created",
    "account.suspended",
    "account.resumed",
    "plan.set",
    # Of a record that `learnflow doctor --repair` put right, or of the `catalogue`; `detail`: what was wrong
    "books.repaired",
    # Of the audit itself: rows from before an instant (`detail`, in microseconds) were let go.
    "audit.purged",
]
"""What can have happened. Frozen: words are added, never renamed or removed."""

PROGRAM: Final = "program"
"""Who acts where nobody else is named: the program that embeds this core."""
OPERATOR: Final = "operator"
"""Whoever is at the command line."""
SWEEP: Final = "sweep"
"""The server itself, which finishes what was left."""
PAYMENT_SERVICE: Final = "payment_service"
"""The payment service, which told of something by itself."""
DOCTOR: Final = "doctor"
"""`learnflow doctor --repair`."""


class AuditRow(msgspec.Struct, frozen=True):
    """What happened to which record (`object_id`), and who did it.

    `account_id` is whose record that is, null where it is nobody's. `actor` is the id of the API key or of the user who
    asked, or one of the words above; `request_id` the request they asked by, where it was one.
    """

    id: str
    at: Instant
    event: Event
    object_id: str
    account_id: str | None
    actor: str
    request_id: str | None
    detail: str | None
