"""Do the ledger and the audit tell of everything that happened? What they lack is told by what did happen.

Payments, the ledger and the audit are three witnesses of the same: where two agree, the third is put right.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple, get_args

from learnflow_core.audit import Event
from learnflow_core.ledger import MOVEMENTS, Movement, entries, movements, ways, witnessed
from learnflow_core.model import Payment, PaymentStatus
from learnflow_core.ports import Context
from learnflow_core.usecases.bookkeeping import in_status
from storage_backends.driver import DriverTransaction, Row
from storage_backends.repository.checks import Check, Remedy
from storage_backends.repository.enrollments import LIVE
from storage_backends.repository.journals import Journals
from storage_backends.repository.payments import Payments

_STATUSES: Final[tuple[PaymentStatus, ...]] = get_args(PaymentStatus)

# ruff: noqa: S608 - nothing but our own names is put into these
_HORIZON: Final = """(
    SELECT COALESCE(MAX(CAST(detail AS BIGINT)), 0) FROM audit WHERE object_id = 'audit' AND event = 'audit.purged'
)"""
"""The instant from before which the audit was let go; what happened earlier is not asked for."""

_COMPARE: Final = (
    "compare it with the payment service's own record, which decides, and correct by hand what differs from that"
)


def _text(words: Iterable[str], having: str) -> str:
    """SQL for those of the words for which there is a row, each after a space."""
    return " || ".join(f"CASE WHEN EXISTS ({having.format(word)}) THEN ' {word}' ELSE '' END" for word in words)


def _any(column: str, texts: Iterable[tuple[PaymentStatus, str]]) -> str:
    """A condition that the column is one of the texts that belong to the payment's status."""
    return " OR ".join(f"(status = '{status}' AND {column} = '{text}')" for status, text in texts)


def _joined(words: Iterable[str]) -> str:
    return "".join(f" {word}" for word in words)


_MOVED: Final = _text(MOVEMENTS, "SELECT 1 FROM ledger WHERE payment_id = payments.id AND movement = '{}'")
_NOTED: Final = _text(_STATUSES, "SELECT 1 FROM audit WHERE object_id = payments.id AND event = 'payment.{}'")
_MOVED_RIGHTLY: Final = _any("moved", ((status, _joined(movements(status))) for status in _STATUSES))
_NOTED_RIGHTLY: Final = _any(
    "noted",
    ((status, _joined(each for each in _STATUSES if each in way)) for status in _STATUSES for way in ways(status)),
)


class _Witnesses(NamedTuple):
    """What a payment's row, the ledger and the audit say of it, and which status is then the true one, if one is."""

    payment_id: str
    status: PaymentStatus
    moved: list[Movement]
    noted: list[PaymentStatus]
    true: PaymentStatus | None


def _witnesses(row: Row) -> _Witnesses:
    payment_id, status, *told = row
    moved, noted = (text.split() if text != " nothing" else [] for text in told)
    return _Witnesses(payment_id, status, moved, noted, witnessed(status, moved, noted))


async def _agree(tx: DriverTransaction, journals: Journals, row: Row, ctx: Context) -> bool:
    payment_id, status, moved, noted, true = _witnesses(row)
    payment = await Payments(tx).get(payment_id)
    if true is None or payment is None:
        return False
    if status != true:
        await Payments(tx).put(in_status(payment, true, ctx.now))
    await _complete_ledger(tx, journals, payment, [each for each in movements(true) if each not in moved])
    account = await tx.row("SELECT account_id FROM enrollments WHERE id = $1", payment.enrollment_id)
    assert account is not None, "the schema ties a payment to its enrolment"
    way = min((way for way in ways(true) if set(noted) <= set(way)), key=len)
    for event in _events(each for each in way if each not in noted):
        await journals.audit.add(ctx.event(event, payment_id, account[0]))
    return True


async def _complete_ledger(
    tx: DriverTransaction, journals: Journals, payment: Payment, missing: Iterable[PaymentStatus]
) -> None:
    """Add what the ledger lacks, as of when the audit, which then is sound, says that it happened."""
    for movement in missing:
        noted = await tx.row(
            "SELECT at FROM audit WHERE object_id = $1 AND event = $2", payment.id, f"payment.{movement}"
        )
        at = payment.updated_at if noted is None else noted[0]
        await journals.ledger.add(entries(payment, [movement], at))


def _events(statuses: Iterable[PaymentStatus]) -> list[Event]:
    return [event for status in statuses for event in get_args(Event) if event == f"payment.{status}"]


def _payment_remedy(row: Row) -> Remedy:
    true = _witnesses(row).true
    if true is None:
        return Remedy(_COMPARE)
    return Remedy(f"write down in all three that it is {true}, which two of them say", _agree)


class _Law(NamedTuple):
    """Of a row of `table` that is as `when` says since `since`, the audit has one of these events.

    `witness` narrows the rows of the audit that will do; `account` and `detail` are what a row has that is added.
    """

    event: Event
    table: str
    since: str
    when: str = "1 = 1"
    account: str = "account_id"
    detail: str = "NULL"
    witness: str = "object_id = {table}.id AND event = '{event}'"
    joined: str = ""

    @property
    def question(self) -> str:
        witness = self.witness.format(table=self.table, event=self.event)
        return f"""
            SELECT {self.table}.id, '{self.event}' AS event, {self.account} AS account_id, {self.detail} AS detail
            FROM {self.table} {self.joined} WHERE {self.when} AND {self.since} >= {_HORIZON}
            AND NOT EXISTS (SELECT 1 FROM audit WHERE {witness}) ORDER BY {self.table}.id
        """


