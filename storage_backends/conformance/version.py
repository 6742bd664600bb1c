"""The suite, on the catalogue's version: no change of what is shown goes without another one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
import pytest

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import Course
from learnflow_core.pagination import Cursor, Page
from learnflow_core.ports import CourseQuery, Storage, Transaction
from storage_backends.conformance.base import Suite
from storage_backends.conformance.samples import account, count, course, enrollment, keep, keep_in, user

Change = Callable[[Transaction], Awaitable[Any]]

_COURSES = [course(f"crs_{number}", students_base=number) for number in range(3)]
_DRAFT = course("crs_draft", status="draft", title="Unheard")

SHOWN: dict[str, Change] = {
    "a course is added": lambda tx: tx.courses.add(course("crs_new")),
    "courses are added together": lambda tx: tx.courses.add_all([course("crs_new"), course("crs_newer")]),
    "a text is changed": lambda tx: tx.courses.put(course("crs_1", description="Other")),
    "seats are changed": lambda tx: tx.courses.put(msgspec.structs.replace(_COURSES[1], seats=7)),
    "a draft is published": lambda tx: tx.courses.put(msgspec.structs.replace(_DRAFT, status="published")),
    "a course is archived": lambda tx: tx.courses.put(msgspec.structs.replace(_COURSES[1], status="archived")),
    "a category is named": lambda tx: tx.courses.name_category("development", "Development"),
    "students are counted": lambda tx: tx.courses.settle(100),
}
"""What changes what everybody sees; all of it within one transaction."""

HIDDEN: dict[str, Change] = {
    "a draft is added": lambda tx: tx.courses.add(course("crs_new", status="draft")),
    "a draft is changed": lambda tx: tx.courses.put(msgspec.structs.replace(_DRAFT, description="Other")),
    "a person comes": lambda tx: tx.users.add(user("usr_new")),
    "a seat is taken": lambda tx: keep_in(tx, enrollment("enr_2", course_id="crs_2")),
}
"""What happens all the time and must not make anybody read again what has not changed."""


class Versions(Suite):
    """Answers about the catalogue may be remembered as long as its version is the same."""

    @pytest.mark.parametrize("change", SHOWN.values(), ids=SHOWN.keys())
    async def test_another_catalogue_has_another_version_and_those_who_watch_are_told(
        self, storage: Storage, change: Change
    ) -> None:
        await _stage(storage)
        told = _watch(storage)
        before = await storage.read(_look)
        await storage.write(change)
        assert told == [None]
        after = await storage.read(_look)
        assert before[1] != after[1]
        assert before[0] != after[0]

    @pytest.mark.parametrize("change", HIDDEN.values(), ids=HIDDEN.keys())
    async def test_what_nobody_sees_leaves_the_version(self, storage: Storage, change: Change) -> None:
        await _stage(storage)
        told = _watch(storage)
        before = await storage.read(_look)
        await storage.write(change)
        assert (await storage.read(_look), told) == (before, [])

    async def test_a_change_that_was_undone_leaves_the_version(self, storage: Storage) -> None:
        await _stage(storage)
        before = await storage.read(_look)

        async def work(tx: Transaction) -> None:
            await tx.courses.add(course("crs_new"))
            raise LearnFlowError(Code.FORBIDDEN)

        with pytest.raises(LearnFlowError):
            await storage.write(work)
        assert await storage.read(_look) == before

    async def test_counting_what_was_changed_often_leaves_the_version(self, storage: Storage) -> None:
        await _stage(storage)
        for number in range(200):
            changed = course("crs_1", title=f"Title {number}")
            await storage.write(lambda tx, changed=changed: tx.courses.put(changed))  # type: ignore[misc]
        told = _watch(storage)
        before = await storage.read(_look)
        await count(storage)
        assert (await storage.read(_look), told) == (before, [])

    async def test_what_is_read_under_one_version_is_the_same_while_many_publish(self, storage: Storage) -> None:
        await _stage(storage)
        seen: dict[int, set[Any]] = {}

        async def publish(number: int) -> None:
            for title in ("One", "Two", "Three"):
                changed = course(f"crs_{number}", title=f"{title} {number}")
                await storage.write(partial(_put, changed=changed))

        async def look() -> None:
            version, shown = await storage.read(_look)
            seen.setdefault(version, set()).add(msgspec.json.encode(shown))

        publishing = asyncio.gather(*map(publish, range(len(_COURSES))))
        while not publishing.done():
            await look()
            await asyncio.sleep(0)  # a storage may answer without letting others run
        await publishing
        await look()
        assert all(len(shown) == 1 for shown in seen.values())


async def _stage(storage: Storage) -> None:
    await keep(storage, account(), user(), *_COURSES, _DRAFT, enrollment(course_id="crs_1"))


def _watch(storage: Storage) -> list[None]:
    told: list[None] = []
    storage.watch_catalogue(lambda: told.append(None))
    return told


async def _put(tx: Transaction, *, changed: Course) -> None:
    assert await tx.courses.put(changed)


async def _look(tx: Transaction) -> tuple[int, Any]:
    """The version, and all that everybody sees."""
    listed = await tx.courses.list(CourseQuery("newest"), Cursor(None, 50))
    published = [await tx.courses.get(one.id) for one in listed.items]
    return await tx.courses.version(), (listed, published, await tx.courses.categories(Page(1, 50)))
