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
from itertools import accumulate, groupby, islice
from operator import itemgetter
from typing import Final, TypeVar

from learnflow_core.ports import CourseQuery
from storage_backends.driver import DriverTransaction, Row
from storage_backends.repository import uncounted
from storage_backends.repository.sql import Where, json_rows, json_text
from storage_backends.repository.standing import Listed

T = TypeVar("T")

BLOCK: Final = 256
"""How many courses a block is made for. With more than twice as many it is split; with a quarter, or less, it is joined
to one beside it, unless both have more than twice as many."""
SPAN: Final = 64
"""How many blocks a span is made for, in the same way."""

SORTS: Final = ("total_students", "created_at", "rating", "price_key")
"""The columns of `courses` that begin an order."""

_AT_ONCE: Final = 2_000
_FIRST: Final = (-(2**63), "")
_COURSES: Final[Callable[[Row], int]] = itemgetter(-1)
_NOTED: Final = 0
"""No span's number: what is noted comes with the spans, under this one."""

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
    """What is counted of a list in the order of a column (`falling`: downwards): its spans, which have the courses that
    are `kept`, and how many are noted, and not in these yet, that `came` to the list and that `left` it."""

    tx: DriverTransaction
    query: CourseQuery
    sort: str
    falling: bool
    spans: Sequence[Row]
    kept: int
    came: int
    left: int

    @property
    def total(self) -> int:
        """How many courses the list has."""
        return self.kept + self.came - self.left

    async def start(self, offset: int) -> tuple[Place | None, int]:
        """Where to begin to read for an offset below the total, and how many courses to pass over.

        Reading begins at this place, or in a falling order below it; None is the beginning of the list.
        """
        rank = self.total - 1 - offset if self.falling else offset
        # Where to look among what is counted, so that what is noted cannot have moved the course before the place.
        aim = rank + self.left if self.falling else rank - self.came
        if not 0 <= aim < self.kept:
            return None, offset
        begins, ends = await _around(self.tx, self.spans, aim)
        nearest = ends if self.falling else begins
        if nearest is None:
            return None, offset
        place, counted = nearest
        before = counted + (await self._noted_before(place) if self.came or self.left else 0)
        return place, before - 1 - rank if self.falling else rank - before

    async def _noted_before(self, place: Place) -> int:
        """How many more courses are noted than counted before a place."""
        noted = uncounted.among(self.query.category, self.query.level)
        noted.also(f"({self.sort}, id) < ({{}}, {{}})", *place)
        row = await self.tx.row(_BEFORE.format(noted=noted), *noted.args)
        assert row is not None, "an aggregate answers one row"
        return int(row[0])


async def counted(tx: DriverTransaction, query: CourseQuery, sort: str, *, falling: bool) -> Counted:
    """What is counted of a list that has a total, in the order of a column."""
    noted = uncounted.among(query.category, query.level)
    order = (noted.parameter(part) for part in (sort, query.category or "", query.level or ""))
    rows = await tx.rows(_SPANS.format(*order, noted=noted), *noted.args)
    ((_, came, _, left),) = (row for row in rows if row[0] == _NOTED)
    spans = [row for row in rows if row[0] != _NOTED]
    return Counted(tx, query, sort, falling, spans, sum(map(_COURSES, spans)), came, left)


async def follow(tx: DriverTransaction, courses: Mapping[Listed, int]) -> None:
    """Count so many more courses in the blocks that they are in."""
    moved = Counter[_Entry]()
    for course, change in courses.items():
        moved.update(dict.fromkeys(_entries(course), change))
    entries = {entry: change for entry, change in moved.items() if change}
    if not entries:
        return
    changed = await _changed(tx, entries)
    blocks: dict[int, int] = dict(await _add(tx, "blocks", ((block, change) for block, _, change in changed)))
    await _add(tx, "spans", ((span, change) for _, span, change in changed))
    await _join_blocks(tx, {span for block, span, _ in changed if 4 * blocks[block] <= BLOCK})
    await _split_blocks(tx, [block for block, held in blocks.items() if held > 2 * BLOCK])


