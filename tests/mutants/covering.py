"""Which tests run which lines of the core, and how long each takes: a plugin of pytest that notes it, and the notes.

`coverage run -m pytest -p tests.mutants.covering …` notes them, for `Covering.noted` to read.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import pytest
from coverage import Coverage, CoverageData

SECONDS = "covering.json"

_seconds: dict[str, float] = {}


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test's lines are those that run while it is set up, called and torn down."""
    coverage = Coverage.current()
    assert coverage is not None, "this runs under coverage"
    coverage.switch_context(item.nodeid)
    began = time.perf_counter()
    try:
        return (yield)
    finally:
        _seconds[item.nodeid] = time.perf_counter() - began
        coverage.switch_context("")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave the notes in the folder in which pytest was started."""
    (session.config.invocation_params.dir / SECONDS).write_text(json.dumps(_seconds))


class Covering(NamedTuple):
    """The tests that ran, with their seconds; and of each module, which of them ran which of its lines."""

    seconds: dict[str, float]
    lines: dict[str, dict[int, list[str]]]

    @classmethod
    def noted(cls, tree: Path) -> Covering:
        """What was noted in a copy of the project."""
        data = CoverageData(str(tree / ".coverage"))
        data.read()
        files = {str(Path(file).relative_to(tree)): file for file in data.measured_files()}
        lines = {module: data.contexts_by_lineno(file) for module, file in files.items()}
        return cls(json.loads((tree / SECONDS).read_text()), lines)

    def of(self, module: str, lines: range, most_s: float) -> list[str]:
        """The tests that could notice a change to these lines: those named for the module first, then the quickest,
        as many as take `most_s` in all.

        A line that runs when the module is imported is everybody's. Those come first who run any line of a function.
        """
        runs = self.lines.get(module, {})
        here = {test for line in lines for test in runs.get(line, ()) if test}
        there = {test for tests in runs.values() for test in tests if test}
        ranks = here or (there if any("" in runs.get(line, ()) for line in lines) else set())
        stem = Path(module).stem
        chosen, taken_s = list[str](), 0.0
        for test in sorted(ranks or self.seconds, key=lambda test: (stem not in test, self.seconds[test])):
            taken_s += self.seconds[test]
            if taken_s > most_s and chosen:
                break
            chosen.append(test)
        return chosen
