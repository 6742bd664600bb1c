"""What helps where seats, licences, enrolments, payments and certificates do not agree (`books.QUESTIONS`).

No repair moves money, or takes a place from somebody whose money is not being given back: what would, is a person's to
decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from learnflow_core.enrollment import paid
from learnflow_core.model import LIVE_STATUSES, Certificate, Enrollment, EnrollmentStatus, Mode, PaymentStatus
from learnflow_core.ports import Context
from learnflow_core.usecases.certificates import certificate_for
from storage_backends.driver import DriverTransaction, Row
from storage_backends.repository.catalogue_repairs import RECOUNT
from storage_backends.repository.checks import Remedy, Repair
from storage_backends.repository.courses import Courses
from storage_backends.repository.enrollments import CERTIFICATES, LIVE, Certificates, Enrollments
from storage_backends.repository.journal_checks import WITNESSES
from storage_backends.repository.journals import Journals
from storage_backends.repository.payments import Payments
from storage_backends.repository.sql import MODES
from storage_backends.repository.users import Users

FOLLOWS: Final[Mapping[tuple[EnrollmentStatus, PaymentStatus], EnrollmentStatus]] = {
    ("pending", "charged"): "active",
    ("pending", "declined"): "cancelled",
    ("pending", "refunding"): "refunded",
    ("pending", "refunded"): "refunded",
    ("active", "charging"): "pending",
    ("active", "reversing"): "pending",
    ("active", "refunding"): "refunded",
    ("active", "refunded"): "refunded",
}
"""What an enrolment is to be, when it does not fit its payment. A place whose charge has no outcome waits for that
again; one whose money is being given back, or was never taken, is given up."""

_AT_ODDS: Final = f"SELECT id FROM ({WITNESSES.question}) AS at_odds WHERE id = $1"
_DECIDE: Final = "look the payment up at the payment service, then refund it there or correct the enrolment by hand"

# ruff: noqa: S608 - nothing but our own names is put into these


def _recount(statement: str, *after: str) -> Repair:
    async def repair(tx: DriverTransaction, _journals: Journals, row: Row, _ctx: Context) -> bool:
        for each in (statement, *after):
            await tx.rows(each, row[0])
        return True

    return repair


_UNSETTLE: Final = "INSERT INTO unsettled (course_id) VALUES ($1) ON CONFLICT (course_id) DO NOTHING"


def _seats(mode: Mode) -> Remedy:
    held = f"SELECT count(*) FROM enrollments WHERE course_id = courses.id AND mode = '{mode}' AND {LIVE}"
    recount = _recount(f"UPDATE courses SET {mode}_taken = ({held}) WHERE id = $1", _UNSETTLE)
    return Remedy("count them again", recount)


def _licences(mode: Mode) -> Remedy:
    held = (
        "SELECT count(*) FROM enrollments "
        f"WHERE account_id = accounts.id AND mode = '{mode}' AND licensed = 1 AND {LIVE}"
    )
    return Remedy("count them again", _recount(f"UPDATE accounts SET {mode}_licenses = ({held}) WHERE id = $1"))


def _of_payment(row: Row) -> Remedy:
    _, status, _, come_to = row
    follows = FOLLOWS.get((status, come_to))
    if follows is None:
        return Remedy(_DECIDE)
    return Remedy(f"make the enrolment {follows}, if the ledger and the audit say the same of its payment", _follow)


async def _follow(tx: DriverTransaction, _journals: Journals, row: Row, ctx: Context) -> bool:
    """Have an enrolment follow its payment, if it is known how far that has come: a place that is given up wrongly may
    be somebody else's by the time anybody sees it."""
    enrollment_id, status, payment_id, come_to = row
    enrollment, payment = await Enrollments(tx).get(enrollment_id), await Payments(tx).get(payment_id)
    if enrollment is None or payment is None or await tx.row(_AT_ODDS, payment_id) is not None:
        return False
    follows = FOLLOWS[status, come_to]
    if follows == "active":  # access is counted from when it was paid
        enrollment = paid(enrollment, payment.updated_at)
    await _change(tx, enrollment, follows, ctx)
    return True


async def _change(tx: DriverTransaction, enrollment: Enrollment, status: EnrollmentStatus, ctx: Context) -> None:
    """Give the enrolment a status, and its seat back where it then holds none."""
    await Enrollments(tx).put(msgspec.structs.replace(enrollment, status=status, updated_at=ctx.now))
    if enrollment.status in LIVE_STATUSES and status not in LIVE_STATUSES:
        await Courses(tx).free_seat(enrollment.course_id, enrollment.mode)


async def _give_up(tx: DriverTransaction, _journals: Journals, row: Row, ctx: Context) -> bool:
    """Cancel what no payment was ever written down for: the payment service was not asked either."""
    enrollment = await Enrollments(tx).get(row[0])
    if enrollment is None or await tx.row("SELECT 1 FROM payments WHERE enrollment_id = $1", enrollment.id):
        return False
    await _change(tx, enrollment, "cancelled", ctx)
    return True


