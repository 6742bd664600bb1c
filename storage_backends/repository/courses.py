"""The catalogue: courses, their seats, their place in the search index, and the categories they make."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate

import msgspec

from learnflow_core.model import Category, Course, CourseSummary, Mode, Section
from learnflow_core.money import sort_key
from learnflow_core.pagination import Page, Slice
from learnflow_core.ports import CourseQuery, CourseSort, Paging
from learnflow_core.search import course_tokens
from storage_backends.driver import DriverTransaction, DuplicateError, Entry, Row, Value
from storage_backends.repository import blocks, searches, totals, uncounted, version
from storage_backends.repository.paging import Known, Listing, part, parts
from storage_backends.repository.sql import (
    MODES,
    Codec,
    Table,
    Where,
    insert,
    insert_unless,
    json_text,
    money,
    texts,
    update,
)
from storage_backends.repository.standing import COLUMNS, Change, Standing

_RATING = Codec(
    ("rating",), lambda value: (-1 if value is None else value,), lambda value: None if value < 0 else value
)
_SECTIONS = msgspec.json.Decoder(tuple[Section, ...])
_CURRICULUM = Codec(("curriculum",), lambda value: (json_text(value),), _SECTIONS.decode)
_PRICE = money("price_amount", "price_currency")

COURSES = Table(
    "courses JOIN course_texts ON course_texts.course_id = courses.id",
    Course,
    price=_PRICE,
    rating=_RATING,
    prerequisites=texts("prerequisites"),
    curriculum=_CURRICULUM,
)
OUTLINES = Table(
    "courses",
    Course,
    price=_PRICE,
    rating=_RATING,
    prerequisites=texts("prerequisites"),
    description=Codec((), lambda _: (), lambda: ""),
    curriculum=Codec((), lambda _: (), lambda: ()),
)
SUMMARIES = Table("courses", CourseSummary, price=_PRICE, rating=_RATING)

SETTLED_AT_ONCE = 350_000
"""How many letters the search index has, at most, of the courses that one `settle` moves: some 50,000 words.

