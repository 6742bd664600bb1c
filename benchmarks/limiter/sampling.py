"""A group of rows: each limiter in a process of its own, sampled in random order."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self

from benchmarks.goals import median
from benchmarks.limiter.worker import Ask, Order
from benchmarks.measure import interleaved, summary
from benchmarks.processes import ROOT

MEASURED = ("cpu_ns", "wall_ns", "p50_ns", "p99_ns")


class Worker:
    """The process of one limiter. Leaving the block ends it."""

    def __init__(self, order: Order) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from benchmarks.limiter.worker import main; main()"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._tell(order)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def told(self) -> dict[str, Any]:
        """What it answers next."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a limiter's process has ended; its standard error says why")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def sample(self, ask: Ask) -> dict[str, Any]:
        """One sample of a way to ask."""
        self._tell(ask)
        return self.told()

    def _tell(self, fields: Order | Ask) -> None:
        assert self._process.stdin is not None
        print(json.dumps(fields), file=self._process.stdin, flush=True)


class Case(NamedTuple):
    """What a row measures: whom, and how."""

    order: Order
    ask: Ask


Row = dict[str, Any]
"""The summaries of `MEASURED`, the code that was timed, bytes a key, and whether the interpreter had its lock."""


def measured(cases: Mapping[str, Case], rounds: int, seed: int) -> dict[str, Row]:
    """The rows of one group. Rows of one order share a process, and the buckets in it."""
    with ExitStack() as stack:
        orders = dict.fromkeys(case.order for case in cases.values())
        workers = {order: stack.enter_context(Worker(order)) for order in orders}
        filled = {order: worker.told() for order, worker in workers.items()}
        samples = interleaved(
            {name: partial(workers[case.order].sample, case.ask) for name, case in cases.items()}, rounds, seed
        )
    return {name: _row(case, filled[case.order], samples[name]) for name, case in cases.items()}


def _row(case: Case, filled: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> Row:
    row: Row = {"code": filled["ways"][case.ask.way], "bytes_a_key": filled["bytes_a_key"], "gil": filled["gil"]}
    for figure in MEASURED:
        if of_each := [sample[figure] for sample in samples if figure in sample]:
            row[figure] = summary(of_each)
    return row


def a_second(row: Row, clock: str) -> float:
    """Decisions a second, by the processor's clock or the wall's."""
    return 1e9 / median(row, clock)
