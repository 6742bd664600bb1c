"""The goals of the server, as ratios within one run wherever they can be."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from benchmarks.databases import ENGINES, POSTGRESQL, SQLITE
from benchmarks.goals import Goal, Results, median, times
from benchmarks.http import enrolments
from benchmarks.http.lists import AGAIN, ANY_PAGE, FLOOR, LEARNFLOW, PEER, row_of, title_of
from benchmarks.http.workers import ONE, TWO, WORKERS

MEMORY = "memory"
"""The group of what servers hold, whose rows are the titles of the others."""
LARGEST = 1_000_000
CACHED, UNCACHED = row_of(LEARNFLOW, AGAIN), row_of(LEARNFLOW, ANY_PAGE)


def of_the_floor(engine: str, courses: int, row: str) -> Callable[[Results], float]:
    """Requests a second, as a part of the floor's."""
    group = title_of(engine, courses)
    return lambda results: times(results[group][row], results[group][FLOOR], "requests_per_s")


def beside_the_peer(engine: str, courses: int, asked: str) -> Callable[[Results], float]:
    """Requests a second, as a multiple of the peer's."""
    group = title_of(engine, courses)
    return lambda results: times(
        results[group][row_of(LEARNFLOW, asked)], results[group][row_of(PEER, asked)], "requests_per_s"
    )


def enrolling(engine: str) -> Callable[[Results], float]:
    """Enrolments a second in free courses, as a multiple of the peer's, with the fewest under way that are measured."""
    group = enrolments.title_of(engine, enrolments.AT_ONCE[0])
    ours, theirs = (enrolments.row_of(subject, enrolments.FREE) for subject in (LEARNFLOW, PEER))
    return lambda results: times(results[group][ours], results[group][theirs], "requests_per_s")


def megabytes(engine: str, courses: int) -> Callable[[Results], float]:
    """What the project's worker holds (USS) when it has answered everything of a group."""
    return lambda results: float(results[MEMORY][title_of(engine, courses)][LEARNFLOW]) / 1e6


def added_by_sharing(results: Results) -> float:
    """Microseconds of the processor that a request takes more with two workers than with one."""
    rows = results[WORKERS]
    return median(rows[TWO], "cpu_us") - median(rows[ONE], "cpu_us")


GOALS = (
    *(
        Goal(f"{name}, the list again, of the floor", 0.7, "", of_the_floor(engine, courses, CACHED))
        for engine, courses in product(ENGINES, (2_000, LARGEST))
        for name in [title_of(engine, courses)]
    ),
    *(
        Goal(
            f"{title_of(engine, LARGEST)}, any page, of the floor", target, "", of_the_floor(engine, LARGEST, UNCACHED)
        )
        for engine, target in ((SQLITE, 0.3), (POSTGRESQL, 0.13))
    ),
    *(
        Goal(
            f"{title_of(engine, courses)}, {asked}, beside FastAPI",
            target,
            "x",
            beside_the_peer(engine, courses, asked),
        )
        for engine in ENGINES
        for asked, courses, target in (
            (AGAIN, 2_000, 50),
            (AGAIN, LARGEST, 200),
            (ANY_PAGE, 100_000, 20),
            (ANY_PAGE, LARGEST, 60),
        )
    ),
    *(
        Goal(f"enrolments in free courses on {engine}, beside FastAPI", target, "x", enrolling(engine))
        for engine, target in ((SQLITE, 35), (POSTGRESQL, 6))
    ),
    *(
        Goal(f"{title_of(engine, LARGEST)}, memory of a worker", 45, "MB", megabytes(engine, LARGEST), at_least=False)
        for engine in ENGINES
    ),
    Goal("2 workers that share limits, CPU added to a request", 25, "µs", added_by_sharing, at_least=False),
)
