"""The search index of PostgreSQL: what is written to it, what is asked of it, and what a check finds wrong with it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest

from learnflow_core.pagination import Cursor
from learnflow_core.ports import CourseQuery, Storage
from learnflow_core.search import parse_search
from storage_backends import open_storage, postgres_search
from storage_backends.conformance import base
from storage_backends.conformance.samples import account, course, enrollment, keep, user
from storage_backends.driver import Entry, Wanted
from storage_backends.postgres_transaction import PostgresTransaction
from storage_backends.repository import searches
from tests.postgres import Postgres


@pytest.fixture
async def url(postgres: Postgres) -> AsyncIterator[str]:
    async with postgres.database() as url:
        yield url


@pytest.fixture
async def storage(url: str) -> AsyncIterator[Storage]:
    storage = await open_storage(url)
    await keep(storage, account(), user())
    yield storage
    await storage.close()


@pytest.fixture
async def owner(url: str) -> AsyncIterator[Any]:
    """Somebody who may do anything to the database."""
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...]]]:
    """Every statement from now on, with its arguments."""
    found: list[tuple[str, tuple[Any, ...]]] = []
    run = PostgresTransaction.rows

    async def rows(self: PostgresTransaction, sql: str, *args: Any) -> Sequence[tuple[Any, ...]]:
        found.append((sql, args))
        return await run(self, sql, *args)

    monkeypatch.setattr(PostgresTransaction, "rows", rows)
    return found


async def written(owner: Any) -> list[tuple[Any, ...]]:
    """Which transaction wrote each course's tokens, where they stand, and whether it is published."""
    return [tuple(row) for row in await owner.fetch("SELECT n, xmin, ctid, published FROM course_search ORDER BY n")]


async def test_who_moves_a_course_or_changes_its_price_does_not_write_its_words(storage: Storage, owner: Any) -> None:
    await keep(storage, course(), course("crs_2"))
    before = await written(owner)
    await keep(storage, enrollment())
    assert await storage.write(lambda tx: tx.courses.settle(10)) == 1
    await storage.write(lambda tx: tx.courses.put(course("crs_2", rating=100, category="art")))
    moved = await written(owner)
    assert moved[0] == before[0]
    assert moved[1] != before[1], "the category is one of the tokens"
    await storage.write(lambda tx: tx.courses.put(course("crs_2", rating=200, category="art", students_base=7)))
    assert await written(owner) == moved
    assert await storage.check() == []


async def test_who_archives_a_course_says_so_where_it_is_counted(storage: Storage, owner: Any) -> None:
    await keep(storage, course())
    await storage.write(lambda tx: tx.courses.put(course(status="archived")))
    assert [published for *_, published in await written(owner)] == [0]
    assert await storage.check() == []


