"""The suite, on pages of the catalogue by number: whatever was written before, each holds what it should."""

from __future__ import annotations

import asyncio

# ruff: noqa: S311 - seeded randomness, so that a failure comes again
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from itertools import product
from random import Random
from typing import get_args

import msgspec
import pytest

from learnflow_core.model import Category, Course
from learnflow_core.money import Money
from learnflow_core.pagination import Page
from learnflow_core.ports import CourseQuery, CourseSort, Storage, Transaction
from storage_backends.conformance.base import Suite
from storage_backends.conformance.samples import account, count, course, enrollment, keep, keep_in, user
from storage_backends.conformance.search import LEVELS, expected
from storage_backends.repository import blocks, uncounted

CATEGORIES = ("art", "dev", "new")
SORTS = [sort for sort in get_args(CourseSort) if sort != "relevance"]
QUERIES = [
    CourseQuery(sort, category=category, level=level)
    for sort, category, level in product(SORTS, (None, *CATEGORIES), (None, *LEVELS))
]
LIMIT = 13


class Pages(Suite):
    """Lists of hundreds of courses, and what is kept to find pages in them made so small that it is many."""

    @pytest.fixture(autouse=True)
    def small_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(blocks, "BLOCK", 4)
        monkeypatch.setattr(blocks, "SPAN", 3)
        monkeypatch.setattr(uncounted, "ENOUGH", 6)
        monkeypatch.setattr(uncounted, "NOTES", 5)

    async def test_every_page_of_every_list_is_right_after_any_writes(self, storage: Storage) -> None:
        writer = Writer("any writes")
        await keep(storage, account(), user())
        await storage.write(lambda tx: tx.courses.add_all([writer.course() for _ in range(70)]))
        for _ in range(8):
            for _ in range(10):
                await writer.write(storage)
            await assert_pages(storage, [writer], writer.random.sample(QUERIES, 4))
        await assert_pages(storage, [writer], QUERIES)
        assert await storage.check() == []

    async def test_lists_that_were_emptied_fill_again(self, storage: Storage) -> None:
        writer = Writer("emptied")
        await keep(storage, account())
        courses = [writer.course() for _ in range(60)]
        await storage.write(lambda tx: tx.courses.add_all(courses))
        for status in ("archived", "published"):
            for one in courses:
                changed = msgspec.structs.replace(one, status=status)
                await storage.write(lambda tx, it=changed: tx.courses.put(it))  # type: ignore[misc]
                if writer.random.random() < 0.2:
                    await count(storage)
            await count(storage)
            await assert_pages(storage, [writer], QUERIES[::5])
            assert await storage.check() == []

    async def test_every_page_is_right_at_any_moment_while_many_write(self, storage: Storage) -> None:
        writers = [Writer(f"writer {number}") for number in range(6)]
        await keep(storage, account(), user())
        for writer in writers:
            await storage.write(lambda tx, it=writer: tx.courses.add_all([it.course() for _ in range(15)]))  # type: ignore[misc]

        async def write(writer: Writer) -> None:
            for _ in range(20):
                await writer.write(storage)

        async def look() -> None:
            random = Random("look")
            for _ in range(20):
                await assert_pages(storage, writers, random.sample(QUERIES, 2))

        await asyncio.gather(look(), *map(write, writers))
        await count(storage)
        await assert_pages(storage, writers, QUERIES[::5])


class Writer:
    """Somebody who adds courses, changes them, and enrols in them, at random."""

    def __init__(self, name: str) -> None:
        self.random = Random(name)
        self.ids: list[str] = []
        self._name = name.replace(" ", "_")
        self._enrolled: set[str] = set()

    def course(self) -> Course:
        """A new course; many share what they are sorted by."""
        self.ids.append(f"crs_{self.random.randrange(1_000)}_{self._name}_{len(self.ids)}")
        return self._course(self.ids[-1])

    async def write(self, storage: Storage) -> None:
        """Write the next thing, or count what was written."""
        if self.random.random() < 0.1:
            await count(storage)
        else:
            await storage.write(self._work())

    def _work(self) -> Callable[[Transaction], Awaitable[object]]:
        """What to write next; it may be run again."""
        kind = self.random.choice(["add", "add", "many", "put", "put", "put", "enrol", "settle"])
        if kind == "add":
            added = self.course()
            return lambda tx: tx.courses.add(added)
        if kind == "many":
            several = [self.course() for _ in range(self.random.randrange(9))]
            return lambda tx: tx.courses.add_all(several)
        chosen = self.random.choice(self.ids)
        if kind == "put":
            replaced = self._course(chosen)
            return lambda tx: tx.courses.put(replaced)
        if kind == "enrol" and chosen not in self._enrolled:
            self._enrolled.add(chosen)
            return lambda tx: keep_in(tx, enrollment(f"enr_{chosen}", course_id=chosen))
        return lambda tx: tx.courses.settle(5)

    def _course(self, course_id: str) -> Course:
        random = self.random
        return course(
            course_id,
            external_id=course_id,
            category=random.choice(CATEGORIES),
            level=random.choice(LEVELS),
            status=random.choice(["published", "published", "published", "archived"]),
            price=Money(random.choice([0, 999, 4_999]), "USD"),
            rating=random.choice([None, 300, 490]),
            students_base=random.choice([0, 0, 7, random.randrange(5_000)]),
            created_at=random.choice([-9, 0, random.randrange(5_000)]),
        )


async def assert_pages(storage: Storage, writers: Sequence[Writer], queries: Iterable[CourseQuery]) -> None:
    """Each page of these lists is what the courses, read at the same moment, say that it is; also the one behind the
    last."""

    async def work(tx: Transaction, query: CourseQuery) -> None:
        ids = [key for writer in writers for key in writer.ids]
        courses = list((await tx.courses.by_external_ids("acct_1", ids)).values())
        wanted = expected(courses, query)
        for number in range(1, len(wanted) // LIMIT + 3):
            page = await tx.courses.list(query, Page(number, LIMIT))
            assert page.total == len(wanted)
            assert page.items == wanted[(number - 1) * LIMIT : number * LIMIT]
        found = await tx.courses.categories(Page(1, 50))
        counted = Counter(one.category for one in courses if one.status == "published")
        assert found.items == [Category(slug, slug, number) for slug, number in sorted(counted.items())]

    for query in queries:
        await storage.read(partial(work, query=query))
