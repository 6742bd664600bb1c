"""Every list of the application, by page and by cursor: one order, one way to count, one way to go on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.pagination import Cursor, Page, Position, Slice
from learnflow_core.ports import Paging
from storage_backends.driver import DriverTransaction, Row, Value
from storage_backends.repository.sql import Where

T = TypeVar("T")


@dataclass(frozen=True)
class Listing(Generic[T]):
    """A list: where its items are, and in what order.

    `key` names the columns it is ordered by with their types, all in one direction (so that a position is found by one
    comparison of rows, which an index answers); the last of them identifies an item. `make` makes an item of a row that
    begins with `columns`.
    """

    table: str
    columns: str
    make: Callable[[Row], T]
    key: tuple[tuple[str, type[int | str]], ...]
    falling: bool

    @property
    def order(self) -> str:
        """The ORDER BY of the list."""
        direction = "DESC" if self.falling else "ASC"
        return ", ".join(f"{column} {direction}" for column, _ in self.key)

    @property
    def position(self) -> str:
        """The columns of the key."""
        return ", ".join(column for column, _ in self.key)

    @cached_property
    def selected(self) -> tuple[str, ...]:
        """What is read of an item: its columns, and those of the key that are none of these."""
        return tuple(dict.fromkeys([*self.columns.split(", "), *(column for column, _ in self.key)]))

    def key_of(self, row: Row) -> Row:
        """The key of an item, of which this was read."""
        return tuple(row[self.selected.index(column)] for column, _ in self.key)


@dataclass(frozen=True)
class Known:
    """What is kept about all items of a list: how many they are, and perhaps where those after an offset begin.

    `start` answers a key, at which reading may begin (in a falling list: below which), or None for the beginning of the
    list, and how many items to pass over from there. It is asked for offsets below the total.
    """

    total: int
    start: Callable[[int], Awaitable[tuple[Sequence[Value] | None, int]]] | None = None


class Segment(Protocol):
    """Items of a list that follow each other in its order: all of it, or one of several parts."""

    async def count(self) -> int:
        """How many there are."""

    async def rows(
        self, listing: Listing[Any], after: Sequence[Value] | None, limit: int, offset: int
    ) -> Sequence[Row]:
        """At most `limit` of them, those after the first `offset` behind a position; see `rows_where`."""


@dataclass(frozen=True)
class Rows:
    """`Segment`: the rows of the list's table that meet conditions; of all of them something may be `known`."""

    tx: DriverTransaction
    table: str
    where: Where
    known: Known | None = None

    async def count(self) -> int:
        if self.known is not None:
            return self.known.total
        row = await self.tx.row(f"SELECT count(*) FROM {self.table} WHERE {self.where}", *self.where.args)  # noqa: S608
        assert row is not None, "an aggregate answers one row"
        return int(row[0])

    async def rows(
        self, listing: Listing[Any], after: Sequence[Value] | None, limit: int, offset: int
    ) -> Sequence[Row]:
        where, rest = await self._begun(listing, after, offset)
        if rest and self.tx.offset_reads_rows:
            where, rest = _from_row(listing, where, rest), 0
        bounds = f"LIMIT {where.parameter(limit)} OFFSET {where.parameter(rest)}"
        return await rows_where(self.tx, listing, where, bounds)

    async def _begun(self, listing: Listing[Any], after: Sequence[Value] | None, offset: int) -> tuple[Where, int]:
        """Conditions of items that begin near an offset behind a position, and how many of them come before it."""
        if after is not None:
            return beyond(listing, self.where, after), offset
        start = None if self.known is None else self.known.start
        key, rest = (None, offset) if start is None else await start(offset)
        if key is None:
            return self.where.copy(), rest
        return _from(listing, self.where, "<" if listing.falling else ">=", key), rest


