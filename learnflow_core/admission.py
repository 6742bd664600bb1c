"""Who gets into a course: each rule by itself, as a pure question that is answered with a refusal, or with None.

A refusal carries in its details which `rule` it is of, and from when on it would pass as things are now
(`passes_from`, RFC 3339; null: nobody can tell, or never).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import msgspec

from learnflow_core.enrollment import BEGINNINGS, Payable
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.instants import timestamp
from learnflow_core.model import DAY, Account, Course, Enrollment, Instant, Plan, User
from learnflow_core.ports import Context

Rule = Literal["published", "prerequisites", "window", "seats", "license", "payment_method"]
"""The rules of enrolling, in the order in which they are asked."""


class Verdict(msgspec.Struct, frozen=True):
    """What a rule says: it passes, or why it does not."""

    rule: Rule
    refusal: LearnFlowError | None


def check_published(course: Course) -> LearnFlowError | None:
    """A draft takes nobody yet, and what is archived nobody any more (`course_not_available`)."""
    if course.status == "published":
        return None
    return _refusal(Code.COURSE_NOT_AVAILABLE, "published", status=course.status)


def check_prerequisites(course: Course, completed: Collection[str]) -> LearnFlowError | None:
    """Every prerequisite is to be completed first (`prerequisite_not_met`, naming those that are missing)."""
    missing = [course_id for course_id in course.prerequisites if course_id not in completed]
    return _refusal(Code.PREREQUISITE_NOT_MET, "prerequisites", missing=missing) if missing else None


def check_window(course: Course, now: Instant) -> LearnFlowError | None:
    """Enrolling has begun and has not ended (`enrollment_closed`)."""
    if course.enrolls_from is not None and now < course.enrolls_from:
        return _refusal(Code.ENROLLMENT_CLOSED, "window", passes_from=timestamp(course.enrolls_from))
    if course.enrolls_until is not None and now >= course.enrolls_until:
        return _refusal(Code.ENROLLMENT_CLOSED, "window", closed_at=timestamp(course.enrolls_until))
    return None


def check_seats(course: Course, taken: int) -> LearnFlowError | None:
    """A seat is free, as far as anybody knows who has not taken it."""
    return None if course.seats is None or taken < course.seats else no_seat(course)


def no_seat(course: Course) -> LearnFlowError:
    """Why a course has no free seat: it takes nobody (`enrollment_closed`), or all are taken (`course_full`)."""
    return _refusal(Code.ENROLLMENT_CLOSED if course.seats == 0 else Code.COURSE_FULL, "seats", seats=course.seats)


def check_licenses(account: Account, taken: int) -> LearnFlowError | None:
    """A licence is free, as far as anybody knows who has not taken it."""
    return None if account.licenses is None or taken < account.licenses else no_license()


def no_license() -> LearnFlowError:
    """Why an account has no licence left: each is held by a live enrolment (`license_exhausted`)."""
    return _refusal(Code.LICENSE_EXHAUSTED, "license")


def payable(course: Course, plan: Plan) -> Payable:
    """What stands in for the price: nothing for a free course, a licence on the Enterprise plan, else money."""
    if course.price.amount_minor == 0:
        return "free"
    return "license" if plan == "enterprise" else "charge"


def admitted(user: User, course: Course, way: Payable, ctx: Context) -> Enrollment:
    """The enrolment of a user whom no rule keeps out, under the terms that the course has now."""
    return Enrollment(
        id=ctx.new_id("enr"),
        account_id=user.account_id,
        mode=user.mode,
        user_id=user.id,
        course_id=course.id,
        status=BEGINNINGS[way],
        progress=0,
        licensed=way == "license",
        payment_id=None,
        certificate_id=None,
        enrolled_at=ctx.now,
        updated_at=ctx.now,
        completed_at=None,
        expires_at=None if course.access_days is None else ctx.now + course.access_days * DAY,
    )


def _refusal(code: Code, rule: Rule, *, passes_from: str | None = None, **facts: object) -> LearnFlowError:
    return LearnFlowError(code, details={"rule": rule, **facts, "passes_from": passes_from})
