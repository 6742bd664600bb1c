"""The rules of enrolling, as pure decisions: what is known goes in, what is to be done comes out.

Nothing here reads a clock or a database. `learnflow_core.usecases.enrollments` carries the decisions out.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import msgspec

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import DAY, Course, Enrollment, EnrollmentStatus, Instant, Plan

Event = Literal["pay", "decline", "complete", "cancel", "refund", "expire"]

TRANSITIONS: dict[tuple[EnrollmentStatus, Event], EnrollmentStatus] = {
    ("pending", "pay"): "active",
    ("pending", "decline"): "cancelled",
    ("active", "complete"): "completed",
    ("active", "cancel"): "cancelled",
    ("active", "refund"): "refunded",
    ("active", "expire"): "expired",
}
"""The state machine of an enrolment, whole: an event in a status leads to a status; whatever is absent is
impossible."""

REFUND_WINDOW: Instant = 14 * DAY
"""How long after enrolling a payment is given back, unless the deployment says otherwise."""

Payable = Literal["free", "license", "charge"]


def step(enrollment: Enrollment, event: Event, now: Instant) -> Enrollment:
    """The enrolment after an event; `enrollment_not_active` when it cannot happen in its status."""
    status = TRANSITIONS.get((enrollment.status, event))
    if status is None:
        raise LearnFlowError(
            Code.ENROLLMENT_NOT_ACTIVE,
            f"The enrolment is {enrollment.status}.",
            details={"status": enrollment.status},
        )
    return msgspec.structs.replace(enrollment, status=status, updated_at=now)


def check_open(course: Course) -> None:
    """Refuse a course that is not published (`course_not_available`)."""
    if course.status != "published":
        raise LearnFlowError(Code.COURSE_NOT_AVAILABLE, details={"status": course.status})


def check_prerequisites(course: Course, completed: Collection[str]) -> None:
    """Refuse while a prerequisite is not completed (`prerequisite_not_met`, naming those that are missing)."""
    missing = [course_id for course_id in course.prerequisites if course_id not in completed]
    if missing:
        raise LearnFlowError(Code.PREREQUISITE_NOT_MET, details={"missing": missing})


def no_seat(course: Course) -> LearnFlowError:
    """Why a course has no free seat: it takes nobody (`enrollment_closed`), or all are taken (`course_full`)."""
    return LearnFlowError(Code.ENROLLMENT_CLOSED if course.seats == 0 else Code.COURSE_FULL)


def payable(course: Course, plan: Plan) -> Payable:
    """What stands in for the price: nothing for a free course, a licence on the Enterprise plan, else money."""
    if course.price.amount_minor == 0:
        return "free"
    return "license" if plan == "enterprise" else "charge"


def progressed(enrollment: Enrollment, progress: int, now: Instant) -> Enrollment:
    """The enrolment with this progress; 100 completes it.

    Only an active enrolment moves. Saying 100 again of a completed one changes nothing; anything else about it is
    `enrollment_not_active`: completed never goes back.
    """
    if enrollment.status == "completed" and progress == enrollment.progress:
        return enrollment
    completed = step(enrollment, "complete", now)
    if progress == 100:
        return msgspec.structs.replace(completed, progress=100, completed_at=now)
    return msgspec.structs.replace(enrollment, progress=progress, updated_at=now)


def left(enrollment: Enrollment, now: Instant, refund_window: Instant) -> Enrollment:
    """The enrolment after its user leaves the course: `refunded` where money was paid, else `cancelled`.

    One that was left before stays as it is, so a blind retry is safe. `refund_window_closed` when it was paid for
    longer ago than `refund_window`; `enrollment_not_active` when it is completed, pending or expired.
    """
    if enrollment.status in ("cancelled", "refunded"):
        return enrollment
    if enrollment.payment_id is None:
        return step(enrollment, "cancel", now)
    refunded = step(enrollment, "refund", now)
    if now - enrollment.enrolled_at > refund_window:
        raise LearnFlowError(Code.REFUND_WINDOW_CLOSED)
    return refunded
