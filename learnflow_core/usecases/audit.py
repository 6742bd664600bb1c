"""Letting go of the oldest rows of the audit, which nothing does by itself."""

from __future__ import annotations

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import Instant
from learnflow_core.ports import Context, Storage

AT_ONCE = 5_000
"""How many rows one transaction lets go of, so that nobody who writes waits for long."""


async def purge(storage: Storage, before: Instant, ctx: Context) -> int:
    """Let go of all rows of the audit from before an instant; how many there were.

    The audit tells of it, and the doctor asks for nothing from before that instant. `invalid_parameter` for one that is
    to come: what happens meanwhile would go too.
    """
    if before > ctx.now:
        raise LearnFlowError(Code.INVALID_PARAMETER, "before must not be in the future.", param="before")
    await storage.write(lambda tx: tx.audit.add(ctx.event("audit.purged", "audit", None, str(before))))
    gone = 0
    while some := await storage.write(lambda tx: tx.audit.purge(before, AT_ONCE)):
        gone += some
    return gone
