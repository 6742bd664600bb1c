"""What nobody waits for, done once a second: payments without an outcome, deleted means of payment, access that is
over, numbers of students, last uses, what expired.

Every process does it, and all of it is safe with several. A step that fails keeps none of the others from being done:
money that is on its way must not wait for a count that cannot be made.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

from learnflow_core.enrollment import UNRESOLVED_AFTER
from learnflow_core.model import SECOND, Instant
from learnflow_core.ports import Context
from learnflow_core.usecases.payment_methods import forget_deleted
from learnflow_core.usecases.payments import AT_ONCE, finish_unresolved
from learnflow_core.usecases.places import expire_overdue
from learnflow_http.services import Services

logger: Final = logging.getLogger("learnflow.sweep")

EVERY_S: Final = 1.0
PURGE_EVERY: Final[Instant] = 600 * SECOND

_SETTLED_AT_ONCE: Final = 500
_EXPIRED_AT_ONCE: Final = 100
_ROUNDS: Final = 20
"""So often is this done in one sweep: what is left, the next one does."""
_MOST_TOLD: Final = 1_000
"""So many unresolved payments are counted, and no more."""

Step = Callable[[], Awaitable[object]]


async def sweep(services: Services, *, purge: bool) -> None:
    """Do all of it once. An ExceptionGroup tells, at the end, of the steps that failed."""
    now = services.clock_ns() // 1_000
    await _do(*_with_money(services, now), *_the_rest(services, now, purge=purge))


async def sweep_for_ever(services: Services) -> None:
    """Sweep once a second, until this is cancelled; what fails is logged, and tried again.

    What asks the payment service has a turn of its own, so that nothing else waits for that to answer.
    """
    purged: Instant = 0

    async def see_to_money() -> None:
        await _do(*_with_money(services, services.clock_ns() // 1_000))

    async def see_to_the_rest() -> None:
        nonlocal purged
        now = services.clock_ns() // 1_000
        due = now - purged >= PURGE_EVERY
        await _do(*_the_rest(services, now, purge=due))
        purged = now if due else purged

    await asyncio.gather(_repeat(services, see_to_money), _repeat(services, see_to_the_rest))


def _with_money(services: Services, now: Instant) -> list[Step]:
    ctx = Context(now, services.random_bytes)
    return [
        lambda: _tell_of_unresolved(services, now),
        lambda: _finish_unresolved(services),
        lambda: forget_deleted(services.storage, services.gateways, ctx),
    ]


def _the_rest(services: Services, now: Instant, *, purge: bool) -> list[Step]:
    ctx = Context(now, services.random_bytes)
    steps: list[Step] = [lambda: _expire(services, ctx), lambda: note_uses(services), lambda: _count(services)]
    return [*steps, lambda: services.storage.write(lambda tx: tx.purge(now))] if purge else steps


async def _do(*steps: Step) -> None:
    failures = [failure for step in steps if (failure := await _failure(step)) is not None]
    if failures:
        raise ExceptionGroup("not all of the sweep could be done", failures)


async def _repeat(services: Services, work: Step) -> None:
    done, failed = (services.metrics.sweeps.series(outcome) for outcome in ("done", "failed"))
    while True:
        try:
            await work()
            done.add()
        except Exception:
            failed.add()
            logger.exception("the sweep failed, and will be tried again")
        # Processes that were forked together would else meet in the same rows, every time.
        await asyncio.sleep(EVERY_S * random.uniform(0.8, 1.2))  # noqa: S311 - no secret


async def _finish_unresolved(services: Services) -> None:
    """Carry on payments as long as there are any that are due; each round takes its time, and looks at the clock."""
    while True:
        ctx = Context(services.clock_ns() // 1_000, services.random_bytes)
        if await finish_unresolved(services.storage, services.gateways, ctx) < AT_ONCE:
            break


async def _expire(services: Services, ctx: Context) -> None:
    """End enrolments whose access is over."""
    for _ in range(_ROUNDS):
        if await services.storage.write(lambda tx: expire_overdue(tx, ctx, _EXPIRED_AT_ONCE)) < _EXPIRED_AT_ONCE:
            break


async def note_uses(services: Services) -> None:
    """Keep when API keys were used last."""
    used = services.authenticator.take_used()
    if used:
        await services.storage.write(lambda tx: tx.api_keys.touch(used))


async def _tell_of_unresolved(services: Services, now: Instant) -> None:
    left = await services.storage.read(lambda tx: tx.payments.unresolved(now - UNRESOLVED_AFTER, _MOST_TOLD))
    services.metrics.unresolved.put(left)
    services.metrics.refresh()


async def _count(services: Services) -> None:
    """Bring numbers of students, and what is counted of courses, up to date."""
    for _ in range(_ROUNDS):
        settled = await services.storage.write(lambda tx: tx.courses.settle(_SETTLED_AT_ONCE))
        await services.storage.write(lambda tx: tx.courses.tally())
        if settled < _SETTLED_AT_ONCE:
            break


async def _failure(step: Step) -> Exception | None:
    try:
        await step()
    except Exception as error:  # noqa: BLE001 - told of when all is done
        return error
    return None