async def part(
    tx: DriverTransaction, listing: Listing[T], paging: Paging, where: Where, *, known: Known | None = None
) -> Slice[T]:
    """What `paging` asks for of the items that meet conditions; `known` is what is kept of all of them, if anything."""
    rows = Rows(tx, listing.table, where, known)
    return await parts(listing, paging, [rows], rows.count)


async def parts(
    listing: Listing[T],
    paging: Paging,
    segments: Sequence[Segment],
    total: Callable[[], Awaitable[int]],
) -> Slice[T]:
    """What `paging` asks for of the items that the segments hold: first all of the first, then all of the next.

    `total` tells how many items all segments have; it is asked for pages only. A position is the number of its segment
    and the item's key. One that this list cannot have given out is `invalid_parameter` (`cursor`).
    """
    if isinstance(paging, Page):
        return await _page(listing, paging, segments, await total())
    return await _after(listing, paging, segments)


async def _page(listing: Listing[T], page: Page, segments: Sequence[Segment], total: int) -> Slice[T]:
    items: list[T] = []
    wanted = min(page.limit, total - page.offset)
    offset = page.offset
    for segment in segments:
        if len(items) >= wanted:
            break
        rows = await segment.rows(listing, None, wanted - len(items), offset)
        items += map(listing.make, rows)
        # Only a segment that lies before the page as a whole has to be counted.
        offset = 0 if items or not offset else offset - await segment.count()
    return Slice(items, total=total)


async def _after(listing: Listing[T], cursor: Cursor, segments: Sequence[Segment]) -> Slice[T]:
    first, key = _start(listing, cursor.after, len(segments))
    found: list[tuple[int, Row]] = []
    for number, segment in enumerate(segments[first:], first):
        # One more than asked for tells whether anything follows.
        rows = await segment.rows(listing, key, cursor.limit + 1 - len(found), 0)
        found += [(number, row) for row in rows]
        if len(found) > cursor.limit:
            break
        key = None
    shown = found[: cursor.limit]
    last = (shown[-1][0], *listing.key_of(shown[-1][1])) if len(found) > cursor.limit else None
    return Slice([listing.make(row) for _, row in shown], next_after=last)


async def rows_where(tx: DriverTransaction, listing: Listing[Any], where: Where, bounds: str = "") -> Sequence[Row]:
    """What is `selected` of the items that meet conditions, in the order of their list, within LIMIT and OFFSET."""
    columns = ", ".join(listing.selected)
    sql = f"SELECT {columns} FROM {listing.table} WHERE {where} ORDER BY {listing.order} {bounds}"  # noqa: S608
    return await tx.rows(sql, *where.args)


def beyond(listing: Listing[Any], where: Where, key: Sequence[Value]) -> Where:
    """These conditions, and that an item comes behind a position."""
    return _from(listing, where, "<" if listing.falling else ">", key)


def _from(listing: Listing[Any], where: Where, side: str, key: Sequence[Value]) -> Where:
    parameters = ", ".join("{}" for _ in key)
    return where.copy().also(f"({listing.position}) {side} ({parameters})", *key)


def _from_row(listing: Listing[Any], where: Where, offset: int) -> Where:
    """These conditions, and that an item does not come before the one behind so many others."""
    side, inner = "<=" if listing.falling else ">=", where.copy()
    row = f"ORDER BY {listing.order} LIMIT 1 OFFSET {inner.parameter(offset)}"
    first = f"SELECT {listing.position} FROM {listing.table} WHERE {where} {row}"  # noqa: S608
    return inner.also(f"({listing.position}) {side} ({first})")


def _start(listing: Listing[T], after: Position | None, segments: int) -> tuple[int, Sequence[Value] | None]:
    if after is None:
        return 0, None
    segment, *key = after if len(after) > len(listing.key) else (-1,)
    fits = [type(value) for value in key] == [kind for _, kind in listing.key]
    if not fits or type(segment) is not int or not 0 <= segment < segments:
        raise LearnFlowError(Code.INVALID_PARAMETER, "cursor is no position of this list.", param="cursor")
    return segment, key
