"""The suite, on learning: enrolments, payments and certificates."""

from __future__ import annotations

# ruff: noqa: S106 - secrets of people who do not exist
import msgspec
import pytest

from learnflow_core.ledger import entries
from learnflow_core.money import MAX_AMOUNT_MINOR, Money
from learnflow_core.ports import Storage, Transaction
from storage_backends.conformance.base import Suite, same
from storage_backends.conformance.samples import (
    CONTEXT,
    HOSTILE,
    NOW,
    account,
    certificate,
    completed,
    course,
    enrollment,
    keep,
    method,
    payment,
    stage,
    user,
)
from storage_backends.driver import RefusedError

replace = msgspec.structs.replace
LATEST = 2**63 - 1
"""The last instant there is."""


class Learning(Suite):
    """Enrolments, payments and certificates."""

    async def test_an_enrolment_comes_back_as_it_was_kept_and_as_it_was_replaced(self, storage: Storage) -> None:
        await stage(storage)
        kept = enrollment(expires_at=LATEST, licensed=True)
        await keep(storage, kept)
        assert same(await storage.read(lambda tx: tx.enrollments.get("enr_1")), kept)
        assert same(await storage.read(lambda tx: tx.enrollments.live("usr_1", "crs_1")), kept)
        done = replace(
            kept,
            status="completed",
            progress=100,
            certificate_id="crt_1",
            updated_at=2,
            completed_at=3,
            expires_at=None,
        )

        async def complete(tx: Transaction) -> None:
            await tx.certificates.add(certificate(done))
            await tx.enrollments.put(done)

        await storage.write(complete)
        assert same(await storage.read(lambda tx: tx.enrollments.get("enr_1")), done)
        assert await storage.read(lambda tx: tx.enrollments.get("enr_2")) is None
        assert await storage.read(lambda tx: tx.enrollments.live("usr_1", "crs_2")) is None

    @pytest.mark.parametrize("status", ["pending", "active", "completed"])
    async def test_a_second_live_enrolment_of_a_user_in_a_course_is_refused_and_nothing_else_undone(
        self, storage: Storage, status: str
    ) -> None:
        await stage(storage)
        paid = {"payment_id": "pay_1"} if status == "pending" else {}
        first = completed("enr_1") if status == "completed" else enrollment(status=status, **paid)
        await keep(storage, first, *([payment()] if paid else []))

        async def work(tx: Transaction) -> tuple[bool, bool]:
            refused = await tx.enrollments.add(enrollment("enr_2"))
            return refused, await tx.enrollments.add(enrollment("enr_3", status="cancelled"))

        assert await storage.write(work) == (False, True)
        assert await storage.read(lambda tx: tx.enrollments.get("enr_2")) is None
        assert same(await storage.read(lambda tx: tx.enrollments.live("usr_1", "crs_1")), first)

    @pytest.mark.parametrize("status", ["cancelled", "refunded", "expired"])
    async def test_who_left_a_course_can_enrol_again(self, storage: Storage, status: str) -> None:
        await stage(storage)
        paid = {"payment_id": "pay_1"} if status == "refunded" else {}
        await keep(storage, enrollment("enr_1", status=status, **paid))
        await keep(storage, *([payment(status="refunded")] if paid else []), enrollment("enr_2"))
        live = await storage.read(lambda tx: tx.enrollments.live("usr_1", "crs_1"))
        assert live is not None
        assert live.id == "enr_2"

    async def test_the_live_enrolments_of_a_user_are_found_and_no_others(self, storage: Storage) -> None:
        await stage(storage)
        await keep(storage, user("usr_2"), course("crs_2"), course("crs_3"), course("crs_4"))
        mine = [completed("enr_1"), enrollment("enr_2", course_id="crs_2"), enrollment("enr_3", course_id="crs_3")]
        await keep(storage, *mine, enrollment("enr_4", course_id="crs_4", status="expired"))
        await keep(storage, enrollment("enr_5", user_id="usr_2"))
        found = await storage.read(lambda tx: tx.enrollments.live_of_user("usr_1"))
        assert same(sorted(found, key=lambda one: one.id), mine)
        asked = ("crs_1", "crs_2", "crs_4", "crs_none")
        assert await storage.read(lambda tx: tx.enrollments.completed("usr_1", asked)) == {"crs_1"}
        assert await storage.read(lambda tx: tx.enrollments.completed("usr_1", ())) == frozenset()

    async def test_an_enrolment_stays_in_its_users_account_and_mode(self, storage: Storage) -> None:
        await stage(storage)
        await keep(storage, account("acct_2"))
        for wrong in (enrollment(mode="test"), enrollment(account_id="acct_2"), enrollment(user_id="usr_2")):
            with pytest.raises(RefusedError):
                await storage.write(lambda tx, it=wrong: tx.enrollments.add(it))  # type: ignore[misc]

    async def test_a_payment_comes_back_as_it_was_kept_and_changes_in_status_only(self, storage: Storage) -> None:
        await stage(storage)
        kept = payment(method_id=HOSTILE, token=HOSTILE, amount=Money(MAX_AMOUNT_MINOR, "KWD"))
        await keep(storage, enrollment(status="pending", payment_id="pay_1"), kept)
        assert same(await storage.read(lambda tx: tx.payments.get("pay_1")), kept)

        async def work(tx: Transaction) -> None:
            terms = replace(payment(token="other"), amount=Money(1, "USD"), course_version=9)
            await tx.payments.put(replace(terms, status="charged", updated_at=9, due_at=None, tries=3))
            await tx.ledger.add(entries(kept, ["charged"], NOW))
            await tx.audit.add(CONTEXT.event("payment.charged", "pay_1", "acct_1"))
            await tx.enrollments.put(enrollment(payment_id="pay_1"))

        await storage.write(work)
        expected = replace(kept, status="charged", updated_at=9, due_at=None, tries=3)
        assert same(await storage.read(lambda tx: tx.payments.get("pay_1")), expected)
        assert await storage.read(lambda tx: tx.payments.get("pay_2")) is None

    async def test_payment_methods_are_kept_and_deleted_one_by_one_or_all_of_a_user(self, storage: Storage) -> None:
        await stage(storage)
        await keep(
            storage, user("usr_2"), method("pm_1"), method("pm_2"), method("pm_3"), method("pm_4", user_id="usr_2")
        )
        assert same(await storage.read(lambda tx: tx.payments.method("pm_1")), method("pm_1"))
        assert await storage.read(lambda tx: tx.payments.method("pm_5")) is None

        async def work(tx: Transaction) -> list[int | None]:
            await tx.payments.put_method(method("pm_1", deleted_at=5))
            await tx.payments.delete_methods("usr_1", 7)
            found = [await tx.payments.method(key) for key in ("pm_1", "pm_2", "pm_3", "pm_4")]
            return [one.deleted_at for one in found if one is not None]

        assert await storage.write(work) == [5, 7, 7, None]

    async def test_a_method_is_found_by_its_token_until_it_is_deleted(self, storage: Storage) -> None:
        await stage(storage)
        mine = [method("pm_2", created_at=2), method("pm_1", created_at=1, deleted_at=4), method("pm_3", created_at=3)]
        await keep(storage, user("usr_2"), *mine, method("pm_4", user_id="usr_2", created_at=0))
        token = method().token
        assert same(await storage.read(lambda tx: tx.payments.method_with("usr_1", token)), mine[0])
        assert await storage.read(lambda tx: tx.payments.method_with("usr_1", token + "x")) is None
        await storage.write(lambda tx: tx.payments.delete_methods("usr_1", 7))
        assert await storage.read(lambda tx: tx.payments.method_with("usr_1", token)) is None

    async def test_deleted_methods_wait_to_be_forgotten_the_first_deleted_first(self, storage: Storage) -> None:
        await stage(storage)
        deleted = [method("pm_1", deleted_at=9), method("pm_2", deleted_at=5), method("pm_3", deleted_at=5)]
        await keep(storage, *deleted, method("pm_4"), method("pm_5", deleted_at=1, forgotten_at=2))
        assert [one.id for one in await storage.read(lambda tx: tx.payments.unforgotten(9))] == ["pm_2", "pm_3", "pm_1"]
        assert [one.id for one in await storage.read(lambda tx: tx.payments.unforgotten(2))] == ["pm_2", "pm_3"]
        await storage.write(lambda tx: tx.payments.put_method(replace(deleted[1], forgotten_at=6)))
        assert [one.id for one in await storage.read(lambda tx: tx.payments.unforgotten(9))] == ["pm_3", "pm_1"]

    async def test_a_certificate_comes_back_as_it_was_kept_and_changes_in_recipient_and_revocation(
        self, storage: Storage
    ) -> None:
        await stage(storage)
        done = completed("enr_1")
        await keep(storage, done)
        kept = certificate(done)
        assert same(await storage.read(lambda tx: tx.certificates.get(kept.id)), kept)
        await storage.write(lambda tx: tx.certificates.put(replace(kept, recipient=HOSTILE, revoked_at=8, issued_at=1)))
        expected = replace(kept, recipient=HOSTILE, revoked_at=8)
        assert same(await storage.read(lambda tx: tx.certificates.get(kept.id)), expected)
        await storage.write(lambda tx: tx.certificates.erase_recipient("usr_1", 9))
        erased = replace(expected, recipient="", updated_at=9)
        assert same(await storage.read(lambda tx: tx.certificates.get(kept.id)), erased)
        assert await storage.read(lambda tx: tx.certificates.get("crt_2")) is None

    async def test_an_enrolment_has_one_certificate(self, storage: Storage) -> None:
        await stage(storage)
        done = completed("enr_1")
        await keep(storage, done)
        with pytest.raises(RefusedError):
            await storage.write(lambda tx: tx.certificates.add(certificate(done, id="crt_other")))
