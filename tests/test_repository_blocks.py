"""Blocks stay small and few, so that a page is found by reading little. That pages are right, the suite shows."""

from collections.abc import AsyncIterator
from functools import partial
from itertools import groupby, pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_core.ports import CourseQuery, Storage
from storage_backends import open_storage
from storage_backends.conformance.samples import account, count, course, keep
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
    await count(found)
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
        await count(storage)
    assert await asked(storage, "SELECT 1 FROM blocks WHERE courses > 16") == []
    assert await asked(storage, "SELECT 1 FROM blocks GROUP BY span HAVING COUNT(*) > 8") == []


async def test_every_portion_of_what_is_noted_leaves_blocks_that_are_right(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full blocks are split while notes of courses in them are left."""
    monkeypatch.setattr(uncounted, "NOTES", 7)
    random = Random("portions")
    for number in random.sample(range(COURSES), 60):
        moved = course(f"crs_{number:03}", students_base=random.randrange(20), category=random.choice(["dev", "art"]))
        await storage.write(lambda tx, it=moved: tx.courses.put(it))  # type: ignore[misc]
    await storage.write(lambda tx: tx.courses.add_all([course(f"crs_7{number}", rating=450) for number in range(60)]))
    while await storage.tally():
        assert await storage.check() == []


async def test_blocks_that_courses_leave_become_few_again(storage: Storage) -> None:
    left = Random("left").sample(range(COURSES), COURSES - 40)
    for at, number in enumerate(left):
        archived = course(f"crs_{number:03}", students_base=number % 100, status="archived")
        await storage.write(lambda tx, it=archived: tx.courses.put(it))  # type: ignore[misc]
        if at % 50 == 0:
            await count(storage)
            assert await storage.check() == []
    await count(storage)
    ((number,),) = await asked(storage, "SELECT COUNT(*) FROM blocks")
    assert number <= ORDERS * (40 // 3 + 1)
    found = await asked(storage, "SELECT span, no, courses FROM blocks ORDER BY span, key, id")
    for _, held in groupby(found, key=lambda row: row[0]):
        assert all(len(group) == 1 for group in blocks.neighbours([(no, courses) for _, no, courses in held], 8))


@given(st.lists(st.integers(0, 20)), st.integers(1, 12))
def test_neighbours_are_joined_in_order_while_one_is_small_and_both_are_not_too_large(
    sizes: list[int], made_for: int
) -> None:
    groups = blocks.neighbours(enumerate(sizes), made_for)
    assert [pair for group in groups for pair in group] == list(enumerate(sizes))
    sums = [sum(size for _, size in group) for group in groups]
    assert all(held <= 2 * made_for for held, group in zip(sums, groups, strict=True) if len(group) > 1)
    assert all(4 * min(pair) > made_for or sum(pair) > 2 * made_for for pair in pairwise(sums))


async def test_of_a_course_that_moves_no_words_are_noted(storage: Storage) -> None:
    await storage.write(lambda tx: tx.courses.put(course("crs_001", students_base=77)))
    assert await asked(storage, "SELECT change FROM uncounted ORDER BY no") == [(-1,), (1,)]
    assert await asked(storage, "SELECT change FROM uncounted_texts") == []


async def test_of_a_course_with_another_title_only_words_are_noted(storage: Storage) -> None:
    ((students,),) = await asked(storage, "SELECT total_students FROM courses WHERE id = 'crs_001'")
    await storage.write(lambda tx: tx.courses.put(course("crs_001", students_base=students, title="Another")))
    assert await asked(storage, "SELECT change FROM uncounted") == []
    assert await asked(storage, "SELECT change FROM uncounted_texts ORDER BY no") == [(-1,), (1,)]


async def test_long_texts_are_counted_a_few_at_a_time(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uncounted, "CHARACTERS", 3_000)
    texts = [" ".join(f"word{number}x{at}" for at in range(200)) for number in range(4)]
    added = [course(f"crs_7{number}", description=text) for number, text in enumerate(texts)]
    await storage.write(lambda tx: tx.courses.add_all(added))
    left = []
    while await storage.tally():
        left.append((await asked(storage, "SELECT COUNT(*) FROM uncounted_texts"))[0][0])
        assert await storage.check() == []
    assert left == [2, 0]


async def test_of_a_list_that_was_emptied_only_its_first_block_is_kept(storage: Storage) -> None:
    for number in range(COURSES):
        archived = course(f"crs_{number:03}", students_base=number % 100, status="archived")
        await storage.write(lambda tx, it=archived: tx.courses.put(it))  # type: ignore[misc]
    await count(storage)
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
    await count(storage)
    assert await asked(storage, "SELECT no, courses FROM blocks ORDER BY no") == before