async def test_no_statement_brings_more_tokens_than_it_has_time_for(
    storage: Storage, said: list[tuple[str, tuple[Any, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_search, "TOKENS_AT_ONCE", 20)
    long = course("crs_long", description=" ".join(f"word{number}" for number in range(50)))
    courses = [course(f"crs_{number}", title=f"one{number}") for number in range(9)]
    await storage.write(lambda tx: tx.courses.add_all([*courses[:5], long, *courses[5:]]))
    statements = [args[0] for sql, args in said if "INTO course_search" in sql]
    assert len(statements) > 4
    assert all(text.count('"tokens"') == 1 or text.count(" ") < 60 for text in statements)
    assert await storage.check() == []


def test_portions_hold_all_in_order_and_are_no_larger_than_they_may_be() -> None:
    sizes = [1, 3, 50_000, 49_999, 1, 1, 60_000, 2, 70_000]
    entries = [Entry(n, published=True, total_students=0, id="", tokens="x " * (size - 1) + "x")
               for n, size in enumerate(sizes)]  # fmt: skip
    portions = [[sizes[entry.n] for entry in portion] for portion in postgres_search._portions(entries)]
    assert portions == [[1, 3], [50_000], [49_999, 1], [1], [60_000], [2], [70_000]]
    assert list(postgres_search._portions([])) == []


@pytest.mark.parametrize("surveyed", [False, True])
@pytest.mark.parametrize("near", [0, searches.NEAR])
async def test_a_search_finds_its_courses_by_the_index_and_looks_each_of_them_up(
    storage: Storage,
    said: list[tuple[str, tuple[Any, ...]]],
    monkeypatch: pytest.MonkeyPatch,
    near: int,
    *,
    surveyed: bool,
) -> None:
    monkeypatch.setattr(searches, "NEAR", near)
    courses = [course(f"crs_{n}", title=f"common {'even' if n % 2 else 'odd'} rare{n}") for n in range(1_000)]
    await storage.write(lambda tx: tx.courses.add_all(courses))
    if surveyed:
        await storage.write(lambda tx: tx.courses.survey())
    plans: list[str] = []
    for text in ("common", "even common", "rare7", "common r", "even rare77"):
        for sort in ("relevance", "newest"):
            said.clear()
            query = CourseQuery(sort, parse_search(text), category="development", level="all")
            await storage.read(lambda tx, it=query: tx.courses.list(it, Cursor(None, 50)))  # type: ignore[misc]
            asked = [(sql, args) for sql, args in said if "tsquery" in sql]
            plans += [await _plan(storage, sql, args) for sql, args in asked]
    assert len(plans) >= 10 if near == 0 else plans
    for plan in plans:
        assert "Bitmap Index Scan on course_search_by_token" in plan
        # Also while the planner takes a category for so small that it would as well read all of it.
        assert "Index Cond: (n = ANY ($" in plan
        assert not re.search("Seq Scan|Gather|Hash Join|Merge Join", plan)


async def _plan(storage: Storage, sql: str, args: tuple[Any, ...]) -> str:
    rows = await storage._driver.read(lambda tx: tx.rows(f"EXPLAIN {sql}", *args))  # type: ignore[attr-defined]
    return "\n".join(line for (line,) in rows)


async def test_after_a_survey_the_planner_knows_how_much_there_is(storage: Storage, owner: Any) -> None:
    await storage.write(lambda tx: tx.courses.add_all([course(f"crs_{number}") for number in range(300)]))
    await storage.write(lambda tx: tx.courses.survey())
    known = dict(
        await owner.fetch("SELECT relname, reltuples FROM pg_class WHERE relname LIKE 'course%' AND relkind = 'r'")
    )
    assert known == {"courses": 300, "course_texts": 300, "course_search": 300}


WRONG = {
    "DELETE FROM course_search WHERE n = 2": "course crs_2: the search index does not find it by every word",
    "UPDATE course_search SET vec = 'new' WHERE n = 2": "the search index has 1 courses with new, and should have 0",
    "UPDATE course_search SET vec = vec || 'unsaid'::tsvector WHERE n = 2": (
        "course crs_2: the search index does not find it by every word"
    ),
    "UPDATE course_search SET published = 0 WHERE n = 2": (
        "course crs_2: the search index does not find it by every word"
    ),
    "INSERT INTO course_search VALUES (99, 1, 'crs')": "the search index has 4 courses with crs, and should have 3",
}


@pytest.mark.parametrize("damage", WRONG)
async def test_what_is_wrong_in_the_table_of_tokens_is_found(storage: Storage, owner: Any, damage: str) -> None:
    await storage.write(lambda tx: tx.courses.add_all([course(f"crs_{number}") for number in (1, 2, 3)]))
    assert await storage.check() == []
    await owner.execute(damage)
    assert WRONG[damage] in await base.said(storage)


async def test_an_entry_that_the_index_has_lost_is_found_though_its_row_is_right(storage: Storage, owner: Any) -> None:
    courses = [course(f"crs_{number}", title=f"C{'#' * (number - 1)}") for number in (1, 2, 3)]
    await storage.write(lambda tx: tx.courses.add_all(courses))
    index = "UPDATE pg_index SET indisready = {} WHERE indexrelid = 'course_search_by_token'::regclass"
    await owner.execute(index.format("false"))  # written rows do not come into it now
    await owner.execute("CREATE TEMP TABLE kept AS SELECT * FROM course_search WHERE n = 2")
    await owner.execute("DELETE FROM course_search WHERE n = 2")
    await owner.execute("INSERT INTO course_search SELECT * FROM kept")
    await owner.execute(index.format("true"))
    said = await base.said(storage)
    assert "the search index has 2 courses with john, and should have 3" in said
    assert "the search index has 1 courses with =c#, and should have 2" in said


async def test_a_word_that_means_something_in_a_pattern_means_itself(storage: Storage) -> None:
    patterns = postgres_search._patterns(Wanted(("50%", "a_b"), (), "\\"))
    asked = '["' + '","'.join(pattern.replace("\\", "\\\\") for pattern in patterns) + '"]'
    sql = "SELECT CASE WHEN $1 LIKE ALL (ARRAY(SELECT json_array_elements_text(CAST($2 AS JSON)))) THEN 1 ELSE 0 END"
    for text, found in ((" 50% a_b \\x ", 1), (" 500 a_b \\x ", 0), (" 50% acb \\x ", 0), (" 50% a_b x ", 0)):
        row = await storage._driver.read(lambda tx, it=text: tx.row(sql, it, asked))  # type: ignore[attr-defined]
        assert row == (found,)


async def test_a_title_that_has_not_every_word_is_told_from_one_that_has_while_testing(storage: Storage) -> None:
    titled = course("crs_1", title="alpha beta")
    apart = course("crs_2", title="alpha", description="beta", students_base=9)
    await keep(storage, titled, apart, *(course(f"crs_x{number}") for number in range(5)))
    query = CourseQuery("relevance", parse_search("alpha beta"))
    found = await storage.read(lambda tx: tx.courses.list(query, Cursor(None, 1)))
    assert [one.id for one in found.items] == ["crs_1"]
    behind = Cursor(found.next_after, 1)
    found = await storage.read(lambda tx: tx.courses.list(query, behind))
    assert [one.id for one in found.items] == ["crs_2"]
