"""Enrolling many at once: each for itself, some at the same time, and none held up by a slow one without bound."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from learnflow_core.access import Actor
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.usecases.enrollments import Enrolled, NewEnrollment, NewEnrollments, enroll
from learnflow_http.call import Call
from learnflow_http.outgoing import LOGGER
from learnflow_http.services import Services

logger: Final = logging.getLogger(LOGGER)

AT_ONCE: Final = 8
"""How many of a batch are enrolled at the same time."""

WITHIN_S: Final = 20.0
"""When a batch is answered at the latest: sooner than a repetition of it under the same key gives up waiting."""

Result = Enrolled | LearnFlowError
"""What one item came to."""


def cost(actor: Actor, body: NewEnrollments) -> int:
    """As many requests as there are items; `invalid_parameter` when that is more than the caller can ever make at
    once."""
    most = min(quota.burst for quota in actor.quotas)
    if len(body.enrollments) > most:
        message = f"enrollments: each counts as a request, and your plan allows {most} at once."
        raise LearnFlowError(Code.INVALID_PARAMETER, message, param="enrollments", details={"most": most})
    return len(body.enrollments)


async def enroll_all(services: Services, call: Call) -> list[Result]:
    """Enrol everybody in the body; what each item came to, in their order.

    What one comes to is none of the others' business. One that has no outcome after `WITHIN_S` is
    `service_unavailable`: it was not begun, or it is pending and carried on by the sweep; asking again is safe.
    """
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(item: NewEnrollment) -> Enrolled:
        async with turns:
            return await enroll(services.storage, services.gateways, call.actor, item, call.ctx.later())

    tasks = [asyncio.create_task(one(item)) for item in call.body.enrollments]
    return [_result(task) for task in await _within(WITHIN_S, tasks)]


async def _within(seconds: float, tasks: Sequence[asyncio.Task[Enrolled]]) -> Sequence[asyncio.Task[Enrolled]]:
    """The tasks, all of them at an end: those that are not by then are cancelled, as all are with their caller."""
    try:
        await asyncio.wait(tasks, timeout=seconds)
    finally:
        for task in tasks:
            task.cancel()
    await asyncio.wait(tasks)
    return tasks


def _result(task: asyncio.Task[Enrolled]) -> Result:
    if task.cancelled():
        return LearnFlowError(Code.SERVICE_UNAVAILABLE, retry_after_s=1)
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, LearnFlowError):
        return error
    logger.error("internal error in a batch", exc_info=error)
    return LearnFlowError(Code.INTERNAL_ERROR)
