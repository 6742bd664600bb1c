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

from collections.abc import Sequence
from typing import Final, Literal

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

HISTORY: Final[dict[PaymentStatus, tuple[PaymentStatus, ...]]] = {
    "charging": ("charging",),
    "declined": ("charging", "declined"),
    "charged": ("charging", "charged"),
    "refunding": ("charging", "charged", "refunding"),
    "refunded": ("charging", "charged", "refunding", "refunded"),
}
"""Every status that a payment has come through when it is in one, in order. A charge whose place is given up at once
goes from `charging` to `refunding`, and has been `charged` all the same: the money did move."""


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
    """The statuses that a payment comes to, one after the other, on its way from one to another.

    ValueError when the second does not follow from the first: a payment never goes back.
    """
    before, after = HISTORY[status], HISTORY[new]
    if after[: len(before)] != before:
        raise ValueError(f"a payment does not go from {status} to {new}")
    return after[len(before) :]


def entries(payment: Payment, statuses: Sequence[PaymentStatus], at: Instant) -> list[Entry]:
    """What the ledger has of a payment's coming to these statuses."""
    return [
        Entry(payment.id, movement, payment.mode, payment.payee_id, debit, credit, payment.amount, at)
        for movement, (debit, credit) in MOVEMENTS.items()
        if movement in statuses
    ]
