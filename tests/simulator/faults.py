"""What goes wrong, and when: drawn from a seed, or written down beforehand."""

from __future__ import annotations

from enum import StrEnum
from random import Random
from typing import NamedTuple, Protocol

from tests.simulator.loop import Process


class StatementFault(StrEnum):
    """What becomes of a statement."""

    BUSY = "another process holds the lock"
    FAILS = "the disk fails, and the transaction goes on without the statement"
    UNDONE = "the disk is full, and the transaction is undone"
    UNTOLD = "it is done, and an error is told"
    CRASH_BEFORE = "the process dies before it"
    CRASH_AFTER = "the process dies after it"


class Answer(NamedTuple):
    """How the payment service treats one call: when it hears of it, how often it is done, and whether it says so."""

    heard_after_s: float = 0.05
    done: int = 1
    told_after_s: float | None = 0.05
    """None: the caller hears nothing."""
    fails: bool = False
    """What it says is that it failed, done or not."""


class Faults(Protocol):
    """Everything that can go wrong asks this whether it does."""

    def of_step(self, process: Process) -> bool:
        """Whether the process dies before one of its tasks goes on."""

    def of_statement(self, process: Process, sql: str) -> StatementFault | None:
        """What becomes of a statement that a process runs."""

    def of_payment(self, call: str) -> Answer:
        """What the payment service makes of a call."""

    def calm(self) -> None:
        """From now on, all is well."""


_ANYWHERE = (StatementFault.FAILS, StatementFault.UNDONE, StatementFault.CRASH_BEFORE, StatementFault.CRASH_AFTER)
_COMMITTING = (StatementFault.UNDONE, StatementFault.UNTOLD, StatementFault.CRASH_BEFORE, StatementFault.CRASH_AFTER)


class SeededFaults:
    """Faults by chance. How likely each kind is differs from seed to seed: some worlds have one trouble, some all."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._stormy = True
        self._step = random.choice((0, 1 / 4_000, 1 / 600))
        self._statement = random.choice((0, 1 / 600, 1 / 100))
        self._commit = random.choice((0, 1 / 100, 1 / 15))
        self._busy = random.choice((0, 1 / 100))
        self._payment = random.choice((0, 0.1, 0.5))
        self._busy_left = 0

    def calm(self) -> None:
        self._stormy = False

    def of_step(self, process: Process) -> bool:
        return self._happens(self._step)

    def of_statement(self, process: Process, sql: str) -> StatementFault | None:
        if sql == "BEGIN IMMEDIATE":
            return StatementFault.BUSY if self._is_busy() else None
        if sql == "COMMIT":
            return self._random.choice(_COMMITTING) if self._happens(self._commit) else None
        return self._random.choice(_ANYWHERE) if self._happens(self._statement) else None

    def of_payment(self, call: str) -> Answer:
        random = self._random
        soon, later = random.uniform(0.01, 0.3), random.uniform(0.01, 0.3)
        if not self._happens(self._payment):
            return Answer(soon, 1, later)
        return random.choice(
            (
                Answer(soon, 0, None),  # it never arrives
                Answer(soon, 1, None),  # its answer is lost
                Answer(random.uniform(5, 25), 1, later),  # slow, or done when nobody waits any more
                Answer(random.uniform(5, 25), 1, None),
                Answer(soon, 2, later),  # delivered twice
                Answer(soon, 0, later, fails=True),
                Answer(soon, 1, later, fails=True),
                Answer(random.uniform(5, 25), 2, later, fails=True),
            )
        )

    def _is_busy(self) -> bool:
        """A lock that is held is met many times: the writer asks every millisecond, for five seconds."""
        if self._busy_left == 0 and self._happens(self._busy):
            self._busy_left = self._random.choice((1, 100, 6_000))
        elif self._busy_left:
            self._busy_left -= 1
        return self._busy_left > 0

    def _happens(self, likelihood: float) -> bool:
        return self._stormy and likelihood > 0 and self._random.random() < likelihood
