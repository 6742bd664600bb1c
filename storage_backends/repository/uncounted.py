"""Changes of the catalogue, noted when they happen and counted soon after, by one writer for all.

What counts courses has rows in which every course counts. Were they written with each course, then on a database where
writers work side by side each of them would undo the others. A note is a row of its own. Whoever reads counts adds what
is noted, so that they are exact at any time.

Notes are numbered as they are made, and the oldest are taken first: those of one course follow each other, so that what
is counted of it was once true, and no count falls below nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from storage_backends.driver import DriverTransaction, Row
from storage_backends.repository.sql import Where, insert
from storage_backends.repository.standing import Change, Listed, listed, net

T = TypeVar("T")

ENOUGH: Final = 64
"""How many notes make it worth while to count them: all who read lists read them all."""

NOTES: Final = 500
CHARACTERS: Final = 100_000
"""So many notes, and texts of such a length, are taken at once: what counts them holds up whoever shares its thread."""

_FEW: Final = 4


class Portion(NamedTuple):
    """Some of what is noted: how many more published courses stand so, and how many more have these tokens."""

    courses: Mapping[Listed, int]
    texts: Mapping[str, int]


async def note(tx: DriverTransaction, changes: Sequence[Change]) -> None:
    """Note which published courses came to lists, which left them or moved in them, and which got other words."""
    moved, worded = net(changes, listed), net(changes, lambda standing: standing.search)
    if moved or worded:
        numbers = iter(await tx.numbers(len(moved) + len(worded)))
        courses = [(next(numbers), change, *course) for course, change in moved.items()]
        await _keep(tx, "uncounted", ("no", "change", *Listed._fields), courses)
        texts = [(next(numbers), change, text) for text, change in worded.items()]
        await _keep(tx, "uncounted_texts", ("no", "change", "search"), texts)


async def count(tx: DriverTransaction, limit: int) -> int:
    """How many notes there are; no more than so many are counted of those for lists, and of those for words."""
    row = await tx.row(_COUNT, limit)
    assert row is not None, "an aggregate answers one row"
    return int(row[0])


async def take(tx: DriverTransaction) -> Portion:
    """The oldest notes, which are to be counted in this transaction."""
    moved = await tx.rows(_TAKE, NOTES)
    worded = await tx.rows(_TAKE_TEXTS, NOTES, CHARACTERS)
    courses = _summed((Listed._make(kept), change) for change, *kept in moved)
    return Portion(courses, _summed((text, change) for change, text in worded))


def among(category: str | None, level: str | None) -> Where:
    """The conditions on `uncounted` for what is noted of the list with these filters."""
    return Where().also(ALL).when("category = {}", category).when("level = {}", level)


def _summed(changes: Iterable[tuple[T, int]]) -> dict[T, int]:
    counts = Counter[T]()
    for what, change in changes:
        counts[what] += change
    return {what: change for what, change in counts.items() if change}


async def _keep(tx: DriverTransaction, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
    if len(rows) > _FEW:
        await tx.load(table, columns, rows)
        return
    for row in rows:
        values: dict[str, Any] = dict(zip(columns, row, strict=True))
        await insert(tx, table, values)


ALL: Final = "no > 0"
"""All notes, in words that let a planner use their key: it is kept from reading a table from end to end."""

# ruff: noqa: S608 - nothing but our own names is put into these
_COUNT = " + ".join(
    f"(SELECT count(*) FROM (SELECT no FROM {table} WHERE {ALL} LIMIT $1) AS {table}_found)"
    for table in ("uncounted", "uncounted_texts")
)
_COUNT = f"SELECT {_COUNT}"
_TAKE = (
    f"DELETE FROM uncounted WHERE no IN (SELECT no FROM uncounted WHERE {ALL} ORDER BY no LIMIT $1) "
    f"RETURNING change, {', '.join(Listed._fields)}"
)
_TAKE_TEXTS = f"""
    DELETE FROM uncounted_texts WHERE no IN (
        SELECT no FROM (
            SELECT no, SUM(length(search)) OVER (ORDER BY no) - length(search) AS before FROM (
                SELECT no, search FROM uncounted_texts WHERE {ALL} ORDER BY no LIMIT $1
            ) AS oldest
        ) AS measured WHERE before < CAST($2 AS BIGINT)
    ) RETURNING change, search
"""