async def _name_payment(tx: DriverTransaction, _journals: Journals, row: Row, ctx: Context) -> bool:
    """Have an enrolment name its payment, where it names no other that there is."""
    payment_id, enrollment_id = row
    enrollment = await Enrollments(tx).get(enrollment_id)
    if enrollment is None or enrollment.licensed or await Payments(tx).get(enrollment.payment_id or "") is not None:
        return False
    await Enrollments(tx).put(msgspec.structs.replace(enrollment, payment_id=payment_id, updated_at=ctx.now))
    return True


async def _certify(tx: DriverTransaction, _journals: Journals, row: Row, ctx: Context) -> bool:
    """Have a completed enrolment name its certificate, issued now if there is none, and the certificate its owner."""
    enrollment = await Enrollments(tx).get(row[0])
    if enrollment is None:
        return False
    there = CERTIFICATES.maybe(await tx.row(CERTIFICATES.select("WHERE enrollment_id = $1"), enrollment.id))
    if there is None:
        there = await _issue(tx, enrollment, ctx)
    await tx.rows(
        "UPDATE certificates SET account_id = $2, mode = $3, user_id = $4, course_id = $5 WHERE id = $1",
        *(there.id, enrollment.account_id, enrollment.mode, enrollment.user_id, enrollment.course_id),
    )
    await Enrollments(tx).put(msgspec.structs.replace(enrollment, certificate_id=there.id, updated_at=ctx.now))
    return True


async def _issue(tx: DriverTransaction, enrollment: Enrollment, ctx: Context) -> Certificate:
    user, course = await Users(tx).get(enrollment.user_id), await Courses(tx).get(enrollment.course_id)
    assert user is not None, "the schema ties an enrolment to its user"
    assert course is not None, "and to its course"
    issued_at = enrollment.completed_at or ctx.now
    certificate = msgspec.structs.replace(certificate_for(enrollment, course, user, ctx), issued_at=issued_at)
    await Certificates(tx).add(certificate)
    return certificate


async def _complete(tx: DriverTransaction, _journals: Journals, row: Row, ctx: Context) -> bool:
    """Complete an active enrolment that has its certificate: that is issued with completion, which never goes back."""
    certificate, enrollment = await Certificates(tx).get(row[0]), await Enrollments(tx).get(row[1])
    if certificate is None or enrollment is None or enrollment.status != "active":
        return False
    completed = msgspec.structs.replace(
        enrollment,
        status="completed",
        progress=100,
        certificate_id=certificate.id,
        completed_at=certificate.issued_at,
        updated_at=ctx.now,
    )
    await Enrollments(tx).put(completed)
    return True


_BY_SENTENCE: Final[Mapping[str, tuple[str, Remedy | Callable[[Row], Remedy]]]] = {
    **{
        f"course {{}}: {{}} {mode} seats are taken, but live enrolments hold {{}}": ("seats", _seats(mode))
        for mode in MODES
    },
    **{
        f"account {{}}: {{}} {mode} licences are taken, but live enrolments hold {{}}": (
            "licences",
            _licences(mode),
        )
        for mode in MODES
    },
    "course {}: it shows {} students, but has {}, and no sweep is due": (
        "students",
        Remedy("have the next sweep count them", _recount(_UNSETTLE)),
    ),
    "enrolment {}: it is {}, but its payment {} is {}": ("enrolment", _of_payment),
    "enrolment {}: it is cancelled, and its payment {} is kept, though its user is there": (
        "enrolment",
        Remedy("refund it at the payment service, or have the user enrolled again by hand"),
    ),
    "enrolment {}: it is {}, and no payment belongs to it": (
        "enrolment",
        Remedy("cancel it, unless there is a payment for it after all: nobody was charged", _give_up),
    ),
    "payment {}: enrolment {} does not know of it": (
        "payment",
        Remedy(
            "have the enrolment name it, unless it names another that there is: then look both up at the payment "
            "service, and refund there what was paid twice",
            _name_payment,
        ),
    ),
    "enrolment {}: it is completed, but its certificate {} is not there": (
        "certificate",
        Remedy("have it name its certificate, and issue one if there is none", _certify),
    ),
    "certificate {}: enrolment {} is not completed": (
        "certificate",
        Remedy(
            "complete the enrolment if it is active; else find out why it ended, and correct it or delete the "
            "certificate by hand",
            _complete,
        ),
    ),
}


def remedy_for(sentence: str) -> tuple[str, Remedy | Callable[[Row], Remedy]]:
    """The name of a question of `books`, and what helps, by what it says."""
    return _BY_SENTENCE.get(sentence, ("lists", RECOUNT))
