"""Every list of the application, by page and by cursor: one order, one way to count, one way to go on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

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
    comparison of rows, which an index answers); the last of them identifies an item.
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


@dataclass(frozen=True)
class Known:
    """What is kept about all items of a list: how many they are, and where those after an offset begin.

    `start` answers a key, at which reading may begin (in a falling list: below which), or None for the beginning of the
    list, and how many items to pass over from there. It is asked for offsets below the total.
    """

    total: int
    start: Callable[[int], Awaitable[tuple[Sequence[Value] | None, int]]]


async def part(
    tx: DriverTransaction, listing: Listing[T], paging: Paging, *segments: Where, known: Known | None = None
) -> Slice[T]:
    """What `paging` asks for of the items that the segments hold: first all of the first, then all of the next.

    `known` is of a single segment. Other segments are counted.

    A position is the number of its segment and the item's key. One that this list cannot have given out is
    `invalid_parameter` (`cursor`).
    """
    if isinstance(paging, Page):
        return await _page(tx, listing, paging, segments, known)
    return await _after(tx, listing, paging, segments)


async def _page(
    tx: DriverTransaction, listing: Listing[T], page: Page, segments: Sequence[Where], known: Known | None
) -> Slice[T]:
    items: list[T] = []
    total = 0
    for where in segments:
        count = await _count(tx, listing, where) if known is None else known.total
        offset = max(0, page.offset - total)
        wanted = page.limit - len(items)
        if wanted and offset < count:
            begun, rest = (where, offset) if known is None else await _begun(listing, where, known, offset)
            rows = await _fetch(tx, listing, begun, wanted, rest)
            items += [listing.make(row[len(listing.key) :]) for row in rows]
        total += count
    return Slice(items, total=total)


async def _begun(listing: Listing[T], where: Where, known: Known, offset: int) -> tuple[Where, int]:
    """Conditions of items that begin near an offset, and how many of them come before it."""
    key, rest = await known.start(offset)
    if key is None:
        return where, rest
    parameters = ", ".join("{}" for _ in key)
    return where.copy().also(f"({listing.position}) {'<' if listing.falling else '>='} ({parameters})", *key), rest


async def _after(tx: DriverTransaction, listing: Listing[T], cursor: Cursor, segments: Sequence[Where]) -> Slice[T]:
    width = len(listing.key)
    first, key = _start(listing, cursor.after, len(segments))
    found: list[tuple[int, Row]] = []
    for number, where in enumerate(segments[first:], first):
        rest = where if key is None else _beyond(listing, where, key)
        # One more than asked for tells whether anything follows.
        rows = await _fetch(tx, listing, rest, cursor.limit + 1 - len(found), 0)
        found += [(number, row) for row in rows]
        if len(found) > cursor.limit:
            break
        key = None
    shown = found[: cursor.limit]
    last = (shown[-1][0], *shown[-1][1][:width]) if len(found) > cursor.limit else None
    return Slice([listing.make(row[width:]) for _, row in shown], next_after=last)


async def _count(tx: DriverTransaction, listing: Listing[T], where: Where) -> int:
    row = await tx.row(f"SELECT count(*) FROM {listing.table} WHERE {where}", *where.args)  # noqa: S608 - our own names
    assert row is not None, "an aggregate answers one row"
    return int(row[0])


async def _fetch(tx: DriverTransaction, listing: Listing[T], where: Where, limit: int, offset: int) -> Sequence[Row]:
    """The keys are found first, in an index where there is one; only the rows that are shown are read whole."""
    inner = where.copy()
    identity, order = listing.key[-1][0], listing.order
    bounds = f"LIMIT {inner.parameter(limit)} OFFSET {inner.parameter(offset)}"
    sql = (
        f"SELECT {listing.position}, {listing.columns} FROM {listing.table} WHERE {identity} IN "  # noqa: S608
        f"(SELECT {identity} FROM {listing.table} WHERE {where} ORDER BY {order} {bounds}) ORDER BY {order}"
    )
    return await tx.rows(sql, *inner.args)


def _beyond(listing: Listing[T], where: Where, key: Sequence[Value]) -> Where:
    parameters = ", ".join("{}" for _ in key)
    return where.copy().also(f"({listing.position}) {'<' if listing.falling else '>'} ({parameters})", *key)


def _start(listing: Listing[T], after: Position | None, segments: int) -> tuple[int, Sequence[Value] | None]:
    if after is None:
        return 0, None
    segment, *key = after if len(after) > len(listing.key) else (-1,)
    fits = [type(value) for value in key] == [kind for _, kind in listing.key]
    if not fits or type(segment) is not int or not 0 <= segment < segments:
        raise LearnFlowError(Code.INVALID_PARAMETER, "cursor is no position of this list.", param="cursor")
    return segment, key
