"""The tables of a catalogue at several sizes, for the terminal and for the document, and its plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.catalogue import lists, searches
from benchmarks.catalogue.goals import LISTS, SEARCHES, title_of
from benchmarks.databases import ENGINES
from benchmarks.documents import markdown_table, where_and_when
from benchmarks.goals import GOALS_HEAD, Results, goal_cells, median
from benchmarks.plots import OURS, PEER, pyplot, written

Rows = Mapping[str, Mapping[str, Any]]

DRAWN = {
    LISTS: {
        "popular: page 1": lists.row_of("popular", lists.FIRST),
        "popular: the last page": lists.row_of("popular", lists.LAST),
        "popular: by cursor": lists.row_of("popular", lists.CURSOR),
        "a category at a level, by rating: the middle page": lists.row_of(
            "a category at a level, by rating", lists.MIDDLE
        ),
    },
    SEARCHES: {kind: searches.row_of(kind, searches.AGAIN) for kind in searches.KINDS},
}
"""The rows that the plot shows, by what it calls them."""
_LINES = ("-", "--", "-.", ":")


def tables(results: Results) -> Iterator[tuple[Sequence[str], Sequence[Sequence[str]]]]:
    """Everything that was measured but the goals: a head, and rows, with a column for each number of courses."""
    for title, rows in results.items():
        sizes = list(next(iter(rows.values())))
        head = (title, *(f"{int(size):,}" for size in sizes))
        yield head, [(name, *(f"{median(row, size):.3g}" for size in sizes)) for name, row in rows.items()]


def document(results: Results, goals: Sequence[Mapping[str, Any]], plots: Sequence[Path]) -> str:
    """What a document says of a run."""
    images = [f"![{path.stem.replace('-', ' ')}](benchmarks/{path.name})\n" for path in plots]
    found = [
        markdown_table(*table) for table in tables({title: _shown(title, rows) for title, rows in results.items()})
    ]
    return "\n".join([f"{where_and_when()}\n", markdown_table(GOALS_HEAD, map(goal_cells, goals)), *images, *found])


def _shown(title: str, rows: Rows) -> Rows:
    """What a document shows of a group: of the many lists, those that are drawn."""
    return {row: rows[row] for row in DRAWN[LISTS].values()} if title.endswith(LISTS) else rows


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw what lists and searches take against the number of courses, and say which files that made."""
    engines = [engine for engine in ENGINES if title_of(engine, LISTS) in results]
    return written([("catalogue-by-size", _by_size(results, engines))], folder)


def _by_size(results: Results, engines: Sequence[str]) -> Any:
    """A panel for each database, a line for each list and search."""
    figure, axes = pyplot().subplots(ncols=len(engines), figsize=(5.2 * len(engines), 4.4), sharey=True, squeeze=False)
    for panel, engine in zip(axes[0], engines, strict=True):
        for (group, rows), colour in zip(DRAWN.items(), (OURS, PEER), strict=True):
            for (name, row), line in zip(rows.items(), _LINES, strict=True):
                found = results[title_of(engine, group)][row]
                taken = [median(found, size) for size in found]
                panel.plot([*map(int, found)], taken, line, marker="o", markersize=3, color=colour, label=name)
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel("courses")
        panel.set_title(engine, loc="left")
    axes[0][0].set_ylabel("milliseconds of one read (logarithmic)")
    axes[0][-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    return figure
