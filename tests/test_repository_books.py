"""A check finds every way in which the books can disagree, and names it."""

import os
import re
from collections.abc import AsyncIterator
from itertools import product

import pytest

from learnflow_core.pagination import Cursor
from learnflow_core.ports import AuditQuery, Context, Storage
from storage_backends import open_storage
from storage_backends.conformance.base import said
from storage_backends.conformance.samples import (
    NOW,
    account,
    completed,
    count,
    course,
    enrollment,
    keep,
    payment,
    user,
)
from storage_backends.repository import uncounted
from storage_backends.repository.blocks import SORTS
from storage_backends.repository.books import MOST, QUESTIONS

CTX = Context(NOW, os.urandom)

WRONG = {
    "UPDATE enrollments SET status = 'cancelled' WHERE id = 'enr_3'": [
        "enrolment enr_3: it is cancelled, and its payment pay_3 is kept, though its user is there",
    ],
    "UPDATE courses SET live_taken = 3, total_students = 3 WHERE id = 'crs_1'": [
        "course crs_1: 3 live seats are taken, but live enrolments hold 1",
    ],
    "UPDATE courses SET test_taken = 1 WHERE id = 'crs_2'": [
        "course crs_2: 1 test seats are taken, but live enrolments hold 0",
    ],
    "UPDATE accounts SET live_licenses = 0": [
        "account acct_1: 0 live licences are taken, but live enrolments hold 1",
    ],
    "UPDATE accounts SET test_licenses = 2": [
        "account acct_1: 2 test licences are taken, but live enrolments hold 0",
    ],
    "UPDATE courses SET total_students = 7 WHERE id = 'crs_1'": [
        "course crs_1: it shows 7 students, but has 1, and no sweep is due",
    ],
    "UPDATE totals SET courses = 9 WHERE list <> ''": [
        f"list '{name}': it counts 9 published courses, but has 4"
        for name in ("@development", "~all", "~all@development")
    ],
    "UPDATE words SET courses = 9 WHERE word = '=crs'": ["word =crs: it counts 9 published courses, but has 4"],
    "DELETE FROM words WHERE word = 'crs'": ["word crs: it counts 0 published courses, but has 4"],
    "UPDATE totals SET courses = 0 WHERE list = ''": ["list '': it counts 0 published courses, but has 4"],
    "DELETE FROM totals WHERE list = '~all'": ["list '~all': it counts 0 published courses, but has 4"],
    "INSERT INTO totals (list, courses) VALUES ('@art', 1)": ["list '@art': it counts 1 published courses, but has 0"],
    "DELETE FROM blocks": [
        f"list '{name}' by {sort}: no block begins with the span from {-(2**63)} ''"
        for name, sort in product(("", "@development", "~all", "~all@development"), SORTS)
    ],
    "UPDATE spans SET key = 0 WHERE sort = 'rating' AND category = ''": [
        "list '' by rating: it has no beginning",
        "list '~all' by rating: it has no beginning",
    ],
    "UPDATE spans SET courses = 9 WHERE sort = 'rating' AND category = '' AND level = ''": [
        f"list '' by rating: the span from {-(2**63)} '' counts 9 courses, but its blocks 4",
    ],
    "INSERT INTO uncounted_texts SELECT 1, 1, search FROM courses WHERE n = 1": [
        "word crs: it counts 5 published courses, but has 4",
    ],
    "INSERT INTO uncounted SELECT 1, 1, id, category, level, 0, created_at, -1, 0 FROM courses WHERE n = 1": [
        "list '~all': it counts 5 published courses, but has 4",
        *(f"list '@development' by {sort}: the block from {-(2**63)} '' counts 5 courses, but has 4" for sort in SORTS),
    ],
    "INSERT INTO blocks SELECT 99, no, -1, 'crs_3', 0 FROM spans WHERE sort = 'rating' AND category || level = ''": [
        f"list '' by rating: the block from {-(2**63)} '' counts 4 courses, but has 2",
        "list '' by rating: the block from -1 'crs_3' counts 0 courses, but has 2",
    ],
    "UPDATE payments SET status = 'declined'": ["enrolment enr_3: it is active, but its payment pay_3 is declined"],
    "UPDATE payments SET mode = 'test'": ["enrolment enr_3: it is active, but its payment pay_3 is not there"],
    "UPDATE enrollments SET payment_id = 'pay_9' WHERE id = 'enr_3'": [
        "enrolment enr_3: it is active, but its payment pay_9 is not there",
        "payment pay_3: enrolment enr_3 does not know of it",
    ],
    "UPDATE enrollments SET payment_id = NULL WHERE id = 'enr_3'": [
        "payment pay_3: enrolment enr_3 does not know of it",
    ],
    "UPDATE enrollments SET status = 'refunded' WHERE id = 'enr_4'": [
        "enrolment enr_4: it is refunded, and no payment belongs to it",
    ],
    "UPDATE certificates SET course_id = 'crs_1'": [
        "enrolment enr_2: it is completed, but its certificate crt_enr_2 is not there",
    ],
    "UPDATE certificates SET enrollment_id = 'enr_4'": [
        "enrolment enr_2: it is completed, but its certificate crt_enr_2 is not there",
        "certificate crt_enr_2: enrolment enr_4 is not completed",
    ],
    "UPDATE courses SET title = 'Said' WHERE id = 'crs_1'": [
        "course crs_1: it would be found by other words than it says",
    ],
    "UPDATE course_texts SET description = 'Said' WHERE course_id = 'crs_2'": [
        "course crs_2: it would be found by other words than it says",
    ],
    "INSERT INTO course_index (rowid, search) VALUES (1, 'unsaid')": [
        "the search index has 1 courses with unsaid, and should have 0",
    ],
    "INSERT INTO course_index (rowid, search) VALUES (99, 'crs')": [
        "the search index has 5 courses with crs, and should have 4",
    ],
    "INSERT INTO course_index (course_index, rowid, search) SELECT 'delete', place, search "
    "FROM courses JOIN places USING (n) WHERE n = 4": [
        "course crs_4: the search index does not find it by every word",
        "the search index has 3 courses with ~all, and should have 4",
    ],
}
"""What is done to books that agree, and some of what a check then says; all of it that is no consequence."""


