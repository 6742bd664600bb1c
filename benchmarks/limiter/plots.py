"""The tables of the limiter as pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.goals import Results
from benchmarks.limiter.goals import MILLION, ONE_KEY
from benchmarks.limiter.groups import IN_TASKS, THREADED, THREADS, row_of_threads
from benchmarks.limiter.sampling import Row, a_second
from benchmarks.limiter.subjects import FLOORS, THEIRS
from benchmarks.plots import FLOOR, OURS, PEER, pyplot, written


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw what the run has measured, and say which files that made."""
    return written(_figures(results), folder)


def _figures(results: Results) -> Iterator[tuple[str, Any]]:
    if ONE_KEY in results:
        yield "one-key", _speeds(ONE_KEY, results[ONE_KEY], "cpu_ns")
    if MILLION in results:
        yield "million-keys", _speeds(MILLION, results[MILLION], "cpu_ns", with_bytes=True)
    if THREADED in results:
        yield "threads", _lines(results[THREADED])
    if IN_TASKS in results:
        yield "valkey", _speeds(IN_TASKS, results[IN_TASKS], "wall_ns")


def _speeds(title: str, rows: Mapping[str, Row], clock: str, *, with_bytes: bool = False) -> Any:
    """A bar for each row, the fastest on top; with another for its memory where that is asked for."""
    names = sorted(rows, key=lambda name: a_second(rows[name], clock))
    panels = 2 if with_bytes else 1
    figure, axes = pyplot().subplots(
        ncols=panels, figsize=(8 + 2 * with_bytes, 0.6 + 0.24 * len(names)), sharey=True, squeeze=False
    )
    speed, *memory = axes[0]
    colours = [_colour(name) for name in names]
    bars = speed.barh(names, [a_second(rows[name], clock) for name in names], color=colours)
    speed.bar_label(bars, [f" {a_second(rows[name], clock):,.0f}" for name in names], fontsize=8)
    speed.set_xscale("log")
    speed.minorticks_off()
    speed.margins(x=0.2)
    speed.set_xlabel("decisions a second (logarithmic)")
    speed.set_title(title, loc="left")
    for panel in memory:
        grown = [0 if name in FLOORS else rows[name]["bytes_a_key"] for name in names]
        panel.bar_label(panel.barh(names, grown, color=colours), fmt=" %.0f", fontsize=8)
        panel.margins(x=0.15)
        panel.set_xlabel("bytes a key, without its string")
    return figure


def _lines(rows: Mapping[str, Row]) -> Any:
    """A line for each limiter: what so many threads get done together."""
    figure, axes = pyplot().subplots(figsize=(8, 4))
    limiters = dict.fromkeys(name.rpartition(", ")[0] for name in rows)
    for limiter in limiters:
        done = [a_second(rows[row_of_threads(limiter, count)], "wall_ns") for count in THREADS]
        axes.plot(THREADS, done, marker="o", markersize=3, color=OURS if _colour(limiter) == OURS else None)
        axes.annotate(limiter, (THREADS[-1], done[-1]), xytext=(5, -3), textcoords="offset points", fontsize=8)
    axes.set_yscale("log")
    axes.set_xticks(THREADS, [str(count) for count in THREADS])
    axes.set_xlabel("threads")
    axes.set_ylabel("decisions a second, all threads")
    axes.set_title(THREADED, loc="left")
    return figure


def _colour(name: str) -> str:
    if name.startswith("learnflow"):
        return OURS
    return PEER if any(name.startswith(peer) for peer in THEIRS) else FLOOR
