"""How many published courses each list of the catalogue has: counted as they change, so that telling it reads one row.

A course is in four lists: of all, of its category, of its level, and of both. A list's name is its filters, which is
why any text can be asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from learnflow_core.ports import CourseQuery
from storage_backends.driver import DriverTransaction
from storage_backends.repository.sql import json_text


def lists_of(category: str, level: str, status: str) -> Counter[str]:
    """The lists that a course is in, one time each; none unless it is published."""
    filters = ((None, None), (category, None), (None, level), (category, level))
    return Counter(_name(*chosen) for chosen in filters) if status == "published" else Counter()


async def total(tx: DriverTransaction, query: CourseQuery) -> int | None:
    """How many courses the query lists; None where that is not kept: searches, and what is an account's own."""
    if query.search is not None or query.account_id is not None or query.status != "published":
        return None
    row = await tx.row("SELECT courses FROM totals WHERE list = $1", _name(query.category, query.level))
    return 0 if row is None else int(row[0])


async def count(tx: DriverTransaction, changes: Mapping[str, int]) -> None:
    """Count so many more, or fewer, courses in lists."""
    # In one order, so that two transactions seldom block each other.
    changed = sorted((name, change) for name, change in changes.items() if change)
    if changed:
        names = json_text(name for name, _ in changed)
        await tx.rows(_MAKE, names)
        await tx.rows(_COUNT, names, json_text(change for _, change in changed))


def _name(category: str | None, level: str | None) -> str:
    at_level = "" if level is None else f"~{level}"
    return at_level if category is None else f"{at_level}@{category}"


_MAKE = (
    "INSERT INTO totals (list, courses) SELECT value, 0 FROM json_each(CAST($1 AS TEXT)) WHERE 1 = 1 "
    "ON CONFLICT (list) DO NOTHING"
)
_COUNT = (
    "UPDATE totals SET courses = courses + CAST(change AS BIGINT) FROM ("
    "SELECT names.value AS name, changes.value AS change FROM json_each(CAST($1 AS TEXT)) AS names "
    "JOIN json_each(CAST($2 AS TEXT)) AS changes ON changes.key = names.key"
    ") AS changed WHERE list = name"
)
