"""The suite, on writes that say whose business they are: they may share a transaction, and nobody can tell."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

import msgspec
import pytest

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import Enrollment
from learnflow_core.money import Money
from learnflow_core.pagination import Page
from learnflow_core.ports import AuditQuery, EnrollmentQuery, Storage, Transaction
from storage_backends.conformance.base import OpenStorage, Suite
from storage_backends.conformance.samples import account, course, enrollment, keep, keep_in, payment, stage, user
from storage_backends.driver import DuplicateError

replace = msgspec.structs.replace


class Subjects(Suite):
    """What holds when many write at once, each with a subject."""

    async def test_each_is_answered_its_own_and_takes_effect_once(self, storage: Storage) -> None:
        await stage(storage)
        await keep(storage, *(user(f"usr_{number}", email=f"{number}@example.com") for number in range(100, 300)))
        found = await asyncio.gather(*(_enrol(storage, f"usr_{number}") for number in range(100, 300)))
        assert [made.user_id for made in found] == [f"usr_{number}" for number in range(100, 300)]
        kept = await storage.read(lambda tx: tx.enrollments.list(EnrollmentQuery(mode="live"), Page(1, 300)))
        assert sorted(kept.items, key=lambda made: made.id) == found

    async def test_seats_are_taken_exactly_and_the_others_are_told_so(self, storage: Storage) -> None:
        await keep(storage, account(), course(seats=30))
        await keep(storage, *(user(f"usr_{number}", email=f"{number}@example.com") for number in range(100, 200)))
        outcomes = await asyncio.gather(
            *(_enrol(storage, f"usr_{number}") for number in range(100, 200)), return_exceptions=True
        )
        assert Counter(map(type, outcomes)) == {Enrollment: 30, LearnFlowError: 70}

    async def test_one_that_raises_after_writing_is_undone_and_spoils_no_other(self, storage: Storage) -> None:
        await keep(storage, account("acct_0"))

        async def work(number: int, tx: Transaction) -> None:
            await tx.accounts.add(account(f"acct_{number}"))
            if number % 3 == 1:
                raise LearnFlowError(Code.COURSE_FULL)
            if number % 3 == 2:
                await tx.accounts.add(account("acct_0"))

        writes = [storage.write(partial(work, number), subject=f"{number}") for number in range(1, 31)]
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert list(map(type, outcomes)) == [LearnFlowError, DuplicateError, type(None)] * 10
        assert await _accounts(storage) == {f"acct_{number}" for number in range(0, 31, 3)}

    async def test_those_of_one_subject_follow_each_other(self, storage: Storage) -> None:
        await stage(storage)
        await keep(storage, enrollment())
        await asyncio.gather(*(storage.write(_further, subject="enr_1") for _ in range(50)))
        assert await _progress(storage) == 50

    async def test_what_each_has_done_is_in_the_books(self, storage: Storage) -> None:
        await keep(storage, account(), course())
        sold = [
            payment(f"pay_{number}", enrollment_id=f"enr_{number}", status="charged", amount=Money(number, "USD"))
            for number in range(1, 41)
        ]
        for number, one in enumerate(sold, 1):
            place = enrollment(one.enrollment_id, user_id=f"usr_{number}", payment_id=one.id)
            await keep(storage, user(f"usr_{number}", email=f"{number}@example.com"), place)
        await asyncio.gather(*(storage.write(partial(keep_in, record=one), subject=one.id) for one in sold))
        receivable, revenue = await storage.read(lambda tx: tx.ledger.balances("live", None))
        assert (receivable.debits, revenue.credits) == (820, 820)
        told = await storage.read(lambda tx: tx.audit.list(AuditQuery(), Page(1, 200)))
        assert {row.object_id for row in told.items if row.event == "payment.charged"} == {one.id for one in sold}

    async def test_one_that_asks_to_be_alone_shares_what_follows_with_nobody(self, storage: Storage) -> None:
        await stage(storage)
        await keep(storage, enrollment())

        async def work(tx: Transaction) -> None:
            assert await tx.users.get("usr_1") is not None
            await tx.alone()
            await _further(tx)

        await asyncio.gather(*(storage.write(work, subject=f"{number}") for number in range(20)))
        assert await _progress(storage) == 20

    async def test_others_without_a_subject_are_as_if_before_or_after(self, storage: Storage) -> None:
        await stage(storage)
        await keep(storage, enrollment())
        subjects = (storage.write(_further, subject="enr_1") for _ in range(20))
        await asyncio.gather(*subjects, *(storage.write(_further) for _ in range(20)))
        assert await _progress(storage) == 40

    async def test_one_that_waits_for_anything_else_is_an_error_and_undone(self, storage: Storage) -> None:
        async def work(tx: Transaction) -> None:
            await tx.accounts.add(account())
            await asyncio.sleep(0)

        outcomes = await asyncio.gather(
            storage.write(work, subject="a"), _add_account(storage, 2), return_exceptions=True
        )
        assert list(map(type, outcomes)) == [RuntimeError, type(None)]
        assert await _accounts(storage) == {"acct_2"}

    async def test_a_transaction_with_a_subject_is_of_no_use_after_its_work(self, storage: Storage) -> None:
        async def keep_it(tx: Transaction) -> Transaction:
            await tx.accounts.get("acct_1")
            return tx

        kept = await asyncio.gather(*(storage.write(keep_it, subject=f"{number}") for number in range(3)))
        for tx in kept:
            with pytest.raises(RuntimeError):
                await tx.accounts.get("acct_1")

    async def test_a_caller_who_gives_up_leaves_the_others_alone(self, storage: Storage) -> None:
        works = [asyncio.ensure_future(_add_account(storage, number)) for number in range(30)]
        await asyncio.sleep(0)
        for work in works[::2]:
            work.cancel()
        outcomes = await asyncio.gather(*works, return_exceptions=True)
        assert outcomes[1::2] == [None] * 15
        assert await _accounts(storage) >= {f"acct_{number}" for number in range(1, 30, 2)}

    async def test_closing_lets_those_that_have_come_finish(self, open_storage: OpenStorage) -> None:
        storage = await open_storage()
        under_way = [asyncio.ensure_future(_add_account(storage, number)) for number in range(20)]
        await asyncio.sleep(0)
        await storage.close()
        await asyncio.gather(*under_way)
        with pytest.raises(LearnFlowError) as refused:
            await _add_account(storage, 20)
        assert refused.value.code is Code.SERVICE_UNAVAILABLE


async def _add_account(storage: Storage, number: int) -> None:
    await storage.write(lambda tx: tx.accounts.add(account(f"acct_{number}")), subject=f"account {number}")


async def _accounts(storage: Storage) -> set[str]:
    found = await storage.read(lambda tx: tx.accounts.list(Page(1, 100)))
    return {each.id for each in found.items}


async def _enrol(storage: Storage, user_id: str) -> Enrollment:
    async def work(tx: Transaction) -> Enrollment:
        assert await tx.enrollments.live(user_id, "crs_1") is None
        if not await tx.courses.take_seat("crs_1", "live"):
            raise LearnFlowError(Code.COURSE_FULL)
        made = enrollment(f"enr_of_{user_id}", user_id=user_id)
        assert await tx.enrollments.add(made)
        return made

    return await storage.write(work, subject=f"{user_id} crs_1")


async def _further(tx: Transaction) -> None:
    found = await tx.enrollments.get("enr_1")
    assert found is not None
    await tx.enrollments.put(replace(found, progress=found.progress + 1))


async def _progress(storage: Storage) -> int:
    found = await storage.read(lambda tx: tx.enrollments.get("enr_1"))
    assert found is not None
    return found.progress
