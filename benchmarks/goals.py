"""Goals: what a benchmark asks for, as a ratio within one run wherever it can be one, and what a run measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from benchmarks.measure import print_table

Row = Mapping[str, Any]
"""The summaries of what was measured of one case, by name."""
Results = Mapping[str, Mapping[str, Any]]
"""The rows of each group."""


class Goal(NamedTuple):
    """One goal: about what, the figure it asks for, and how it is found; a KeyError says that it was not measured."""

    about: str
    target: float
    unit: str
    found: Callable[[Results], float]
    at_least: bool = True

    def met(self, figure: float) -> bool:
        """Whether a figure is as good as the goal, or better."""
        return figure >= self.target if self.at_least else figure <= self.target

    def asked(self) -> str:
        """The target as text."""
        return f"{'≥' if self.at_least else '≤'} {self.target:g} {self.unit}".strip()


def judged(goals: Iterable[Goal], results: Results) -> list[dict[str, Any]]:
    """Each goal with what was found, and whether that meets it; both None where it was not measured."""
    return [
        {"goal": goal.about, "asked": goal.asked(), "found": found, "met": None if found is None else goal.met(found)}
        for goal, found in ((goal, _found(goal, results)) for goal in goals)
    ]


def print_goals(goals: Iterable[Mapping[str, Any]]) -> None:
    """Every goal with what was measured."""
    print_table(GOALS_HEAD, [goal_cells(goal) for goal in goals])


GOALS_HEAD = ("goal", "asked", "found", "")


def goal_cells(goal: Mapping[str, Any]) -> list[str]:
    """A judged goal as a row under `GOALS_HEAD`."""
    if goal["found"] is None:
        return [goal["goal"], goal["asked"], "not measured", ""]
    return [goal["goal"], goal["asked"], _figure(goal["found"]), "met" if goal["met"] else "missed"]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def median(row: Row, figure: str) -> float:
    """The median of one of a row's figures."""
    return float(row[figure]["median"])


def times(row: Row, other: Row, figure: str) -> float:
    """How many times as much one row has of a figure as another."""
    return ratio(row[figure], other[figure])


def ratio(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> float:
    """How many times as much one summary is as another: the median of the ratios within each round.

    The samples of a round are taken close to each other, so that a machine that is slower for a while does not count.
    """
    pairs = zip(mine["samples"], theirs["samples"], strict=True)
    return float(statistics.median(one / other for one, other in pairs))


def _found(goal: Goal, results: Results) -> float | None:
    try:
        return goal.found(results)
    except KeyError:
        return None
