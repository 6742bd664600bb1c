"""Payments, from what was agreed to the money that has come, or has gone back.

Money moves outside our transactions. A payment is written down before the payment service is asked, with all that is
asked, and its id is the idempotency key: whoever finds one unresolved asks the same again, which pays nothing twice.
So a charge has no owner. That several ask at once is harmless, and `Payments.claim` keeps it from happening needlessly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec

from learnflow_core.enrollment import LEASE, UNRESOLVED_AFTER, back_off, paid, step
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import UNRESOLVED_STATUSES, Course, Enrollment, Mode, Payment, PaymentStatus
from learnflow_core.ports import Context, PaymentGateway, Storage, Transaction
from learnflow_core.usecases.bookkeeping import come_to
from learnflow_core.usecases.places import release

Gateways = Mapping[Mode, PaymentGateway]
"""The payment service of each mode."""

AT_ONCE = 16
"""How many payments are carried on at the same time."""


class Settled(msgspec.Struct, frozen=True):
    """What a charge came to: the enrolment as it is now, and the refusal, if the charge was refused."""

    enrollment: Enrollment
    refusal: Code | None


async def find_token(
    tx: Transaction, gateway: PaymentGateway, user_id: str, method_id: str | None
) -> str | LearnFlowError:
    """The payment service's word for a user's means of payment, or why it cannot be charged."""
    if method_id is None:
        message = "This course costs money: payment_method_id is needed."
        return LearnFlowError(Code.MISSING_PARAMETER, message, param="payment_method_id")
    if (builtin := gateway.builtin_methods.get(method_id)) is not None:
        return builtin
    method = await tx.payments.method(method_id)
    if method is None or method.user_id != user_id or method.deleted_at is not None:
        return LearnFlowError(Code.INVALID_PAYMENT_METHOD, param="payment_method_id")
    return method.token


def agreed(enrollment: Enrollment, course: Course, method_id: str, token: str, ctx: Context) -> Payment:
    """What is to be charged for an enrolment: the course's price as it is now, and later whatever becomes of that."""
    return Payment(
        id=ctx.new_id("pay"),
        enrollment_id=enrollment.id,
        payee_id=course.account_id,
        mode=enrollment.mode,
        method_id=method_id,
        token=token,
        amount=course.price,
        course_version=course.version,
        status="charging",
        created_at=ctx.now,
        updated_at=ctx.now,
        due_at=ctx.now + UNRESOLVED_AFTER,
        tries=0,
    )


async def payment_of(tx: Transaction, enrollment: Enrollment) -> Payment:
    """The payment that an enrolment which is pending or was paid has."""
    payment = await tx.payments.get(enrollment.payment_id or "")
    assert payment is not None, "payments are never deleted"
    return payment


async def give_back_later(tx: Transaction, enrollment: Enrollment, ctx: Context) -> Payment:
    """Write down that what was paid for an enrolment, or is found to have been, goes back."""
    payment = await payment_of(tx, enrollment)
    if payment.status in ("charging", "charged"):
        status: PaymentStatus = "reversing" if payment.status == "charging" else "refunding"
        return await come_to(tx, enrollment, payment, status, ctx)
    return payment


async def charge(storage: Storage, gateway: PaymentGateway, payment: Payment, ctx: Context) -> Settled:
    """Charge a payment, or ask what became of that, and confirm or release its enrolment.

    `service_unavailable` when the payment service does not say: everything stays as it is.
    """
    refusal = await gateway.charge(payment)
    told = ctx.later()
    enrollment, kept = await storage.write(lambda tx: _settle(tx, payment.id, refusal, told), subject=payment.id)
    if kept.status == "refunding":
        with unless_unavailable():
            await refund(storage, gateway, kept, told)
    return Settled(enrollment, refusal)


async def refund(storage: Storage, gateway: PaymentGateway, payment: Payment, ctx: Context) -> None:
    """Give the money of a payment that is `refunding` back; `service_unavailable` as in `charge`."""
    await gateway.refund(payment)
    told = ctx.later()
    await storage.write(lambda tx: _given_back(tx, payment.id, told))


async def finish_unresolved(storage: Storage, gateways: Gateways, ctx: Context) -> int:
    """Carry on what a crash or a silent payment service left unresolved, `AT_ONCE` at most; how many payments that was.
    Where it was as many, there may be more.

    Safe with several at once: each payment is taken up by one of them, and what was tried in vain waits the longer the
    more often it was, behind all others. One that fails in another way than by silence keeps none of them from being
    carried on: an ExceptionGroup tells of all such at the end.
    """
    due = await storage.write(lambda tx: tx.payments.claim(ctx.now, AT_ONCE, until=ctx.now + LEASE))
    outcomes = await asyncio.gather(
        *(_carry_on(storage, gateways, payment, ctx) for payment in due), return_exceptions=True
    )
    failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    if failures:
        raise ExceptionGroup("some payments could not be resolved", failures)
    return len(due)


