"""The suite, on the catalogue: courses, their order, their categories and their seats."""

from __future__ import annotations

# ruff: noqa: S311 - seeded randomness, so that a failure comes again
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any, get_args

import msgspec
import pytest

from learnflow_core.model import Category, Course, CourseStatus, Lesson, Section
from learnflow_core.money import Money
from learnflow_core.pagination import Page
from learnflow_core.ports import CourseQuery, CourseSort, Storage, Transaction
from learnflow_core.search import parse_search
from storage_backends.conformance.base import Suite, same
from storage_backends.conformance.lists import assert_list, ids
from storage_backends.conformance.samples import HOSTILE, account, course, enrollment, keep, stage, user
from storage_backends.conformance.search import LEVELS, expected
from storage_backends.driver import DuplicateError, RefusedError

replace = msgspec.structs.replace
SORTS: tuple[CourseSort, ...] = get_args(CourseSort)
STATUSES: tuple[CourseStatus, ...] = get_args(CourseStatus)


class Catalogue(Suite):
    """Courses and categories."""

    async def test_a_course_comes_back_as_it_was_kept_and_as_it_was_replaced(self, storage: Storage) -> None:
        await keep(storage, account(), user(), account("acct_2"))
        kept = course(
            created_by="usr_1",
            title=HOSTILE,
            instructor=HOSTILE,
            level="advanced",
            price=Money(4999, "USD"),
            rating=490,
            students_base=12_450,
            description=HOSTILE * 300,
            language="zh-Hant",
            curriculum=(Section(HOSTILE, (Lesson(HOSTILE, 1), Lesson("x", 864_000))), Section("empty", ())),
            status="draft",
            seats=0,
            prerequisites=("crs_9", "crs_8"),
            external_id=HOSTILE[:20],
            created_at=-5,
        )
        await keep(storage, kept)
        assert same(await storage.read(lambda tx: tx.courses.get("crs_1")), kept)
        found = await storage.read(lambda tx: tx.courses.by_external_ids("acct_1", ["other", HOSTILE[:20]]))
        assert list(found) == [HOSTILE[:20]]
        assert same(found[HOSTILE[:20]], kept)
        assert await storage.read(lambda tx: tx.courses.by_external_ids("acct_2", [HOSTILE[:20]])) == {}
        changed = course(created_by="usr_1", students_base=7, created_at=-5, updated_at=9, category="design")
        assert await storage.write(lambda tx: tx.courses.put(changed)) is True
        assert same(await storage.read(lambda tx: tx.courses.get("crs_1")), changed)
        assert await storage.read(lambda tx: tx.courses.get("crs_2")) is None

    async def test_an_external_id_of_another_course_is_refused_and_nothing_else_undone(self, storage: Storage) -> None:
        await keep(storage, account(), account("acct_2"), course("crs_1", external_id="x"), course("crs_2"))

        async def work(tx: Transaction) -> list[bool]:
            return [
                await tx.courses.add(course("crs_3", external_id="x", title="Unheard")),
                await tx.courses.put(course("crs_2", external_id="x", title="Unheard", category="unheard")),
                await tx.courses.add(course("crs_4", external_id="x", account_id="acct_2")),
                await tx.courses.put(course("crs_2", title="Another")),
            ]

        assert await storage.write(work) == [False, False, True, True]
        assert await _found(storage, "unheard") == []
        assert await _found(storage, "another") == ["crs_2"]
        assert [one.slug for one in await _categories(storage)] == ["development"]

    async def test_known_courses_are_told_from_others(self, storage: Storage) -> None:
        await stage(storage)
        await keep(storage, course("crs_2", status="archived"))
        asked = ["crs_1", "crs_2", "crs_3", "", HOSTILE]
        assert await storage.read(lambda tx: tx.courses.known(asked)) == {"crs_1", "crs_2"}
        assert await storage.read(lambda tx: tx.courses.known([])) == frozenset()

    async def test_courses_kept_at_once_are_as_if_kept_one_by_one(self, storage: Storage) -> None:
        first = course("crs_0", title=HOSTILE, external_id="x", seats=3, students_base=5)
        others = [course(f"crs_{number}", category="art", rating=490, students_base=number) for number in (1, 2)]
        await keep(storage, account(), course("crs_9", title="Before"))
        await storage.write(lambda tx: tx.courses.add_all([first, *others, course("crs_3", status="draft")]))
        await storage.write(lambda tx: tx.courses.add_all([]))
        await keep(storage, course("crs_8", title="After"))
        for one in (first, *others):
            assert same(await storage.read(lambda tx, at=one.id: tx.courses.get(at)), one)  # type: ignore[misc]
        assert await _categories(storage) == [Category("art", "art", 2), Category("development", "development", 3)]
        assert await _found(storage, "title") == ["crs_2", "crs_1"]

    async def test_of_courses_kept_at_once_none_is_kept_when_one_exists(self, storage: Storage) -> None:
        await keep(storage, account(), course("crs_2"))
        with pytest.raises(DuplicateError):
            await storage.write(lambda tx: tx.courses.add_all([course("crs_1"), course("crs_2")]))
        assert await storage.read(lambda tx: tx.courses.get("crs_1")) is None

    @pytest.mark.parametrize("sort", SORTS)
    async def test_courses_come_in_the_order_of_their_sort_under_every_filter(
        self, storage: Storage, sort: CourseSort
    ) -> None:
        courses = await _many_courses(storage)
        search = parse_search("python data") if sort == "relevance" else None
        filters: list[dict[str, Any]] = [
            {},
            {"category": "dev"},
            {"level": "beginner"},
            {"category": "art", "level": "all"},
            {"category": "none"},
            {"status": "draft", "account_id": "acct_2"},
            {"account_id": "acct_1"},
        ]
        for chosen in filters:
            query = CourseQuery(sort, search, **chosen)
            await assert_list(storage, lambda tx, paging, q=query: tx.courses.list(q, paging), expected(courses, query))  # type: ignore[misc]

    @pytest.mark.parametrize("sort", ["popular", "newest", "-price"])
    async def test_a_search_narrows_every_sort(self, storage: Storage, sort: CourseSort) -> None:
        courses = await _many_courses(storage)
        query = CourseQuery(sort, parse_search("python d"), level="beginner")
        await assert_list(storage, lambda tx, paging: tx.courses.list(query, paging), expected(courses, query))

    async def test_a_course_is_found_by_what_it_says_now_and_not_by_what_it_said(self, storage: Storage) -> None:
        await keep(storage, account(), course(title="Old title", description="unchanged"))
        await storage.write(
            lambda tx: tx.courses.put(course(title="New title", description="unchanged", level="beginner"))
        )
        assert await _found(storage, "old") == []
        assert await _found(storage, "new") == ["crs_1"]
        assert await _found(storage, "unchanged") == ["crs_1"]
        assert await _found(storage, "new", level="all") == []
        assert await _found(storage, "new", level="beginner") == ["crs_1"]

    async def test_the_longest_search_is_answered(self, storage: Storage) -> None:
        text = "".join(map(chr, range(0x4E00, 0x4E00 + 256)))
        await keep(storage, account(), course("crs_1", title=text[:200]), course("crs_2", description=text))
        assert await _found(storage, text) == ["crs_2"]
        assert await _found(storage, text, category="development", level="all") == ["crs_2"]

    async def test_categories_count_their_published_courses(self, storage: Storage) -> None:
        courses = {one.id: one for one in await _many_courses(storage)}
        random = Random("categories")
        for _ in range(40):
            chosen = random.choice(sorted(courses))
            changed = replace(
                courses[chosen], category=random.choice(["dev", "art", "new"]), status=random.choice(STATUSES)
            )
            assert await storage.write(lambda tx, it=changed: tx.courses.put(it))  # type: ignore[misc]
            courses[chosen] = changed
        counted = Counter(one.category for one in courses.values() if one.status == "published")
        assert await _categories(storage) == [Category(slug, slug, number) for slug, number in sorted(counted.items())]

    async def test_a_category_keeps_the_first_name_it_is_given(self, storage: Storage) -> None:
        await keep(storage, account(), course(category="dev"))

        async def work(tx: Transaction) -> None:
            await tx.courses.name_category("dev", HOSTILE)
            await tx.courses.name_category("dev", "Second")
            await tx.courses.name_category("art", "No course has it")

        await storage.write(work)
        assert await _categories(storage) == [Category("dev", HOSTILE, 1)]


