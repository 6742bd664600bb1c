"""Which of several processes does what is done for all of them, as a row that one of them holds for a while."""

from __future__ import annotations

from learnflow_core.model import Instant
from storage_backends.driver import DriverTransaction


async def lead(tx: DriverTransaction, name: str, now: Instant, until: Instant) -> bool:
    """Let the process of this name lead until then, unless another one does; whether it leads."""
    return await tx.row(_LEAD, name, until, now) is not None


_LEAD = (
    "INSERT INTO leader (no, name, until) VALUES (1, $1, $2) ON CONFLICT (no) DO UPDATE SET name = excluded.name, "
    "until = excluded.until WHERE leader.until <= $3 OR leader.name = excluded.name RETURNING 1"
)
