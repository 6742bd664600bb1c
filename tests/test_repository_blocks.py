"""Blocks stay small and few, so that a page is found by reading little. That pages are right, the suite shows."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from learnflow_core.ports import CourseQuery, Storage
from storage_backends import open_storage
from storage_backends.conformance.samples import account, course, keep
from storage_backends.driver import DriverTransaction
from storage_backends.repository import blocks, uncounted

COURSES = 300
ORDERS = 16
"""All courses are in the same four lists, which are kept in four orders."""


@pytest.fixture
async def storage(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Storage]:
    """One with courses that were loaded at once, into small blocks."""
    monkeypatch.setattr(blocks, "BLOCK", 8)
    monkeypatch.setattr(blocks, "SPAN", 4)
    monkeypatch.setattr(uncounted, "ENOUGH", 1)
    found = await open_storage("sqlite://")
    await keep(found, account())
    loaded = [course(f"crs_{number:03}", students_base=number % 100) for number in range(COURSES)]
    await found.write(lambda tx: tx.courses.add_all(loaded))
    yield found
    assert await found.check() == []
    await found.close()


async def asked(storage: Storage, sql: str) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = await storage._driver.read(lambda tx: tx.rows(sql))  # type: ignore[attr-defined]
    return rows


async def test_what_is_loaded_at_once_is_cut_up_into_few_and_small(storage: Storage) -> None:
    for table, size in (("blocks", 8), ("spans", 32)):
        ((number, most),) = await asked(storage, f"SELECT COUNT(*), MAX(courses) FROM {table}")  # noqa: S608
        assert most <= 2 * size
        assert number <= ORDERS * (COURSES / size + 1)


async def test_blocks_stay_small_when_courses_come_one_by_one_to_the_end_of_an_order(storage: Storage) -> None:
    for number in range(100):
        await keep(storage, course(f"crs_9{number:03}", students_base=200 + number))
        await storage.write(lambda tx: tx.courses.tally())
    assert (
        await asked(storage, "SELECT 1 FROM blocks WHERE courses > 16 UNION ALL SELECT 1 FROM spans WHERE courses > 64")
        == []
    )


async def test_of_a_list_that_was_emptied_only_its_first_block_is_kept(storage: Storage) -> None:
    for number in range(COURSES):
        archived = course(f"crs_{number:03}", students_base=number % 100, status="archived")
        await storage.write(lambda tx, it=archived: tx.courses.put(it))  # type: ignore[misc]
    await storage.write(lambda tx: tx.courses.tally())
    assert await asked(storage, "SELECT COUNT(*), SUM(courses) FROM blocks") == [(ORDERS, 0)]
    assert await asked(storage, "SELECT COUNT(*), SUM(courses) FROM spans") == [(ORDERS, 0)]


@pytest.mark.parametrize("falling", [True, False])
async def test_less_than_a_block_and_what_is_noted_is_passed_over_for_a_page(storage: Storage, falling: bool) -> None:
    for number in range(5):
        await keep(storage, course(f"crs_8{number}", students_base=50))
    driver = storage._driver  # type: ignore[attr-defined]

    async def passed_over(tx: DriverTransaction, offset: int) -> int:
        counted = await blocks.counted(tx, CourseQuery("popular"), "total_students", falling=falling)
        assert counted.total == COURSES + 5
        _, rest = await counted.start(offset)
        return rest

    for offset in range(0, COURSES + 5, 11):
        assert 0 <= await driver.read(partial(passed_over, offset=offset)) <= 16 + 5


async def test_a_course_that_moves_within_its_block_changes_none(storage: Storage) -> None:
    before = await asked(storage, "SELECT no, courses FROM blocks ORDER BY no")
    ((number,),) = await asked(storage, "SELECT total_students FROM courses WHERE id = 'crs_250'")
    await storage.write(lambda tx: tx.courses.put(course("crs_250", students_base=number, title="Another")))
    await storage.write(lambda tx: tx.courses.tally())
    assert await asked(storage, "SELECT no, courses FROM blocks ORDER BY no") == before
