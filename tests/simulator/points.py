"""Every point at which a story can be cut off: each statement, each step of a task, each call of the payment service.

A story is told once to count its points, and then again with a fault at one of them, or at two: the second is counted
in the course that things took after the first.

    python -m tests.simulator --points
    python -m tests.simulator --pairs 1000
    python -m tests.simulator --cut 17:1 --cut 130:0 --trace
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from random import Random
from typing import NamedTuple

from tests.simulator.clients import Clients
from tests.simulator.faults import Answer, StatementFault
from tests.simulator.loop import Process
from tests.simulator.world import Outcome, simulate

NODES = ("north",)

Cut = tuple[int, int]
"""A point, by its number, and which of its faults happens there."""

_CRASHES = (StatementFault.CRASH_BEFORE, StatementFault.CRASH_AFTER)
_OF_STATEMENTS = (StatementFault.FAILS, StatementFault.UNDONE, *_CRASHES)
_OF_COMMITS = (StatementFault.UNDONE, StatementFault.UNTOLD, *_CRASHES)
_OF_CALLS = (
    Answer(done=0, told_after_s=None),
    Answer(told_after_s=None),
    Answer(done=0, fails=True),
    Answer(fails=True),
    Answer(done=2),
    Answer(heard_after_s=15),
    Answer(heard_after_s=15, told_after_s=None),
)


class Point(NamedTuple):
    """What was about to happen, and how many faults could meet it."""

    what: str
    faults: int


class PlannedFaults:
    """`tests.simulator.faults.Faults` that happen where they were planned, and note where they could have."""

    def __init__(self, plan: Mapping[int, int]) -> None:
        self.points: list[Point] = []
        self._plan = plan
        self._stormy = True

    def calm(self) -> None:
        self._stormy = False

    def of_step(self, process: Process) -> bool:
        return self._at(Point(f"a step of {process.name}", 1)) is not None

    def of_statement(self, process: Process, sql: str) -> StatementFault | None:
        faults = _OF_COMMITS if sql == "COMMIT" else _OF_STATEMENTS
        planned = self._at(Point(sql, len(faults)))
        return None if planned is None else faults[planned % len(faults)]

    def of_payment(self, call: str) -> Answer:
        planned = self._at(Point(call, len(_OF_CALLS)))
        return Answer() if planned is None else _OF_CALLS[planned % len(_OF_CALLS)]

    def _at(self, point: Point) -> int | None:
        if not self._stormy:
            return None
        self.points.append(point)
        return self._plan.get(len(self.points) - 1)


class Storyteller(Clients):
    """One client after the other: enrolled and refunded, declined, enrolled again and certified, each insisting."""

    patience_s = (60,)
    tries = 40

    async def all(self) -> None:
        anna, berta = self._school.users[:2]
        course = self._school.courses[0]  # one seat
        await self._insist(self.wishes.enrolling(anna, course, "pm_visa_0002", "first"))
        await self._insist(self.wishes.enrolling(anna, course, "pm_visa_4242", "second"))
        await self._insist(self.wishes.leaving(self._place_of(anna), None))
        await self._insist(self.wishes.enrolling(berta, course, "pm_visa_4242", None))
        await self._insist(self.wishes.progressing(self._place_of(berta), 100, "third"))

    def _place_of(self, user: str) -> str:
        """The place that somebody was told of last."""
        return [place for told in self.told for place, whose in told.places if whose == user][-1]


def tell(cuts: Sequence[Cut]) -> tuple[Outcome, list[Point]]:
    """The story with these cuts, and every point that it had."""
    faults = PlannedFaults(dict(cuts))
    return simulate(0, faults, Storyteller, NODES), faults.points


def single() -> list[Cut]:
    """Each fault of each point."""
    _, points = tell(())
    return [(number, fault) for number, point in enumerate(points) for fault in range(point.faults)]


def pairs() -> list[tuple[Cut, Cut]]:
    """Every pair of points, in an order drawn once for all; at each point one of its faults, drawn likewise."""
    _, points = tell(())
    random = Random("pairs of cuts")
    every = [
        ((one, random.randrange(points[one].faults)), (other, random.randrange(points[other].faults)))
        for one, other in combinations(range(len(points)), 2)
    ]
    random.shuffle(every)
    return every
