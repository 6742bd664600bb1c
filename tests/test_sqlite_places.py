"""Places in SQLite's search index: in the order of popularity whatever happens, and seldom moved."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learnflow_core.ids import new_id
from learnflow_core.model import Course
from learnflow_core.pagination import Page
from learnflow_core.ports import CourseQuery, Storage
from learnflow_core.search import parse_search
from storage_backends import open_storage, sqlite_places
from storage_backends.conformance.base import said
from storage_backends.conformance.samples import account, course, keep
from storage_backends.sqlite_places import suggested

replace = msgspec.structs.replace

STUDENTS = st.sampled_from([0, 1, 2, 8, 9, 10_000, 2**31 - 2, 2**31 - 1, 2**40]) | st.integers(0, 2**63 - 1)
IDS = st.binary(min_size=48, max_size=48).map(lambda chance: new_id("crs", _Bytes(chance * 4)))


class _Bytes:
    """Randomness that comes from an example."""

    def __init__(self, chance: bytes) -> None:
        self._chance = iter(chance)

    def __call__(self, count: int) -> bytes:
        return bytes(next(self._chance, 7) for _ in range(count))


@given(st.lists(st.tuples(STUDENTS, IDS), min_size=2, max_size=20))
def test_suggestions_fall_as_popularity_and_ids_rise(courses: list[tuple[int, str]]) -> None:
    courses.sort(reverse=True)
    for (more, one), (fewer, other) in pairwise(courses):
        if more < 2**32 - 1:  # of more students than people a suggestion knows nothing
            assert suggested(more, one) <= suggested(fewer, other)


@given(STUDENTS, st.text())
def test_every_course_is_suggested_a_place_that_there_is(students: int, course_id: str) -> None:
    assert 0 <= suggested(students, course_id) < 32 << sqlite_places.FRACTION_BITS


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> int:
    """How many courses there may be where there are so few places that they often want the same."""
    monkeypatch.setattr(sqlite_places, "FRACTION_BITS", 1)
    return 14


CHANGES = st.lists(
    st.lists(
        st.tuples(
            st.integers(0, 13),
            st.integers(0, 3) | st.sampled_from([7, 2**31]),
            st.sampled_from(["published", "published", "published", "draft"]),
            st.sampled_from(["one", "two"]),
        ),
        min_size=1,
        max_size=14,
        unique_by=lambda change: change[0],
    ),
    min_size=1,
    max_size=12,
)


@settings(
    max_examples=settings().max_examples // 2,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(CHANGES)
def test_places_stay_in_order_where_courses_often_want_the_same(narrow: int, changes: list[list[Any]]) -> None:
    async def run() -> None:
        storage = await open_storage("sqlite://")
        await keep(storage, account())
        courses: dict[str, Course] = {}
        for together in changes:
            # Ids that differ at their ends are suggested the same place.
            made = [
                course(f"crs_aaaaaaaaaaaa{key:02}", students_base=students, status=status, title=title)
                for key, students, status, title in together
            ]
            new = [one for one in made if one.id not in courses]
            await storage.write(lambda tx, it=new: tx.courses.add_all(it))  # type: ignore[misc]
            for one in made:
                if one.id in courses:
                    await storage.write(lambda tx, it=one: tx.courses.put(it))  # type: ignore[misc]
            courses |= {one.id: one for one in made}
            assert len(courses) <= narrow
            await _assert_sound(storage, courses)
        await storage.close()

    asyncio.run(run())


async def _assert_sound(storage: Storage, courses: dict[str, Course]) -> None:
    for title in ("one", "two"):
        wanted = [one for one in courses.values() if one.status == "published" and one.title == title]
        wanted.sort(key=lambda one: (one.total_students, one.id), reverse=True)
        query = CourseQuery("popular", parse_search(title))
        found = await storage.read(lambda tx, it=query: tx.courses.list(it, Page(1, 50)))  # type: ignore[misc]
        assert [one.id for one in found.items] == [one.id for one in wanted]
    assert await storage.check() == []


async def _places(storage: Storage) -> dict[str, int]:
    sql = "SELECT id, place FROM courses JOIN places USING (n)"
    return dict(await storage._driver.read(lambda tx: tx.rows(sql)))  # type: ignore[attr-defined]


async def test_a_course_keeps_its_place_while_its_neighbours_are_the_same() -> None:
    storage = await open_storage("sqlite://")
    await keep(storage, account(), *(course(f"crs_{n}", students_base=1000 * n) for n in range(1, 6)))
    before = await _places(storage)
    await storage.write(lambda tx: tx.courses.put(course("crs_3", students_base=3999, title="Another")))
    assert await _places(storage) == before
    await storage.write(lambda tx: tx.courses.put(course("crs_3", students_base=4001)))
    after = await _places(storage)
    assert after["crs_4"] > after["crs_3"] > after["crs_5"]
    assert {key for key in before if before[key] != after[key]} == {"crs_3"}
    await storage.close()


async def test_many_courses_between_the_same_two_move_few_others() -> None:
    storage = await open_storage("sqlite://")
    await keep(storage, account())
    moved = 0
    for number in range(400):
        # Each comes behind the one before, in front of nobody: the worst that ids not of the usual form can do.
        before = await _places(storage)
        await keep(storage, course(f"crs_aaaaaaaaaaaa{999 - number}"))
        after = await _places(storage)
        moved += sum(before[key] != after[key] for key in before)
    assert await storage.check() == []
    assert moved < 400 * 20
    await storage.close()


async def test_a_place_out_of_order_is_found() -> None:
    storage = await open_storage("sqlite://")
    await keep(
        storage, account(), *(course(f"crs_{n}", students_base=n) for n in (1, 2)), course("crs_3", status="draft")
    )
    for place, wrong in (("-7", 3), ("place + (1 << 40)", 2)):
        sql = f"UPDATE places SET place = {place} WHERE n = (SELECT n FROM courses WHERE id = 'crs_{wrong}')"  # noqa: S608 - our own
        await storage._driver.write(lambda tx, it=sql: tx.rows(it))  # type: ignore[attr-defined]
        assert f"course crs_{wrong}: it has not its place in the search index" in await said(storage)
    await storage.close()