class Seats(Suite):
    """Seats are counted exactly; the numbers of students follow."""

    async def test_seats_are_taken_up_to_their_number_in_each_mode(self, storage: Storage) -> None:
        await keep(storage, account(), course(seats=2))

        async def work(tx: Transaction) -> list[bool]:
            taken = [await tx.courses.take_seat("crs_1", "live") for _ in range(3)]
            taken.append(await tx.courses.take_seat("crs_1", "test"))
            await tx.courses.free_seat("crs_1", "live")
            taken.append(await tx.courses.take_seat("crs_1", "live"))
            for mode in ("live", "live", "test"):
                await tx.courses.free_seat("crs_1", mode)
            return taken

        assert await storage.write(work) == [True, True, False, True, True]

    @pytest.mark.parametrize(("seats", "free"), [(0, False), (None, True)])
    async def test_no_seats_take_nobody_and_seats_without_a_number_everybody(
        self, storage: Storage, seats: int | None, free: bool
    ) -> None:
        await keep(storage, account(), course(seats=seats))

        async def work(tx: Transaction) -> bool:
            taken = await tx.courses.take_seat("crs_1", "live")
            if taken:
                await tx.courses.free_seat("crs_1", "live")
            return taken

        assert await storage.write(work) is free

    async def test_a_seat_that_nobody_took_cannot_be_given_back(self, storage: Storage) -> None:
        await stage(storage)
        with pytest.raises(RefusedError):
            await storage.write(lambda tx: tx.courses.free_seat("crs_1", "live"))

    async def test_seats_can_be_lowered_below_those_taken_and_then_nobody_enters(self, storage: Storage) -> None:
        await stage(storage)
        await keep(storage, user("usr_2"), enrollment("enr_1"), enrollment("enr_2", user_id="usr_2"))
        assert await storage.write(lambda tx: tx.courses.put(course(seats=1)))
        assert await storage.write(lambda tx: tx.courses.take_seat("crs_1", "live")) is False

    async def test_settling_brings_the_numbers_of_students_up_to_date(self, storage: Storage) -> None:
        courses = [course(f"crs_{number}", students_base=10 * number) for number in range(5)]
        await keep(storage, account(), user(), user("usr_t", mode="test"), *courses)
        for number in range(4):
            await keep(storage, enrollment(f"enr_{number}", course_id=f"crs_{number}"))
        await keep(storage, enrollment("enr_t", course_id="crs_4", user_id="usr_t", mode="test"))
        assert await _students(storage) == [0, 10, 20, 30, 40]
        assert [await storage.write(lambda tx: tx.courses.settle(3)) for _ in range(3)] == [3, 1, 0]
        assert await _students(storage) == [1, 11, 21, 31, 40]
        await storage.write(lambda tx: _leave(tx, 3))
        assert await storage.write(lambda tx: tx.courses.settle(100)) == 1
        assert await _students(storage) == [1, 11, 21, 30, 40]

    async def test_courses_with_long_texts_are_settled_a_few_at_a_time_and_all_in_the_end(
        self, storage: Storage
    ) -> None:
        words = " ".join(f"word{number}" for number in range(2_000))
        courses = [course(f"crs_{number:02}", description=words) for number in range(40)]
        await keep(storage, account(), user(), *courses)
        await keep(storage, *(enrollment(f"enr_{one.id}", course_id=one.id) for one in courses))
        settled = [await storage.write(lambda tx: tx.courses.settle(100)) for _ in courses]
        assert sum(settled) == len(courses)
        assert settled == sorted(settled, reverse=True)  # none is idle while there is something to do
        found = await storage.read(lambda tx: tx.courses.list(CourseQuery("popular"), Page(1, 50)))
        assert [one.total_students for one in found.items] == [1] * len(courses)

    async def test_the_popular_order_follows_the_settled_numbers(self, storage: Storage) -> None:
        await keep(storage, account(), user(), course("crs_1"), course("crs_2"))
        await keep(storage, enrollment(course_id="crs_1"))
        popular = CourseQuery("popular")
        before = await storage.read(lambda tx: tx.courses.list(popular, Page(1, 50)))
        await storage.write(lambda tx: tx.courses.settle(100))
        after = await storage.read(lambda tx: tx.courses.list(popular, Page(1, 50)))
        assert [one.id for one in before.items] == ["crs_2", "crs_1"]
        assert [one.id for one in after.items] == ["crs_1", "crs_2"]

    async def test_replacing_a_course_keeps_its_enrolments_and_applies_a_new_base(self, storage: Storage) -> None:
        await stage(storage)
        stale = await storage.read(lambda tx: tx.courses.get("crs_1"))
        assert stale is not None
        await keep(storage, enrollment())
        await storage.write(lambda tx: tx.courses.put(replace(stale, students_base=100, seats=1)))
        assert await _students(storage) == [101]
        assert await storage.write(lambda tx: tx.courses.take_seat("crs_1", "live")) is False


