"""The version of the catalogue: a number that every change of what it shows makes larger.

One row would be enough, and all who publish at the same time would collide on it, an import with every one of them. So
each change adds a row, and the version is their sum, which stays when many rows are made one. Snapshots of one database
follow each other, so two that show different catalogues never have the same sum.
"""

from __future__ import annotations

from typing import Final

from storage_backends.driver import DriverTransaction

_MANY: Final = 64
"""How many rows make it worth while to make them one."""


async def version(tx: DriverTransaction) -> int:
    """The catalogue's version in this snapshot."""
    row = await tx.row(_VERSION)
    assert row is not None, "an aggregate answers one row"
    return int(row[0])


async def change(tx: DriverTransaction) -> None:
    """Count a change."""
    await _add(tx, 1)


async def scattered(tx: DriverTransaction) -> bool:
    """Whether the rows have become many."""
    return len(await tx.rows(_SOME, _MANY)) == _MANY


async def fold(tx: DriverTransaction) -> None:
    """Make the rows one; the version stays."""
    if taken := await tx.rows(_TAKE):
        await _add(tx, sum(n for (n,) in taken))


async def _add(tx: DriverTransaction, changes: int) -> None:
    (number,) = await tx.numbers(1)
    await tx.rows(_ADD, number, changes)


_VERSION = "SELECT CAST(COALESCE(SUM(n), 0) AS BIGINT) FROM catalogue_changes WHERE no > 0"
_ADD = "INSERT INTO catalogue_changes (no, n) VALUES ($1, $2)"
_SOME = "SELECT no FROM catalogue_changes WHERE no > 0 LIMIT $1"
_TAKE = "DELETE FROM catalogue_changes WHERE no > 0 RETURNING n"
