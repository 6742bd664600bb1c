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
    await tx.rows(_CHANGE, 1)


async def fold(tx: DriverTransaction) -> None:
    """Make the rows one, if they have become many; the version stays."""
    if len(await tx.rows(_SOME, _MANY)) == _MANY:
        await tx.rows(_CHANGE, sum(n for (n,) in await tx.rows(_TAKE)))


_VERSION = "SELECT CAST(COALESCE(SUM(n), 0) AS BIGINT) FROM catalogue_changes"
_CHANGE = "INSERT INTO catalogue_changes (n) VALUES ($1)"
_SOME = "SELECT 1 FROM catalogue_changes LIMIT $1"
_TAKE = "DELETE FROM catalogue_changes RETURNING n"
