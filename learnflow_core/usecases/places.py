"""What a live enrolment holds, and how it comes free: its seat, and its licence."""

from __future__ import annotations

from learnflow_core.enrollment import step
from learnflow_core.model import Enrollment
from learnflow_core.ports import Context, Transaction


async def release(tx: Transaction, enrollment: Enrollment, ctx: Context) -> None:
    """Keep an enrolment that has ended, and give back the seat and the licence it held."""
    await tx.enrollments.put(enrollment)
    await tx.courses.free_seat(enrollment.course_id, enrollment.mode)
    if enrollment.licensed:
        await tx.accounts.return_license(enrollment.account_id, enrollment.mode)
        await tx.audit.add(ctx.event("license.returned", enrollment.id, enrollment.account_id))


async def expire_overdue(tx: Transaction, ctx: Context, limit: int, course_id: str | None = None) -> int:
    """Expire at most `limit` enrolments whose access is over (of one course, where one is given); how many it did."""
    overdue = await tx.enrollments.overdue(ctx.now, limit, course_id)
    for enrollment in overdue:
        await release(tx, step(enrollment, "expire", ctx.now), ctx)
    return len(overdue)
