"""SQLite served by workers of our own, threads as a rule: one writes, a few read.

The writer takes the jobs that wait together into one transaction, with a savepoint each, so that they share one wait
for the disk; it answers when that transaction is over. Readers see snapshots, and neither wait for the writer nor hold
it up.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, Final, TypeVar

from storage_backends.driver import Work, unavailable
from storage_backends.sqlite_transaction import Deadline, SQLiteTransaction, translated
from storage_backends.workers import Job, Jobs, Outcome, ThreadJobs, deliver

T = TypeVar("T")

BATCH_JOBS: Final = 128
"""How many jobs one commit holds at most."""
BATCH_S: Final = 0.05
"""How long a batch goes on taking jobs in: other processes wait for the lock meanwhile."""
PATIENCE_S: Final = 5.0
"""How long the writer tries to get the lock from another process."""
RETRY_S: Final = 0.001
"""Between two tries. SQLite's own handler sleeps up to 0.1 s, and so hardly ever meets the gap between two batches."""


class SQLiteDriver:
    """`storage_backends.driver.Driver` on connections to one database, which it owns from now on.

    Without `readers` everything runs on the writer: a database in memory has no second connection. `jobs` makes what
    the work waits in, and who does it.
    """

    connections = None

    def __init__(
        self,
        writer: sqlite3.Connection,
        readers: Sequence[sqlite3.Connection],
        *,
        read_deadline_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        jobs: Callable[[], Jobs] = ThreadJobs,
    ) -> None:
        self._writes = jobs()
        self._reads = jobs() if readers else self._writes
        self._connections = [*readers, writer]  # closed in this order: who closes last, the writer, empties the log
        self._closed = False
        self._writes.hire(_Writer(writer, self._writes, read_deadline_s, clock, sleep).take_turn)
        for reader in readers:
            self._reads.hire(_Reader(reader, read_deadline_s, clock).take_turn)

    async def read(self, work: Work[T], *, patient: bool = False) -> T:
        return await self._done(self._reads, Job(work, writes=False, patient=patient))

    async def write(self, work: Work[T], *, subject: str | None = None, snapshot: bool = False) -> T:
        del subject, snapshot  # works share a commit anyway, one after the other, and nothing changes meanwhile
        return await self._done(self._writes, Job(work, writes=True))

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._end)

    async def _done(self, jobs: Jobs, job: Job[T]) -> T:
        if self._closed:
            raise unavailable()
        jobs.put(job)
        return await job.answer

    def _end(self) -> None:
        self._writes.end()
        self._reads.end()
        for connection in self._connections:
            connection.close()


class _Reader:
    """A worker that runs each job on a snapshot of its own."""

    def __init__(self, connection: sqlite3.Connection, deadline_s: float, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._deadline = Deadline(connection, deadline_s, clock)

    def take_turn(self, job: Job[Any]) -> None:
        if not job.abandoned:
            deliver([self._run(job)])

    def _run(self, job: Job[Any]) -> Outcome:
        try:
            _roll_back(self._connection)  # a snapshot that could not be let go of, if there is one
            self._connection.execute("BEGIN")
            outcome = _attempt(self._connection, job, self._deadline)
            _roll_back(self._connection)
        except Exception as error:  # noqa: BLE001 - a thread that ends would answer nobody any more
            return _failed(job, error)
        return outcome


class _Writer:
    """A worker that runs jobs in batches, each batch one durable transaction."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        jobs: Jobs,
        deadline_s: float,
        clock: Callable[[], float],
        sleep: Callable[[float], object],
    ) -> None:
        self._connection = connection
        self._jobs = jobs
        self._deadline = Deadline(connection, deadline_s, clock)
        self._clock = clock
        self._sleep = sleep

    def take_turn(self, job: Job[Any]) -> None:
        deliver(self._commit(job))

    def _commit(self, first: Job[Any]) -> list[Outcome]:
        """Run the job and those that wait behind it; all of them fail where the transaction does."""
        taken: list[Job[Any]] = []
        try:
            self._begin()
            outcomes = [self._run(job) for job in self._batch(first, taken)]
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - a thread that ends would answer nobody any more
            with suppress(sqlite3.Error):
                _roll_back(self._connection)
            return [_failed(job, error) for job in taken or [first, *self._jobs.waiting()]]
        return outcomes

    def _begin(self) -> None:
        _roll_back(self._connection)  # a transaction that could not even be undone, if there is one
        give_up_at = self._clock() + PATIENCE_S
        while True:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or self._clock() > give_up_at:
                    raise
            else:
                return
            self._sleep(RETRY_S)

    def _batch(self, first: Job[Any], taken: list[Job[Any]]) -> Iterator[Job[Any]]:
        """The jobs of one transaction: those that wait, and those that come while it runs, within bounds."""
        full_at = self._clock() + BATCH_S
        for job in chain([first], self._jobs.waiting()):
            taken.append(job)
            if not job.abandoned:
                yield job
            if len(taken) >= BATCH_JOBS or self._clock() > full_at:
                return

    def _run(self, job: Job[Any]) -> Outcome:
        self._connection.execute("SAVEPOINT job")
        if job.writes:
            outcome = _attempt(self._connection, job)
        else:
            self._connection.execute("PRAGMA query_only = 1")
            outcome = _attempt(self._connection, job, self._deadline)
            self._connection.execute("PRAGMA query_only = 0")
        if not self._connection.in_transaction:
            raise _UndoneError
        if outcome.error is not None:
            self._connection.execute("ROLLBACK TO job")
        self._connection.execute("RELEASE job")
        return outcome


class _UndoneError(Exception):
    """SQLite rolled the whole transaction back by itself, as it does when the disk is full or fails."""


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _attempt(connection: sqlite3.Connection, job: Job[Any], deadline: Deadline | None = None) -> Outcome:
    tx = SQLiteTransaction(connection, deadline)
    if deadline is not None:
        deadline.start(job.answer.cancelled, patient=job.patient)
    outcome = job.attempt(tx)
    tx.end()
    if deadline is not None:
        deadline.stop()
    return outcome


def _failed(job: Job[Any], error: Exception) -> Outcome:
    meaning = unavailable() if isinstance(error, _UndoneError) else translated(error)
    if meaning is not error:
        meaning.__cause__ = error
    return Outcome(job, None, meaning)
