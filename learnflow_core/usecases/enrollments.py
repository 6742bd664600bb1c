"""Enrolling, progressing, leaving.

Money moves outside our transactions, so enrolling for money is a saga: *reserve* (the enrolment `pending`, its seat
taken and the payment written down, in one transaction), *charge* (under the payment's id as idempotency key), then
*confirm* or *release* (in one transaction). Whoever finds a pending enrolment can carry it on, since charging again
under the same key pays nothing twice: a second post for the same place does so instead of waiting, and so does the
sweep after a crash.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec

from learnflow_core import enrollment as rules
from learnflow_core.access import Actor
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.fields import IdText, Percent
from learnflow_core.model import (
    SECOND,
    Course,
    Enrollment,
    EnrollmentStatus,
    Instant,
    Mode,
    Payment,
    User,
)
from learnflow_core.pagination import Slice
from learnflow_core.ports import Context, EnrollmentQuery, Paging, PaymentGateway, Storage, Transaction
from learnflow_core.usecases import certificates
from learnflow_core.usecases.visible import get_course, get_enrollment, get_user, narrowed, teaches

Gateways = Mapping[Mode, PaymentGateway]
"""The payment service of each mode."""

ATTEMPTS = 3
"""How often a post that keeps meeting somebody else's declined payment tries for the place itself."""

UNRESOLVED_AFTER: Instant = 10 * SECOND
"""How old an unresolved payment is when the sweep takes it up."""


