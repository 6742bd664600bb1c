"""How many published courses each list of the catalogue has: counted as they change, so that telling it reads one row.

A course is in four lists: of all, of its category, of its level, and of both. A list's name is its filters, which is
why any text can be asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from learnflow_core.ports import CourseQuery
from storage_backends.driver import DriverTransaction
from storage_backends.repository import uncounted
from storage_backends.repository.sql import json_rows, json_text
from storage_backends.repository.standing import Listed


def lists_of(course: Listed) -> list[str]:
    """The names of the lists that a published course is in."""
    category, level = course.category, course.level
    return [list_name(*filters) for filters in ((None, None), (category, None), (None, level), (category, level))]


def list_name(category: str | None, level: str | None) -> str:
    """What the list with these filters is called."""
    at_level = "" if level is None else f"~{level}"
    return at_level if category is None else f"{at_level}@{category}"


def has_total(query: CourseQuery) -> bool:
    """Whether it is kept how many courses the query lists: not of searches, nor of what is an account's own."""
    return query.search is None and query.account_id is None and query.status == "published"


async def total(tx: DriverTransaction, query: CourseQuery) -> int:
    """How many courses a query lists that has a total."""
    noted = uncounted.among(query.category, query.level)
    row = await tx.row(
        _TOTAL.format(noted=noted, list=noted.parameter(list_name(query.category, query.level))), *noted.args
    )
    assert row is not None, "an aggregate answers one row"
    return int(row[0])


async def follow(tx: DriverTransaction, courses: Mapping[Listed, int]) -> None:
    """Count so many more courses in the lists that they are in."""
    counts = Counter[str]()
    for course, change in courses.items():
        counts.update(dict.fromkeys(lists_of(course), change))
    # In one order, so that two transactions seldom block each other.
    changed = sorted((name, change) for name, change in counts.items() if change)
    if changed:
        await tx.rows(_MAKE, json_text(name for name, _ in changed))
        await tx.rows(_COUNT, json_text(value for pair in changed for value in pair))


# ruff: noqa: S608 - nothing but our own names is put into these
_TOTAL = (
    "SELECT CAST(COALESCE(SUM(courses), 0) AS BIGINT) FROM ("
    "SELECT courses FROM totals WHERE list = {list} UNION ALL SELECT change FROM uncounted WHERE {noted}"
    ") AS counts"
)
_MAKE = (
    "INSERT INTO totals (list, courses) SELECT value, 0 FROM json_each(CAST($1 AS TEXT)) WHERE 1 = 1 "
    "ON CONFLICT (list) DO NOTHING"
)
_COUNT = (
    "UPDATE totals SET courses = courses + CAST(change AS BIGINT) FROM "
    + json_rows("$1", "name", "change")
    + " AS changed WHERE list = name"
)
