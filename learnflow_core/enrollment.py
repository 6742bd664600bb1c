"""The life of an enrolment, as pure decisions: what is known goes in, what is to be done comes out.

Nothing here reads a clock or a database. `learnflow_core.admission` decides who gets in, and
`learnflow_core.usecases.enrollments` carries out what is decided.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.instants import timestamp
from learnflow_core.model import DAY, SECOND, Enrollment, EnrollmentStatus, Instant, PaymentStatus

Payable = Literal["free", "license", "charge"]
"""What stands in for the price: nothing for a free course, a licence of an Enterprise account, or money."""

BEGINNINGS: dict[Payable, EnrollmentStatus] = {"free": "active", "license": "active", "charge": "pending"}
"""The status in which an enrolment begins."""

Event = Literal["pay", "decline", "withdraw", "reverse", "complete", "cancel", "refund", "expire"]

TRANSITIONS: dict[tuple[EnrollmentStatus, Event], EnrollmentStatus] = {
    ("pending", "pay"): "active",
    ("pending", "decline"): "cancelled",
    ("pending", "withdraw"): "pending",
    ("pending", "reverse"): "refunded",
    ("active", "complete"): "completed",
    ("active", "cancel"): "cancelled",
    ("active", "refund"): "refunded",
    ("active", "expire"): "expired",
}
"""The state machine of an enrolment, whole: an event in a status leads to a status; whatever is absent is
impossible.

Whoever leaves while the payment service has not answered withdraws: what it was paid, if it was, is given back
(`reverse`). Until that is known the enrolment stays pending, and so nobody pays for the same place a second time.
"""

PAYMENTS: dict[EnrollmentStatus, frozenset[PaymentStatus]] = {
    "pending": frozenset({"charging", "reversing"}),
    "active": frozenset({"charged"}),
    "completed": frozenset({"charged", "refunded"}),
    "expired": frozenset({"charged", "refunded"}),
    "cancelled": frozenset({"declined", "charged", "refunding", "refunded"}),
    "refunded": frozenset({"refunding", "refunded"}),
}
"""How far the payment of an enrolment in each status can be, where it has one. One that is cancelled although it was
paid belongs to a user who was deleted after the refund window, or was paid after it was cancelled: that goes back. What
the payment service gives back by itself changes nothing about a place that is completed, or has ended."""

REFUND_WINDOW: Instant = 14 * DAY
"""How long after enrolling a payment is given back, unless the deployment says otherwise."""

UNRESOLVED_AFTER: Instant = 10 * SECOND
"""How long whoever began something with the payment service is left to it, before the sweep takes it up."""

LEASE: Instant = 20 * SECOND
"""How long a sweep that has taken up a payment is left to it: it may die over it, and then another takes it up."""

_FIRST_WAIT: Instant = 20 * SECOND
_LONGEST_WAIT: Instant = 40 * SECOND


def back_off(tries: int) -> Instant:
    """How long a payment that was tried so often in vain waits before it is tried again: 20 seconds after the first
    time, then 40, so that whatever waits is settled within a minute of the payment service's coming back."""
    return _FIRST_WAIT if tries == 1 else _LONGEST_WAIT


def step(enrollment: Enrollment, event: Event, now: Instant) -> Enrollment:
    """The enrolment after an event; `enrollment_not_active` when it cannot happen in its status."""
    status = TRANSITIONS.get((enrollment.status, event))
    if status is None:
        raise not_active(enrollment)
    return msgspec.structs.replace(enrollment, status=status, updated_at=now)


def not_active(enrollment: Enrollment) -> LearnFlowError:
    """The refusal of what the enrolment's status does not allow."""
    return LearnFlowError(
        Code.ENROLLMENT_NOT_ACTIVE,
        f"The enrolment is {enrollment.status}.",
        details={"rule": "status", "status": enrollment.status, "passes_from": None},
    )


def paid(enrollment: Enrollment, now: Instant) -> Enrollment:
    """The enrolment once its payment has come: access begins, and lasts as long as was agreed from now on."""
    active = step(enrollment, "pay", now)
    if active.expires_at is None:
        return active
    return msgspec.structs.replace(active, expires_at=active.expires_at + now - enrollment.enrolled_at)


def is_overdue(enrollment: Enrollment, now: Instant) -> bool:
    """Whether its access is over, and nobody has written that down."""
    return enrollment.status == "active" and enrollment.expires_at is not None and enrollment.expires_at <= now


def as_of(enrollment: Enrollment, now: Instant) -> Enrollment:
    """The enrolment as it is to be seen: expired from the very instant on, even before a sweep writes that down."""
    if not is_overdue(enrollment, now):
        return enrollment
    assert enrollment.expires_at is not None, "that is what overdue means"
    return step(enrollment, "expire", enrollment.expires_at)


def progressed(enrollment: Enrollment, progress: int, now: Instant) -> Enrollment:
    """The enrolment with this progress; 100 completes it.

    Only an active enrolment moves. Saying 100 again of a completed one changes nothing; anything else about it is
    `enrollment_not_active`: completed never goes back.
    """
    if enrollment.status == "completed" and progress == enrollment.progress:
        return enrollment
    completed = step(as_of(enrollment, now), "complete", now)
    if progress == 100:
        return msgspec.structs.replace(completed, progress=100, completed_at=now)
    return msgspec.structs.replace(enrollment, progress=progress, updated_at=now)


def left(enrollment: Enrollment, now: Instant, refund_window: Instant) -> Enrollment:
    """The enrolment after its user leaves the course: `refunded` where money was paid, else `cancelled`; `pending`
    as long as it is not known whether it was.

    One that was left before is answered as the same object, so a blind retry is safe. `refund_window_closed` when it
    was paid for longer ago than `refund_window`; `enrollment_not_active` when it is completed or expired.
    """
    if enrollment.status in ("cancelled", "refunded"):
        return enrollment
    if enrollment.status == "pending":
        return step(enrollment, "withdraw", now)
    if enrollment.payment_id is None:
        return step(as_of(enrollment, now), "cancel", now)
    refunded = step(as_of(enrollment, now), "refund", now)
    if is_kept(enrollment, now, refund_window):
        closed_at = timestamp(enrollment.enrolled_at + refund_window)
        raise LearnFlowError(
            Code.REFUND_WINDOW_CLOSED, details={"rule": "refund_window", "closed_at": closed_at, "passes_from": None}
        )
    return refunded


def abandoned(enrollment: Enrollment, now: Instant, refund_window: Instant) -> Enrollment:
    """What becomes of an enrolment whose user is deleted: as `left`, but nothing keeps a person from going.

    A payment is given back within the refund window and kept after it. What is completed, or has ended, is answered as
    the same object.
    """
    if enrollment.status not in ("pending", "active"):
        return enrollment
    if is_overdue(enrollment, now):
        return step(enrollment, "expire", now)
    if enrollment.status == "active" and enrollment.payment_id and is_kept(enrollment, now, refund_window):
        return step(enrollment, "cancel", now)
    return left(enrollment, now, refund_window)


def is_kept(enrollment: Enrollment, now: Instant, refund_window: Instant) -> bool:
    """Whether it is too late to give back what was paid."""
    return now - enrollment.enrolled_at > refund_window
