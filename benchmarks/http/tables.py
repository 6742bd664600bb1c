"""The tables of a run over HTTP, for the terminal and for the document, and its plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.databases import ENGINES
from benchmarks.documents import markdown_table, where_and_when
from benchmarks.goals import GOALS_HEAD, Results, goal_cells, median, times
from benchmarks.http import enrolments, workers
from benchmarks.http.goals import MEMORY
from benchmarks.http.lists import AGAIN, ANY_PAGE, FLOOR, LEARNFLOW, ONE, PEER, SEARCH, floor_of, row_of, title_of
from benchmarks.plots import FLOOR as GREY
from benchmarks.plots import OURS, pyplot, written
from benchmarks.plots import PEER as BLUE

PACKAGES: Final = (
    "uvicorn", "uvloop", "httptools", "starlette", "fastapi", "pydantic", "sqlalchemy", "slowapi",
    "aiosqlite", "asyncpg",
)  # fmt: skip
_FIGURES: Final = ("requests/s", "p50 ms", "p99 ms", "CPU µs", "database's")
_LINES: Final = {AGAIN: "-", ANY_PAGE: "--", SEARCH: ":", ONE: "-."}


class Table(NamedTuple):
    """A table as cells of text."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(results: Results) -> Iterator[Table]:
    """Everything that was measured but the goals."""
    for title, rows in results.items():
        if title == MEMORY:
            subjects = (LEARNFLOW, PEER)
            sizes = [[group, *(f"{uss[each] / 1e6:.0f}" for each in subjects)] for group, uss in rows.items()]
            yield Table((f"{title} of one worker, MB", *subjects), sizes)
        else:
            yield Table(
                (title, *_FIGURES, "of 1 worker" if title == workers.WORKERS else "of the floor"),
                [_cells(name, row, rows[_beside(title, name)]) for name, row in rows.items()],
            )


def versions() -> dict[str, str]:
    """Of what is measured, and of what it stands on."""
    return {name: version(name) for name in PACKAGES}


def busiest(results: Results) -> str:
    """How much of its core the load generator needed: at all of it, it would be what was measured."""
    rows = (row for title, group in results.items() if title != MEMORY for row in group.values())
    busy = max((share for row in rows for share in row["generator_busy"]["samples"]), default=0.0)
    return f"The load generator was at most {busy:.0%} busy."


def document(results: Results, goals: Sequence[Mapping[str, Any]], plots: Sequence[Path]) -> str:
    """What a document says of a run."""
    libraries = ", ".join(f"{name} {number}" for name, number in versions().items())
    images = [f"![{path.stem.replace('-', ' ')}](benchmarks/{path.name})\n" for path in plots]
    found = [markdown_table(*table) for table in tables(results)]
    return "\n".join(
        [
            f"{where_and_when()} {libraries}. {busiest(results)}\n",
            markdown_table(GOALS_HEAD, map(goal_cells, goals)),
            *images,
            *found,
        ]
    )


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw what a request costs against the number of courses, and say which files that made."""
    sizes = {engine: _sizes(results, engine) for engine in ENGINES}
    compared = {engine: numbers for engine, numbers in sizes.items() if len(numbers) > 1}
    return written([("http-by-size", _by_size(results, compared))] if compared else [], folder)


def _beside(title: str, row: str) -> str:
    """The row that another of its table is compared with."""
    if title.startswith(enrolments.TITLE):
        return enrolments.FLOOR
    return workers.ONE if title == workers.WORKERS else floor_of(row)


def _cells(name: str, row: Mapping[str, Any], beside: Mapping[str, Any]) -> list[str]:
    speed, part = median(row, "requests_per_s"), times(row, beside, "requests_per_s")
    return [
        name,
        f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}",
        *(f"{median(row, figure):,.2f}" for figure in ("p50_ms", "p99_ms")),
        *(f"{median(row, figure):,.0f}" for figure in ("cpu_us", "database_cpu_us")),
        f"{part:.2f}" if part >= 0.1 else f"{part:.3f}" if part >= 0.001 else "< 0.001",
    ]


def _sizes(results: Results, engine: str) -> list[int]:
    """The numbers of courses that were measured on a database."""
    ends = f" courses on {engine}"
    return sorted(int(title.removesuffix(ends).replace(",", "")) for title in results if title.endswith(ends))


def _by_size(results: Results, sizes: Mapping[str, Sequence[int]]) -> Any:
    """A panel for each database, a line for each thing asked; the floor is a line too."""
    figure, axes = pyplot().subplots(ncols=len(sizes), figsize=(5.2 * len(sizes), 4.4), sharey=True, squeeze=False)
    for panel, (engine, numbers) in zip(axes[0], sizes.items(), strict=True):
        groups = [results[title_of(engine, courses)] for courses in numbers]
        for subject, colour in ((LEARNFLOW, OURS), (PEER, BLUE)):
            for asked, line in _LINES.items():
                taken = [_cpu_us(rows[row_of(subject, asked)]) for rows in groups]
                panel.plot(numbers, taken, line, marker="o", markersize=3, color=colour, label=row_of(subject, asked))
        panel.plot(numbers, [_cpu_us(rows[FLOOR]) for rows in groups], color=GREY, label=FLOOR)
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel("courses")
        panel.set_title(engine, loc="left")
    axes[0][0].set_ylabel("CPU of a request, the database's too (µs, logarithmic)")
    axes[0][-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    return figure


def _cpu_us(row: Mapping[str, Any]) -> float:
    return median(row, "cpu_us") + median(row, "database_cpu_us")
