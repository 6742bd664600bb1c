"""Enrolling, progressing, leaving.

Enrolling for money is a saga, since money moves outside our transactions: *reserve* (the enrolment `pending`, its seat
taken and the payment written down, in one transaction), *charge* (under the payment's id as idempotency key), then
*confirm* or *release* (in one transaction). Whoever finds a pending enrolment can carry it on
(`learnflow_core.usecases.payments`): a second post for the same place does so instead of waiting, and so does the sweep
after a crash. A refused payment ends its enrolment; the next post makes another, with a payment and a key of its own.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated

import msgspec
from msgspec import Meta

from learnflow_core import admission
from learnflow_core import enrollment as life
from learnflow_core.access import Actor
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.fields import IdText, Percent
from learnflow_core.model import LIVE_STATUSES, Course, Enrollment, EnrollmentStatus, Instant, Payment
from learnflow_core.pagination import Slice
from learnflow_core.ports import Context, EnrollmentQuery, Paging, PaymentGateway, Storage, Transaction
from learnflow_core.usecases import bookkeeping, certificates, payments
from learnflow_core.usecases.payments import Gateways, unless_unavailable
from learnflow_core.usecases.places import expire_overdue, release
from learnflow_core.usecases.visible import get_enrollment, get_outline, get_user, narrowed, teaches

ATTEMPTS = 3
"""How often a post that keeps meeting somebody else's declined payment tries for the place itself."""

EXPIRED_FOR_A_SEAT = 50
"""How many enrolments whose access is over are ended for somebody who found no seat."""


class NewEnrollment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is to be enrolled in what, and by what means it is paid (not needed where nothing is charged)."""

    user_id: IdText
    course_id: IdText
    payment_method_id: IdText | None = None


MOST_AT_ONCE = 100
"""How many enrolments one request can ask for."""


class NewEnrollments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Enrolments that are asked for together, each of which is made or refused for itself."""

    enrollments: Annotated[tuple[NewEnrollment, ...], Meta(min_length=1, max_length=MOST_AT_ONCE)]


class ProgressChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the user has come, in percent; 100 completes the course."""

    progress: Percent


class Enrolled(msgspec.Struct, frozen=True):
    """An enrolment, and whether this very request made it."""

    enrollment: Enrollment
    created: bool


async def enroll(storage: Storage, gateways: Gateways, actor: Actor, new: NewEnrollment, ctx: Context) -> Enrolled:
    """Enrol a user, charging what is owed; a user who is enrolled already stays so, at no charge.

    Raises, in this order: `user_not_found`, `course_not_found`, `course_not_available`, `prerequisite_not_met`,
    `enrollment_closed`, `course_full`, `license_exhausted`, `missing_parameter`, `invalid_payment_method`, then what
    the payment service says. `service_unavailable` when it says nothing: the enrolment is pending, and asking again
    goes on.
    """
    gateway = gateways[actor.mode]
    for _ in range(ATTEMPTS):
        present = ctx.later()  # time passes while somebody else's payment is waited for
        place = await storage.write(
            partial(_reserve, gateway=gateway, actor=actor, new=new, ctx=present),
            subject=f"{new.user_id} {new.course_id}",
        )
        if place.payment is None:
            return Enrolled(place.enrollment, place.created)
        settled = await payments.charge(storage, gateway, place.payment, present)
        if settled.enrollment.status in LIVE_STATUSES:
            return Enrolled(settled.enrollment, place.created)
        if place.created:
            raise life.not_active(settled.enrollment) if settled.refusal is None else LearnFlowError(settled.refusal)
    raise LearnFlowError(Code.SERVICE_UNAVAILABLE, retry_after_s=1)


async def leave(
    storage: Storage, gateways: Gateways, actor: Actor, enrollment_id: str, refund_window: Instant, ctx: Context
) -> Enrollment:
    """Cancel an enrolment, or refund it where it was paid within `refund_window`.

    The seat is free and the refund decided when this answers; a payment service that is away gets it from the sweep. Of
    one that is pending it has first to be known whether it was paid: `service_unavailable` while the payment service
    does not say. It is then undone as soon as that is known, whether this is asked again or not.
    """
    place = await storage.write(lambda tx: _leave(tx, actor, enrollment_id, refund_window, ctx))
    if place.payment is None:
        return place.enrollment
    gateway = gateways[place.payment.mode]
    if place.enrollment.status == "pending":
        return (await payments.charge(storage, gateway, place.payment, ctx)).enrollment
    with unless_unavailable():
        await payments.refund(storage, gateway, place.payment, ctx)
    return place.enrollment


async def end(tx: Transaction, ended: Enrollment, ctx: Context) -> Payment | None:
    """Keep an enrolment that its user has left (`learnflow_core.enrollment.left`), and write down that its money goes
    back: the payment that is to be seen to, if there is one."""
    if ended.status == "pending":
        return await payments.give_back_later(tx, ended, ctx)
    await release(tx, ended, ctx)
    return await payments.give_back_later(tx, ended, ctx) if ended.status == "refunded" else None


async def list_enrollments(
    tx: Transaction,
    actor: Actor,
    paging: Paging,
    *,
    user_id: str | None = None,
    course_id: str | None = None,
    status: EnrollmentStatus | None = None,
    updated_since: Instant | None = None,
    now: Instant,
) -> Slice[Enrollment]:
    """The enrolments the actor can see, narrowed as asked, as they are to be seen now."""
    query = EnrollmentQuery(
        mode=actor.mode,
        account_id=actor.account_id if actor.sees_account else None,
        seen_by=None if actor.sees_account else actor.user_id,
        user_id=narrowed(actor, user_id),
        course_id=course_id,
        status=status,
        updated_since=updated_since,
        now=now,
    )
    found = await tx.enrollments.list(query, paging)
    return replace(found, items=[life.as_of(one, now) for one in found.items])


async def read_enrollment(tx: Transaction, actor: Actor, enrollment_id: str, ctx: Context) -> Enrollment:
    """The enrolment, if the actor can see it, as it is to be seen now."""
    return life.as_of(await get_enrollment(tx, actor, enrollment_id), ctx.now)


async def set_progress(
    tx: Transaction, actor: Actor, enrollment_id: str, change: ProgressChange, ctx: Context
) -> Enrollment:
    """Set the progress; 100 completes the enrolment and issues its certificate.

    For the account's keys and admins and the course's instructor; a learner is `forbidden`.
    """
    enrollment = await get_enrollment(tx, actor, enrollment_id)
    if not actor.sees_account and not await teaches(tx, actor, enrollment.course_id):
        raise LearnFlowError(Code.FORBIDDEN, "Progress is set by the course's instructor.")
    changed = life.progressed(enrollment, change.progress, ctx.now)
    if changed == enrollment:
        return enrollment
    if changed.status == "completed":
        return await _complete(tx, changed, ctx)
    await tx.enrollments.put(changed)
    return changed


class _Place(msgspec.Struct, frozen=True):
    """An enrolment, whether this request made it, and the payment to be seen to before it can be answered."""

    enrollment: Enrollment
    created: bool
    payment: Payment | None


async def _reserve(tx: Transaction, gateway: PaymentGateway, actor: Actor, new: NewEnrollment, ctx: Context) -> _Place:
    """Take the place: an enrolment that is active where nothing is charged, else pending with its payment."""
    user = await get_user(tx, actor, new.user_id)
    course = await get_outline(tx, actor, new.course_id)
    _require(admission.check_published(course))
    existing = await tx.enrollments.live(user.id, course.id)
    if existing is not None and life.is_overdue(existing, ctx.now):
        await release(tx, life.step(existing, "expire", ctx.now), ctx)
        existing = None
    if existing is not None:
        pending = existing.status == "pending"
        return _Place(existing, False, await payments.payment_of(tx, existing) if pending else None)
    _require(admission.check_prerequisites(course, await tx.enrollments.completed(user.id, course.prerequisites)))
    _require(admission.check_window(course, ctx.now))
    await _take_seat(tx, course, actor, ctx)
    way = admission.payable(course, actor.plan)
    if way == "license" and not await tx.accounts.take_license(user.account_id, actor.mode):
        raise admission.no_license()
    enrollment, payment = admission.admitted(user, course, way, ctx), None
    if way == "charge":
        payment = await _agree(tx, gateway, enrollment, course, new.payment_method_id, ctx)
        enrollment = msgspec.structs.replace(enrollment, payment_id=payment.id)
    if not await tx.enrollments.add(enrollment):
        raise LearnFlowError(Code.SERVICE_UNAVAILABLE, "Somebody else enrols this user just now.", retry_after_s=1)
    if enrollment.licensed:
        await tx.audit.add(ctx.event("license.taken", enrollment.id, enrollment.account_id))
    if payment is not None:
        await bookkeeping.begin(tx, enrollment, payment, ctx)
    return _Place(enrollment, True, payment)


async def _take_seat(tx: Transaction, course: Course, actor: Actor, ctx: Context) -> None:
    """Take a seat, that of somebody whose access is over if need be."""
    if await tx.courses.take_seat(course.id, actor.mode):
        return
    if not await tx.enrollments.overdue(ctx.now, 1, course.id):
        raise admission.no_seat(course)
    await tx.alone()  # two who look for a seat would else end the same enrolments
    freed = await expire_overdue(tx, ctx, EXPIRED_FOR_A_SEAT, course.id)
    if not freed or not await tx.courses.take_seat(course.id, actor.mode):
        raise admission.no_seat(course)


async def _agree(
    tx: Transaction,
    gateway: PaymentGateway,
    enrollment: Enrollment,
    course: Course,
    method_id: str | None,
    ctx: Context,
) -> Payment:
    token = await payments.find_token(tx, gateway, enrollment.user_id, method_id)
    if isinstance(token, LearnFlowError):
        raise token
    assert method_id is not None, "it has a token"
    return payments.agreed(enrollment, course, method_id, token, ctx)


async def _leave(tx: Transaction, actor: Actor, enrollment_id: str, refund_window: Instant, ctx: Context) -> _Place:
    enrollment = await get_enrollment(tx, actor, enrollment_id)
    if not actor.sees_account and enrollment.user_id != actor.user_id:
        raise LearnFlowError(Code.FORBIDDEN, "Only the learner or an admin can cancel an enrolment.")
    ended = life.left(enrollment, ctx.now, refund_window)
    if ended is enrollment:
        return _Place(enrollment, False, None)
    return _Place(ended, False, await end(tx, ended, ctx))


def _require(refusal: LearnFlowError | None) -> None:
    if refusal is not None:
        raise refusal


async def _complete(tx: Transaction, completed: Enrollment, ctx: Context) -> Enrollment:
    course = await tx.courses.outline(completed.course_id)
    user = await tx.users.get(completed.user_id)
    assert course is not None, "the schema ties an enrolment to its course"
    assert user is not None, "and to its user"
    certificate = certificates.certificate_for(completed, course, user, ctx)
    completed = msgspec.structs.replace(completed, certificate_id=certificate.id)
    # The row that was read comes first: whoever completes it at the same time is stopped there, and tries again.
    await tx.enrollments.put(completed)
    await tx.certificates.add(certificate)
    return completed
