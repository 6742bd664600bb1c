"""What nobody waits for, done once a second: payments without an outcome, deleted means of payment, access that is
over, numbers of students, last uses, what expired.

Each process does what is its own. What is done for all of them, one does: in the same rows several would undo each
other, and in the end lock the database. Money that is on its way waits for none of it, and none of it for a payment
service that does not answer; so these are rounds of their own beside each other, and a step that fails keeps none of
the others from being done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from learnflow_core.audit import SWEEP
from learnflow_core.enrollment import UNRESOLVED_AFTER
from learnflow_core.model import SECOND, Instant
from learnflow_core.ports import Context, Storage
from learnflow_core.usecases.payment_methods import forget_deleted
from learnflow_core.usecases.payments import AT_ONCE, finish_unresolved
from learnflow_core.usecases.places import expire_overdue
from learnflow_http.services import Services

logger: Final = logging.getLogger("learnflow.sweep")

EVERY_S: Final = 1.0
PURGE_EVERY: Final[Instant] = 600 * SECOND
LEADS_FOR: Final[Instant] = 10 * SECOND
"""How long one process does what is done for all: so long nobody does it when that one is killed."""
_SAYS_AGAIN_AFTER: Final[Instant] = LEADS_FOR // 2
"""How long after it said so that process says again that it does: a server that idles seldom writes."""

_SETTLED_AT_ONCE: Final = 500
_EXPIRED_AT_ONCE: Final = 100
_ROUNDS: Final = 20
"""So often are enrolments ended, courses settled and portions of notes counted in one sweep: what comes faster is left
to the next."""
_MOST_TOLD: Final = 1_000
"""So many unresolved payments are counted, and no more."""
_MOST_NOTED: Final = 10_000
"""So many notes of each kind are counted, and no more."""

Step = Callable[[], Awaitable[object]]


async def lead(storage: Storage, name: str, now: Instant) -> bool:
    """Whether the process of this name, which no other has, is the one that does what is done for all, for a while."""
    return await storage.write(lambda tx: tx.lead(name, now, now + LEADS_FOR))


class Sweeper:
    """The sweep of one process, by a name that no other has.

    An ExceptionGroup tells, at the end of a round, of the steps that failed.
    """

    def __init__(self, services: Services, name: str) -> None:
        self._services = services
        self._name = name
        self._purged: Instant = 0
        self._led: Instant | None = None

    async def sweep_for_ever(self) -> None:
        """Do all of it once a second, until this is cancelled; what fails is logged, and tried again."""
        async with asyncio.TaskGroup() as group:
            for sweep in (self.sweep_money, self.sweep_methods, self.sweep_own, self.sweep_common):
                group.create_task(self._repeat(sweep))

    async def sweep_money(self) -> None:
        """What is urgent, and safe with several: payments that are due, as long as there are any."""
        services = self._services
        while await finish_unresolved(services.storage, services.gateways, self._ctx()) == AT_ONCE:
            pass

    async def sweep_methods(self) -> None:
        """What one process asks of the payment services for all: to forget means of payment that were deleted."""
        if await self._leads():
            await forget_deleted(self._services.storage, self._services.gateways, self._ctx())

    async def sweep_own(self) -> None:
        """What is this process's own: figures, last uses of keys."""
        await _all([self._tell, lambda: note_uses(self._services)])

    async def sweep_common(self) -> None:
        """What one process does for all: access that is over, numbers of students, counts of courses, forgetting what
        expired."""
        if await self._leads():
            await _all([self._expire, self._settle, self._tally, self._purge])

    async def _repeat(self, step: Step) -> None:
        done, failed = (self._services.metrics.sweeps.series(outcome) for outcome in ("done", "failed"))
        while True:
            try:
                await step()
                done.add()
            except Exception:
                failed.add()
                logger.exception("the sweep failed, and will be tried again")
            # Processes that were forked together would else meet in the same rows, every time.
            await asyncio.sleep(EVERY_S * (0.8 + 0.4 * self._services.random_bytes(1)[0] / 255))

    async def _tell(self) -> None:
        metrics, read = self._services.metrics, self._services.storage.read
        before = self._services.now() - UNRESOLVED_AFTER
        metrics.unresolved.put(await read(lambda tx: tx.payments.unresolved(before, _MOST_TOLD)))
        metrics.uncounted.put(await read(lambda tx: tx.courses.uncounted(_MOST_NOTED)))
        metrics.refresh()

    async def _expire(self) -> None:
        for _ in range(_ROUNDS):
            ctx = self._ctx()
            ended = await self._services.storage.write(lambda tx, at=ctx: expire_overdue(tx, at, _EXPIRED_AT_ONCE))  # type: ignore[misc]
            if ended < _EXPIRED_AT_ONCE or not await self._leads():
                break

    async def _settle(self) -> None:
        write = self._services.storage.write
        for _ in range(_ROUNDS):
            # A course that somebody enrols in meanwhile is written by both: that is never missed.
            settled = await write(lambda tx: tx.courses.settle(_SETTLED_AT_ONCE), snapshot=True)
            # Fewer than asked for may be as many as can be done at once.
            if not settled or not await self._leads():
                break

    async def _tally(self) -> None:
        for _ in range(_ROUNDS):
            if not (await self._leads() and await self._services.storage.tally()):
                break

    async def _purge(self) -> None:
        now = self._services.now()
        if now - self._purged >= PURGE_EVERY:
            await self._services.storage.write(lambda tx: tx.purge(now))
            self._purged = now

    async def _leads(self) -> bool:
        now = self._services.now()
        if self._led is None or not self._led <= now < self._led + _SAYS_AGAIN_AFTER:
            self._led = now if await lead(self._services.storage, self._name, now) else None
        return self._led is not None

    def _ctx(self) -> Context:
        services = self._services
        return Context(services.now(), services.random_bytes, SWEEP, clock=services.now)


async def note_uses(services: Services) -> None:
    """Keep when API keys were used last; also when this is cancelled, since nobody else knows."""
    used = services.authenticator.take_used()
    if used:
        writing = asyncio.ensure_future(services.storage.write(lambda tx: tx.api_keys.touch(used)))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            raise


async def _all(steps: Sequence[Step]) -> None:
    """Do each of them; an ExceptionGroup tells, at the end, of those that failed."""
    failures = [failure for step in steps if (failure := await _failure(step)) is not None]
    if failures:
        raise ExceptionGroup("not all of the sweep could be done", failures)


async def _failure(step: Step) -> Exception | None:
    try:
        await step()
    except Exception as error:  # noqa: BLE001 - told of when all is done
        return error
    return None
