"""The database that the nodes share: a real SQLite file, through connections that fail as a disk and a process do."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from learnflow_core.ports import Storage
from storage_backends.repository import RepositoryStorage
from storage_backends.sqlite import READERS, _prepare
from storage_backends.sqlite_driver import SQLiteDriver
from storage_backends.workers import Job, Turn
from tests.simulator.faults import Faults, StatementFault
from tests.simulator.loop import Process, SimulatedLoop
from tests.simulator.trace import Trace


class FaultyConnection(sqlite3.Connection):
    """A connection of a process, each of whose statements may meet a fault."""

    process: Process
    faults: Faults | None = None
    trace: Trace
    crash: Callable[[Process], None]
    committed: Callable[[], None]
    looked_at = 0

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if not self.process.alive:
            raise failure(sqlite3.SQLITE_IOERR)
        fault = self.faults.of_statement(self.process, sql) if self.faults else None
        self.trace.count(sql)
        if fault is None:
            return self._done(sql, *args)
        self.trace.note(f"{self.process.name}: {fault} ({sql.strip()[:60]})")
        if fault in (StatementFault.UNTOLD, StatementFault.CRASH_AFTER):
            self._done(sql, *args)
        if fault in (StatementFault.CRASH_BEFORE, StatementFault.CRASH_AFTER):
            self.crash(self.process)
        elif fault is StatementFault.UNDONE and self.in_transaction:
            super().execute("ROLLBACK")
        raise failure(_CODES.get(fault, sqlite3.SQLITE_IOERR))

    def _done(self, sql: str, *args: Any) -> sqlite3.Cursor:
        cursor = super().execute(sql, *args)
        if sql == "COMMIT" and self.total_changes > self.looked_at:
            self.looked_at = self.total_changes
            self.committed()
        return cursor


_CODES = {StatementFault.BUSY: sqlite3.SQLITE_BUSY, StatementFault.UNDONE: sqlite3.SQLITE_FULL}


def failure(code: int) -> sqlite3.OperationalError:
    """What the library raises when SQLite answers this code."""
    error = sqlite3.OperationalError("as the simulation wants it")
    error.sqlite_errorcode = code
    return error


class LoopJobs:
    """`storage_backends.workers.Jobs` done in the event loop: the order of turns is the loop's to draw."""

    def __init__(self) -> None:
        self._jobs: deque[Job[Any]] = deque()
        self._turns: deque[Turn] = deque()

    def hire(self, turn: Turn) -> None:
        self._turns.append(turn)

    def put(self, job: Job[Any]) -> None:
        self._jobs.append(job)
        job.loop.call_soon(self._work)

    def waiting(self) -> Iterator[Job[Any]]:
        while self._jobs:
            yield self._jobs.popleft()

    def end(self) -> None:
        while self._jobs:
            self._work()

    def _work(self) -> None:
        if self._jobs:
            self._turns.rotate()
            self._turns[0](self._jobs.popleft())


class Database:
    """One file, opened by each process for itself; `observer` sees what is committed, and never fails."""

    def __init__(self, path: Path, loop: SimulatedLoop, faults: Faults, trace: Trace) -> None:
        self._path = path
        self._loop = loop
        self._faults = faults
        self._trace = trace
        self._opened: dict[Process, list[FaultyConnection]] = {}
        self.observer = sqlite3.connect(path, isolation_level=None)

    def open(
        self, process: Process, crash: Callable[[Process], None], committed: Callable[[], None], *, faulty: bool = True
    ) -> Storage:
        """The storage of a process: the production driver, on the loop's turns and the loop's time."""
        connections = [self._connect() for _ in range(1 + READERS)]
        writer, *readers = self._opened[process] = connections
        for connection in connections:
            connection.process, connection.crash, connection.committed = process, crash, committed
        _prepare(writer, readers)  # before anything can fail: who opens a broken database does not start
        driver = SQLiteDriver(
            writer,
            readers,
            read_deadline_s=10,
            clock=self._loop.time,
            sleep=self._loop.pass_time,
            jobs=LoopJobs,
        )
        for connection in connections:
            connection.faults = self._faults if faulty else None
        return RepositoryStorage(driver)

    def drop(self, process: Process) -> None:
        """What the operating system does for a process that has died: its files are closed, and its lock is gone."""
        for connection in self._opened.pop(process, ()):
            connection.close()

    def rows(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        """What is committed."""
        return self.observer.execute(sql, args).fetchall()

    def close(self) -> None:
        for process in list(self._opened):
            self.drop(process)
        self.observer.close()

    def _connect(self) -> FaultyConnection:
        connection: FaultyConnection = sqlite3.connect(
            self._path, isolation_level=None, cached_statements=512, factory=FaultyConnection
        )
        connection.trace = self._trace
        return connection
