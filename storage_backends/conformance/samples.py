"""Records to try a storage with: whole, plausible, and different only in what a test says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from learnflow_core import ledger
from learnflow_core.model import (
    LIVE_STATUSES,
    UNRESOLVED_STATUSES,
    Account,
    ApiKey,
    Certificate,
    Course,
    Enrollment,
    Lesson,
    Mode,
    Payment,
    PaymentMethod,
    RefreshToken,
    Section,
    TokenFamily,
    User,
)
from learnflow_core.money import Money
from learnflow_core.ports import Context, Storage, Transaction

NOW = 1_705_312_800_000_000
"""An instant, for all that does not care which."""

CONTEXT = Context(NOW, os.urandom)
"""Nobody in particular, at that instant."""

HOSTILE = "naïve “quotes” ' \" \\ ; -- %_ \n\t $1 {0} 日本語 👩‍🚀 e\u0301 \u202e ﬀ ẞ \x01 \ufffd"
"""Text that every column must give back as it was."""


def account(account_id: str = "acct_1", **changes: Any) -> Account:
    """A Starter account."""
    fields: dict[str, Any] = {"name": f"Name of {account_id}", "plan": "starter", "per_minute": None, "licenses": None}
    return Account(**{"id": account_id, **fields, "suspended_at": None, "created_at": NOW, **changes})


def api_key(key_id: str = "key_1", **changes: Any) -> ApiKey:
    """A live key of `acct_1` with every scope."""
    fields: dict[str, Any] = {
        "id": key_id,
        "account_id": "acct_1",
        "name": f"Name of {key_id}",
        "prefix": "sk_live_abcd",
        "digest": key_id.rjust(64, "0"),
        "scopes": ("*",),
        "mode": "live",
        "created_at": NOW,
        "updated_at": NOW,
        "expires_at": None,
        "revoked_at": None,
        "last_used_at": None,
    }
    return ApiKey(**{**fields, **changes})


def user(user_id: str = "usr_1", **changes: Any) -> User:
    """A learner of `acct_1` in live mode."""
    fields: dict[str, Any] = {
        "id": user_id,
        "account_id": "acct_1",
        "mode": "live",
        "email": f"{user_id}@example.com",
        "name": f"Name of {user_id}",
        "role": "learner",
        "password_hash": None,
        "external_id": None,
        "created_at": NOW,
        "updated_at": NOW,
        "deleted_at": None,
    }
    return User(**{**fields, **changes})


def course(course_id: str = "crs_1", **changes: Any) -> Course:
    """A published, free course of `acct_1` without a limit of seats."""
    fields: dict[str, Any] = {
        "id": course_id,
        "account_id": "acct_1",
        "created_by": None,
        "title": f"Title of {course_id}",
        "instructor": "Dr. John Smith",
        "category": "development",
        "level": "all",
        "price": Money(0, "USD"),
        "rating": None,
        "total_students": changes.get("students_base", 0),
        "students_base": 0,
        "description": "",
        "language": "en",
        "curriculum": (Section("One", (Lesson("Hello", 60),)),),
        "status": "published",
        "seats": None,
        "prerequisites": (),
        "external_id": None,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Course(**{**fields, **changes})


def enrollment(enrollment_id: str = "enr_1", **changes: Any) -> Enrollment:
    """An active, free enrolment of `usr_1` in `crs_1`."""
    fields: dict[str, Any] = {
        "id": enrollment_id,
        "account_id": "acct_1",
        "mode": "live",
        "user_id": "usr_1",
        "course_id": "crs_1",
        "status": "active",
        "progress": 0,
        "licensed": False,
        "payment_id": None,
        "certificate_id": None,
        "enrolled_at": NOW,
        "updated_at": NOW,
        "completed_at": None,
        "expires_at": None,
    }
    return Enrollment(**{**fields, **changes})


def completed(enrollment_id: str, **changes: Any) -> Enrollment:
    """A completed enrolment, with the id of its certificate."""
    done = {"status": "completed", "progress": 100, "completed_at": NOW, "certificate_id": f"crt_{enrollment_id}"}
    return enrollment(enrollment_id, **{**done, **changes})


def certificate(of: Enrollment, **changes: Any) -> Certificate:
    """The certificate of a completed enrolment."""
    assert of.certificate_id is not None
    fields: dict[str, Any] = {
        "id": of.certificate_id,
        "account_id": of.account_id,
        "mode": of.mode,
        "enrollment_id": of.id,
        "user_id": of.user_id,
        "course_id": of.course_id,
        "recipient": "Ann Example",
        "course_title": "A Course",
        "issued_at": NOW,
        "updated_at": NOW,
        "revoked_at": None,
    }
    return Certificate(**{**fields, **changes})


def payment(payment_id: str = "pay_1", **changes: Any) -> Payment:
    """A payment for `enr_1` that is being charged."""
    fields: dict[str, Any] = {
        "id": payment_id,
        "enrollment_id": "enr_1",
        "payee_id": "acct_1",
        "mode": "live",
        "method_id": "pm_1",
        "token": "tok_visa",
        "amount": Money(4999, "USD"),
        "course_version": 1,
        "status": "charging",
        "created_at": NOW,
        "updated_at": NOW,
        "due_at": NOW if changes.get("status", "charging") in UNRESOLVED_STATUSES else None,
        "tries": 0,
    }
    return Payment(**{**fields, **changes})


def method(method_id: str = "pm_1", **changes: Any) -> PaymentMethod:
    """A means of payment of `usr_1`."""
    fields: dict[str, Any] = {
        "id": method_id,
        "user_id": "usr_1",
        "token": "tok_visa",
        "created_at": NOW,
        "deleted_at": None,
        "forgotten_at": None,
    }
    return PaymentMethod(**{**fields, **changes})


def family(family_id: str = "fam_1", **changes: Any) -> TokenFamily:
    """A session of `usr_1` that lasts for a second."""
    fields: dict[str, Any] = {
        "id": family_id,
        "user_id": "usr_1",
        "key_id": None,
        "scopes": ("*",),
        "created_at": NOW,
        "expires_at": NOW + 1_000_000,
        "revoked_at": None,
    }
    return TokenFamily(**{**fields, **changes})


def refresh_token(key: str = "tok_1", **changes: Any) -> RefreshToken:
    """The first refresh token of `fam_1`."""
    fields: dict[str, Any] = {"family_id": "fam_1", "parent_id": None, "successor_id": None, "issued_at": NOW}
    return RefreshToken(**{"id": key, **fields, "rotated_at": None, "retired_at": None, **changes})


async def keep(storage: Storage, *records: Any) -> None:
    """Keep records in one write, so that the books agree: a live enrolment takes its seat, and so on."""

    async def work(tx: Transaction) -> None:
        for record in records:
            await keep_in(tx, record)

    await storage.write(work)


async def keep_in(tx: Transaction, record: Any) -> None:
    """Keep one record, with all that belongs to it, and what the ledger and the audit then have of it."""
    await _keep_record(tx, record)
    await note(tx, record)


async def note(tx: Transaction, record: Any) -> None:
    """Have the ledger and the audit tell of all that made a record what it is."""
    if isinstance(record, Payment):
        await tx.ledger.add(ledger.entries(record, ledger.movements(record.status), NOW))
    for event, detail in _events(record):
        account_id = record.id if isinstance(record, Account) else getattr(record, "account_id", None)
        await tx.audit.add(CONTEXT.event(event, record.id, account_id, detail))


def _events(record: Any) -> Iterator[tuple[Any, str | None]]:
    """What has happened to a record, in order."""
    match record:
        case Account():
            yield "account.created", record.plan
            yield from [("account.suspended", None)] if record.suspended_at is not None else []
        case ApiKey():
            yield "key.created", None
            yield from [("key.revoked", None)] if record.revoked_at is not None else []
        case User():
            yield "user.created", record.role
            yield from [("user.erased", None)] if record.deleted_at is not None else []
        case Enrollment(licensed=True):
            yield "license.taken", None
            yield from [("license.returned", None)] if record.status not in LIVE_STATUSES else []
        case Payment():
            yield from ((f"payment.{status}", None) for status in min(ledger.ways(record.status), key=len))
        case TokenFamily():
            yield "token.minted", None
            yield from [("token.revoked", None)] if record.revoked_at is not None else []


async def _keep_record(tx: Transaction, record: Any) -> None:
    match record:
        case Account():
            await tx.accounts.add(record)
        case ApiKey():
            await tx.api_keys.add(record)
        case User():
            assert await tx.users.add(record)
        case Course():
            assert await tx.courses.add(record)
        case Enrollment():
            await _keep_enrollment(tx, record)
        case Payment():
            await tx.payments.add(record)
        case PaymentMethod():
            await tx.payments.add_method(record)
        case TokenFamily():
            await tx.tokens.add_family(record)
        case _:
            raise TypeError(f"not a record to begin with: {record!r}")


async def _keep_enrollment(tx: Transaction, record: Enrollment) -> None:
    if record.status in ("pending", "active", "completed"):
        assert await tx.courses.take_seat(record.course_id, record.mode)
        if record.licensed:
            assert await tx.accounts.take_license(record.account_id, record.mode)
    assert await tx.enrollments.add(record)
    if record.status == "completed":
        await tx.certificates.add(certificate(record))


async def count(storage: Storage) -> None:
    """Count all that is noted, as far as that is worth while."""
    while await storage.tally():
        pass


async def stage(storage: Storage, mode: Mode = "live") -> None:
    """What most tests need: `acct_1` with `usr_1`, and `crs_1`."""
    await keep(storage, account(), user(mode=mode), course())