async def carry_on(storage: Storage, gateways: Gateways, payment_id: str, ctx: Context) -> Payment | None:
    """Carry one payment on as the sweep would, without waiting for it; the payment as it then is, if there is one.

    A payment whose outcome is still unknown stays for the sweep.
    """
    payment = await storage.read(lambda tx: tx.payments.get(payment_id))
    if payment is None or payment.status not in UNRESOLVED_STATUSES:
        return payment
    with unless_unavailable():
        await _ask(storage, gateways, payment, ctx)
    return await storage.read(lambda tx: tx.payments.get(payment_id))


async def returned(tx: Transaction, payment_id: str, ctx: Context) -> bool:
    """Write down that the payment service gave the money of an enrolment back by itself, which ends one that is active.

    False where that leaves something to be looked at: the course was completed, or the books have no such money. To be
    told it twice changes nothing more.
    """
    payment, enrollment = await _found(tx, payment_id)
    if payment.status == "charged":
        payment = await come_to(tx, enrollment, payment, "refunding", ctx)
        if enrollment.status == "active":
            await release(tx, step(enrollment, "refund", ctx.now), ctx)
    await _given_back(tx, payment_id, ctx)
    return payment.status in ("refunding", "refunded") and enrollment.status != "completed"


async def paid_late(tx: Transaction, payment_id: str, ctx: Context) -> None:
    """Write down that the money of a payment which had been given up came in after all, and that it goes back."""
    payment, enrollment = await _found(tx, payment_id)
    if payment.status == "declined":
        await come_to(tx, enrollment, payment, "refunding", ctx)


@contextmanager
def unless_unavailable() -> Iterator[None]:
    """Leave for the sweep what the payment service does not answer now."""
    try:
        yield
    except LearnFlowError as error:
        if error.code is not Code.SERVICE_UNAVAILABLE:
            raise


async def _ask(storage: Storage, gateways: Gateways, payment: Payment, ctx: Context) -> None:
    """Ask the payment service for what an unresolved payment waits for, and write down what it says."""
    way = refund if payment.status == "refunding" else charge
    await way(storage, gateways[payment.mode], payment, ctx)


async def _carry_on(storage: Storage, gateways: Gateways, payment: Payment, ctx: Context) -> None:
    """Carry on a payment that was claimed, and put it off when that was in vain."""
    try:
        await _ask(storage, gateways, payment, ctx)
    except Exception as error:
        with unless_unavailable():
            await storage.write(lambda tx: _put_off(tx, payment, ctx))
        if not (isinstance(error, LearnFlowError) and error.code is Code.SERVICE_UNAVAILABLE):
            raise


async def _put_off(tx: Transaction, claimed: Payment, ctx: Context) -> None:
    """Let a payment wait, unless it has been moved, or taken up by somebody else, since it was claimed."""
    payment = await tx.payments.get(claimed.id)
    if payment == claimed:
        tries = payment.tries + 1
        due_at = ctx.now + back_off(tries)
        await tx.payments.put(msgspec.structs.replace(payment, due_at=due_at, tries=tries))


async def _settle(tx: Transaction, payment_id: str, refusal: Code | None, ctx: Context) -> tuple[Enrollment, Payment]:
    """Write down what the payment service said, unless somebody who asked too has done so."""
    payment, enrollment = await _found(tx, payment_id)
    if payment.status == "declined" and refusal is None:  # it was given up by one who could not know better
        return enrollment, await come_to(tx, enrollment, payment, "refunding", ctx)
    if payment.status not in ("charging", "reversing"):
        return enrollment, payment
    if refusal is not None:
        declined = await come_to(tx, enrollment, payment, "declined", ctx, why=refusal.value)
        return await _released(tx, step(enrollment, "decline", ctx.now), declined, ctx)
    if payment.status == "reversing":
        refunding = await come_to(tx, enrollment, payment, "refunding", ctx)
        return await _released(tx, step(enrollment, "reverse", ctx.now), refunding, ctx)
    active = paid(enrollment, ctx.now)
    charged = await come_to(tx, enrollment, payment, "charged", ctx)
    await tx.enrollments.put(active)
    return active, charged


async def _released(
    tx: Transaction, enrollment: Enrollment, payment: Payment, ctx: Context
) -> tuple[Enrollment, Payment]:
    await release(tx, enrollment, ctx)
    return enrollment, payment


async def _given_back(tx: Transaction, payment_id: str, ctx: Context) -> None:
    payment, enrollment = await _found(tx, payment_id)
    if payment.status == "refunding":
        await come_to(tx, enrollment, payment, "refunded", ctx)


async def _found(tx: Transaction, payment_id: str) -> tuple[Payment, Enrollment]:
    payment = await tx.payments.get(payment_id)
    assert payment is not None, "payments are never deleted"
    enrollment = await tx.enrollments.get(payment.enrollment_id)
    assert enrollment is not None, "the schema ties a payment to its enrolment"
    return payment, enrollment
