"""What enrolling would come to, without doing it: every rule's verdict, the price and what would be charged."""

from __future__ import annotations

from typing import Literal

import msgspec

from learnflow_core import admission
from learnflow_core import enrollment as life
from learnflow_core.access import Actor
from learnflow_core.admission import Verdict
from learnflow_core.enrollment import Payable
from learnflow_core.errors import LearnFlowError
from learnflow_core.model import DAY, Course, Enrollment, Instant, User
from learnflow_core.ports import Context, PaymentGateway, Transaction
from learnflow_core.usecases.enrollments import EXPIRED_FOR_A_SEAT, NewEnrollment
from learnflow_core.usecases.payments import Gateways, find_token
from learnflow_core.usecases.visible import get_outline, get_user

Outcome = Literal["enrolled", "already_enrolled", "refused"]
"""What posting would come to, as far as can be told without asking the payment service."""


class Rehearsal(msgspec.Struct, frozen=True):
    """What posting would come to now.

    `existing` is the user's live enrolment, if there is one: then no rule about newcomers is asked. `way` is what
    stands in for the price. `seats_left` is null where there is no limit, and `expires_at` where access would not end.
    """

    user: User
    course: Course
    outcome: Outcome
    existing: Enrollment | None
    way: Payable
    seats_left: int | None
    expires_at: Instant | None
    verdicts: tuple[Verdict, ...]


async def rehearse(tx: Transaction, gateways: Gateways, actor: Actor, new: NewEnrollment, ctx: Context) -> Rehearsal:
    """Ask every rule in turn, and change nothing. `user_not_found` and `course_not_found` as when enrolling."""
    user = await get_user(tx, actor, new.user_id)
    course = await get_outline(tx, actor, new.course_id)
    verdicts = [Verdict("published", admission.check_published(course))]
    existing = await tx.enrollments.live(user.id, course.id)
    if existing is not None and life.is_overdue(existing, ctx.now):
        existing = None
    way = admission.payable(course, actor.plan)
    taken = await _seats_taken(tx, course, actor, ctx)
    if existing is None:
        completed = await tx.enrollments.completed(user.id, course.prerequisites)
        verdicts.append(Verdict("prerequisites", admission.check_prerequisites(course, completed)))
        verdicts.append(Verdict("window", admission.check_window(course, ctx.now)))
        verdicts.append(Verdict("seats", admission.check_seats(course, taken)))
        verdicts += await _of_money(tx, gateways[actor.mode], actor, user, way, new.payment_method_id)
    is_refused = any(verdict.refusal is not None for verdict in verdicts)
    return Rehearsal(
        user=user,
        course=course,
        outcome="refused" if is_refused else "enrolled" if existing is None else "already_enrolled",
        existing=existing,
        way=way,
        seats_left=None if course.seats is None else max(0, course.seats - taken),
        expires_at=_end(course, existing, ctx.now),
        verdicts=tuple(verdicts),
    )


async def _seats_taken(tx: Transaction, course: Course, actor: Actor, ctx: Context) -> int:
    """The seats that enrolling would find taken: it takes those of people whose access is over."""
    taken = await tx.courses.seats_taken(course.id, actor.mode)
    overdue = await tx.enrollments.overdue(ctx.now, EXPIRED_FOR_A_SEAT, course.id)
    return taken - sum(one.mode == actor.mode for one in overdue)


async def _of_money(
    tx: Transaction, gateway: PaymentGateway, actor: Actor, user: User, way: Payable, method_id: str | None
) -> list[Verdict]:
    if way == "free":
        return []
    if way == "charge":
        token = await find_token(tx, gateway, user.id, method_id)
        return [Verdict("payment_method", token if isinstance(token, LearnFlowError) else None)]
    account = await tx.accounts.get(user.account_id)
    assert account is not None, "the schema ties a user to their account"
    taken = await tx.accounts.licenses_taken(account.id, actor.mode)
    return [Verdict("license", admission.check_licenses(account, taken))]


def _end(course: Course, existing: Enrollment | None, now: Instant) -> Instant | None:
    if existing is not None:
        return existing.expires_at
    return None if course.access_days is None else now + course.access_days * DAY
