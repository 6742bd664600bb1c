"""The double-entry ledger: what a payment's way moves between which accounts, as a pure function of the payment.

An entry debits one account and credits another by the same amount, so the ledger cannot be out of balance: over all
accounts, debits and credits of a currency are the same sum. Entries are only ever added. The ledger's accounts are
those of the account that published the course (`Payment.payee_id`), in each mode and currency for itself:

- `receivable` (asset): what the payment service has collected and not yet given back
- `revenue` (income): what was charged for courses
- `refunds` (contra income): what of that was given back, or is to be
- `refunds_payable` (liability): refunds that are decided and that the payment service has not confirmed

Licences move no money and have no entries. What the payment service keeps as its fee, or pays out, is in its own books.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, Literal, get_args

import msgspec

from learnflow_core.model import Instant, Mode, Payment, PaymentStatus
from learnflow_core.money import Money

LedgerAccount = Literal["receivable", "revenue", "refunds", "refunds_payable"]
Movement = Literal["charged", "refunding", "refunded"]
"""What moves money: a payment coming to this status."""

MOVEMENTS: Final[dict[Movement, tuple[LedgerAccount, LedgerAccount]]] = {
    "charged": ("receivable", "revenue"),
    "refunding": ("refunds", "refunds_payable"),
    "refunded": ("refunds_payable", "receivable"),
}
"""Which account each movement debits, and which it credits."""

COMES_TO: Final[dict[tuple[PaymentStatus, PaymentStatus], tuple[PaymentStatus, ...]]] = {
    ("charging", "declined"): ("declined",),
    ("charging", "charged"): ("charged",),
    ("charging", "reversing"): ("reversing",),
    ("reversing", "declined"): ("declined",),
    ("reversing", "refunding"): ("charged", "refunding"),
    ("declined", "refunding"): ("charged", "refunding"),
    ("charged", "refunding"): ("refunding",),
    ("refunding", "refunded"): ("refunded",),
}
"""The ways of a payment, whole: going from a status to another, it comes to these. A charge that is given back at once
has been `charged` all the same, since the money did move: so is one that came in after it had been given up. Whatever
is absent is impossible."""


class Entry(msgspec.Struct, frozen=True):
    """One movement of money: `amount` debited to one account of `account_id`'s ledger and credited to another."""

    payment_id: str
    movement: Movement
    mode: Mode
    account_id: str
    debit: LedgerAccount
    credit: LedgerAccount
    amount: Money
    at: Instant


class Balance(msgspec.Struct, frozen=True):
    """What an account of the ledger was debited and credited in all, in minor units of the currency."""

    account_id: str
    currency: str
    ledger_account: LedgerAccount
    debits: int
    credits: int


def come_to(status: PaymentStatus, new: PaymentStatus) -> tuple[PaymentStatus, ...]:
    """The statuses that a payment comes to on its way from one to another; ValueError when there is no such way."""
    passed = COMES_TO.get((status, new))
    if passed is None:
        raise ValueError(f"a payment does not go from {status} to {new}")
    return passed


def ways(status: PaymentStatus) -> list[tuple[PaymentStatus, ...]]:
    """Every way in which a payment may have come to a status: the statuses it has had by then, in order."""
    if status == "charging":
        return [("charging",)]
    return [(*way, *passed) for (before, after), passed in COMES_TO.items() if after == status for way in ways(before)]


def movements(status: PaymentStatus) -> tuple[Movement, ...]:
    """What the ledger has of a payment in this status, whichever way it came there."""
    return tuple(movement for movement in MOVEMENTS if movement in ways(status)[0])


def entries(payment: Payment, statuses: Sequence[PaymentStatus], at: Instant) -> list[Entry]:
    """What the ledger has of a payment's coming to these statuses."""
    return [
        Entry(payment.id, movement, payment.mode, payment.payee_id, debit, credit, payment.amount, at)
        for movement, (debit, credit) in MOVEMENTS.items()
        if movement in statuses
    ]


def witnessed(
    status: PaymentStatus, moved: Collection[Movement], noted: Collection[PaymentStatus]
) -> PaymentStatus | None:
    """The status that a payment truly has, when the payment itself, the ledger and the audit tell of different ones.

    It is the one that two of the three agree on, and that the third can be made to agree on by adding what it lacks;
    None when there is no such status, or more than one.
    """
    possible = [
        each
        for each in get_args(PaymentStatus)
        if (each == status) + (set(moved) == set(movements(each))) + (set(noted) in map(set, ways(each))) >= 2
        and set(moved) <= set(movements(each))
        and any(set(noted) <= set(way) for way in ways(each))
    ]
    return possible[0] if len(possible) == 1 else None
