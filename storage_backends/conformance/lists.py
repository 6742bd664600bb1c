"""The suite, on lists: each by page and by cursor, in whole and in part, beside a list of Python's."""

from __future__ import annotations

# ruff: noqa: S311 - seeded randomness, so that a failure comes again
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import product
from random import Random
from typing import TypeVar

import msgspec
import pytest

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import LIVE_STATUSES, Certificate, Enrollment, EnrollmentStatus, Mode
from learnflow_core.pagination import Cursor, Page, Position, Slice
from learnflow_core.ports import CertificateQuery, EnrollmentQuery, Paging, Storage, Transaction
from storage_backends.conformance.base import Suite
from storage_backends.conformance.samples import (
    account,
    api_key,
    certificate,
    completed,
    course,
    enrollment,
    keep,
    method,
    stage,
    user,
)

T = TypeVar("T", bound=msgspec.Struct)
Ask = Callable[[Transaction, Paging], Awaitable[Slice[T]]]

SUFFIXES = ("0", "9", "Z", "_", "a", "z", "~", "é", "\ufb00", "\uff21", "日", "😀")
"""Ends of ids whose order by code point is no language's order, nor that of UTF-16."""


SLUGS = ("ab", "a-c", "a", "a-b", "aa", "b", "9a", "9-a", "0", "a0")
"""Slugs that a language's order would sort as if they had no hyphens."""


