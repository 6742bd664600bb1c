"""The suite, on what has fallen due: payments without an outcome, and enrolments whose access is over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from learnflow_core.model import UNRESOLVED_STATUSES, EnrollmentStatus, Payment, PaymentStatus
from learnflow_core.pagination import Page
from learnflow_core.ports import EnrollmentQuery, Storage
from storage_backends.conformance.base import Suite
from storage_backends.conformance.lists import ids
from storage_backends.conformance.samples import NOW, course, enrollment, keep, payment, stage, user


class Due(Suite):
    """What is due is found, and claimed by one alone."""

    async def test_payments_without_an_outcome_are_counted_up_to_a_limit(self, storage: Storage) -> None:
        await stage(storage)
        await _payments_in_every_status(storage)
        old = await storage.read(lambda tx: tx.payments.unresolved(3, 1_000))
        all_of_them = await storage.read(lambda tx: tx.payments.unresolved(4, 1_000))
        assert 4 < old < all_of_them
        assert await storage.read(lambda tx: tx.payments.unresolved(3, 4)) == 4
        assert await storage.read(lambda tx: tx.payments.unresolved(0, 4)) == 0

    async def test_a_payment_that_is_due_is_claimed_once_in_each_lease(self, storage: Storage) -> None:
        await stage(storage)
        unresolved = await _payments_in_every_status(storage)
        assert await _claim(storage, NOW - 1, until=NOW) == []
        for now in (NOW, NOW + 100, NOW + 200):
            found = await _claim(storage, now, until=now + 100)
            assert sorted(one.id for one in found) == unresolved
            assert {(one.tries, one.due_at) for one in found} == {(0, now + 100)}
            assert await _claim(storage, now + 99, until=now + 500) == []

    async def test_what_was_never_tried_is_claimed_before_what_was_and_the_longest_due_first(
        self, storage: Storage
    ) -> None:
        await stage(storage)
        due = {"pay_a": (5, 1), "pay_b": (0, 3), "pay_c": (0, 2), "pay_d": (1, 1), "pay_e": (0, 9)}
        for key, (tries, due_at) in due.items():
            await _paid(storage, key, "charging", 1, tries=tries, due_at=due_at)
        found = [{one.id for one in await _claim(storage, 8, until=9, limit=2)} for _ in range(3)]
        assert found == [{"pay_b", "pay_c"}, {"pay_d", "pay_a"}, set()]

    async def test_what_a_clock_that_was_far_ahead_has_put_off_is_not_waited_for(self, storage: Storage) -> None:
        await stage(storage)
        for key, due_at in {"pay_soon": NOW + 300, "pay_far": NOW + 301}.items():
            await _paid(storage, key, "charging", 1, due_at=due_at)
        assert [one.id for one in await _claim(storage, NOW, until=NOW + 100)] == ["pay_far"]
        assert await _claim(storage, NOW, until=NOW + 100) == []

    async def test_ten_who_claim_at_once_share_the_payments_among_them(self, storage: Storage) -> None:
        await stage(storage)
        for number in range(40):
            await _paid(storage, f"pay_n{number}", "charging", 1)
        parts = await asyncio.gather(*(_claim(storage, NOW, until=NOW + 1, limit=5) for _ in range(10)))
        claimed = [one.id for part in parts for one in part]
        assert len(claimed) == len(set(claimed)) == 40

    async def test_active_enrolments_are_overdue_from_the_instant_at_which_their_access_ends(
        self, storage: Storage
    ) -> None:
        await stage(storage)
        ends: dict[str, dict[str, Any]] = {
            "enr_a": {"expires_at": 5},
            "enr_b": {"expires_at": 3},
            "enr_c": {"expires_at": 6},
            "enr_d": {"expires_at": 1, "status": "expired"},
            "enr_e": {"expires_at": 3, "course_id": "crs_2"},
            "enr_f": {},
        }
        await keep(storage, course("crs_2"))
        for key, fields in ends.items():
            await keep(storage, user(f"usr_{key}"), enrollment(key, user_id=f"usr_{key}", **fields))

        async def overdue(*asked: Any) -> list[str]:
            return [one.id for one in await storage.read(lambda tx: tx.enrollments.overdue(*asked))]

        assert await overdue(5, 10) == ["enr_b", "enr_e", "enr_a"]
        assert await overdue(5, 2) == ["enr_b", "enr_e"]
        assert await overdue(2, 10) == []
        assert await overdue(9, 10, "crs_1") == ["enr_b", "enr_a", "enr_c"]

        async def listed(status: EnrollmentStatus, now: int) -> set[str]:
            query = EnrollmentQuery("live", status=status, now=now)
            found = await storage.read(lambda tx: tx.enrollments.list(query, Page(1, 10)))
            return {one.id for one in found.items}

        assert await listed("active", 5) == {"enr_c", "enr_f"}
        assert await listed("expired", 5) == {"enr_a", "enr_b", "enr_d", "enr_e"}
        assert await listed("active", 2) == {"enr_a", "enr_b", "enr_c", "enr_e", "enr_f"}


PAID_AS: dict[str, EnrollmentStatus] = {
    "charging": "pending",
    "reversing": "pending",
    "charged": "active",
    "declined": "cancelled",
    "refunding": "refunded",
    "refunded": "refunded",
}
"""The status of an enrolment whose payment has come this far."""


async def _paid(storage: Storage, payment_id: str, status: PaymentStatus, updated_at: int, **fields: Any) -> None:
    """A payment of a user of its own."""
    key = payment_id.removeprefix("pay_")
    place = {"user_id": f"usr_{key}", "payment_id": payment_id, "status": PAID_AS[status]}
    await keep(
        storage,
        user(f"usr_{key}", email=f"{key.encode().hex()}@example.com"),
        enrollment(f"enr_{key}", **place),
        payment(payment_id, enrollment_id=f"enr_{key}", status=status, updated_at=updated_at, **fields),
    )


async def _payments_in_every_status(storage: Storage) -> list[str]:
    """Payments that were moved at the instants 0 to 3; the ids of those that are unresolved, sorted."""
    statuses = list(PAID_AS)
    found = [(key, statuses[number % len(statuses)]) for number, key in enumerate(ids("pay"))]
    for number, (key, status) in enumerate(found):
        await _paid(storage, key, cast("PaymentStatus", status), number % 4)
    return sorted(key for key, status in found if status in UNRESOLVED_STATUSES)


async def _claim(storage: Storage, now: int, *, until: int, limit: int = 1_000) -> Sequence[Payment]:
    return await storage.write(lambda tx: tx.payments.claim(now, limit, until=until))
