"""Mutants, and the processes in which they are tried, several at once: each in a copy of the project of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple, Self

from tests.mutants.covering import Covering
from tests.planted.__main__ import copy

PATIENCE_S, SLOWEST = 60, 10
"""A mutant counts as endless after so many seconds, and so many times those that its tests took without it."""


class Mutant(NamedTuple):
    """A module with one change, and the tests that could notice."""

    module: str
    line: int
    before: str
    after: str
    source: str
    tests: list[str]

    def __str__(self) -> str:
        return f"{self.module}:{self.line}\n    {self.before}\n    {self.after}"


class Runner:
    """A process that tries one mutant after the other (`tests.mutants.trial`)."""

    def __init__(self, tree: Path) -> None:
        self._tree = copy(tree)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.mutants.trial"],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def attempt(self, mutant: Mutant, patience_s: float) -> str:
        """What becomes of a mutant: it is `killed` or a `timeout`, or it has `survived`."""
        asked, answered = self._process.stdin, self._process.stdout
        assert asked is not None, "it has a pipe"
        assert answered is not None, "it has a pipe"
        module = str(self._tree / mutant.module)
        trial = {"module": module, "source": mutant.source, "tests": mutant.tests, "patience_s": patience_s}
        print(json.dumps(trial), file=asked, flush=True)
        outcome = answered.readline().strip()
        assert outcome, "the process that tries mutants has ended"
        return outcome

    def close(self) -> None:
        self._process.communicate()


class Nursery:
    """Runners that share the work."""

    def __init__(self, folder: Path, covering: Covering, jobs: int) -> None:
        self._covering = covering
        self._idle = SimpleQueue[Runner]()
        self._pool = ThreadPoolExecutor(jobs)
        for job in range(jobs):
            self._idle.put(Runner(folder / str(job)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().close()

    def attempt(self, mutants: Sequence[Mutant]) -> Iterator[tuple[Mutant, str]]:
        """What becomes of each, in their order."""
        return zip(mutants, self._pool.map(self._attempt, mutants), strict=True)

    def _attempt(self, mutant: Mutant) -> str:
        runner = self._idle.get()
        try:
            return runner.attempt(
                mutant, PATIENCE_S + SLOWEST * sum(self._covering.seconds[one] for one in mutant.tests)
            )
        finally:
            self._idle.put(runner)
