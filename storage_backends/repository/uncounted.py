"""Changes of the catalogue, noted when they happen and counted soon after, by one writer for all.

What counts courses has rows in which every course counts. Were they written with each course, then on a database where
writers work side by side each of them would undo the others. A note is a row of its own. Whoever reads counts adds what
is noted, so that they are exact at any time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from storage_backends.driver import DriverTransaction
from storage_backends.repository.sql import Where, insert
from storage_backends.repository.standing import Change, Standing

COLUMNS: Final = ("id", "category", "level", "total_students", "created_at", "rating", "price_key", "search")
"""What is noted of a standing."""

ENOUGH: Final = 64
"""How many notes make it worth while to count them: all who read lists read them all, and all who count collide."""

_MANY: Final = 4
_TAKE: Final = f"DELETE FROM uncounted RETURNING change, {', '.join(COLUMNS)}"  # noqa: S608 - our own names


async def note(tx: DriverTransaction, changes: Iterable[Change]) -> None:
    """Note which published courses came to lists, and which left them or moved in them."""
    noted = Counter[tuple[Any, ...]]()
    for before, after in changes:
        noted.subtract(_kept(before))
        noted.update(_kept(after))
    rows = [(change, *kept) for kept, change in noted.items() if change]
    if len(rows) > _MANY:
        await tx.load("uncounted", ("change", *COLUMNS), rows)
        return
    for row in rows:
        await insert(tx, "uncounted", dict(zip(("change", *COLUMNS), row, strict=True)))


async def enough(tx: DriverTransaction) -> bool:
    """Whether so much is noted that it should be counted."""
    return len(await tx.rows("SELECT 1 FROM uncounted LIMIT $1", ENOUGH)) >= ENOUGH


async def take(tx: DriverTransaction) -> Sequence[Change]:
    """All that is noted, to be counted in this transaction."""
    return [_change(change, kept) for change, *kept in await tx.rows(_TAKE)]


def among(category: str | None, level: str | None) -> Where:
    """The conditions on `uncounted` for what is noted of the list with these filters."""
    return Where().when("category = {}", category).when("level = {}", level)


def _kept(standing: Standing | None) -> list[tuple[Any, ...]]:
    if standing is None or standing.status != "published":
        return []
    return [tuple(getattr(standing, column) for column in COLUMNS)]


def _change(change: int, kept: Sequence[Any]) -> Change:
    columns: dict[str, Any] = dict(zip(COLUMNS, kept, strict=True))
    there = Standing(n=0, status="published", **columns)
    return (None, there) if change > 0 else (there, there._replace(status="archived"))
