"""Jobs for threads: a coroutine hands in a piece of work, and wakes in its own event loop when it is done.

What does the jobs is replaceable (`Jobs`): threads here, and the event loop itself in a simulation.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

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


Turn = Callable[[Job[Any]], None]
"""What a worker does with the job that comes to it; it may take more of those that wait."""


class Jobs(Protocol):
    """Jobs that wait, and the workers who take them in their order, each one at a time."""

    def hire(self, turn: Turn) -> None:
        """Have one worker more, who takes a `turn` for each job."""

    def put(self, job: Job[Any]) -> None:
        """Let a job wait for its turn."""

    def waiting(self) -> Iterator[Job[Any]]:
        """Take the jobs that have come until they are asked for, one after the other: for a worker in its turn."""

    def end(self) -> None:
        """Return when everything that waits is done, and no worker is left. Nothing is `put` from then on."""


class ThreadJobs:
    """`Jobs` whose workers are threads."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self._threads: list[Thread] = []

    def hire(self, turn: Turn) -> None:
        thread = Thread(target=self._work, args=(turn,), name="learnflow-sqlite", daemon=True)
        self._threads.append(thread)
        thread.start()

    def put(self, job: Job[Any]) -> None:
        self._queue.put(job)

    def waiting(self) -> Iterator[Job[Any]]:
        with suppress(Empty):
            while (job := self._queue.get_nowait()) is not None:
                yield job
            self._queue.put(None)  # the end, which somebody has yet to see

    def end(self) -> None:
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self, turn: Turn) -> None:
        while (job := self._queue.get()) is not None:
            turn(job)
