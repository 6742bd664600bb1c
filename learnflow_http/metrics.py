"""What the server counts of itself, for Prometheus: numbers in memory that all workers share.

Every worker has a row of cells of its own and adds to no other, so that nothing is locked and nothing is lost when one
is killed: its successor goes on in the same row. Whoever is asked reads all rows. All workers are forked from one
program and declare the same series in the same order, so a series has the same cell in each row.

Labels are known when the server starts: nothing that a client sends becomes one.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from mmap import mmap
from typing import Final, Literal

from learnflow_core.limiter import Decision

CELLS: Final = 8_192
"""Numbers that a worker has room for; memory is taken for those that are used."""

BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The buckets of a histogram of durations: up to so many seconds, each."""

CLASSES: Final = ("2xx", "3xx", "4xx", "5xx")
OTHER: Final = "other"
"""The label of what is not foreseen, such as a method that the route does not have."""

_CELL_BYTES: Final = 8
_FALLBACKS: Final = ("none", "local", "open", "closed")

Kind = Literal["counter", "histogram", "gauge", "fact"]
"""A gauge of the server is the sum of its workers' gauges; a fact, which each of them sees, the greatest of theirs."""


class Family:
    """One name, and the cells of its series by the values of their labels."""

    def __init__(self, metrics: Metrics, kind: Kind, name: str, description: str, labels: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.name = name
        self.description = description
        self.labels = labels
        self.cells: dict[tuple[str, ...], int] = {}
        self._metrics = metrics

    def series(self, *values: str) -> Series:
        """The series with these values of the labels; a gauge begins at nothing, whatever an earlier worker left."""
        series = Series(self._metrics, self.cell(*values))
        if self.kind in ("gauge", "fact"):
            series.put(0)
        return series

    def cell(self, *values: str) -> int:
        """Where the numbers of a series with these values begin."""
        if values not in self.cells:
            self.cells[values] = self._metrics.allocate(len(BOUNDS_S) + 2 if self.kind == "histogram" else 1)
        return self.cells[values]


class Series:
    """One number of this worker."""

    __slots__ = ("_cell", "_metrics")

    def __init__(self, metrics: Metrics, cell: int) -> None:
        self._metrics = metrics
        self._cell = cell

    def add(self, amount: float = 1) -> None:
        """Count so many more."""
        self._metrics.row[self._cell] += amount

    def put(self, value: float) -> None:
        """Tell how much it is now."""
        self._metrics.row[self._cell] = value


class Endpoint:
    """The requests to one route."""

    def __init__(self, metrics: Metrics, route: str, methods: Iterable[str]) -> None:
        self._metrics = metrics
        self._cells = {method: self._declare(route, method) for method in (*methods, OTHER)}

    def _declare(self, route: str, method: str) -> tuple[dict[int, int], int]:
        requests, durations = self._metrics.requests, self._metrics.durations
        answers = {number: requests.cell(route, method, status) for number, status in enumerate(CLASSES, start=2)}
        return answers, durations.cell(route, method)

    def answered(self, method: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        answers, duration = self._cells.get(method) or self._cells[OTHER]
        row = self._metrics.row
        row[answers[status // 100]] += 1
        row[duration + bisect_left(BOUNDS_S, seconds)] += 1
        row[duration + len(BOUNDS_S) + 1] += seconds


class Metrics:
    """The figures of a server with so many `workers` at most, made before these are forked. Each of them says
    `be_worker`, and `end` where nobody may come in its place.

    `readers` bring in what is kept elsewhere; `refresh` runs them.
    """

    def __init__(self, workers: int = 1) -> None:
        memory = memoryview(mmap(-1, workers * CELLS * _CELL_BYTES)).cast("d")
        self._rows = [memory[number * CELLS : (number + 1) * CELLS] for number in range(workers)]
        self._used = 1  # the first cell has the process's id
        self.families: list[Family] = []
        self.readers: list[Callable[[], None]] = []
        self.be_worker(0)
        self.requests = self.family(
            "counter", "learnflow_requests", "Requests that were answered.", "route", "method", "status"
        )
        self.durations = self.family(
            "histogram", "learnflow_request_duration_seconds", "From a request's head to its reply.", "route", "method"
        )
        self._decisions = self._declare_decisions()
        self.sweeps = self.family("counter", "learnflow_sweeps", "Rounds of the work that nobody waits for.", "outcome")
        self.unresolved = self.family(
            "fact", "learnflow_payments_unresolved", "Payments without an outcome for more than 10 seconds."
        ).series()
        self.uncounted = self.family(
            "fact", "learnflow_catalogue_uncounted", "Changes of the catalogue that are noted and not counted yet."
        ).series()

    def _declare_decisions(self) -> dict[tuple[bool, str], Series]:
        decisions = self.family(
            "counter",
            "learnflow_limiter_decisions",
            "Requests that the limiter let pass or refused, and the policy that decided while its store was away.",
            *("decision", "fallback"),
        )
        return {
            (refused, fallback): decisions.series("refused" if refused else "allowed", fallback)
            for refused in (False, True)
            for fallback in _FALLBACKS
        }

    def family(self, kind: Kind, name: str, description: str, *labels: str) -> Family:
        """A new family of series. Counters end in `_total` where they are told, and are named without it here."""
        family = Family(self, kind, name, description, labels)
        self.families.append(family)
        return family

    def allocate(self, cells: int) -> int:
        """The first of so many cells that nothing uses yet."""
        first, self._used = self._used, self._used + cells
        if self._used > CELLS:
            raise RuntimeError("there are more series than a worker has cells for")
        return first

    def be_worker(self, number: int) -> None:
        """Count as the worker with this number, from 0, from now on."""
        self.row = self._rows[number]
        self.row[0] = os.getpid()

    def end(self) -> None:
        """Be no worker any more: what was counted stays, and what was told of this process goes."""
        self.row[0] = 0

    def workers(self) -> Iterator[tuple[int, int]]:
        """The number and the process id of each worker."""
        return ((number, int(row[0])) for number, row in enumerate(self._rows) if row[0])

    def total(self, family: Family, cell: int) -> float:
        """What a cell says of the whole server."""
        if family.kind in ("counter", "histogram"):
            return sum(row[cell] for row in self._rows)
        present = [row[cell] for row in self._rows if row[0]]
        return max(present) if family.kind == "fact" else sum(present)

    def decided(self, decision: Decision, *, refused: bool) -> None:
        """Count a request by what became of it at the limiter."""
        self._decisions[refused, decision.fallback or "none"].add()

    def refresh(self) -> None:
        """Bring in what is kept elsewhere, as it is now."""
        for read in self.readers:
            read()