class NewEnrollment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is to be enrolled in what, and by what means it is paid (not needed where nothing is charged)."""

    user_id: IdText
    course_id: IdText
    payment_method_id: IdText | None = None


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
        place = await storage.write(lambda tx: _reserve(tx, gateway, actor, new, ctx))
        if place.payment is None:
            return Enrolled(place.enrollment, place.created)
        enrollment, refusal = await _charge(storage, gateway, place.payment, ctx)
        if refusal is None:
            return Enrolled(enrollment, place.created)
        if place.created:
            raise LearnFlowError(refusal)
    raise LearnFlowError(Code.SERVICE_UNAVAILABLE, retry_after_s=1)


async def leave(
    storage: Storage, gateways: Gateways, actor: Actor, enrollment_id: str, refund_window: Instant, ctx: Context
) -> Enrollment:
    """Cancel an enrolment, or refund it where it was paid within `refund_window`.

    The seat is free and the refund decided when this answers; a payment service that is away gets it from the sweep.
    """
    place = await storage.write(lambda tx: _leave(tx, actor, enrollment_id, refund_window, ctx))
    if place.payment is not None:
        with _unless_unavailable():
            await _refund(storage, gateways[place.payment.mode], place.payment, ctx)
    return place.enrollment


async def list_enrollments(
    tx: Transaction,
    actor: Actor,
    paging: Paging,
    *,
    user_id: str | None = None,
    course_id: str | None = None,
    status: EnrollmentStatus | None = None,
    updated_since: Instant | None = None,
) -> Slice[Enrollment]:
    """The enrolments the actor can see, narrowed as asked."""
    query = EnrollmentQuery(
        mode=actor.mode,
        account_id=actor.account_id if actor.sees_account else None,
        seen_by=None if actor.sees_account else actor.user_id,
        user_id=narrowed(actor, user_id),
        course_id=course_id,
        status=status,
        updated_since=updated_since,
    )
    return await tx.enrollments.list(query, paging)


async def set_progress(
    tx: Transaction, actor: Actor, enrollment_id: str, change: ProgressChange, ctx: Context
) -> Enrollment:
    """Set the progress; 100 completes the enrolment and issues its certificate.

    For the account's keys and admins and the course's instructor; a learner is `forbidden`.
    """
    enrollment = await get_enrollment(tx, actor, enrollment_id)
    if not actor.sees_account and not await teaches(tx, actor, enrollment.course_id):
        raise LearnFlowError(Code.FORBIDDEN, "Progress is set by the course's instructor.")
    changed = rules.progressed(enrollment, change.progress, ctx.now)
    if changed == enrollment:
        return enrollment
    if changed.status == "completed":
        changed = await _certified(tx, changed, ctx)
    await tx.enrollments.put(changed)
    return changed


async def finish_unresolved(storage: Storage, gateways: Gateways, ctx: Context, *, batch: int = 100) -> int:
    """Carry on what a crash or a silent payment service left unresolved; how many payments that was.

    Safe with several at once, and to repeat: a payment whose outcome is still unknown stays for the next time. One that
    fails in another way does not keep the others waiting: an ExceptionGroup tells of all such at the end.
    """
    before = ctx.now - UNRESOLVED_AFTER
    payments = await storage.read(lambda tx: tx.payments.unresolved(before, batch))
    failures: list[Exception] = []
    for payment in payments:
        carry_on = _refund if payment.status == "refunding" else _charge
        try:
            with _unless_unavailable():
                await carry_on(storage, gateways[payment.mode], payment, ctx)
        except Exception as error:  # noqa: BLE001 - the others must not wait for this one; raised below
            failures.append(error)
    if failures:
        raise ExceptionGroup("some payments could not be resolved", failures)
    return len(payments)


async def settle(storage: Storage, gateways: Gateways, payment_id: str, ctx: Context) -> Payment | None:
    """Carry one payment on as the sweep would, without waiting for it; the payment as it then is, if there is one.

    A payment whose outcome is still unknown stays for the sweep.
    """
    payment = await storage.read(lambda tx: tx.payments.get(payment_id))
    if payment is None or payment.status not in ("charging", "refunding"):
        return payment
    carry_on = _refund if payment.status == "refunding" else _charge
    with _unless_unavailable():
        await carry_on(storage, gateways[payment.mode], payment, ctx)
    return await storage.read(lambda tx: tx.payments.get(payment_id))


async def returned(tx: Transaction, payment_id: str, ctx: Context) -> bool:
    """Write down that the payment service gave the money of an enrolment back by itself, which ends the enrolment.

    False, and nothing changes, where the books have no such end: the course was completed, or the payment is not
    charged. To be told it twice changes nothing more.
    """
    payment = await tx.payments.get(payment_id)
    if payment is None or payment.status not in ("charged", "refunding", "refunded"):
        return False
    if payment.status == "charged":
        enrollment = await tx.enrollments.get(payment.enrollment_id)
        assert enrollment is not None, "the schema ties a payment to its enrolment"
        if enrollment.status != "active":
            return False
        await release(tx, rules.step(enrollment, "refund", ctx.now))
    if payment.status != "refunded":
        await tx.payments.put(msgspec.structs.replace(payment, status="refunded", updated_at=ctx.now))
    return True


async def release(tx: Transaction, enrollment: Enrollment) -> None:
    """Keep an enrolment that has ended, and give back the seat and the licence it held."""
    await tx.enrollments.put(enrollment)
    await tx.courses.free_seat(enrollment.course_id, enrollment.mode)
    if enrollment.licensed:
        await tx.accounts.return_license(enrollment.account_id, enrollment.mode)


class _Place(msgspec.Struct, frozen=True):
    """An enrolment, whether this request made it, and the payment to be seen to before it can be answered."""

    enrollment: Enrollment
    created: bool
    payment: Payment | None


async def _reserve(tx: Transaction, gateway: PaymentGateway, actor: Actor, new: NewEnrollment, ctx: Context) -> _Place:
    """Take the place: an enrolment that is active where nothing is charged, else pending with its payment."""
    user = await get_user(tx, actor, new.user_id)
    course = await get_course(tx, actor, new.course_id)
    rules.check_open(course)
    existing = await tx.enrollments.live(user.id, course.id)
    if existing is not None:
        return _Place(existing, False, await _payment_of(tx, existing) if existing.status == "pending" else None)
    rules.check_prerequisites(course, await tx.enrollments.completed(user.id, course.prerequisites))
    if not await tx.courses.take_seat(course.id, actor.mode):
        raise rules.no_seat(course)
    way = rules.payable(course, actor.plan)
    if way == "license" and not await tx.accounts.take_license(user.account_id, actor.mode):
        raise LearnFlowError(Code.LICENSE_EXHAUSTED)
    enrollment, payment = _new_enrollment(user, course, way, ctx), None
    if way == "charge":
        payment = await _new_payment(tx, gateway, enrollment, course, new.payment_method_id, ctx)
        enrollment = msgspec.structs.replace(enrollment, payment_id=payment.id)
    if not await tx.enrollments.add(enrollment):
        raise LearnFlowError(Code.SERVICE_UNAVAILABLE, "Somebody else enrols this user just now.", retry_after_s=1)
    if payment is not None:
        await tx.payments.add(payment)
    return _Place(enrollment, True, payment)


def _new_enrollment(user: User, course: Course, way: rules.Payable, ctx: Context) -> Enrollment:
    return Enrollment(
        id=ctx.new_id("enr"),
        account_id=user.account_id,
        mode=user.mode,
        user_id=user.id,
        course_id=course.id,
        status="pending" if way == "charge" else "active",
        progress=0,
        licensed=way == "license",
        payment_id=None,
        certificate_id=None,
        enrolled_at=ctx.now,
        updated_at=ctx.now,
        completed_at=None,
        expires_at=None,
    )


async def _new_payment(
    tx: Transaction,
    gateway: PaymentGateway,
    enrollment: Enrollment,
    course: Course,
    method_id: str | None,
    ctx: Context,
) -> Payment:
    if method_id is None:
        raise LearnFlowError(
            Code.MISSING_PARAMETER, "This course costs money: payment_method_id is needed.", param="payment_method_id"
        )
    token = gateway.builtin_methods.get(method_id)
    if token is None:
        method = await tx.payments.method(method_id)
        if method is None or method.user_id != enrollment.user_id or method.deleted_at is not None:
            raise LearnFlowError(Code.INVALID_PAYMENT_METHOD, param="payment_method_id")
        token = method.token
    return Payment(
        id=ctx.new_id("pay"),
        enrollment_id=enrollment.id,
        mode=enrollment.mode,
        method_id=method_id,
        token=token,
        amount=course.price,
        status="charging",
        created_at=ctx.now,
        updated_at=ctx.now,
    )


async def _charge(
    storage: Storage, gateway: PaymentGateway, payment: Payment, ctx: Context
) -> tuple[Enrollment, Code | None]:
    """Ask the payment service about a pending enrolment, and confirm or release it; the refusal, if it was refused."""
    refusal = await gateway.charge(payment)
    return await storage.write(lambda tx: _resolve(tx, payment.id, refusal, ctx)), refusal


async def _refund(storage: Storage, gateway: PaymentGateway, payment: Payment, ctx: Context) -> None:
    """Give the money of an enrolment that was left back."""
    await gateway.refund(payment)
    refunded = msgspec.structs.replace(payment, status="refunded", updated_at=ctx.now)
    await storage.write(lambda tx: tx.payments.put(refunded))


@contextmanager
def _unless_unavailable() -> Iterator[None]:
    """Leave for the sweep what the payment service does not answer now."""
    try:
        yield
    except LearnFlowError as error:
        if error.code is not Code.SERVICE_UNAVAILABLE:
            raise


async def _resolve(tx: Transaction, payment_id: str, refusal: Code | None, ctx: Context) -> Enrollment:
    """Write down what the payment service said, unless somebody who asked too has done so."""
    payment = await tx.payments.get(payment_id)
    assert payment is not None, "payments are never deleted"
    enrollment = await tx.enrollments.get(payment.enrollment_id)
    assert enrollment is not None, "the schema ties a payment to its enrolment"
    if payment.status != "charging":
        return enrollment
    if refusal is not None:
        await tx.payments.put(msgspec.structs.replace(payment, status="declined", updated_at=ctx.now))
        declined = rules.step(enrollment, "decline", ctx.now)
        await release(tx, declined)
        return declined
    paid = rules.step(enrollment, "pay", ctx.now)
    user = await tx.users.get(enrollment.user_id)
    if user is None or user.deleted_at is not None:
        return await _undo(tx, paid, payment, ctx)
    await tx.payments.put(msgspec.structs.replace(payment, status="charged", updated_at=ctx.now))
    await tx.enrollments.put(paid)
    return paid


async def _undo(tx: Transaction, paid: Enrollment, payment: Payment, ctx: Context) -> Enrollment:
    """Give back the place and, by the sweep, the money of somebody who was deleted while the payment was under way."""
    await tx.payments.put(msgspec.structs.replace(payment, status="refunding", updated_at=ctx.now))
    refunded = rules.step(paid, "refund", ctx.now)
    await release(tx, refunded)
    return refunded


async def _leave(tx: Transaction, actor: Actor, enrollment_id: str, refund_window: Instant, ctx: Context) -> _Place:
    enrollment = await get_enrollment(tx, actor, enrollment_id)
    if not actor.sees_account and enrollment.user_id != actor.user_id:
        raise LearnFlowError(Code.FORBIDDEN, "Only the learner or an admin can cancel an enrolment.")
    ended = rules.left(enrollment, ctx.now, refund_window)
    if ended == enrollment:
        return _Place(enrollment, False, None)
    await release(tx, ended)
    if ended.status != "refunded":
        return _Place(ended, False, None)
    payment = await _payment_of(tx, ended)
    refunding = msgspec.structs.replace(payment, status="refunding", updated_at=ctx.now)
    await tx.payments.put(refunding)
    return _Place(ended, False, refunding)


async def _payment_of(tx: Transaction, enrollment: Enrollment) -> Payment:
    payment = await tx.payments.get(enrollment.payment_id or "")
    assert payment is not None, "a pending or refunded enrolment has its payment"
    return payment


async def _certified(tx: Transaction, completed: Enrollment, ctx: Context) -> Enrollment:
    course = await tx.courses.get(completed.course_id)
    user = await tx.users.get(completed.user_id)
    assert course is not None, "the schema ties an enrolment to its course"
    assert user is not None, "and to its user"
    certificate = await certificates.issue(tx, completed, course, user, ctx)
    return msgspec.structs.replace(completed, certificate_id=certificate.id)
