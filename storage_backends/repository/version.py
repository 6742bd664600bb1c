"""The version of the catalogue: a number that every change of what it shows makes larger.

One row would be enough, and all who publish at the same time would collide on it. So changes are counted in several
rows, and the version is their sum. Snapshots of one database follow each other, so two that show different catalogues
never have the same sum.
"""

from __future__ import annotations

from typing import Final

from storage_backends.driver import DriverTransaction

_SLOTS: Final = 64


async def version(tx: DriverTransaction) -> int:
    """The catalogue's version in this snapshot."""
    row = await tx.row(_VERSION)
    assert row is not None, "an aggregate answers one row"
    return int(row[0])


async def change(tx: DriverTransaction, number: int) -> None:
    """Count a change, in the row that this number chooses."""
    await tx.rows(_CHANGE, number % _SLOTS)


_VERSION = "SELECT CAST(COALESCE(SUM(n), 0) AS BIGINT) FROM catalogue_changes"
_CHANGE = (
    "INSERT INTO catalogue_changes (slot, n) VALUES ($1, 1) "
    "ON CONFLICT (slot) DO UPDATE SET n = catalogue_changes.n + 1"
)
