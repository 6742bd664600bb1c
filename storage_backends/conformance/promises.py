"""The suite, on transactions: whole or not at all, alone among many, durable, and gone with whoever gave up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import pytest
import pytest_asyncio

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import Enrollment, User
from learnflow_core.pagination import Page
from learnflow_core.ports import EnrollmentQuery, Storage, Transaction
from storage_backends.conformance.base import OpenStorage, Suite, said
from storage_backends.conformance.lists import walk
from storage_backends.conformance.samples import (
    account,
    completed,
    course,
    enrollment,
    keep,
    payment,
    stage,
    user,
)
from storage_backends.driver import DuplicateError

replace = msgspec.structs.replace

T = TypeVar("T")

_TIMES = 20


class Transactions(Suite):
    """What a write and a read are, one at a time."""

    async def test_a_write_answers_what_its_work_returned(self, storage: Storage) -> None:
        async def work(tx: Transaction) -> str:
            await tx.accounts.add(account())
            found = await tx.accounts.get("acct_1")
            assert found is not None
            return found.name

        assert await storage.write(work) == account().name

    async def test_one_process_leads_until_its_time_has_passed(self, storage: Storage) -> None:
        async def lead(name: str, now: int, until: int) -> bool:
            return await storage.write(lambda tx: tx.lead(name, now, until))

        assert await lead("first", 0, 3)
        assert not await lead("second", 2, 5)
        assert await lead("first", 2, 5)
        assert not await lead("second", 4, 7)
        assert await lead("second", 5, 8)
        assert not await lead("first", 5, 8)

    async def test_who_led_by_a_clock_that_was_far_ahead_is_not_waited_for(self, storage: Storage) -> None:
        assert await storage.write(lambda tx: tx.lead("ahead", 3_600, 3_603))
        assert await storage.write(lambda tx: tx.lead("second", 0, 3))
        assert not await storage.write(lambda tx: tx.lead("third", 0, 3))

    async def test_who_leads_by_a_clock_that_is_a_little_ahead_goes_on(self, storage: Storage) -> None:
        assert await storage.write(lambda tx: tx.lead("ahead", 3, 6))
        assert not await storage.write(lambda tx: tx.lead("second", 0, 3))

    async def test_of_many_that_would_lead_at_once_one_does(self, storage: Storage) -> None:
        tries = [storage.write(lambda tx, name=f"{number}": tx.lead(name, 0, 1)) for number in range(8)]  # type: ignore[misc]
        assert sorted(await asyncio.gather(*tries)) == [False] * 7 + [True]

    async def test_a_write_that_raises_is_undone_whole(self, storage: Storage) -> None:
        async def work(tx: Transaction) -> None:
            await tx.accounts.add(account())
            await tx.courses.add(course(title="Unheard of"))
            await tx.users.add(user())
            raise LearnFlowError(Code.COURSE_FULL)

        with pytest.raises(LearnFlowError) as refused:
            await storage.write(work)
        assert refused.value.code is Code.COURSE_FULL
        assert await storage.read(lambda tx: tx.accounts.get("acct_1")) is None
        await keep(storage, account())
        assert (await storage.read(lambda tx: tx.courses.categories(Page(1, 50)))).items == []

    async def test_what_the_schema_refuses_undoes_the_write_and_spoils_no_other(self, storage: Storage) -> None:
        await keep(storage, account())
        results = await asyncio.gather(
            keep(storage, account("acct_2")),
            keep(storage, account("acct_3"), account("acct_1")),
            keep(storage, account("acct_4")),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [type(None), DuplicateError, type(None)]
        assert await _accounts(storage) == {"acct_1", "acct_2", "acct_4"}

    async def test_work_may_survive_a_refusal_and_go_on(self, storage: Storage) -> None:
        await stage(storage)

        async def work(tx: Transaction) -> None:
            assert await tx.users.put(user("usr_1", email="x@example.com"))
            assert not await tx.users.add(user("usr_2", email="x@example.com"))
            assert not await tx.enrollments.add(enrollment("enr_2"))
            await tx.accounts.add(account("acct_2"))

        await keep(storage, enrollment("enr_1"))
        await storage.write(work)
        assert await _accounts(storage) == {"acct_1", "acct_2"}

    async def test_replacing_what_is_not_there_is_an_error(self, storage: Storage) -> None:
        for work in (
            lambda tx: tx.accounts.put(account()),
            lambda tx: tx.courses.put(course()),
            lambda tx: tx.enrollments.put(enrollment()),
        ):
            with pytest.raises(LookupError):
                await storage.write(work)

    async def test_a_read_changes_nothing(self, storage: Storage) -> None:
        with pytest.raises(RuntimeError):
            await storage.read(lambda tx: tx.accounts.add(account()))
        assert await storage.read(lambda tx: tx.accounts.get("acct_1")) is None

    @pytest.mark.parametrize("kind", ["read", "write"])
    async def test_work_that_waits_for_anything_else_is_an_error_and_undone(self, storage: Storage, kind: str) -> None:
        async def work(tx: Transaction) -> None:
            if kind == "write":
                await tx.accounts.add(account())
            await asyncio.sleep(0)

        with pytest.raises(RuntimeError):
            await (storage.write(work) if kind == "write" else storage.read(work))
        assert await _accounts(storage) == set()

    async def test_a_transaction_is_of_no_use_after_its_work(self, storage: Storage) -> None:
        async def keep_it(tx: Transaction) -> Transaction:
            await tx.accounts.get("acct_1")
            return tx

        for kept in (await storage.read(keep_it), await storage.write(keep_it)):
            with pytest.raises(RuntimeError):
                await kept.accounts.get("acct_1")

    async def test_a_closed_storage_is_unavailable_and_closes_again(self, open_storage: OpenStorage) -> None:
        storage = await open_storage()
        await storage.close()
        await storage.close()
        with pytest.raises(LearnFlowError) as refused:
            await storage.read(lambda tx: tx.accounts.get("acct_1"))
        assert refused.value.code is Code.SERVICE_UNAVAILABLE

    async def test_closing_lets_what_is_under_way_finish(self, open_storage: OpenStorage) -> None:
        storage = await open_storage()
        under_way = [asyncio.ensure_future(keep(storage, account(f"acct_{number}"))) for number in range(20)]
        await asyncio.sleep(0)
        await storage.close()
        await asyncio.gather(*under_way)


class Concurrency(Suite):
    """What holds when many ask at once."""

    async def test_two_hundred_enrolments_of_one_user_in_one_course_make_one(self, storage: Storage) -> None:
        await stage(storage)

        async def enrol(number: int) -> bool:
            return await storage.write(lambda tx: _enrol(tx, f"enr_{number}", user()))

        made = await asyncio.gather(*(enrol(number) for number in range(200)))
        assert Counter(made) == {True: 1, False: 199}

    async def test_a_thousand_users_on_a_hundred_seats_take_exactly_a_hundred(self, storage: Storage) -> None:
        people = [user(f"usr_{number}") for number in range(1000)]
        await keep(storage, account(), course(seats=100), *people)

        async def enrol(person: User) -> bool:
            return await _patiently(lambda: storage.write(lambda tx: _enrol(tx, f"enr_{person.id}", person)))

        made = await asyncio.gather(*map(enrol, people))
        assert Counter(made) == {True: 100, False: 900}
        found = await storage.read(lambda tx: tx.enrollments.list(EnrollmentQuery("live"), Page(1, 1)))
        assert found.total == 100

    async def test_writes_that_read_and_replace_one_record_lose_none_of_each_other(self, storage: Storage) -> None:
        await keep(storage, account(licenses=0))

        async def increase(tx: Transaction) -> None:
            found = await tx.accounts.get("acct_1")
            assert found is not None
            assert found.licenses is not None
            await tx.accounts.put(replace(found, licenses=found.licenses + 1))

        await asyncio.gather(*(_patiently(lambda: storage.write(increase)) for _ in range(100)))
        assert await storage.read(lambda tx: tx.accounts.get("acct_1")) == account(licenses=100)

    async def test_writes_are_as_if_one_came_after_the_other(self, storage: Storage) -> None:
        """Each reads both records and replaces one of them: what it relied on must still hold when it is durable."""

        async def leave(key: str) -> None:
            async def work(tx: Transaction) -> None:
                found = [await tx.accounts.get(each) for each in ("acct_1", "acct_2")]
                if all(one is not None and one.name == "on duty" for one in found):
                    await tx.accounts.put(account(key, name="off"))

            await storage.write(work)

        await keep(storage, account("acct_1"), account("acct_2"))
        for _ in range(10):
            for key in ("acct_1", "acct_2"):
                await storage.write(lambda tx, at=key: tx.accounts.put(account(at, name="on duty")))  # type: ignore[misc]
            await asyncio.gather(*(leave(key) for key in ("acct_1", "acct_2") * 2))
            found = await storage.read(lambda tx: tx.accounts.list(Page(1, 50)))
            assert sorted(one.name for one in found.items) == ["off", "on duty"]

    async def test_a_read_sees_one_state_of_the_whole_while_others_write(self, storage: Storage) -> None:
        await keep(storage, account("acct_1", name="0"), account("acct_2", name="0"))

        async def rename(number: int) -> None:
            async def work(tx: Transaction) -> None:
                for key in ("acct_1", "acct_2"):
                    await tx.accounts.put(account(key, name=str(number)))

            await _patiently(lambda: storage.write(work))

        async def look() -> None:
            async def work(tx: Transaction) -> set[str]:
                found = [await tx.accounts.get(key) for key in ("acct_1", "acct_2") * 50]
                return {one.name for one in found if one is not None}

            assert len(await _patiently(lambda: storage.read(work))) == 1

        await asyncio.gather(*(job for number in range(100) for job in (rename(number), look())))

    async def test_a_cancelled_caller_leaves_a_write_whole_or_undone_and_the_storage_well(
        self, storage: Storage
    ) -> None:
        async def work(number: int) -> None:
            await keep(storage, account(f"acct_{number}_a"), account(f"acct_{number}_b"))

        writes = [asyncio.ensure_future(work(number)) for number in range(60)]
        for number, task in enumerate(writes):
            if number % 3 == 0:
                await asyncio.sleep(0)
            if number % 2 == 0:
                task.cancel()
        results = await asyncio.gather(*writes, return_exceptions=True)
        await keep(storage, account("acct_after"))
        kept = await _accounts(storage)
        assert "acct_after" in kept
        for number, result in enumerate(results):
            both = {f"acct_{number}_a", f"acct_{number}_b"}
            assert both <= kept or not both & kept
            assert both <= kept or isinstance(result, asyncio.CancelledError)


class Books(Suite):
    """A check finds what does not agree; the end of every test of the suite shows that it finds nothing else."""

    @pytest_asyncio.fixture
    async def broken(self, open_storage: OpenStorage) -> Storage:
        """A storage whose books a test is to make wrong."""
        return await open_storage()

    @pytest.mark.parametrize(
        ("record", "finding"),
        [
            (enrollment(), "course crs_1: 0 live seats are taken, but live enrolments hold 1"),
            (enrollment(licensed=True), "account acct_1: 0 live licences are taken, but live enrolments hold 1"),
            (enrollment(status="refunded"), "enrolment enr_1: it is refunded, and no payment belongs to it"),
            (
                enrollment(status="cancelled", payment_id="pay_9"),
                "enrolment enr_1: it is cancelled, but its payment pay_9 is not there",
            ),
            (completed("enr_1"), "enrolment enr_1: it is completed, but its certificate crt_enr_1 is not there"),
        ],
        ids=["seats", "licences", "unpaid", "payment", "certificate"],
    )
    async def test_an_enrolment_without_what_belongs_to_it_is_found(
        self, broken: Storage, record: Enrollment, finding: str
    ) -> None:
        await stage(broken)
        await broken.write(lambda tx: tx.enrollments.add(record))
        assert finding in await said(broken)
        await broken.close()

    async def test_a_payment_that_its_enrolment_does_not_agree_with_is_found(self, broken: Storage) -> None:
        await stage(broken)
        await keep(broken, user("usr_2"), enrollment("enr_1", payment_id="pay_1"), enrollment("enr_2", user_id="usr_2"))
        await keep(broken, payment("pay_1", status="declined"), payment("pay_2", enrollment_id="enr_2"))
        assert await said(broken) == [
            "enrolment enr_1: it is active, but its payment pay_1 is declined",
            "payment pay_2: enrolment enr_2 does not know of it",
        ]
        await broken.close()


class Persistence:
    """What a backend that keeps data promises beyond the life of the process."""

    async def test_what_was_written_is_there_when_the_database_is_opened_again(self, open_storage: OpenStorage) -> None:
        storage = await open_storage()
        await keep(storage, account(), user(), course(title="Python"), enrollment())
        await storage.close()
        again = await open_storage()
        assert await again.read(lambda tx: tx.accounts.get("acct_1")) == account()
        assert await again.read(lambda tx: tx.enrollments.get("enr_1")) == enrollment()
        assert await again.check() == []
        await again.close()

    async def test_two_storages_on_one_database_see_each_others_writes_and_sell_no_seat_twice(
        self, open_storage: OpenStorage
    ) -> None:
        first, second = await open_storage(), await open_storage()
        people = [user(f"usr_{number}") for number in range(60)]
        await keep(first, account(), course(seats=20), *people)

        async def enrol(storage: Storage, person: User) -> bool:
            return await storage.write(lambda tx: _enrol(tx, f"enr_{person.id}", person))

        made = await asyncio.gather(*(enrol((first, second)[number % 2], one) for number, one in enumerate(people)))
        assert Counter(made) == {True: 20, False: 40}
        assert await second.check() == []
        await first.close()
        await second.close()


async def _enrol(tx: Transaction, enrollment_id: str, person: User) -> bool:
    """What the use case does: nothing for who is enrolled, else a seat and an enrolment."""
    if await tx.enrollments.live(person.id, "crs_1") is not None:
        return False
    if not await tx.courses.take_seat("crs_1", "live"):
        return False
    return await tx.enrollments.add(enrollment(enrollment_id, user_id=person.id))


async def _accounts(storage: Storage) -> set[str]:
    found = await walk(storage, lambda tx, paging: tx.accounts.list(paging), 50)
    return {one.id for one in found}


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """What it answers; asked again, as callers are told to, while the storage has no time for so many at once."""
    for _ in range(_TIMES - 1):
        try:
            return await ask()
        except LearnFlowError as error:
            if error.code is not Code.SERVICE_UNAVAILABLE:
                raise
    return await ask()
