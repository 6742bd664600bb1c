"""Making anew what finds and counts the courses of the catalogue. All of it follows from their rows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from storage_backends.driver import DriverTransaction, Entry, Value
from storage_backends.repository import version
from storage_backends.repository.checks import Remedy
from storage_backends.repository.courses import COURSES, tokens
from storage_backends.repository.standing import Listed

_COURSES_AT_ONCE: Final = 500


async def searched(tx: DriverTransaction) -> AsyncIterator[Sequence[tuple[Entry, str]]]:
    """Every course, many at once: as the index should know it by its row, and the tokens that the row should have."""
    number = 0
    while rows := await tx.rows(_NEXT_COURSES, number, _COURSES_AT_ONCE):
        yield [_indexed(*row) for row in rows]
        number = rows[-1][0]


async def recount(tx: DriverTransaction) -> None:
    """Forget all counts, and note every published course as one that has just come: what is noted is counted by the
    sweep, and by all who read until then."""
    for statement in _AS_IF_NEW:
        await tx.rows(statement)
    await version.change(tx)


async def reindex(tx: DriverTransaction) -> None:
    """Let rows and index have of every course the tokens that it should be found by; what counts them follows."""
    await tx.clear_index()
    async for courses in searched(tx):
        for entry, computed in courses:
            if entry.tokens != computed:
                await tx.rows("UPDATE courses SET search = $2 WHERE n = $1", entry.n, computed)
        await tx.index([(None, entry._replace(tokens=computed)) for entry, computed in courses])
    await recount(tx)


_COUNT: Final = "have the next sweep count the courses of all lists and words again"
RECOUNT: Final = Remedy(_COUNT, rebuild=recount)
"""What helps where counts of lists or words are wrong."""
REINDEX: Final = Remedy(f"write the search index again, and {_COUNT}", rebuild=reindex)
"""What helps where the index does not find what it should; the other goes with it."""


def _indexed(number: int, kept: str, *columns: Value) -> tuple[Entry, str]:
    course = COURSES.make(columns)
    entry = Entry(number, course.status == "published", course.total_students, course.id, kept)
    return entry, tokens(course)


# ruff: noqa: S608 - nothing but our own names is put into these
_NEXT_COURSES = (
    f"SELECT n, search, {COURSES.columns} FROM courses JOIN course_texts ON course_texts.course_id = courses.id "
    "WHERE n > $1 ORDER BY n LIMIT $2"
)
# Nothing else has had a course's own number, and it is lower than that of any note to come.
_LISTED = ", ".join(Listed._fields)
_AS_IF_NEW = (
    *(f"DELETE FROM {table}" for table in ("blocks", "spans", "totals", "words", "uncounted", "uncounted_texts")),
    f"INSERT INTO uncounted (no, change, {_LISTED}) SELECT n, 1, {_LISTED} FROM courses WHERE status = 'published'",
    "INSERT INTO uncounted_texts (no, change, search) SELECT n, 1, search FROM courses WHERE status = 'published'",
)
