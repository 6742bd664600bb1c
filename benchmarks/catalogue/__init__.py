"""The catalogue at several sizes: what the storage takes to list, page and search it, and how it is served then.

One reader asks, warm. Times of the storage are those of a whole `Storage.read`; over HTTP one worker serves, with
nothing else to do unless it is said.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.catalogue import lists, searches, serving
from benchmarks.catalogue.goals import GOALS, LISTS, MEMORY, PAGES, SEARCHES, STALLS, WORKER, title_of
from benchmarks.catalogue.lists import BySize
from benchmarks.catalogue.tables import document, draw, tables
from benchmarks.databases import database_options, databases
from benchmarks.documents import rewrite
from benchmarks.goals import judged, print_goals
from benchmarks.http.servers import Servers, servers
from benchmarks.measure import options, print_table, summary, write_report
from benchmarks.plots import can_draw

SIZES = (1_000, 100_000, 1_000_000)


def run(argv: list[str]) -> int:
    """Measure, print, and write the report and the document's part where they are wanted."""
    parser = options("catalogue", __doc__ or "", rounds=5)
    database_options(parser, SIZES)
    parser.add_argument("--seconds", type=float, default=2.0, help="for how long waiting is looked at (default: 2)")
    parser.add_argument("--docs", type=Path, metavar="FOLDER", help="where benchmarks.md is to show what was found")
    given = parser.parse_args(argv)
    if given.docs is not None and not can_draw():
        parser.error("--docs needs matplotlib (requirements/bench.txt)")
    results: dict[str, BySize] = {}
    with databases(given) as kept, servers() as starts:
        for engine in kept.engines:
            urls = {courses: kept.ours(engine, courses) for courses in given.courses}
            results |= asyncio.run(_of_storage(engine, urls, given))
            print(f"The storage on {engine}: measured.", file=sys.stderr)
            results |= _over_http(engine, urls, starts, given)
            print(f"The server on {engine}: measured.", file=sys.stderr)
    for table in tables(results):
        print_table(*table)
    goals = judged(GOALS, results)
    print_goals(goals)
    write_report(given.json, "catalogue", given.seed, {"results": results, "goals": goals})
    if given.docs is not None:
        plots = draw(results, given.docs / "benchmarks")
        rewrite(given.docs / "benchmarks.md", "catalogue", document(results, goals, plots))
    return 0


async def _of_storage(engine: str, urls: Mapping[int, str], given: argparse.Namespace) -> dict[str, BySize]:
    async with lists.storages(urls) as opened:
        return {
            title_of(engine, LISTS): await lists.measured(opened, given.rounds, given.seed),
            title_of(engine, SEARCHES): await searches.measured(opened, given.rounds),
        }


def _over_http(engine: str, urls: Mapping[int, str], starts: Servers, given: argparse.Namespace) -> dict[str, BySize]:
    """Each size by a server of its own."""
    found: dict[str, BySize] = {title_of(engine, group): {} for group in (PAGES, STALLS, MEMORY)}
    for courses, database in urls.items():
        token = asyncio.run(starts.token(database))
        with starts.learnflow(database) as server:
            _add(found[title_of(engine, PAGES)], serving.pages(server, token, courses, given.rounds, given.seed))
            _add(found[title_of(engine, STALLS)], serving.stalls(server, token, courses, given.rounds, given.seconds))
            held: dict[str, Any] = {str(courses): summary([server.uss_bytes() / 1e6])}
            _add(found[title_of(engine, MEMORY)], {WORKER: held})
    return found


def _add(rows: BySize, of_a_size: BySize) -> None:
    """Put what was found at one more size beside the others."""
    for row, figures in of_a_size.items():
        rows.setdefault(row, {}).update(figures)
