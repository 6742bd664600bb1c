"""A payment's way from one status to the next, with what the ledger and the audit have of it, in one transaction.

No use case writes a payment in another way, so that none can move money and leave it out of the books.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from learnflow_core import ledger
from learnflow_core.audit import Event
from learnflow_core.enrollment import UNRESOLVED_AFTER
from learnflow_core.model import UNRESOLVED_STATUSES, Enrollment, Instant, Payment, PaymentStatus
from learnflow_core.ports import Context, Transaction

_EVENTS: dict[PaymentStatus, Event] = {
    "charging": "payment.charging",
    "charged": "payment.charged",
    "declined": "payment.declined",
    "reversing": "payment.reversing",
    "refunding": "payment.refunding",
    "refunded": "payment.refunded",
}


async def begin(tx: Transaction, enrollment: Enrollment, payment: Payment, ctx: Context) -> None:
    """Keep a new payment for an enrolment, which is `charging`, before the payment service is asked."""
    await tx.payments.add(payment)
    await _write_down(tx, enrollment, payment, ("charging",), None, ctx)


async def come_to(
    tx: Transaction,
    enrollment: Enrollment,
    payment: Payment,
    status: PaymentStatus,
    ctx: Context,
    *,
    why: str | None = None,
) -> Payment:
    """Let a payment, as this transaction has read it, come to a status; `why` is the code of a refusal.

    Whoever moves it to where something is still to be done sees to that first.

    ValueError when the status does not follow from the payment's (`learnflow_core.ledger.come_to`).
    """
    passed = ledger.come_to(payment.status, status)
    changed = in_status(payment, status, ctx.now)
    await tx.payments.put(changed)
    await _write_down(tx, enrollment, changed, passed, why, ctx)
    return changed


def in_status(payment: Payment, status: PaymentStatus, now: Instant) -> Payment:
    """The payment as its row is in another status."""
    due_at = now + UNRESOLVED_AFTER if status in UNRESOLVED_STATUSES else None
    return msgspec.structs.replace(payment, status=status, updated_at=now, due_at=due_at, tries=0)


async def _write_down(
    tx: Transaction,
    enrollment: Enrollment,
    payment: Payment,
    statuses: Sequence[PaymentStatus],
    why: str | None,
    ctx: Context,
) -> None:
    await tx.ledger.add(ledger.entries(payment, statuses, ctx.now))
    for status in statuses:
        await tx.audit.add(ctx.event(_EVENTS[status], payment.id, enrollment.account_id, why))
