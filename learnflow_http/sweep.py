"""What nobody waits for, done once a second: payments without an outcome, deleted means of payment, numbers of
students, last uses, what expired.

Every process does it, and all of it is safe with several. A step that fails keeps none of the others from being done:
money that is on its way must not wait for a count that cannot be made.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

from learnflow_core.model import SECOND, Instant
from learnflow_core.ports import Context
from learnflow_core.usecases.enrollments import UNRESOLVED_AFTER, finish_unresolved
from learnflow_core.usecases.payment_methods import forget_deleted
from learnflow_http.services import Services

logger: Final = logging.getLogger("learnflow.sweep")

EVERY_S: Final = 1.0
PURGE_EVERY: Final[Instant] = 600 * SECOND

_SETTLED_AT_ONCE: Final = 500
_ROUNDS: Final = 20
"""So often are courses settled in one sweep: whoever enrols faster than that is counted by the next one."""
_MOST_TOLD: Final = 1_000
"""So many unresolved payments are counted, and no more."""

Step = Callable[[], Awaitable[object]]


async def sweep(services: Services, *, purge: bool) -> None:
    """Do all of it once. An ExceptionGroup tells, at the end, of the steps that failed."""
    now = services.clock_ns() // 1_000
    steps: list[Step] = [
        lambda: _tell_of_unresolved(services, now),
        lambda: finish_unresolved(services.storage, services.gateways, Context(now, services.random_bytes)),
        lambda: forget_deleted(services.storage, services.gateways, Context(now, services.random_bytes)),
        lambda: note_uses(services),
        lambda: _count(services),
    ]
    if purge:
        steps.append(lambda: services.storage.write(lambda tx: tx.purge(now)))
    failures = [failure for step in steps if (failure := await _failure(step)) is not None]
    if failures:
        raise ExceptionGroup("not all of the sweep could be done", failures)


async def sweep_for_ever(services: Services) -> None:
    """Sweep once a second, until this is cancelled; what fails is logged, and tried again."""
    purged: Instant = 0
    done, failed = (services.metrics.sweeps.series(outcome) for outcome in ("done", "failed"))
    while True:
        now = services.clock_ns() // 1_000
        due = now - purged >= PURGE_EVERY
        try:
            await sweep(services, purge=due)
            purged = now if due else purged
            done.add()
        except Exception:
            failed.add()
            logger.exception("the sweep failed, and will be tried again")
        # Processes that were forked together would else meet in the same rows, every time.
        await asyncio.sleep(EVERY_S * random.uniform(0.8, 1.2))  # noqa: S311 - no secret


async def note_uses(services: Services) -> None:
    """Keep when API keys were used last."""
    used = services.authenticator.take_used()
    if used:
        await services.storage.write(lambda tx: tx.api_keys.touch(used))


async def _tell_of_unresolved(services: Services, now: Instant) -> None:
    left = await services.storage.read(lambda tx: tx.payments.unresolved(now - UNRESOLVED_AFTER, _MOST_TOLD))
    services.metrics.unresolved.put(len(left))
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
