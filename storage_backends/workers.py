"""Jobs for threads: a coroutine hands in a piece of work, and wakes in its own event loop when it is done."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar

from storage_backends.driver import DriverTransaction, Work
from storage_backends.inline import run_inline

T = TypeVar("T")


class Job(Generic[T]):
    """A piece of work and the caller who waits for it. Made in the caller's event loop, run on any thread."""

    def __init__(self, work: Work[T], *, writes: bool, patient: bool = False) -> None:
        self.writes = writes
        self.patient = patient
        self._work = work
        self.loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[T] = self.loop.create_future()

    @property
    def abandoned(self) -> bool:
        """Whether the caller was cancelled."""
        return self.answer.cancelled()

    def attempt(self, tx: DriverTransaction) -> Outcome:
        """Run the work, here and now."""
        try:
            return Outcome(self, run_inline(self._work(tx)), None)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the caller's and must not end the thread
            return Outcome(self, None, error)


class Outcome(NamedTuple):
    """What a job returned, or what it raised."""

    job: Job[Any]
    value: Any
    error: BaseException | None


def deliver(outcomes: Iterable[Outcome]) -> None:
    """Answer callers from another thread, waking each of their event loops once; a closed one waits no more."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_loop[outcome.job.loop].append(outcome)
    for loop, answered in by_loop.items():
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_answer, answered)


def _answer(outcomes: Iterable[Outcome]) -> None:
    for job, value, error in outcomes:
        if job.answer.done():
            continue
        if error is None:
            job.answer.set_result(value)
        else:
            job.answer.set_exception(error)