A place that a course leaves for another is left by all its words, on a database where the index has the order.
"""

_SURVEYED = ("courses", "course_texts", "words", "spans", "blocks")
_TEXTS = ("description", "curriculum")
_FIXED = frozenset({"id", "account_id", "created_by", "created_at"})
_REPLACED = frozenset(Course.__struct_fields__) - _FIXED - {"students_base", "total_students", *_TEXTS}
"""The fields of a course that may change, except its texts and the numbers of its students."""


def _by(column: str, *, falling: bool) -> Listing[CourseSummary]:
    return Listing("courses", SUMMARIES.columns, SUMMARIES.make, key=((column, int), ("id", str)), falling=falling)


_ORDERS: dict[CourseSort, Listing[CourseSummary]] = {
    "relevance": _by("total_students", falling=True),
    "popular": _by("total_students", falling=True),
    "newest": _by("created_at", falling=True),
    "rating": _by("rating", falling=True),
    "price": _by("price_key", falling=False),
    "-price": _by("price_key", falling=True),
}
_CATEGORIES = Listing(
    "(SELECT slug, COALESCE(name, slug) AS name, COALESCE(courses, 0) + COALESCE(change, 0) AS courses FROM categories "
    "LEFT JOIN totals ON list = '@' || slug LEFT JOIN ("
    "SELECT category, CAST(SUM(change) AS BIGINT) AS change FROM uncounted "
    f"WHERE {uncounted.ALL} GROUP BY category"
    ") AS noted ON category = slug) AS counted",
    "slug, name, courses",
    lambda row: Category(*row[:3]),
    key=(("slug", str),),
    falling=False,
)

# ruff: noqa: S608 - nothing but our own names is put into these
_TAKE_SEAT = {
    mode: f"UPDATE courses SET {mode}_taken = {mode}_taken + 1 "
    f"WHERE id = $1 AND (seats IS NULL OR {mode}_taken < seats) RETURNING id"
    for mode in MODES
}
_SEATS_TAKEN = {mode: f"SELECT {mode}_taken FROM courses WHERE id = $1" for mode in MODES}
_FREE_SEAT = {mode: f"UPDATE courses SET {mode}_taken = {mode}_taken - 1 WHERE id = $1" for mode in MODES}


class Courses:
    """`learnflow_core.ports.Courses` in SQL."""

    def __init__(self, tx: DriverTransaction) -> None:
        self._tx = tx
        self.changed = False
        """Whether what the catalogue shows was changed in this transaction."""

    async def version(self) -> int:
        return await version.version(self._tx)

    async def add(self, course: Course) -> bool:
        (number,) = await self._tx.numbers(1)
        await self._make_categories([course])
        columns = _new_columns(course, number)
        if not await insert_unless(self._tx, "courses", columns):
            return False
        await insert(self._tx, "course_texts", _text_columns(course))
        await self._note([(None, _standing(columns))])
        return True

    async def add_all(self, courses: Sequence[Course]) -> None:
        if not courses:
            return
        numbers = await self._tx.numbers(len(courses))
        await self._make_categories(courses)
        rows = [_new_columns(course, number) for course, number in zip(courses, numbers, strict=True)]
        await self._load("courses", rows)
        await self._load("course_texts", [_text_columns(course) for course in courses])
        await self._note([(None, _standing(row)) for row in rows])

    async def get(self, course_id: str) -> Course | None:
        return COURSES.maybe(await self._tx.row(COURSES.select("WHERE courses.id = $1"), course_id))

    async def outline(self, course_id: str) -> Course | None:
        return OUTLINES.maybe(await self._tx.row(OUTLINES.select("WHERE id = $1"), course_id))

    async def by_external_ids(self, account_id: str, external_ids: Collection[str]) -> Mapping[str, Course]:
        wanted = COURSES.select(_WITH_EXTERNAL_IDS)
        found = map(COURSES.make, await self._tx.rows(wanted, account_id, json_text(external_ids)))
        return {course.external_id: course for course in found if course.external_id is not None}

    async def put(self, course: Course) -> bool:
        before = await self._tx.row(_LOCK, course.id)
        if before is None:
            raise LookupError(f"no course has the id {course.id}")
        await self._make_categories([course])
        try:
            async with self._tx.savepoint():
                await update(self._tx, "courses", course.id, _replaceable(course))
        except DuplicateError:
            return False
        await self._tx.rows(_SET_TEXTS, course.id, *COURSES.pack(course, only=_TEXTS).values())
        after = await self._tx.row(_SET_BASE, course.id, course.students_base)
        assert after is not None, "the row is locked"
        await self._note([(Standing(*before), Standing(*after))])
        return True

    async def list(self, query: CourseQuery, paging: Paging) -> Slice[CourseSummary]:
        where = Where().also("status = {}", query.status).when("category = {}", query.category)
        where.when("level = {}", query.level).when("account_id = {}", query.account_id)
        listing = _ORDERS[query.sort]
        if query.updated_since is not None:
            assert query.search is None, "what is searched for has an order of its own"
            return await part(self._tx, listing, paging, where, updated_since=query.updated_since)
        if query.search is None:
            return await part(self._tx, listing, paging, where, known=await self._known(query, listing, paging))
        found = await searches.matches(self._tx, query, query.search, where)
        segments = searches.by_relevance(found) if query.sort == "relevance" else [found]
        return await parts(listing, paging, segments, found.count)

    async def known(self, course_ids: Collection[str]) -> frozenset[str]:
        rows = await self._tx.rows(_KNOWN, json_text(course_ids))
        return frozenset(course_id for (course_id,) in rows)

    async def categories(self, paging: Paging) -> Slice[Category]:
        return await part(self._tx, _CATEGORIES, paging, Where().also("courses > 0"))

    async def name_category(self, slug: str, name: str) -> None:
        if await self._tx.row(_NAME_CATEGORY, slug, name) is not None:
            await self._change()

    async def seats_taken(self, course_id: str, mode: Mode) -> int:
        row = await self._tx.row(_SEATS_TAKEN[mode], course_id)
        assert row is not None, "callers have just read the course"
        return int(row[0])

    async def take_seat(self, course_id: str, mode: Mode) -> bool:
        taken = await self._tx.row(_TAKE_SEAT[mode], course_id) is not None
        if taken:
            await self._unsettle(course_id, mode)
        return taken

    async def free_seat(self, course_id: str, mode: Mode) -> None:
        await self._tx.rows(_FREE_SEAT[mode], course_id)
        await self._unsettle(course_id, mode)

    async def settle(self, limit: int) -> int:
        ids = json_text(_first(await self._tx.rows(_UNSETTLED, limit)))
        await self._tx.rows(_TAKE_UNSETTLED, ids)
        before = {standing.id: standing for standing in map(Standing._make, await self._tx.rows(_STANDINGS, ids))}
        settled = list(map(Standing._make, await self._tx.rows(_SETTLE, ids)))
        pairs = ((before[standing.id], standing) for standing in settled)
        await self._note([(was, now) for was, now in pairs if was != now])
        return len(settled)

    async def uncounted(self, limit: int) -> int:
        return await uncounted.count(self._tx, limit)

    async def survey(self) -> None:
        await self._tx.survey(_SURVEYED)

    async def _known(self, query: CourseQuery, listing: Listing[CourseSummary], paging: Paging) -> Known | None:
        """What is kept of a list that a page is asked of, as far as the page needs it; None where nothing is."""
        if not isinstance(paging, Page) or not totals.has_total(query):
            return None
        if paging.offset < blocks.BLOCK:
            return Known(await totals.total(self._tx, query))
        counted = await blocks.counted(self._tx, query, listing.key[0][0], falling=listing.falling)
        return Known(counted.total, counted.start)

    async def _unsettle(self, course_id: str, mode: Mode) -> None:
        # After the course's own row, never before it: `settle` first takes the mark away and then waits for the row, so
        # that a seat taken meanwhile is either counted by it or leaves a new mark.
        if mode == "live":
            await insert_unless(self._tx, "unsettled", {"course_id": course_id}, "(course_id)")

    async def _note(self, changes: Sequence[Change]) -> None:
        """Bring what shows courses after their rows, which have been written; what counts them follows at a tally."""
        await uncounted.note(self._tx, changes)
        known = [(before and _entry(before), _entry(after)) for before, after in changes]
        await self._tx.index([(before, after) for before, after in known if before != after])
        if any("published" in (after.status, before and before.status) for before, after in changes):
            await self._change()

    async def _change(self) -> None:
        """Count a change of what the catalogue shows, once in a transaction."""
        if not self.changed:
            self.changed = True
            await version.change(self._tx)

    async def _load(self, table: str, rows: Sequence[Mapping[str, Value]]) -> None:
        await self._tx.load(table, tuple(rows[0]), [tuple(row.values()) for row in rows])

    async def _make_categories(self, courses: Iterable[Course]) -> None:
        for slug in sorted({course.category for course in courses}):  # in one order: nobody waits in a circle
            await insert_unless(self._tx, "categories", {"slug": slug}, "(slug)")


def tokens(course: Course) -> str:
    """What the search index holds of a course."""
    return course_tokens(course.title, course.instructor, course.description, course.category, course.level)


def _replaceable(course: Course) -> dict[str, Value]:
    """The columns of `courses` that are written anew whenever a course is."""
    replaced = COURSES.pack(course, only=_REPLACED)
    return replaced | {"price_key": sort_key(course.price), "search": tokens(course)}


def _new_columns(course: Course, number: int) -> dict[str, Value]:
    """Every column of `courses` that has no default."""
    counted = {"n": number, "students_base": course.students_base, "total_students": course.students_base}
    return _replaceable(course) | COURSES.pack(course, only=_FIXED) | counted


def _text_columns(course: Course) -> dict[str, Value]:
    return {"course_id": course.id} | COURSES.pack(course, only=_TEXTS)


def _first(unsettled: Sequence[Row]) -> list[str]:
    """Those of the courses, each with the length of its text, that are settled at once; at least one, if there is."""
    sums = accumulate(length for _, length in unsettled)
    fitting = sum(end <= SETTLED_AT_ONCE for end in sums)
    return [course_id for course_id, _ in unsettled[: max(1, fitting)]]


def _standing(columns: Mapping[str, Value]) -> Standing:
    return Standing._make(columns[name] for name in Standing._fields)


def _entry(standing: Standing) -> Entry:
    published = standing.status == "published"
    return Entry(standing.n, published, standing.total_students, standing.id, standing.search)


# A guarded UPDATE that answers the row is a lock on every database, and shows what the row was.
_LOCK = f"UPDATE courses SET updated_at = updated_at WHERE id = $1 RETURNING {COLUMNS}"
_SET_BASE = (
    "UPDATE courses SET students_base = $2, total_students = live_taken + CAST($2 AS BIGINT) "
    f"WHERE id = $1 RETURNING {COLUMNS}"
)
_SET_TEXTS = "UPDATE course_texts SET description = $2, curriculum = $3 WHERE course_id = $1"
_KNOWN = "SELECT id FROM courses WHERE id IN (SELECT value FROM json_each(CAST($1 AS TEXT)))"
_WITH_EXTERNAL_IDS = "WHERE account_id = $1 AND external_id IN (SELECT value FROM json_each(CAST($2 AS TEXT)))"
_NAME_CATEGORY = (
    "INSERT INTO categories (slug, name) VALUES ($1, $2) "
    "ON CONFLICT (slug) DO UPDATE SET name = excluded.name WHERE categories.name IS NULL RETURNING 1"
)
_UNSETTLED = (
    "SELECT course_id, length(search) FROM unsettled JOIN courses ON id = course_id ORDER BY course_id LIMIT $1"
)
_TAKE_UNSETTLED = "DELETE FROM unsettled WHERE course_id IN (SELECT value FROM json_each(CAST($1 AS TEXT)))"
_STANDINGS = f"SELECT {COLUMNS} FROM courses WHERE id IN (SELECT value FROM json_each(CAST($1 AS TEXT)))"
_SETTLE = (
    "UPDATE courses SET total_students = students_base + live_taken "
    f"WHERE id IN (SELECT value FROM json_each(CAST($1 AS TEXT))) RETURNING {COLUMNS}"
)
