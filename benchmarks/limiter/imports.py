"""The time to import the limiter: a fresh interpreter that does, beside one that does nothing."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from time import perf_counter_ns
from typing import Any

from benchmarks.limiter.groups import Settings
from benchmarks.measure import interleaved, print_table, summary
from benchmarks.processes import ROOT

NOTHING, LIMITER = "pass", "import learnflow_core.limiter"


def measured_imports(settings: Settings) -> dict[str, Any]:
    """Milliseconds of each, printed; fresh interpreters differ so much that thrice the rounds are taken."""
    cases = {code: partial(_milliseconds, code) for code in (NOTHING, LIMITER)}
    rows = {code: summary(took) for code, took in interleaved(cases, 3 * settings.rounds, settings.seed).items()}
    medians = {code: row["median"] for code, row in rows.items()}
    medians["the import alone"] = medians[LIMITER] - medians[NOTHING]
    print_table(("a fresh interpreter", "ms"), [(code, f"{took:.1f}") for code, took in medians.items()])
    return rows


def _milliseconds(code: str) -> float:
    started = perf_counter_ns()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    return (perf_counter_ns() - started) / 1e6
