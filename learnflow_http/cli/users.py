"""`learnflow users`: people, and what is kept about them."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated, Any, get_args

import click
import msgspec
from msgspec import Meta

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.fields import Password, Price
from learnflow_core.instants import timestamp
from learnflow_core.model import DAY, Enrollment, Mode, Payment, Role, User, fold_email
from learnflow_core.ports import CertificateQuery, EnrollmentQuery, Transaction
from learnflow_core.usecases import users as usecases
from learnflow_http import wire
from learnflow_http.cli.common import (
    EMAIL,
    TITLE,
    Text,
    account_option,
    chosen_account,
    context,
    everything,
    json_option,
    mode_option,
    operator,
    option,
    print_json,
    print_list,
    print_made,
    read,
    with_database,
    with_settings,
    write,
)
from learnflow_http.settings import Settings

_COLUMNS = ("id", "email", "name", "role", "external_id", "created_at")
_WHO = Text(Annotated[str, Meta(min_length=1, max_length=254)], "user", "be an id or an email address")
_PASSWORD = Text(Password, "password", "have 10 to 256 characters")


class PaymentRecord(msgspec.Struct, frozen=True):
    """What a person paid for an enrolment, and by which of their payment methods."""

    id: str
    enrollment_id: str
    payment_method_id: str
    amount: Price
    status: str
    created_at: str
    updated_at: str


@click.group()
def users() -> None:
    """People of an account."""


@users.command()
@account_option
@option("--email", type=EMAIL, required=True, help="Unique in the account.")
@option("--name", type=TITLE, help="What people call them; the email's first part when nothing is given.")
@option("--role", type=click.Choice(get_args(Role)), default="learner", show_default=True, help="What they may do.")
@mode_option
@option("--password-stdin", is_flag=True, help="Read a password, 10 characters or more, from standard input.")
@json_option
@with_database
def create(
    settings: Settings,
    account: str | None,
    email: str,
    name: str | None,
    role: Role,
    mode: Mode,
    *,
    password_stdin: bool,
    as_json: bool,
) -> None:
    """Make a user, and print the id. Without a password they cannot sign in, but keys can mint tokens for them."""
    new = usecases.NewUser(email=email, name=name or email.partition("@")[0], role=role)
    password_hash, ctx = _hashed_password() if password_stdin else None, context()

    async def work(tx: Transaction) -> User:
        owner = operator(await chosen_account(tx, account), mode)
        return await usecases.create_user(tx, owner, new, password_hash, ctx)

    user = write(settings, work)
    print_made(wire.user(user), f"Made the {user.role} {user.name} <{user.email}>.", as_json=as_json)


@users.command("list")
@account_option
@mode_option
@json_option
@with_database
def list_users(settings: Settings, account: str | None, mode: Mode, *, as_json: bool) -> None:
    """Show an account's people, the newest first."""

    async def work(tx: Transaction) -> list[User]:
        owner = await chosen_account(tx, account)
        return await everything(lambda paging: tx.users.list(owner.id, mode, paging))

    print_list([wire.user(user) for user in read(settings, work)], _COLUMNS, as_json=as_json)


@users.command()
@click.argument("who", metavar="USER", type=_WHO)
@account_option
@mode_option
@with_database
def export(settings: Settings, who: str, account: str | None, mode: Mode) -> None:
    """Print everything that is kept about a person, found by id or email, as JSON."""
    print_json(read(settings, lambda tx: _record_of(tx, who, account, mode)))


@users.command()
@click.argument("who", metavar="USER", type=_WHO)
@account_option
@mode_option
@json_option
@with_settings("database", "refund_window_days")
def delete(settings: Settings, who: str, account: str | None, mode: Mode, *, as_json: bool) -> None:
    """Erase a person, found by id or email: their data goes, enrolments end, the books stay.

    What was paid within the refund window goes back as soon as a server runs.
    """
    if sys.stdin.isatty():
        user = read(settings, lambda tx: _found(tx, who, account, mode))
        click.confirm(f"Erase {user.name} <{user.email}> for good?", abort=True, err=True)
    ctx = context()

    async def work(tx: Transaction) -> User:
        return await usecases.erase(tx, await _found(tx, who, account, mode), settings.refund_window_days * DAY, ctx)

    erased = write(settings, work)
    print_made(wire.user(erased), f"Erased the person {erased.id}.", as_json=as_json)


def _hashed_password() -> str:
    """The hash of the password that standard input holds, in its first line."""
    from learnflow_http.auth import PasswordHasher  # noqa: PLC0415 - argon2 and PyJWT are needed for nothing else here

    given = sys.stdin.readline().rstrip("\r\n")
    password = _PASSWORD.convert(given, None, click.get_current_context())
    hasher = PasswordHasher()
    try:
        return asyncio.run(hasher.hash(password))
    finally:
        hasher.close()


async def _found(tx: Transaction, who: str, account_id: str | None, mode: Mode) -> User:
    if "@" in who:
        namesakes = await tx.users.by_email(fold_email(who), mode, account_id)
        if len(namesakes) > 1:
            raise click.UsageError("Several accounts have a user with this email: --account says which.")
        user = namesakes[0] if namesakes else None
    else:
        user = await tx.users.get(who)
    if user is None or user.deleted_at is not None or account_id not in (None, user.account_id):
        raise LearnFlowError(Code.USER_NOT_FOUND, f"No such user: {who}.")
    return user


async def _record_of(tx: Transaction, who: str, account_id: str | None, mode: Mode) -> dict[str, Any]:
    user = await _found(tx, who, account_id, mode)
    of_user = EnrollmentQuery(mode=user.mode, user_id=user.id)
    enrollments = await everything(lambda paging: tx.enrollments.list(of_user, paging))
    certified = CertificateQuery(mode=user.mode, user_id=user.id)
    certificates = await everything(lambda paging: tx.certificates.list(certified, paging))
    methods = await everything(lambda paging: tx.payments.methods(user.id, paging))
    return {
        "user": wire.user(user),
        "enrollments": [wire.enrollment_detail(enrollment) for enrollment in enrollments],
        "payments": [await _payment_record(tx, enrollment) for enrollment in enrollments if enrollment.payment_id],
        "certificates": [wire.certificate(certificate) for certificate in certificates],
        "payment_methods": [wire.payment_method(method) for method in methods],
    }


async def _payment_record(tx: Transaction, enrollment: Enrollment) -> PaymentRecord:
    payment: Payment | None = await tx.payments.get(enrollment.payment_id or "")
    assert payment is not None, "an enrolment's payment is never deleted"
    return PaymentRecord(
        id=payment.id,
        enrollment_id=payment.enrollment_id,
        payment_method_id=payment.method_id,
        amount=Price.of(payment.amount),
        status=payment.status,
        created_at=timestamp(payment.created_at),
        updated_at=timestamp(payment.updated_at),
    )
