"""The tally: what is noted of courses becomes part of what counts them, a portion at a time."""

from __future__ import annotations

from storage_backends.driver import DriverTransaction
from storage_backends.repository import blocks, totals, uncounted, version, words


async def due(tx: DriverTransaction) -> bool:
    """Whether there is so much that it should be counted."""
    return await uncounted.count(tx, uncounted.ENOUGH) >= uncounted.ENOUGH or await version.scattered(tx)


async def portion(tx: DriverTransaction) -> None:
    """Count the oldest notes. Nothing else writes what this writes, so it needs no more than a snapshot."""
    taken = await uncounted.take(tx)
    await totals.follow(tx, taken.courses)
    await blocks.follow(tx, taken.courses)
    await words.follow(tx, taken.texts)
    await version.fold(tx)
