"""The ledger is in balance whatever ways payments take, and two witnesses are enough to tell which way one took."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_core.ledger import COMES_TO, MOVEMENTS, Entry, come_to, entries, movements, ways, witnessed
from learnflow_core.model import PaymentStatus
from storage_backends.conformance.samples import NOW, payment

STATUSES: tuple[PaymentStatus, ...] = get_args(PaymentStatus)
WAYS = [way for status in STATUSES for way in ways(status)]


@st.composite
def walks(draw: st.DrawFn) -> list[tuple[PaymentStatus, list[Entry]]]:
    """A payment's way from its beginning, as steps are drawn for it: each status, and what was entered on the way."""
    sold = payment(f"pay_{draw(st.integers(1, 5))}")
    status: PaymentStatus = "charging"
    walked: list[tuple[PaymentStatus, list[Entry]]] = [(status, [])]
    for _ in range(draw(st.integers(0, 5))):
        nexts = [after for before, after in COMES_TO if before == status]
        if not nexts:
            break
        new = draw(st.sampled_from(sorted(nexts)))
        passed = come_to(status, new)
        changed = msgspec.structs.replace(sold, status=new)
        walked.append((new, walked[-1][1] + entries(changed, passed, NOW)))
        status = new
    return walked


@given(st.lists(walks(), max_size=5))
def test_debits_are_credits_after_every_step_of_every_payment(
    walked: list[list[tuple[PaymentStatus, list[Entry]]]],
) -> None:
    debits: Counter[str] = Counter()
    credited: Counter[str] = Counter()
    for entry in [entry for walk in walked for entry in walk[-1][1]]:
        assert entry.debit != entry.credit
        debits[entry.debit] += entry.amount.amount_minor
        credited[entry.credit] += entry.amount.amount_minor
    assert debits.total() == credited.total()
    # What the payment service owes is what was earned, less what went back, or is yet to.
    owed = debits["receivable"] - credited["receivable"]
    earned = credited["revenue"] - debits["refunds"]
    assert owed == earned + credited["refunds_payable"] - debits["refunds_payable"]


@given(walks())
def test_the_ledger_has_of_a_payment_what_its_status_says_whichever_way_it_came(
    walked: list[tuple[PaymentStatus, list[Entry]]],
) -> None:
    for status, entered in walked:
        assert tuple(entry.movement for entry in entered) == movements(status)


def test_a_payment_never_goes_a_way_that_is_not_in_the_table() -> None:
    for before in STATUSES:
        for after in STATUSES:
            if (before, after) not in COMES_TO:
                with pytest.raises(ValueError, match=f"from {before} to {after}"):
                    come_to(before, after)


def test_every_status_can_be_reached_and_begins_with_the_charge() -> None:
    for status in STATUSES:
        assert ways(status)
        for way in ways(status):
            assert (way[0], way[-1]) == ("charging", status)


def test_every_movement_has_two_accounts_and_all_of_them_come_to_nothing_when_money_went_back() -> None:
    balance: Counter[str] = Counter()
    for debit, credit in MOVEMENTS.values():
        balance[debit] += 1
        balance[credit] -= 1
    assert balance == {"receivable": 0, "revenue": -1, "refunds": 1, "refunds_payable": 0}


@pytest.mark.parametrize("way", WAYS)
def test_what_one_witness_has_lost_two_others_tell(way: tuple[PaymentStatus, ...]) -> None:
    """Of a payment, the ledger and the audit, any one may be wrong; what is told is never a status it did not have."""
    true, moved = way[-1], movements(way[-1])
    assert witnessed(true, moved, way) == true
    for status in STATUSES:
        assert witnessed(status, moved, way) in (true, None)
        assert witnessed(status, moved, way) == true or not moved
    for size in range(len(moved)):
        for left in combinations(moved, size):
            assert witnessed(true, left, way) == true
    for size in range(len(way)):
        for some in combinations(way, size):
            assert witnessed(true, moved, some) in (true, None)
    assert witnessed(true, moved, ()) == true


def test_no_status_is_told_that_only_taking_entries_away_would_make_agree() -> None:
    assert witnessed("charging", ["charged"], ["charging"]) is None  # the ledger has too much
    assert witnessed("charged", ("charged", "refunding"), ("charging", "charged")) is None
    assert witnessed("refunding", (), ("charging", "charged")) is None