def _entries(course: Listed) -> list[_Entry]:
    return [(sort, course.category, course.level, getattr(course, sort), course.id) for sort in SORTS]


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
    spans = set[int]()
    for block, span, *order, key, course_id, courses in await tx.rows(_FULL, json_text(full)) if full else ():
        size = -(-courses // (courses // BLOCK))
        starts = await _every(tx, order, await _stretch(tx, span, order, (key, course_id)), size)
        for number, (start_key, start_id) in enumerate(starts, 1):
            made.append((span, start_key, start_id, min(size, courses - number * size)))
        kept.append((block, size - courses))
        spans.add(span)
    if made:
        numbers = await tx.numbers(len(made))
        await tx.load("blocks", _BLOCK_COLUMNS, [(no, *block) for no, block in zip(numbers, made, strict=True)])
        await _add(tx, "blocks", kept)
        await _split_spans(tx, sorted(spans))


async def _stretch(tx: DriverTransaction, span: int, order: Sequence[str], place: Place) -> Where:
    """The conditions on places in a list that are in the block of a span which begins at this one."""
    sort, category, level = order
    held = Where().when("category = {}", category or None).when("level = {}", level or None)
    held.also(f"({sort}, id) >= ({{}}, {{}})", *place)
    behind = await tx.row(_BEHIND, span, *place, *order)
    if behind is None:
        return held
    if behind[0] == place[0]:  # PostgreSQL would read on to where the column changes: most may have no rating
        held.also(f"{sort} = {{}}", place[0]).also("id < {}", behind[1])
    return held.also(f"({sort}, id) < ({{}}, {{}})", *behind)


async def _every(tx: DriverTransaction, order: Sequence[str], held: Where, size: int) -> Sequence[Row]:
    """The places of every so-manieth course of a stretch, but not of the first; as they are counted, without notes."""
    every = f"CAST({held.parameter(size)} AS BIGINT)"
    return await tx.rows(_EVERY.format(sort=order[0], held=held, noted=uncounted.ALL, every=every), *held.args)


async def _split_spans(tx: DriverTransaction, spans: Iterable[int]) -> None:
    """Make several of those with too many blocks, of about as many."""
    for span in spans:
        blocks = await tx.rows(_BLOCKS, span)
        if len(blocks) <= 2 * SPAN:
            continue
        row = await tx.row(_ORDER, span)
        assert row is not None, "it has just been read"
        size = -(-len(blocks) // (len(blocks) // SPAN))
        for at in range(size, len(blocks), size):
            _, key, course_id, _ = blocks[at]
            courses = sum(count for *_, count in blocks[at : at + size])
            (number,) = await tx.numbers(1)
            await tx.load("spans", _SPAN_COLUMNS, [(number, *row, key, course_id, courses)])
            await tx.rows(_MOVE, number, json_text(block for block, *_ in blocks[at : at + size]))
            await _add(tx, "spans", [(span, -courses)])


async def _join_blocks(tx: DriverTransaction, spans: Collection[int]) -> None:
    """Make one of neighbours in these spans where one of them is small; then of spans with few blocks."""
    joined: list[tuple[int, int]] = []
    gone: list[int] = []
    few: list[int] = []
    for span, found in groupby(await tx.rows(_BLOCKS_OF, json_text(spans)) if spans else (), key=itemgetter(0)):
        groups = neighbours([(block, courses) for _, block, courses in found], BLOCK)
        for (first, _), *others in groups:
            joined += [(first, courses) for _, courses in others]
            gone += [block for block, _ in others]
        if 4 * len(groups) <= SPAN:
            few.append(span)
    if gone:
        await tx.rows(_FORGET.format(table="blocks"), json_text(gone))
        await _add(tx, "blocks", joined)
    if few:
        await _join_spans(tx, few)


async def _join_spans(tx: DriverTransaction, few: Collection[int]) -> None:
    """Make one of neighbours in the lists of these spans where one of them has few blocks."""
    found = await tx.rows(_SPANS_BESIDE, json_text(few))
    courses = {span: held for *_, span, held, _ in found}
    joined = set[int]()
    for _, spans in groupby(found, key=lambda row: row[:3]):
        for (first, _), *others in neighbours([(span, blocks) for *_, span, _, blocks in spans], SPAN):
            if others:
                gone = [span for span, _ in others]
                await tx.rows(_MOVE_ALL, first, json_text(gone))
                await tx.rows(_FORGET.format(table="spans"), json_text(gone))
                await _add(tx, "spans", [(first, courses[span]) for span in gone])
                joined.add(first)
    await _join_blocks(tx, joined)


def neighbours(sizes: Iterable[tuple[int, int]], made_for: int) -> list[list[tuple[int, int]]]:
    """Numbers in an order, with their sizes, in groups that are to be one: a small one joins what is beside it.

    What is as large as a quarter of what it is `made_for`, or less, is small; none grows larger than twice that.
    """
    groups: list[list[tuple[int, int]]] = []
    held = 0
    for number, size in sizes:
        if groups and 4 * min(held, size) <= made_for and held + size <= 2 * made_for:
            groups[-1].append((number, size))
            held += size
        else:
            groups.append([(number, size)])
            held = size
    return groups


_SPAN_COLUMNS = ("no", "sort", "category", "level", "key", "id", "courses")
_BLOCK_COLUMNS = ("no", "span", "key", "id", "courses")

# ruff: noqa: S608 - nothing but our own names is put into these
_OF_THESE = "IN (SELECT CAST(value AS BIGINT) FROM json_each(CAST({} AS TEXT)))"
_SUM = "CAST(COALESCE(SUM({}), 0) AS BIGINT)"
_SPANS = (
    f"SELECT {_NOTED} AS no, {_SUM.format('CASE WHEN change > 0 THEN change END')} AS key, '' AS id, "
    f"{_SUM.format('CASE WHEN change < 0 THEN -change END')} AS courses FROM uncounted WHERE {{noted}} UNION ALL "
    "SELECT no, key, id, courses FROM spans WHERE sort = {0} AND category = {1} AND level = {2} "
    "ORDER BY key, id"
)
_BEFORE = f"SELECT {_SUM.format('change')} FROM uncounted WHERE {{noted}}"
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
    f"WHERE blocks.no {_OF_THESE.format('$1')} ORDER BY blocks.no"
)
_BEHIND = """
    SELECT key, id FROM (
        SELECT key, id FROM blocks WHERE span = $1 AND (key, id) > ($2, $3) ORDER BY key, id LIMIT 1
    ) AS block UNION ALL SELECT key, id FROM (
        SELECT key, id FROM spans WHERE sort = $4 AND category = $5 AND level = $6 AND (key, id) > ($2, $3)
        ORDER BY key, id LIMIT 1
    ) AS span ORDER BY key, id LIMIT 1
"""
_EVERY = """
    SELECT key, id FROM (
        SELECT key, id, row_number() OVER (ORDER BY key, id) - 1 AS at FROM (
            SELECT key, id FROM (
                SELECT {sort} AS key, id, 1 AS change FROM courses WHERE status = 'published' AND {held}
                UNION ALL SELECT {sort}, id, -change FROM uncounted WHERE {noted} AND {held}
            ) AS changes GROUP BY key, id HAVING SUM(change) > 0
        ) AS counted
    ) AS numbered WHERE at % {every} = 0 AND at > 0 ORDER BY at
"""
_MOVE = f"UPDATE blocks SET span = $1 WHERE no {_OF_THESE.format('$2')}"
_MOVE_ALL = f"UPDATE blocks SET span = $1 WHERE span {_OF_THESE.format('$2')}"
_FORGET = f"DELETE FROM {{table}} WHERE no {_OF_THESE.format('$1')}"
_BLOCKS_OF = f"SELECT span, no, courses FROM blocks WHERE span {_OF_THESE.format('$1')} ORDER BY span, key, id"
_SPANS_BESIDE = f"""
    SELECT spans.sort, spans.category, spans.level, no, courses, (SELECT count(*) FROM blocks WHERE span = spans.no)
    FROM (SELECT DISTINCT sort, category, level FROM spans WHERE no {_OF_THESE.format("$1")}) AS lists
    JOIN spans ON spans.sort = lists.sort AND spans.category = lists.category AND spans.level = lists.level
    ORDER BY spans.sort, spans.category, spans.level, key, id
"""
