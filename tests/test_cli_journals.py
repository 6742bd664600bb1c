"""`learnflow ledger`, `audit` and `doctor --repair`: what an operator sees of the books, and does about them."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from learnflow_core.model import DAY
from storage_backends import open_storage
from storage_backends.conformance.samples import NOW, account, course, enrollment, keep, payment, user
from tests.terminal import Operator

BALANCES = """\
ACCOUNT_ID  LEDGER_ACCOUNT   DEBITS     CREDITS    BALANCE    SIDE
acct_1      receivable       99.98 USD  49.99 USD  49.99 USD  debit
acct_1      refunds          49.99 USD  0.00 USD   49.99 USD  debit
acct_1      refunds_payable  49.99 USD  49.99 USD  0.00 USD   debit
acct_1      revenue          0.00 USD   99.98 USD  99.98 USD  credit
"""


@pytest.fixture
async def shop(tmp_path: Path) -> Operator:
    """An operator whose learners have paid twice, and had one of it back."""
    operator = Operator(tmp_path)
    storage = await open_storage(operator.url)
    await keep(storage, account(), course(), course("crs_2"), user())
    for number, status, paid in ((1, "active", "charged"), (2, "refunded", "refunded")):
        ids: dict[str, Any] = {"course_id": f"crs_{number}", "payment_id": f"pay_{number}"}
        place = enrollment(f"enr_{number}", status=status, **ids)
        await keep(storage, place, payment(f"pay_{number}", enrollment_id=place.id, status=paid))
    await storage.write(lambda tx: tx.courses.settle(10))
    await storage.close()
    return operator


def damage(operator: Operator, *statements: str) -> None:
    with closing(sqlite3.connect(operator.folder / "school.db")) as database, database:
        for statement in statements:
            database.execute(statement)


def test_balances_are_a_table_and_a_trial_of_each_currency(shop: Operator) -> None:
    result = shop.run("ledger", "balances")
    assert result.stdout == BALANCES
    assert result.stderr == "USD: debits 199.96, credits 199.96.\n"
    assert shop.told("ledger", "balances", "--mode", "test").split() == BALANCES.split("\n", maxsplit=1)[0].split()
    assert shop.json("ledger", "balances", "--account", "acct_1")["data"][0] == {
        "account_id": "acct_1",
        "ledger_account": "receivable",
        "debits": {"amount": 99.98, "currency": "USD"},
        "credits": {"amount": 49.99, "currency": "USD"},
        "balance": {"amount": 49.99, "currency": "USD"},
        "side": "debit",
    }


@pytest.mark.parametrize("record_id", ["pay_2", "enr_2"])
def test_the_entries_of_a_payment_or_an_enrolment_are_its_way(shop: Operator, record_id: str) -> None:
    found = shop.json("ledger", "entries", record_id)["data"]
    assert [(each["debit"], each["credit"]) for each in found] == [
        ("receivable", "revenue"),
        ("refunds", "refunds_payable"),
        ("refunds_payable", "receivable"),
    ]
    assert "49.99 USD" in shop.told("ledger", "entries", record_id)


def test_the_audit_is_told_the_latest_first_and_narrowed(shop: Operator) -> None:
    made = shop.told("keys", "create", "--json")
    key_id = re.findall(r"key_\w+", made)[0]
    shop.told("keys", "revoke", key_id)
    found = shop.json("audit", "list", "--object", key_id)["data"]
    assert [(row["event"], row["actor"], row["account_id"]) for row in found] == [
        ("key.revoked", "operator", "acct_1"),
        ("key.created", "operator", "acct_1"),
    ]
    assert len(shop.json("audit", "list", "--account", "acct_1", "--limit", "1")["data"]) == 1
    assert len(shop.json("audit", "list", "--since", "2024-01-16")["data"]) == 2
    assert "payment.charged" in shop.told("audit", "list", "--object", "pay_1")


def test_the_audit_holds_no_secret_of_a_key(shop: Operator) -> None:
    secret = shop.told("keys", "create").strip()
    assert secret[12:] not in shop.told("audit", "list")


def test_old_rows_of_the_audit_are_let_go_when_asked_and_the_doctor_does_not_miss_them(shop: Operator) -> None:
    shop.told("keys", "create")
    assert int(shop.told("audit", "purge", "--before", "2024-01-16")) == 8
    rows = shop.json("audit", "list")["data"]
    assert [row["event"] for row in rows] == ["audit.purged", "key.created"]
    assert rows[0]["detail"] == str(NOW // DAY * DAY + DAY)
    assert shop.told("doctor") == ""
    result = shop.run("audit", "purge", "--before", "2999-01-01")
    assert (result.exit_code, "future" in result.stderr) == (1, True)


def test_the_doctor_says_what_helps_and_repairs_it_once(shop: Operator) -> None:
    damage(
        shop, "DELETE FROM ledger WHERE payment_id = 'pay_1'", "UPDATE courses SET live_taken = 7 WHERE id = 'crs_2'"
    )
    result = shop.run("doctor")
    assert result.exit_code == 1
    assert "payment pay_1: it is charged, the ledger has nothing, and the audit charging charged" in result.stdout
    assert result.stdout.count("--repair would: ") == 3
    result = shop.run("doctor", "--repair")
    assert result.exit_code == 0
    assert result.stdout.count("repaired: ") == 2
    assert shop.json("doctor", "--repair") == {"findings": [], "repaired": []}
    assert shop.told("ledger", "balances") == BALANCES
    [row] = shop.json("audit", "list", "--object", "crs_2")["data"]
    assert (row["event"], row["actor"], row["detail"]) == ("books.repaired", "doctor", "seats")


def test_what_only_a_person_can_put_right_is_left_and_said(shop: Operator) -> None:
    damage(shop, "UPDATE ledger SET amount = 1 WHERE payment_id = 'pay_1'")
    for arguments in (("doctor",), ("doctor", "--repair")):
        result = shop.run(*arguments)
        assert result.exit_code == 1
        assert "payment pay_1: its entry of being charged has another amount" in result.stdout
        assert "by hand: compare it with the payment service's own record" in result.stdout
    [finding] = json.loads(shop.run("doctor", "--json").stdout)["findings"]
    assert finding["repairable"] is False
