"""Where in the lists of the catalogue courses stand: counted in blocks, so that any page begins near a known place.

Every list that has a total is kept in every order as blocks of some hundred courses, and some dozen blocks as a span. A
block begins at a position (key, id) of the order, holds the courses up to where the next one begins, and knows how many
they are. The first begins before everything, so that every position is in one block of a list.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from operator import itemgetter
from typing import Final, TypeVar

from learnflow_core.ports import CourseQuery
from storage_backends.driver import DriverTransaction, Row
from storage_backends.repository import uncounted
from storage_backends.repository.sql import Where, json_rows, json_text
from storage_backends.repository.standing import Change, Standing

T = TypeVar("T")

BLOCK: Final = 256
"""How many courses a block is made for; one with more than twice as many is split."""
SPAN: Final = 64
"""How many such blocks a span is made for."""

SORTS: Final = ("total_students", "created_at", "rating", "price_key")
"""The columns of `courses` that begin an order."""

_AT_ONCE: Final = 2_000
_FIRST: Final = (-(2**63), "")
_COURSES: Final[Callable[[Row], int]] = itemgetter(-1)

Place = tuple[int, str]
"""A position of an order: what its column holds, and an id."""
_Bound = tuple[Place, int]
"""Where a block begins, and how many courses are counted before it."""
_Order = tuple[str, str, str]
"""A list in an order: the column, the category and the level; an empty filter is none."""
_Entry = tuple[str, str, str, int, str]
"""A course in an order of all lists that it is in: the column, its category and level, and its place."""


@dataclass(frozen=True)
class Counted:
    """What is counted of a list in one order: its spans, which have the courses that are `kept`, and its changes that
    are noted and not in these yet."""

    tx: DriverTransaction
    spans: Sequence[Row]
    kept: int
    noted: Sequence[tuple[Place, int]]
    falling: bool

    @property
    def total(self) -> int:
        """How many courses the list has."""
        return self.kept + sum(change for _, change in self.noted)

    async def start(self, offset: int) -> tuple[Place | None, int]:
        """Where to begin to read for an offset below the total, and how many courses to pass over.

        Reading begins at this place, or in a falling order below it; None is the beginning of the list.
        """
        came = sum(change for _, change in self.noted if change > 0)
        left = sum(-change for _, change in self.noted if change < 0)
        rank = self.kept + came - left - 1 - offset if self.falling else offset
        # Where to look among what is counted, so that what is noted cannot have moved the course before the place.
        aim = rank + left if self.falling else rank - came
        if not 0 <= aim < self.kept:
            return None, offset
        begins, ends = await _around(self.tx, self.spans, aim)
        nearest = ends if self.falling else begins
        if nearest is None:
            return None, offset
        place, counted = nearest
        before = counted + sum(change for at, change in self.noted if at < place)
        return place, before - 1 - rank if self.falling else rank - before


async def counted(tx: DriverTransaction, query: CourseQuery, sort: str, *, falling: bool) -> Counted:
    """What is counted of a list that has a total, in the order of a column."""
    category, level = query.category, query.level
    noted = uncounted.among(category, level)
    order = (noted.parameter(part) for part in (sort, category or "", level or ""))
    rows = await tx.rows(_SPANS.format(*order, sort=sort, noted=noted), *noted.args)
    spans = [row for row in rows if row[0] is not None]
    changes = [(row[1:3], row[3]) for row in rows if row[0] is None]
    return Counted(tx, spans, sum(map(_COURSES, spans)), changes, falling)


async def follow(tx: DriverTransaction, changes: Sequence[Change]) -> None:
    """Count the courses that came to blocks, and those that left them; their rows have been written."""
    moved = Counter[_Entry]()
    for before, after in changes:
        moved.subtract(_entries(before))
        moved.update(_entries(after))
    entries = {entry: change for entry, change in moved.items() if change}
    if not entries:
        return
    changed = await _changed(tx, entries)
    blocks = await _add(tx, "blocks", ((block, change) for block, _, change in changed))
    spans = await _add(tx, "spans", ((span, change) for _, span, change in changed))
    await _split_blocks(tx, [block for block, courses in blocks if courses > 2 * BLOCK])
    await _split_spans(tx, [span for span, courses in spans if courses > 2 * SPAN * BLOCK])
    if any(courses == 0 for _, courses in blocks):
        await _forget_empty(tx, [block for block, _ in blocks], [span for span, _ in spans])


def _entries(standing: Standing | None) -> list[_Entry]:
    if standing is None or standing.status != "published":
        return []
    category, level = standing.category, standing.level
    return [(sort, category, level, getattr(standing, sort), standing.id) for sort in SORTS]


async def _around(tx: DriverTransaction, spans: Sequence[Row], rank: int) -> tuple[_Bound, _Bound | None]:
    """Where the block begins that holds the course of a rank, and where the next one does, if there is one."""
    span, before = _holder(spans, rank)
    blocks = await tx.rows(_BLOCKS, spans[span][0])
    block, within = _holder(blocks, rank - before)
    begins = (blocks[block][1:3], before + within)
    behind = [*blocks[block + 1 :], *spans[span + 1 : span + 2]]
    return begins, (behind[0][1:3], begins[1] + blocks[block][3]) if behind else None


def _holder(counted: Sequence[Row], rank: int) -> tuple[int, int]:
    """Which of these, whose last column says how many courses each has, has the one of a rank; and how many come
    before it."""
    sums = [0, *accumulate(map(_COURSES, counted))]
    at = bisect_right(sums, rank) - 1
    return at, sums[at]


async def _changed(tx: DriverTransaction, entries: Mapping[_Entry, int]) -> Sequence[Row]:
    """The blocks whose numbers of courses change, each with its span and by how many."""
    given = [
        json_text(value for entry, change in part for value in (*entry, change)) for part in _portions(entries.items())
    ]
    changed = [row for part in given for row in await tx.rows(_CHANGED, part)]
    if any(block is None for block, _, _ in changed):
        await _begin(tx, {entry[:3] for entry in entries})
        changed = [row for part in given for row in await tx.rows(_CHANGED, part)]
    return changed


def _portions(items: Iterable[T]) -> Iterator[list[T]]:
    """As many at once as one statement looks up within a fraction of its time."""
    rest = iter(items)
    while portion := list(islice(rest, _AT_ONCE)):
        yield portion


async def _begin(tx: DriverTransaction, orders: Iterable[_Order]) -> None:
    """Make the first span and block of lists that have none."""
    wanted = {
        order
        for sort, category, level in orders
        for order in ((sort, "", ""), (sort, category, ""), (sort, "", level), (sort, category, level))
    }
    missing = sorted(wanted.difference(await tx.rows(_BEGUN, *_FIRST)))
    numbers = await tx.numbers(len(missing))
    spans = [(number, *order, *_FIRST, 0) for number, order in zip(numbers, missing, strict=True)]
    await tx.load("spans", _SPAN_COLUMNS, spans)
    await tx.load("blocks", _BLOCK_COLUMNS, [(number, number, *_FIRST, 0) for number in numbers])


async def _add(tx: DriverTransaction, table: str, changes: Iterable[tuple[int, int]]) -> Sequence[Row]:
    """Let blocks or spans hold so many more; the number of each, and how many it holds now."""
    added = Counter[int]()
    for number, change in changes:
        added[number] += change
    given = json_text(value for pair in sorted(added.items()) if pair[1] for value in pair)
    return await tx.rows(_ADD.format(table=table), given)


async def _split_blocks(tx: DriverTransaction, full: Collection[int]) -> None:
    """Make several of each, of about as many courses."""
    made: list[Row] = []
    kept: list[tuple[int, int]] = []
    for block, span, *order, key, course_id, courses in await tx.rows(_FULL, json_text(full)) if full else ():
        size = -(-courses // (courses // BLOCK))
        starts = await _every(tx, order, (key, course_id), courses, size)
        for number, (start_key, start_id) in enumerate(starts, 1):
            made.append((span, start_key, start_id, min(size, courses - number * size)))
        kept.append((block, size - courses))
    if made:
        numbers = await tx.numbers(len(made))
        await tx.load("blocks", _BLOCK_COLUMNS, [(no, *block) for no, block in zip(numbers, made, strict=True)])
        await _add(tx, "blocks", kept)


async def _every(tx: DriverTransaction, order: Sequence[str], place: Place, courses: int, size: int) -> Sequence[Row]:
    """The places of every so-manieth course of an order, among so many from a place on, but not of the first."""
    sort, category, level = order
    held = Where().also("status = 'published'").when("category = {}", category or None)
    held.when("level = {}", level or None).also(f"({sort}, id) >= ({{}}, {{}})", *place)
    limit, every = held.parameter(courses), f"CAST({held.parameter(size)} AS BIGINT)"
    return await tx.rows(_EVERY.format(sort=sort, held=held, limit=limit, every=every), *held.args)


async def _split_spans(tx: DriverTransaction, full: Iterable[int]) -> None:
    """Make several of each, of about as many blocks."""
    for span in full:
        blocks = await tx.rows(_BLOCKS, span)
        row = await tx.row(_ORDER, span)
        assert row is not None, "it has just been written"
        size = -(-len(blocks) // max(2, len(blocks) // SPAN))
        for at in range(size, len(blocks), size):
            _, key, course_id, _ = blocks[at]
            courses = sum(count for *_, count in blocks[at : at + size])
            (number,) = await tx.numbers(1)
            await tx.load("spans", _SPAN_COLUMNS, [(number, *row, key, course_id, courses)])
            await tx.rows(_MOVE, number, json_text(block for block, *_ in blocks[at : at + size]))
            await _add(tx, "spans", [(span, -courses)])


async def _forget_empty(tx: DriverTransaction, blocks: Iterable[int], spans: Iterable[int]) -> None:
    """Take out those of them that hold nothing, unless positions would be left in none."""
    await tx.rows(_FORGET_BLOCKS_OF_SPANS, json_text(spans))
    await tx.rows(_FORGET_SPANS, json_text(spans))
    await tx.rows(_FORGET_BLOCKS, json_text(blocks))


_SPAN_COLUMNS = ("no", "sort", "category", "level", "key", "id", "courses")
_BLOCK_COLUMNS = ("no", "span", "key", "id", "courses")

# ruff: noqa: S608 - nothing but our own names is put into these
_SPANS = (
    "SELECT no, key, id, courses FROM spans WHERE sort = {0} AND category = {1} AND level = {2} "
    "UNION ALL SELECT CAST(NULL AS BIGINT), {sort}, id, change FROM uncounted WHERE {noted} ORDER BY key, id"
)
_BLOCKS = "SELECT no, key, id, courses FROM blocks WHERE span = $1 ORDER BY key, id"
_ORDER = "SELECT sort, category, level FROM spans WHERE no = $1"
_BEGUN = "SELECT sort, category, level FROM spans WHERE key = $1 AND id = $2"
_ENTRIES = json_rows("$1", "sort", "category", "level", "key", "id", "change")
_CHANGED = f"""
    SELECT no, span, change FROM (
        SELECT found, CAST(SUM(change) AS BIGINT) AS change FROM (
            SELECT CAST(change AS BIGINT) AS change, (
                SELECT no FROM blocks WHERE span = (
                    SELECT no FROM spans WHERE spans.sort = entry.sort
                        AND spans.category = CASE WHEN of_category = 1 THEN entry.category ELSE '' END
                        AND spans.level = CASE WHEN of_level = 1 THEN entry.level ELSE '' END
                        AND (spans.key, spans.id) <= (CAST(entry.key AS BIGINT), entry.id)
                    ORDER BY spans.key DESC, spans.id DESC LIMIT 1
                ) AND (blocks.key, blocks.id) <= (CAST(entry.key AS BIGINT), entry.id)
                ORDER BY blocks.key DESC, blocks.id DESC LIMIT 1
            ) AS found
            FROM {_ENTRIES} AS entry CROSS JOIN (
                SELECT 0 AS of_category, 0 AS of_level UNION ALL SELECT 1, 0 UNION ALL SELECT 0, 1 UNION ALL SELECT 1, 1
            ) AS lists
        ) AS entries GROUP BY found HAVING SUM(change) <> 0
    ) AS changes LEFT JOIN blocks ON no = found