async def assert_list(storage: Storage, ask: Ask[T], expected: Sequence[T]) -> None:
    """The list is exactly this one, however it is read."""
    for limit in sorted({1, 2, 3, 7, 50, len(expected) or 1}):
        pages = -(-len(expected) // limit)
        found: list[T] = []
        for number in range(1, pages + 2):  # the last one is past the end
            page = await read_part(storage, ask, Page(number, limit))
            assert (page.total, page.next_after) == (len(expected), None)
            found += page.items
        assert found == list(expected)
        assert await walk(storage, ask, limit) == list(expected)


async def read_part(storage: Storage, ask: Ask[T], paging: Paging) -> Slice[T]:
    """One part of the list, in a read of its own."""
    return await storage.read(lambda tx: ask(tx, paging))


async def walk(storage: Storage, ask: Ask[T], limit: int) -> list[T]:
    """The list by cursors, which never come in vain: every part but the only one holds something."""
    found: list[T] = []
    after: Position | None = None
    while True:
        part = await read_part(storage, ask, Cursor(after, limit))
        assert part.total is None
        assert part.items or after is None
        assert len(part.items) == limit or part.next_after is None
        found += part.items
        assert len(found) <= 10_000, "no list of the suite is as long: this one goes round in circles"
        after = part.next_after
        if after is None:
            return found


def latest_first(items: Iterable[T], at: str) -> list[T]:
    """By an instant and the id, both falling."""
    return sorted(items, key=lambda item: (getattr(item, at), getattr(item, "id")), reverse=True)  # noqa: B009


def ids(prefix: str, count: int = 24) -> list[str]:
    """Ids in no order."""
    found = [f"{prefix}_{number}{suffix}" for number, suffix in product(range(count // len(SUFFIXES)), SUFFIXES)]
    Random(prefix).shuffle(found)
    return found


class Lists(Suite):
    """Lists are in one total order, counted exactly, and the same by page and by cursor."""

    async def test_an_empty_list_has_no_items_and_a_total_of_none(self, storage: Storage) -> None:
        await assert_list(storage, lambda tx, paging: tx.accounts.list(paging), [])

    async def test_accounts_come_oldest_first(self, storage: Storage) -> None:
        accounts = [account(key, created_at=number % 3) for number, key in enumerate(ids("acct"))]
        await keep(storage, *accounts)
        expected = sorted(accounts, key=lambda item: (item.created_at, item.id))
        await assert_list(storage, lambda tx, paging: tx.accounts.list(paging), expected)

    @pytest.mark.parametrize("mode", ["live", "test", None])
    async def test_keys_of_an_account_come_newest_first(self, storage: Storage, mode: Mode | None) -> None:
        modes: list[Mode] = ["live", "live", "test"]
        keys = [
            api_key(key, created_at=number % 4, mode=modes[number % 3], account_id=f"acct_{number % 2}")
            for number, key in enumerate(ids("key"))
        ]
        await keep(storage, account("acct_0"), account("acct_1"), *keys)
        expected = [key for key in keys if key.account_id == "acct_1" and mode in (None, key.mode)]
        assert len(expected) in (4, 8, 12)
        await assert_list(
            storage,
            lambda tx, paging: tx.api_keys.list("acct_1", mode, paging),
            latest_first(expected, "created_at"),
        )

    async def test_users_of_an_account_come_newest_first_without_the_deleted(self, storage: Storage) -> None:
        erased = {"email": "", "name": "", "deleted_at": 9}
        people = [
            user(
                key,
                created_at=number % 4,
                account_id=f"acct_{number % 2}",
                mode="test" if number % 3 else "live",
                **({"email": f"{number}@example.com"} if number % 5 else erased),
            )
            for number, key in enumerate(ids("usr", 48))
        ]
        await keep(storage, account("acct_0"), account("acct_1"), *people)
        expected = [one for one in people if (one.account_id, one.mode, one.deleted_at) == ("acct_1", "test", None)]
        await assert_list(
            storage,
            lambda tx, paging: tx.users.list("acct_1", "test", paging),
            latest_first(expected, "created_at"),
        )

    async def test_payment_methods_of_a_user_come_newest_first_without_the_deleted(self, storage: Storage) -> None:
        methods = [
            method(key, created_at=number % 4, user_id=f"usr_{number % 2}", deleted_at=None if number % 5 else 9)
            for number, key in enumerate(ids("pm"))
        ]
        await keep(storage, account(), user("usr_0"), user("usr_1"), *methods)
        expected = [one for one in methods if (one.user_id, one.deleted_at) == ("usr_1", None)]
        await assert_list(
            storage,
            lambda tx, paging: tx.payments.methods("usr_1", paging),
            latest_first(expected, "created_at"),
        )

    async def test_categories_come_by_the_code_points_of_their_slugs(self, storage: Storage) -> None:
        await keep(storage, account())
        await keep(storage, *(course(f"crs_{number}", category=slug) for number, slug in enumerate(SLUGS)))
        for limit in (1, 5, 50):
            found = await walk(storage, lambda tx, paging: tx.courses.categories(paging), limit)
            assert [category.slug for category in found] == sorted(SLUGS)

    @pytest.mark.parametrize(
        "query",
        [
            EnrollmentQuery("live"),
            EnrollmentQuery("test"),
            EnrollmentQuery("live", account_id="acct_0"),
            EnrollmentQuery("live", account_id="acct_0", user_id="usr_acct_0_live_1"),
            EnrollmentQuery("live", account_id="acct_0", user_id="usr_acct_1_live_1"),
            EnrollmentQuery("live", account_id="acct_0", course_id="crs_1", status="cancelled"),
            EnrollmentQuery("live", status="active"),
            EnrollmentQuery("live", seen_by="usr_acct_1_live_1"),
            EnrollmentQuery("live", seen_by="usr_acct_1_live_1", course_id="crs_2"),
            EnrollmentQuery("test", seen_by="usr_acct_1_test_0"),
        ],
        ids=str,
    )
    async def test_enrolments_come_latest_first_to_those_who_see_them(
        self, storage: Storage, query: EnrollmentQuery
    ) -> None:
        teachers, records = await _many_enrollments(storage)
        expected = [
            record for record in records if _visible(record, query, teachers) and query.status in (None, record.status)
        ]
        await assert_list(
            storage,
            lambda tx, paging: tx.enrollments.list(query, paging),
            latest_first(expected, "enrolled_at"),
        )

    @pytest.mark.parametrize(
        "query",
        [
            CertificateQuery("live"),
            CertificateQuery("test", account_id="acct_1"),
            CertificateQuery("live", account_id="acct_0", course_id="crs_0"),
            CertificateQuery("live", seen_by="usr_acct_1_live_1"),
            CertificateQuery("live", seen_by="usr_acct_1_live_1", user_id="usr_acct_0_live_2"),
        ],
        ids=str,
    )
    async def test_certificates_come_latest_first_to_those_who_see_them(
        self, storage: Storage, query: CertificateQuery
    ) -> None:
        teachers, records = await _many_enrollments(storage)
        expected = [certificate(one) for one in records if one.certificate_id and _visible(one, query, teachers)]
        await assert_list(
            storage, lambda tx, paging: tx.certificates.list(query, paging), latest_first(expected, "issued_at")
        )

    async def test_a_cursor_neither_skips_nor_repeats_when_items_are_inserted(self, storage: Storage) -> None:
        first = [account(key, created_at=number) for number, key in enumerate(ids("acct"))]
        await keep(storage, *first)
        seen: list[str] = []
        after: Position | None = None
        for number in range(len(first)):
            part = await read_part(storage, lambda tx, paging: tx.accounts.list(paging), Cursor(after, 1))
            seen += [one.id for one in part.items]
            after = part.next_after
            await keep(storage, account(f"acct_before_{number}", created_at=-1))
        assert seen == [one.id for one in first]

    @pytest.mark.parametrize(
        "after",
        [
            (),
            (0,),
            (0, 1),
            (1, 1, "usr_1"),
            (-1, 1, "usr_1"),
            (0, "1", "usr_1"),
            (0, 1, 1),
            (0, None, "a"),
            (0, 1, "a", 1),
        ],
    )
    async def test_a_position_that_no_list_gave_out_is_an_invalid_cursor(
        self, storage: Storage, after: Position
    ) -> None:
        await stage(storage)
        with pytest.raises(LearnFlowError) as refused:
            await storage.read(lambda tx: tx.users.list("acct_1", "live", Cursor(after, 10)))
        assert (refused.value.code, refused.value.param) == (Code.INVALID_PARAMETER, "cursor")


async def _many_enrollments(storage: Storage) -> tuple[dict[str, str], list[Enrollment]]:
    """Who teaches which course, and enrolments of two accounts in both modes."""
    people = [
        user(f"usr_{owner}_{mode}_{number}", account_id=owner, mode=mode)
        for owner, mode, number in product(("acct_0", "acct_1"), ("live", "test"), range(3))
    ]
    teachers = {"crs_0": people[1].id, "crs_1": "usr_acct_1_live_1", "crs_2": "usr_acct_1_live_1"}
    courses = [course(key, created_by=teacher, account_id="acct_1") for key, teacher in teachers.items()]
    await keep(storage, account("acct_0"), account("acct_1"), *people, *courses)
    statuses: list[EnrollmentStatus] = ["active", "completed", "cancelled", "expired"]
    random = Random("enrolments")
    keys = iter(ids("enr", 120))
    records: list[Enrollment] = []
    for number, (person, taken, _) in enumerate(product(people, courses, range(3))):
        status = random.choice(statuses)
        if status in LIVE_STATUSES and any(
            (one.user_id, one.course_id) == (person.id, taken.id) and one.status in LIVE_STATUSES for one in records
        ):
            status = "cancelled"
        place = {"user_id": person.id, "account_id": person.account_id, "mode": person.mode, "course_id": taken.id}
        make = completed if status == "completed" else enrollment
        times = {"enrolled_at": number % 7, "updated_at": number % 5}
        records.append(make(next(keys), **place, status=status, **times))
    random.shuffle(records)
    await keep(storage, *records)
    return teachers, records


def _visible(
    record: Enrollment | Certificate, query: EnrollmentQuery | CertificateQuery, teachers: dict[str, str]
) -> bool:
    seen_by = (None, record.user_id, teachers[record.course_id])
    return (
        record.mode == query.mode
        and query.account_id in (None, record.account_id)
        and query.seen_by in seen_by
        and query.user_id in (None, record.user_id)
        and query.course_id in (None, record.course_id)
    )
