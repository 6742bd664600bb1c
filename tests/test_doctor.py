"""Every kind of damage to the books is found, on both databases, and put right, or left to a person who is told how.

What is planted is what a hand at the database can do; what a bug could do looks no different.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import pytest

from learnflow_core.audit import DOCTOR
from learnflow_core.ledger import Balance
from learnflow_core.model import DAY
from learnflow_core.pagination import Cursor
from learnflow_core.ports import AuditQuery, Context, Finding, Storage
from storage_backends import open_storage
from storage_backends.conformance.base import said
from storage_backends.conformance.samples import (
    NOW,
    account,
    api_key,
    completed,
    count,
    course,
    enrollment,
    family,
    keep,
    payment,
    user,
)
from storage_backends.repository.checkup import CHECKS, findings
from tests.postgres import Postgres

# ruff: noqa: S608 - nothing but our own names is put into these
CTX = Context(NOW + 1_000_000, os.urandom, DOCTOR)


class Damage(NamedTuple):
    """What is done to sound books, and some of what a check then says."""

    done: tuple[str, ...]
    said: tuple[str, ...]


def damage(*done: str, says: str | tuple[str, ...]) -> Damage:
    return Damage(done, (says,) if isinstance(says, str) else says)


def unpaid(status: str, paid: str) -> str:
    return f"enrolment enr_paid: it is {status}, but its payment pay_paid is {paid}"


def lacking(object_id: str, event: str) -> Damage:
    where = f"object_id = '{object_id}' AND event = '{event}'"
    return damage(f"DELETE FROM audit WHERE {where}", says=f"{object_id}: the audit does not say {event}")


ALL_CHARGING = (
    f"UPDATE payments SET status = 'charging', due_at = {NOW} WHERE id = 'pay_paid'",
    "DELETE FROM ledger WHERE payment_id = 'pay_paid'",
    "DELETE FROM audit WHERE object_id = 'pay_paid' AND event = 'payment.charged'",
)
"""The payment and its witnesses from before the payment service has answered."""

REPAIRED = {
    "more live seats taken": damage(
        "UPDATE courses SET live_taken = 3, total_students = 3 WHERE id = 'crs_licensed'",
        says="course crs_licensed: 3 live seats are taken, but live enrolments hold 1",
    ),
    "fewer live seats taken": damage(
        "UPDATE courses SET live_taken = 0, total_students = 0 WHERE id = 'crs_licensed'",
        says="course crs_licensed: 0 live seats are taken, but live enrolments hold 1",
    ),
    "test seats taken": damage(
        "UPDATE courses SET test_taken = 1 WHERE id = 'crs_done'",
        says="course crs_done: 1 test seats are taken, but live enrolments hold 0",
    ),
    "licences taken": damage(
        "UPDATE accounts SET live_licenses = 0 WHERE id = 'acct_1'",
        says="account acct_1: 0 live licences are taken, but live enrolments hold 1",
    ),
    "students": damage(
        "UPDATE courses SET total_students = 7 WHERE id = 'crs_done'",
        says="course crs_done: it shows 7 students, but has 1, and no sweep is due",
    ),
    "a word that is counted wrongly": damage(
        "INSERT INTO words (word, courses) VALUES ('nowhere', 1)",
        says="word nowhere: it counts 1 published courses, but has 0",
    ),
    "a course that is not found by what it says": damage(
        "UPDATE course_texts SET description = 'Unheard' WHERE course_id = 'crs_done'",
        says="course crs_done: it would be found by other words than it says",
    ),
    "a charge forgotten by the enrolment": damage(
        "UPDATE enrollments SET status = 'pending' WHERE id = 'enr_paid'", says=unpaid("pending", "charged")
    ),
    "a charge under way, enrolled already": damage(*ALL_CHARGING, says=unpaid("active", "charging")),
    "a refund forgotten by the enrolment": damage(
        "UPDATE enrollments SET status = 'active' WHERE id = 'enr_refunded'",
        "UPDATE courses SET live_taken = live_taken + 1, total_students = total_students + 1 WHERE id = 'crs_refunded'",
        says="enrolment enr_refunded: it is active, but its payment pay_refunded is refunded",
    ),
    "a refusal forgotten by the enrolment": damage(
        "UPDATE enrollments SET status = 'pending' WHERE id = 'enr_declined'",
        "UPDATE courses SET live_taken = live_taken + 1, total_students = total_students + 1 WHERE id = 'crs_declined'",
        says="enrolment enr_declined: it is pending, but its payment pay_declined is declined",
    ),
    "a payment forgotten by the enrolment": damage(
        "UPDATE enrollments SET payment_id = NULL WHERE id = 'enr_paid'",
        says="payment pay_paid: enrolment enr_paid does not know of it",
    ),
    "a payment that the enrolment calls by another name": damage(
        "UPDATE enrollments SET payment_id = 'pay_9' WHERE id = 'enr_paid'",
        says=(unpaid("active", "not there").replace("pay_paid", "pay_9"),),
    ),
    "a pending enrolment that nothing was asked for": damage(
        "UPDATE enrollments SET status = 'pending' WHERE id = 'enr_free'",
        says="enrolment enr_free: it is pending, and no payment belongs to it",
    ),
    "a certificate called by another name": damage(
        "UPDATE enrollments SET certificate_id = 'crt_9' WHERE id = 'enr_done'",
        says="enrolment enr_done: it is completed, but its certificate crt_9 is not there",
    ),
    "a certificate that is gone": damage(
        "DELETE FROM certificates",
        says="enrolment enr_done: it is completed, but its certificate crt_enr_done is not there",
    ),
    "a certificate of another course": damage(
        "UPDATE certificates SET course_id = 'crs_paid'",
        says="enrolment enr_done: it is completed, but its certificate crt_enr_done is not there",
    ),
    "a completion that was undone": damage(
        "UPDATE enrollments SET status = 'active', progress = 10, completed_at = NULL WHERE id = 'enr_done'",
        says="certificate crt_enr_done: enrolment enr_done is not completed",
    ),
    "a payment whose status was changed": damage(
        "UPDATE payments SET status = 'declined' WHERE id = 'pay_paid'",
        says=("payment pay_paid: it is declined, the ledger has charged, and the audit charging charged",),
    ),
    "a payment that is said to go back": damage(
        f"UPDATE payments SET status = 'refunding', due_at = {NOW} WHERE id = 'pay_paid'",
        says=unpaid("active", "refunding"),
    ),
    "a payment that is said to have gone back": damage(
        "UPDATE payments SET status = 'refunded' WHERE id = 'pay_paid'", says=unpaid("active", "refunded")
    ),
    "a ledger that lacks a charge": damage(
        "DELETE FROM ledger WHERE payment_id = 'pay_paid'",
        says="payment pay_paid: it is charged, the ledger has nothing, and the audit charging charged",
    ),
    "a ledger that lacks a refund": damage(
        "DELETE FROM ledger WHERE movement = 'refunding'",
        says="payment pay_refunded: it is refunded, the ledger has charged refunded, and the audit "
        "charging charged refunding refunded",
    ),
    "an audit that lacks a charge": damage(
        "DELETE FROM audit WHERE object_id = 'pay_paid'",
        says="payment pay_paid: it is charged, the ledger has charged, and the audit nothing",
    ),
    "another plan": damage(
        "UPDATE accounts SET plan = 'professional' WHERE id = 'acct_2'", says="acct_2: the audit does not say plan.set"
    ),
    "another role": damage(
        "UPDATE users SET role = 'admin' WHERE id = 'usr_1'", says="usr_1: the audit does not say role.set"
    ),
    "an account that was suspended": damage(
        f"UPDATE accounts SET suspended_at = {NOW} WHERE id = 'acct_2'",
        says="acct_2: the audit does not say account.suspended",
    ),
    "an account that was resumed": damage(
        "UPDATE accounts SET suspended_at = NULL WHERE id = 'acct_off'",
        says="acct_off: the audit does not say account.resumed",
    ),
    "a token that was ended": damage(
        f"UPDATE token_families SET revoked_at = {NOW + 1} WHERE id = 'fam_1'",
        says="fam_1: the audit does not say token.revoked",
    ),
    "a single token that was ended": damage(
        f"INSERT INTO revoked_tokens (id, expires_at) VALUES ('tok_1', {NOW + 1})",
        says="tok_1: the audit does not say token.revoked",
    ),
    "a key that was ended": damage(
        f"UPDATE api_keys SET revoked_at = {NOW + 1} WHERE id = 'key_1'",
        says="key_1: the audit does not say key.revoked",
    ),
    "an unwritten account": lacking("acct_2", "account.created"),
    "an unwritten key": lacking("key_1", "key.created"),
    "an unwritten person": lacking("usr_1", "user.created"),
    "an unwritten end of a person": lacking("usr_gone", "user.erased"),
    "an unwritten session": lacking("fam_1", "token.minted"),
    "an unwritten licence": lacking("enr_licensed", "license.taken"),
    "an unwritten return of a licence": lacking("enr_returned", "license.returned"),
}

LEFT = {
    "an enrolment whose payment was refused": damage(
        *ALL_CHARGING,
        "UPDATE payments SET status = 'declined', due_at = NULL WHERE id = 'pay_paid'",
        "INSERT INTO audit (id, at, event, object_id, actor) "
        f"VALUES ('aud_9', {NOW}, 'payment.declined', 'pay_paid', 'program')",
        says=unpaid("active", "declined"),
    ),
    "a place that was taken from who paid": damage(
        "UPDATE enrollments SET status = 'cancelled' WHERE id = 'enr_kept'",
        "UPDATE courses SET live_taken = live_taken - 1, total_students = total_students - 1 WHERE id = 'crs_kept'",
        says="enrolment enr_kept: it is cancelled, and its payment pay_kept is kept, though its user is there",
    ),
    "a payment that is nowhere": damage(
        "UPDATE enrollments SET payment_id = 'pay_9' WHERE id = 'enr_free'",
        says="enrolment enr_free: it is active, but its payment pay_9 is not there",
    ),
    "a second payment": damage(
        "INSERT INTO payments SELECT 'pay_twice', enrollment_id, payee_id, mode, method_id, token, amount, currency, "
        "course_version, status, created_at, updated_at, due_at, tries FROM payments WHERE id = 'pay_paid'",
        says="payment pay_twice: enrolment enr_paid does not know of it",
    ),
    "a certificate of an enrolment that ended": damage(
        "UPDATE enrollments SET status = 'expired', completed_at = NULL WHERE id = 'enr_done'",
        "UPDATE courses SET live_taken = 0, total_students = 0 WHERE id = 'crs_done'",
        says="certificate crt_enr_done: enrolment enr_done is not completed",
    ),
    "three witnesses of three minds": damage(
        f"UPDATE payments SET status = 'refunding', due_at = {NOW} WHERE id = 'pay_paid'",
        "DELETE FROM ledger WHERE payment_id = 'pay_paid'",
        says="payment pay_paid: it is refunding, the ledger has nothing, and the audit charging charged",
    ),
    "an entry too many": damage(
        "INSERT INTO ledger SELECT payment_id, 'refunding', mode, account_id, 'refunds', 'refunds_payable', amount, "
        "currency, at FROM ledger WHERE payment_id = 'pay_paid'",
        says="payment pay_paid: it is charged, the ledger has charged refunding, and the audit charging charged",
    ),
    "an entry of another amount": damage(
        "UPDATE ledger SET amount = 1 WHERE payment_id = 'pay_paid'",
        says="payment pay_paid: its entry of being charged has another amount, mode or account",
    ),
    "a payment of another amount": damage(
        "UPDATE payments SET amount = 1 WHERE id = 'pay_paid'",
        says="payment pay_paid: its entry of being charged has another amount, mode or account",
    ),
    "a payment booked to another": damage(
        "UPDATE payments SET payee_id = 'acct_2' WHERE id = 'pay_paid'",
        says="payment pay_paid: it is booked to acct_2, but the course belongs to acct_1",
    ),
}


@pytest.fixture(params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest) -> Postgres | None:
    """The server on which the books are; none for a database in memory."""
    return request.getfixturevalue("postgres") if request.param == "postgres" else None


@pytest.fixture
async def storage(server: Postgres | None) -> AsyncIterator[Storage]:
    """Sound books, in which there is something of every kind."""
    database = nullcontext("sqlite://") if server is None else server.database()
    async with database as url:
        found = await open_storage(url)
        await _fill(found)
        yield found
        await found.close()


async def _fill(storage: Storage) -> None:
    await keep(
        storage,
        *(account(plan="enterprise"), account("acct_2"), account("acct_off", suspended_at=NOW)),
        *(user(), user("usr_gone", email="", name="", deleted_at=NOW), api_key()),
        *(course(f"crs_{name}") for name in ("licensed", "returned", "done", "free")),
        family(expires_at=2**60),
        enrollment("enr_licensed", course_id="crs_licensed", licensed=True),
        enrollment("enr_returned", course_id="crs_returned", licensed=True, status="cancelled"),
        completed("enr_done", course_id="crs_done"),
        enrollment("enr_free", course_id="crs_free"),
    )
    sold = {
        "paid": ("active", "charged"),
        "kept": ("active", "charged"),
        "declined": ("cancelled", "declined"),
        "refunded": ("refunded", "refunded"),
    }
    for word, (status, paid) in sold.items():
        ids: dict[str, Any] = {"course_id": f"crs_{word}", "payment_id": f"pay_{word}"}
        place = enrollment(f"enr_{word}", status=status, **ids)
        await keep(storage, course(f"crs_{word}"), place, payment(f"pay_{word}", enrollment_id=place.id, status=paid))
    await storage.write(lambda tx: tx.courses.settle(100))
    await count(storage)


async def plant(storage: Storage, planted: Damage) -> list[Finding]:
    """Do the damage, and see that it is found."""
    driver: Any = storage._driver  # type: ignore[attr-defined]
    for statement in planted.done:
        await driver.write(lambda tx, it=statement: tx.rows(it))
    found = list(await storage.check())
    assert set(planted.said) <= {finding.says for finding in found}
    return found


async def settled(storage: Storage) -> list[str]:
    await storage.write(lambda tx: tx.courses.settle(100))
    return await said(storage)


async def has_place(storage: Storage) -> bool:
    """Whether who paid for it still has a place in the course."""
    return await storage.read(lambda tx: tx.enrollments.live("usr_1", "crs_paid")) is not None


async def test_sound_books_are_found_sound_and_nothing_is_repaired(storage: Storage) -> None:
    assert await said(storage) == []
    assert await storage.repair(CTX) == []


@pytest.mark.parametrize("kind", REPAIRED)
async def test_damage_that_needs_no_person_is_found_repaired_and_found_no_more(storage: Storage, kind: str) -> None:
    found = await plant(storage, REPAIRED[kind])
    assert any(finding.repairable for finding in found)
    repaired = await storage.repair(CTX)
    assert repaired
    assert await settled(storage) == []
    assert await has_place(storage)
    assert await storage.repair(CTX) == []
    rows = await storage.read(lambda tx: tx.audit.list(AuditQuery(), Cursor(None, 200)))
    noted = [row for row in rows.items if row.event == "books.repaired"]
    assert len(noted) == len(repaired)
    assert {row.actor for row in noted} == {DOCTOR}


@pytest.mark.parametrize("kind", LEFT)
async def test_damage_that_needs_a_person_is_found_told_and_left_as_it_is(storage: Storage, kind: str) -> None:
    await plant(storage, LEFT[kind])
    await storage.repair(CTX)
    left = {finding.says: finding for finding in await storage.check()}
    for says in LEFT[kind].said:
        assert left[says].remedy
    assert await has_place(storage)
    assert await storage.repair(CTX) == []


async def test_no_place_follows_a_payment_of_which_it_is_not_known_how_far_it_has_come(storage: Storage) -> None:
    """One that is under way at the payment service, and said to be refused by its row alone."""
    pending = damage(
        *ALL_CHARGING,
        "UPDATE enrollments SET status = 'pending' WHERE id = 'enr_paid'",
        "UPDATE payments SET status = 'declined', due_at = NULL WHERE id = 'pay_paid'",
        says=unpaid("pending", "declined"),
    )
    await plant(storage, pending)
    await storage.repair(CTX)
    assert await has_place(storage)


async def test_access_that_a_repair_begins_lasts_as_long_as_if_it_had_begun_with_the_payment(storage: Storage) -> None:
    driver: Any = storage._driver  # type: ignore[attr-defined]
    for statement in (
        f"UPDATE enrollments SET status = 'pending', expires_at = {NOW + DAY} WHERE id = 'enr_paid'",
        f"UPDATE payments SET updated_at = {NOW + 5} WHERE id = 'pay_paid'",
    ):
        await driver.write(lambda tx, it=statement: tx.rows(it))
    await storage.repair(CTX)
    found = await storage.read(lambda tx: tx.enrollments.get("enr_paid"))
    assert found is not None
    assert (found.status, found.expires_at) == ("active", NOW + DAY + 5)


async def test_a_repair_takes_no_place_from_who_paid_and_moves_no_money(storage: Storage) -> None:
    async def money() -> list[Balance]:
        return list(await storage.read(lambda tx: tx.ledger.balances("live", None)))

    before = await money()
    for planted in (*REPAIRED.values(), *LEFT.values()):
        if any("ledger" in statement for statement in planted.done):
            continue
        await plant(storage, Damage(planted.done, ()))
        await storage.repair(CTX)
        assert await has_place(storage)
    assert await money() == before


async def test_more_damage_than_is_told_is_repaired_all_the_same(storage: Storage) -> None:
    await keep(storage, *(course(f"crs_many_{number}") for number in range(620)))
    driver: Any = storage._driver  # type: ignore[attr-defined]
    await driver.write(lambda tx: tx.rows("UPDATE courses SET test_taken = 1 WHERE id <> 'crs_free'"))
    assert len(await driver.read(lambda tx: tx.rows("SELECT 1 FROM courses WHERE test_taken = 1"))) == 627
    assert len(await storage.repair(CTX)) == 627
    assert await said(storage) == []


async def test_who_writes_meanwhile_is_not_kept_from_it(storage: Storage) -> None:
    """Every question is asked in a transaction that is over before the next: what is written between them is seen."""
    driver: Any = storage._driver  # type: ignore[attr-defined]
    asked = 0

    class Watched:
        async def read(self, work: Any, *, patient: bool = False) -> Any:
            nonlocal asked
            asked += 1
            await keep(storage, user(f"usr_between_{asked}"))
            return await driver.read(work, patient=patient)

    watched: Any = Watched()
    assert await findings(watched) == []
    assert asked == len(CHECKS) + 1
