"""The goals of the catalogue: how little its size matters, and how long a search may take."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator

from benchmarks.catalogue import lists, searches, serving
from benchmarks.databases import POSTGRESQL, SQLITE
from benchmarks.goals import Goal, Results, median, ratio

SMALL, LARGE = "1000", "1000000"
LISTS, SEARCHES = "lists of the storage, ms", "searches of the storage, ms"
PAGES, STALLS = "pages over HTTP, p50 in ms", "the longest wait of others over HTTP, ms"
MEMORY = "memory (USS) of the worker after these, MB"
WORKER = "one worker"


def title_of(engine: str, group: str) -> str:
    """The title of a group on a database."""
    return f"{engine}: {group}"


def grown(group: str, rows: Iterable[str]) -> Callable[[Results], float]:
    """How many times as long a row takes at a million courses as at a thousand: the row for which that is most."""
    names = list(rows)
    return lambda results: max(ratio(results[group][name][LARGE], results[group][name][SMALL]) for name in names)


def at_large(
    group: str, rows: Iterable[str], of_rows: Callable[[Iterable[float]], float] = max
) -> Callable[[Results], float]:
    """The largest of some rows at a million courses, or whatever is wanted of them."""
    names = list(rows)
    return lambda results: of_rows([median(results[group][name], LARGE) for name in names])


def beside_page_1(group: str) -> Callable[[Results], float]:
    """How many times as long any page takes as page 1 of the same list, at a million courses."""
    return lambda results: ratio(results[group][serving.ANY][LARGE], results[group][serving.FIRST][LARGE])


def _goals_of(engine: str, pages_ms: tuple[float, float], total_ms: float) -> Iterator[Goal]:
    listed, searched, over_http, stalled, held = (
        title_of(engine, group) for group in (LISTS, SEARCHES, PAGES, STALLS, MEMORY)
    )

    def goal(about: str, target: float, unit: str, found: Callable[[Results], float]) -> Goal:
        return Goal(f"{engine}, {about}", target, unit, found, at_least=False)

    pages = [searches.row_of(kind, searches.PAGE) for kind in searches.KINDS]
    of_one, of_others = (
        [searches.row_of(kind, searches.TOTAL) for kind in kinds]
        for kinds in ((searches.RARE, searches.COMMON), (searches.TWO, searches.PREFIX))
    )
    for part in lists.PARTS:
        rows = [lists.row_of(name, part) for name in lists.QUERIES]
        yield goal(f"{part} of every list, beside 1,000 courses", 1.5, "x", grown(listed, rows))
    rare = searches.row_of(searches.RARE, searches.PAGE)
    yield goal("page 1 of a rare word, beside 1,000 courses", 1.5, "x", grown(searched, [rare]))
    yield goal("any page over HTTP, beside page 1", 1.5, "x", beside_page_1(over_http))
    yield goal("page 1 of a search, the median kind", pages_ms[0], "ms", at_large(searched, pages, statistics.median))
    yield goal("page 1 of a search, the worst kind", pages_ms[1], "ms", at_large(searched, pages))
    yield goal("the total of one word", 0.2, "ms", at_large(searched, of_one))
    yield goal("the total of any other search", total_ms, "ms", at_large(searched, of_others))
    yield goal("the longest stall while slow searches run", 10, "ms", at_large(stalled, [serving.STALLED]))
    yield goal("memory of a worker", 45, "MB", at_large(held, [WORKER]))


GOALS = (*_goals_of(SQLITE, (0.5, 5), 15), *_goals_of(POSTGRESQL, (2, 30), 140))