async def _many_courses(storage: Storage) -> list[Course]:
    """Courses with many ties in every order, in two accounts, of every status."""
    random = Random("courses")
    prices = [Money(1000, "USD"), Money(1000, "JPY"), Money(1000, "KWD"), Money(0, "EUR"), Money(10**12, "USD")]
    courses = [
        course(
            key,
            account_id=random.choice(["acct_1", "acct_2"]),
            title=random.choice(["Python", "Python data", "Cooking", "Data and Pythons"]),
            description=random.choice(["python", "data", "Python for DATA science", ""]),
            category=random.choice(["dev", "art"]),
            level=random.choice(LEVELS),
            price=random.choice(prices),
            rating=random.choice([None, 0, 490, 500]),
            students_base=random.choice([0, 0, 1, 12_450]),
            status=random.choice(["published", "published", "published", "draft", "archived"]),
            created_at=random.randrange(4),
        )
        for key in ids("crs", 72)
    ]
    await keep(storage, account("acct_1"), account("acct_2"), *courses)
    return courses


async def _categories(storage: Storage) -> Sequence[Category]:
    return (await storage.read(lambda tx: tx.courses.categories(Page(1, 50)))).items


async def _found(storage: Storage, text: str, **filters: Any) -> list[str]:
    query = CourseQuery("relevance", parse_search(text), **filters)
    return [one.id for one in (await storage.read(lambda tx: tx.courses.list(query, Page(1, 50)))).items]


async def _students(storage: Storage) -> list[int]:
    async def work(tx: Transaction) -> list[int]:
        found = await tx.courses.list(CourseQuery("newest"), Page(1, 50))
        return [one.total_students for one in sorted(found.items, key=lambda one: one.id)]

    return await storage.read(work)


async def _leave(tx: Transaction, number: int) -> None:
    await tx.enrollments.put(enrollment(f"enr_{number}", status="cancelled"))
    await tx.courses.free_seat(f"crs_{number}", "live")