_LAWS: Final = (
    _Law("account.created", "accounts", "created_at", account="id", detail="plan"),
    _Law("key.created", "api_keys", "created_at"),
    _Law("key.revoked", "api_keys", "revoked_at"),
    _Law("user.created", "users", "created_at", detail="role"),
    _Law("user.erased", "users", "deleted_at"),
    _Law("license.taken", "enrollments", "enrolled_at", "licensed = 1"),
    _Law("license.returned", "enrollments", "updated_at", f"licensed = 1 AND NOT ({LIVE})"),
    _Law(
        "token.minted",
        "token_families",
        "token_families.created_at",
        joined="JOIN users ON users.id = token_families.user_id",
    ),
    _Law(
        "token.revoked",
        "token_families",
        "token_families.revoked_at",
        joined="JOIN users ON users.id = token_families.user_id",
        witness="object_id IN ({table}.id, {table}.key_id, {table}.user_id) AND at >= {table}.revoked_at "
        "AND event IN ('token.revoked', 'token.reused', 'key.revoked', 'password.set', 'user.erased')",
    ),
    _Law("token.revoked", "revoked_tokens", "expires_at", account="NULL"),
)


def _last_word(table: str, event: str, events: tuple[Event, ...], detail: str, when: str = "1 = 1") -> str:
    """Rows of which the audit has told one of these events, and last of all another than it should."""
    told = ", ".join(f"'{each}'" for each in events)
    of_row = f"object_id = {table}.id AND event IN ({told})"
    account = "id" if table == "accounts" else "account_id"
    return f"""
        SELECT id, {event} AS event, {account} AS account_id, {detail} AS detail FROM {table}
        WHERE {when} AND EXISTS (SELECT 1 FROM audit WHERE {of_row}) AND NOT EXISTS (
            SELECT 1 FROM audit WHERE {of_row} AND at = (SELECT MAX(at) FROM audit WHERE {of_row}) AND {{}}
        ) ORDER BY id
    """


_SUSPENSION: Final = "CASE WHEN suspended_at IS NULL THEN 'account.resumed' ELSE 'account.suspended' END"
_QUESTIONS: Final = (
    *(law.question for law in _LAWS),
    _last_word("accounts", "'plan.set'", ("account.created", "plan.set"), "plan").format("detail = plan"),
    _last_word("users", "'role.set'", ("user.created", "role.set"), "role").format("detail = role"),
    _last_word("accounts", _SUSPENSION, ("account.suspended", "account.resumed"), "NULL").format(
        f"event = {_SUSPENSION}"
    ),
    f"""
        SELECT id, 'account.suspended' AS event, id AS account_id, NULL AS detail FROM accounts
        WHERE suspended_at >= {_HORIZON} AND NOT EXISTS (
            SELECT 1 FROM audit WHERE object_id = accounts.id AND event IN ('account.suspended', 'account.resumed')
        ) ORDER BY id
    """,
)
"""Each answers of what the audit does not tell: the row's id, the event, and what else a row about it holds."""


async def _tell(_tx: DriverTransaction, journals: Journals, row: Row, ctx: Context) -> bool:
    object_id, event, account_id, detail = row
    await journals.audit.add(ctx.event(event, object_id, account_id, detail))
    return True


_TELL: Final = Remedy("have the audit say so from now on, in the doctor's name; ask who did it", _tell)

WITNESSES: Final = Check(
    "payment",
    "payment {}: it is {}, the ledger has{}, and the audit{}",
    f"""
        SELECT id, status, COALESCE(NULLIF(moved, ''), ' nothing'), COALESCE(NULLIF(noted, ''), ' nothing') FROM (
            SELECT id, status, created_at, {_MOVED} AS moved, {_NOTED} AS noted FROM payments
        ) AS witnesses
        WHERE NOT ({_MOVED_RIGHTLY}) OR (created_at >= {_HORIZON} AND NOT ({_NOTED_RIGHTLY})) ORDER BY id
    """,
    _payment_remedy,
)
"""Which payments are said to have come as far as the ledger and the audit do not say: nothing follows from those."""

CHECKS: Final = (
    Check(
        "ledger",
        "payment {}: its entry of being {} has another amount, mode or account",
        """
            SELECT payments.id, movement FROM ledger JOIN payments ON payments.id = payment_id
            WHERE ledger.mode <> payments.mode OR ledger.account_id <> payee_id
                OR ledger.amount <> payments.amount OR ledger.currency <> payments.currency
            ORDER BY payments.id, movement
        """,
        Remedy(_COMPARE),
    ),
    Check(
        "payee",
        "payment {}: it is booked to {}, but the course belongs to {}",
        """
            SELECT payments.id, payee_id, courses.account_id FROM payments
            JOIN enrollments ON enrollments.id = enrollment_id JOIN courses ON courses.id = course_id
            WHERE payee_id <> courses.account_id ORDER BY payments.id
        """,
        Remedy("find out whose course it is, and correct by hand which of the two rows is wrong"),
    ),
    *(Check("audit", "{}: the audit does not say {}", question, _TELL) for question in _QUESTIONS),
)
"""What else is asked about the ledger and the audit."""
