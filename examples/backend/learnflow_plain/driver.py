"""The driver: what a transaction is on this database, and for how long it may take."""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from typing import Final, TypeVar

from learnflow_plain.transaction import PlainTransaction, translated
from storage_backends.driver import Work, unavailable
from storage_backends.inline import run_inline

T = TypeVar("T")

_LOOK_EVERY: Final = 10_000
"""How many of SQLite's instructions pass between two looks at the deadline."""


class PlainDriver:
    """`storage_backends.driver.Driver` on one connection, which it owns from now on.

    Transactions run whole, one after the other, where they are called. So most of what a driver promises is kept by
    doing nothing: writes are as if one came after the other, a snapshot is what there is, nobody is cancelled inside.
    """

    connections = None  # there is no pool to tell of

    def __init__(self, connection: sqlite3.Connection, read_deadline_s: float) -> None:
        self._connection: sqlite3.Connection | None = connection
        self._read_deadline_s = read_deadline_s

    async def read(self, work: Work[T], *, patient: bool = False) -> T:
        until = None if patient else time.monotonic() + self._read_deadline_s
        return self._run(work, writes=False, until=until)

    async def write(self, work: Work[T], *, subject: str | None = None, snapshot: bool = False) -> T:
        del subject, snapshot  # nothing is shared, and nothing changes meanwhile
        return self._run(work, writes=True, until=None)

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _run(self, work: Work[T], *, writes: bool, until: float | None) -> T:
        connection = self._connection
        if connection is None:
            raise unavailable()
        overdue = None if until is None else lambda: time.monotonic() > until
        connection.set_progress_handler(overdue, _LOOK_EVERY)
        tx = PlainTransaction(connection, writes=writes)
        try:
            connection.execute(f"PRAGMA query_only = {int(not writes)}")
            connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            result = run_inline(work(tx))
            connection.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):  # there is none when it could not even begin
                connection.execute("ROLLBACK")
            if (meaning := translated(error)) is error:
                raise
            raise meaning from error
        finally:
            tx.end()
        return result