"""
_ADD = (
    "UPDATE {table} SET courses = courses + CAST(change AS BIGINT) FROM "
    + json_rows("$1", "number", "change")
    + " AS changes WHERE no = CAST(number AS BIGINT) RETURNING no, courses"
)
_FULL = (
    "SELECT blocks.no, span, sort, category, level, blocks.key, blocks.id, blocks.courses "
    "FROM blocks JOIN spans ON spans.no = span "
    "WHERE blocks.no IN (SELECT CAST(value AS BIGINT) FROM json_each(CAST($1 AS TEXT))) ORDER BY blocks.no"
)
_EVERY = (
    "SELECT key, id FROM (SELECT {sort} AS key, id, row_number() OVER (ORDER BY {sort}, id) - 1 AS at FROM ("
    "SELECT {sort}, id FROM courses WHERE {held} ORDER BY {sort}, id LIMIT {limit}"
    ") AS held) AS numbered WHERE at % {every} = 0 AND at > 0 ORDER BY at"
)
_MOVE = "UPDATE blocks SET span = $1 WHERE no IN (SELECT CAST(value AS BIGINT) FROM json_each(CAST($2 AS TEXT)))"
_EMPTY_SPANS = (
    "SELECT no FROM spans WHERE courses = 0 AND id <> '' "
    "AND no IN (SELECT CAST(value AS BIGINT) FROM json_each(CAST($1 AS TEXT)))"
)
_FORGET_BLOCKS_OF_SPANS = f"DELETE FROM blocks WHERE span IN ({_EMPTY_SPANS})"
_FORGET_SPANS = f"DELETE FROM spans WHERE no IN ({_EMPTY_SPANS})"
_FORGET_BLOCKS = (
    "DELETE FROM blocks WHERE courses = 0 "
    "AND no IN (SELECT CAST(value AS BIGINT) FROM json_each(CAST($1 AS TEXT))) "
    "AND NOT EXISTS (SELECT 1 FROM spans WHERE spans.no = span AND spans.key = blocks.key AND spans.id = blocks.id)"
)
