"""What every benchmark shares: samples taken in random order, the machine they ran on, tables and a JSON report."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

K = TypeVar("K")
T = TypeVar("T")

MIN_ROUNDS = 5


def options(name: str, about: str, rounds: int = 7) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has; a benchmark adds its own."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=about)
    parser.add_argument(
        "--rounds", type=_rounds, default=rounds, help=f"samples of each case (at least 5; default: {rounds})"
    )
    parser.add_argument("--seed", type=int, default=1, help="of every random choice (default: 1)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write the report")
    return parser


def _rounds(text: str) -> int:
    rounds = int(text)
    if rounds < MIN_ROUNDS:
        raise argparse.ArgumentTypeError(f"a median of fewer than {MIN_ROUNDS} says little")
    return rounds


def interleaved(cases: Mapping[K, Callable[[], T]], rounds: int, seed: int) -> dict[K, list[T]]:
    """Take `rounds` samples of each case, every round in a random order of its own, after one that is thrown away.

    A sample is whatever its case returns. Cases that are compared belong into one call: a machine that is
    slower for a while is then slower for all of them.
    """
    order = random.Random(seed)
    names = list(cases)
    figures: dict[K, list[T]] = {name: [] for name in names}
    for take in range(rounds + 1):
        order.shuffle(names)
        for name in names:
            figure = cases[name]()
            if take:
                figures[name].append(figure)
    return figures


def summary(samples: Sequence[float]) -> dict[str, Any]:
    """The median of some samples, with the samples it stands for."""
    return {"median": statistics.median(samples), "samples": list(samples)}


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code: processor, system, interpreter, and how busy the machine was."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a head: the first column to the left, figures to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, ["-" * width for width in widths], *rows):
        first, *figures = (
            cell.ljust(w) if column == 0 else cell.rjust(w)
            for column, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *figures]))
    print()


def write_report(path: Path | None, benchmark: str, seed: int, results: Mapping[str, Any]) -> None:
    """Write the results as JSON, with the machine and the seed; without a path, do nothing."""
    if path is not None:
        report = {"benchmark": benchmark, "seed": seed, "machine": machine(), **results}
        path.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
        print(f"Written to {path}.")
