"""The suite, on the ledger and the audit, which are added to and never changed."""

from __future__ import annotations

import msgspec
import pytest

from learnflow_core import ledger
from learnflow_core.audit import AuditRow
from learnflow_core.ledger import Balance
from learnflow_core.model import Instant, PaymentStatus
from learnflow_core.money import Money
from learnflow_core.pagination import Cursor, Page
from learnflow_core.ports import AuditQuery, Storage, Transaction
from storage_backends.conformance.base import Suite, same
from storage_backends.conformance.lists import walk
from storage_backends.conformance.samples import CONTEXT, NOW, account, course, enrollment, keep, payment, stage, user
from storage_backends.driver import RefusedError


async def _sell(storage: Storage, number: int, status: PaymentStatus, amount: Money, payee: str = "acct_1") -> None:
    """An enrolment of a user of its own, with its payment and all that the books have of it."""
    enrolled = {"charging": "pending", "declined": "cancelled", "charged": "active"}.get(status, "refunded")
    ids = {"user_id": f"usr_{number}", "payment_id": f"pay_{number}"}
    course_id = "crs_1" if payee == "acct_1" else "crs_2"
    await keep(
        storage,
        user(f"usr_{number}"),
        enrollment(f"enr_{number}", status=enrolled, course_id=course_id, **ids),
        payment(f"pay_{number}", enrollment_id=f"enr_{number}", status=status, amount=amount, payee_id=payee),
    )


class Journals(Suite):
    """The ledger and the audit."""

    async def test_the_entries_of_a_payment_come_back_in_the_order_of_its_way(self, storage: Storage) -> None:
        await keep(storage, account(), course())
        await _sell(storage, 2, "refunded", Money(4999, "USD"))
        await _sell(storage, 3, "charged", Money(1, "JPY"))
        expected = ledger.entries(
            payment("pay_2", amount=Money(4999, "USD")), ["charged", "refunding", "refunded"], NOW
        )
        for record_id in ("pay_2", "enr_2"):
            found = await storage.read(lambda tx, at=record_id: tx.ledger.of(at))  # type: ignore[misc]
            assert same(list(found), expected)
        assert await storage.read(lambda tx: tx.ledger.of("pay_9")) == []

    async def test_balances_are_of_each_account_of_each_publisher_in_each_currency_and_mode(
        self, storage: Storage
    ) -> None:
        await keep(storage, account(), account("acct_2"), course(), course("crs_2", account_id="acct_2"))
        await _sell(storage, 2, "refunded", Money(30, "USD"))
        await _sell(storage, 3, "refunding", Money(500, "USD"))
        await _sell(storage, 4, "charged", Money(7_000, "USD"))
        await _sell(storage, 5, "charged", Money(5, "JPY"))
        await _sell(storage, 6, "declined", Money(6, "JPY"))
        await _sell(storage, 7, "charged", Money(9, "USD"), payee="acct_2")
        first = [
            Balance("acct_1", "JPY", "receivable", 5, 0),
            Balance("acct_1", "JPY", "revenue", 0, 5),
            Balance("acct_1", "USD", "receivable", 7_530, 30),
            Balance("acct_1", "USD", "refunds", 530, 0),
            Balance("acct_1", "USD", "refunds_payable", 30, 530),
            Balance("acct_1", "USD", "revenue", 0, 7_530),
        ]
        second = [Balance("acct_2", "USD", "receivable", 9, 0), Balance("acct_2", "USD", "revenue", 0, 9)]
        assert same(list(await storage.read(lambda tx: tx.ledger.balances("live", None))), first + second)
        assert same(list(await storage.read(lambda tx: tx.ledger.balances("live", "acct_2"))), second)
        assert await storage.read(lambda tx: tx.ledger.balances("test", None)) == []

    async def test_a_movement_is_entered_once_and_a_second_time_undoes_the_whole_work(self, storage: Storage) -> None:
        await keep(storage, account(), course())
        await _sell(storage, 2, "charged", Money(30, "USD"))

        async def again(tx: Transaction) -> None:
            assert await tx.users.add(user("usr_9"))
            await tx.ledger.add(ledger.entries(payment("pay_2"), ["charged"], NOW))

        with pytest.raises(RefusedError):
            await storage.write(again)
        assert await storage.read(lambda tx: tx.users.get("usr_9")) is None

    async def test_what_happened_is_told_the_latest_first_and_by_what_it_is_about(self, storage: Storage) -> None:
        await stage(storage)
        rows = [
            CONTEXT.event("key.created", f"key_{number % 3}", f"acct_{number % 2}", "word" if number else None)
            for number in range(25)
        ]
        dated = [_at(row, NOW + 1 + number // 2) for number, row in enumerate(rows)]

        async def work(tx: Transaction) -> None:
            for row in dated:
                await tx.audit.add(row)

        await storage.write(work)
        expected = sorted(dated, key=lambda row: (row.at, row.id), reverse=True)
        for query, some in (
            (AuditQuery(since=NOW + 1), expected),
            (AuditQuery("key_1"), [row for row in expected if row.object_id == "key_1"]),
            (
                AuditQuery("key_1", "acct_1", NOW + 4),
                [
                    row
                    for row in expected
                    if (row.object_id, row.account_id) == ("key_1", "acct_1") and row.at >= NOW + 4
                ],
            ),
            (AuditQuery(account_id="acct_7"), []),
        ):
            page = await storage.read(lambda tx, q=query: tx.audit.list(q, Page(1, 50)))  # type: ignore[misc]
            assert same(list(page.items), some)
            assert page.total == len(some)
            walked = await walk(storage, lambda tx, paging, q=query: tx.audit.list(q, paging), 2)  # type: ignore[misc]
            assert same(list(walked), some)

    async def test_what_a_transaction_adds_it_can_read(self, storage: Storage) -> None:
        await keep(storage, account(), course())
        await _sell(storage, 2, "charging", Money(30, "USD"))

        async def work(tx: Transaction) -> tuple[int, int]:
            await tx.audit.add(CONTEXT.event("key.created", "key_9", None))
            await tx.ledger.add(ledger.entries(payment("pay_2"), ["charged"], NOW))
            found = await tx.audit.list(AuditQuery("key_9"), Cursor(None, 5))
            entered = len(await tx.ledger.of("pay_2"))
            raise _Told(len(found.items), entered)

        with pytest.raises(_Told) as told:
            await storage.write(work)
        assert told.value.args == (1, 1)
        assert await storage.read(lambda tx: tx.ledger.of("pay_2")) == []

    async def test_the_oldest_rows_of_the_audit_are_let_go_a_few_at_a_time(self, storage: Storage) -> None:
        rows = [_at(CONTEXT.event("key.created", f"key_{number}", None), number) for number in range(10)]

        async def fill(tx: Transaction) -> None:
            for row in rows:
                await tx.audit.add(row)

        await storage.write(fill)
        for gone, oldest in ((3, 3), (3, 6), (1, 7), (0, 7)):
            assert await storage.write(lambda tx: tx.audit.purge(7, 3)) == gone
            left = await storage.read(lambda tx: tx.audit.list(AuditQuery(), Cursor(None, 50)))
            assert same(list(left.items), rows[oldest:][::-1])


class _Told(Exception):  # noqa: N818 - it carries what was read out of work that is undone
    pass


def _at(row: AuditRow, at: Instant) -> AuditRow:
    return msgspec.structs.replace(row, at=at)