@pytest.fixture
async def storage(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Storage]:
    monkeypatch.setattr(uncounted, "ENOUGH", 1)
    found = await open_storage("sqlite://")
    await keep(found, account(plan="enterprise"), user())
    await found.write(lambda tx: tx.courses.add_all([course(f"crs_{number}") for number in range(1, 5)]))
    await keep(found, enrollment("enr_1", licensed=True), completed("enr_2", course_id="crs_2"))
    await keep(found, enrollment("enr_3", course_id="crs_3", payment_id="pay_3"))
    await keep(found, payment("pay_3", enrollment_id="enr_3", status="charged"))
    await keep(found, enrollment("enr_4", status="cancelled"))
    await found.write(lambda tx: tx.courses.settle(100))
    await count(found)
    yield found
    await found.close()


async def test_books_that_agree_are_found_sound(storage: Storage) -> None:
    assert await storage.check() == []


@pytest.mark.parametrize(("damage", "findings"), WRONG.items(), ids=range(len(WRONG)))
async def test_books_that_do_not_agree_are_found(storage: Storage, damage: str, findings: list[str]) -> None:
    await storage._driver.write(lambda tx: tx.rows(damage))  # type: ignore[attr-defined]
    found = await said(storage)
    assert set(findings) <= set(found)


OF_CATALOGUE = ("list ", "word ", "the search index ")
ABOUT_CATALOGUE = [
    done
    for done, findings in WRONG.items()
    if findings[0].startswith(OF_CATALOGUE) or "search index" in findings[0] or "found by" in findings[0]
]


@pytest.mark.parametrize("damage", ABOUT_CATALOGUE, ids=range(len(ABOUT_CATALOGUE)))
async def test_what_finds_and_counts_courses_is_made_anew(storage: Storage, damage: str) -> None:
    await storage._driver.write(lambda tx: tx.rows(damage))  # type: ignore[attr-defined]
    version = await storage.read(lambda tx: tx.courses.version())
    repaired = await storage.repair(CTX)
    assert repaired
    assert all(finding.repairable for finding in repaired)
    assert await storage.check() == []
    await count(storage)
    assert await storage.check() == []
    assert await storage.read(lambda tx: tx.courses.version()) > version
    assert await storage.repair(CTX) == []
    noted = await storage.read(lambda tx: tx.audit.list(AuditQuery(object_id="catalogue"), Cursor(None, 10)))
    assert [row.event for row in noted.items] == ["books.repaired"]


async def test_courses_that_have_lost_their_places_in_the_search_index_get_them_back(storage: Storage) -> None:
    await storage._driver.write(lambda tx: tx.rows("UPDATE places SET place = 0 WHERE n = 4"))  # type: ignore[attr-defined]
    assert any("it has not its place in the search index" in finding for finding in await said(storage))
    assert await storage.repair(CTX)
    assert await storage.check() == []


def test_every_question_is_shown_to_find_something() -> None:
    told = [finding for findings in WRONG.values() for finding in findings]
    for sentence in QUESTIONS:
        pattern = re.compile(re.escape(sentence).replace(r"\{\}", ".*"))
        assert any(pattern.fullmatch(finding) for finding in told), sentence


async def test_a_sweep_that_is_due_is_nothing_wrong(storage: Storage) -> None:
    await keep(storage, user("usr_2"), enrollment("enr_5", user_id="usr_2"))
    assert await storage.check() == []


async def test_only_so_many_findings_of_a_kind_are_told(storage: Storage) -> None:
    await keep(storage, *(course(f"crs_more_{number}") for number in range(MOST + 10)))
    await storage._driver.write(lambda tx: tx.rows("UPDATE courses SET test_taken = 1"))  # type: ignore[attr-defined]
    assert len(await storage.check()) == MOST
