"""The server over HTTP: lists, searches, courses and enrolments beside the floor of the same uvicorn and beside a peer.

The floor is a raw ASGI callable that answers the very bytes the API answered (`benchmarks.floor`), the peer what a user
would build instead (`benchmarks.peers`). They run at the same time and are asked in turn. CPU time is that of all
threads of a server. Where the system allows it, the servers have one core to themselves, and the load generator shares
another with the database's server.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.databases import SQLITE, Databases, database_options, databases, numbers
from benchmarks.documents import rewrite
from benchmarks.goals import judged, print_goals
from benchmarks.http import enrolments, lists, workers
from benchmarks.http.goals import GOALS, MEMORY
from benchmarks.http.sampling import Settings
from benchmarks.http.servers import Servers, servers
from benchmarks.http.tables import busiest, document, draw, tables, versions
from benchmarks.measure import options, print_table, write_report
from benchmarks.plots import can_draw

LISTS, ENROLMENTS, WORKERS = "lists", "enrolments", "workers"
PARTS = (LISTS, ENROLMENTS, WORKERS)
SIZES = (2_000, 100_000, 1_000_000)


def run(argv: Sequence[str]) -> int:
    """Measure, print, and write the report and the document's part where they are wanted."""
    parser = _parser()
    given = parser.parse_args(argv)
    if given.docs is not None and not can_draw():
        parser.error("--docs needs matplotlib (requirements/bench.txt)")
    settings = Settings(given.rounds, given.seed, given.seconds, given.connections)
    with databases(given) as kept, servers() as starts:
        results = _measured(kept, starts, settings, given)
    for table in tables(results):
        print_table(*table)
    goals = judged(GOALS, results)
    print_goals(goals)
    print(busiest(results))
    report = {"connections": settings.connections, "versions": versions(), "results": results, "goals": goals}
    write_report(given.json, "http", settings.seed, report)
    if given.docs is not None:
        rewrite(
            given.docs / "benchmarks.md", "http", document(results, goals, draw(results, given.docs / "benchmarks"))
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = options("http", "The server beside the floor and a peer.", rounds=5)
    database_options(parser, SIZES)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--connections", type=int, default=8, help="requests under way at once (default: 8)")
    parser.add_argument("--seconds", type=float, default=0.7, help="length of a sample (default: 0.7)")
    parser.add_argument(
        "--enrolling",
        type=numbers,
        default=enrolments.AT_ONCE,
        metavar="N,…",
        help=f"enrolments under way at once (default: {','.join(map(str, enrolments.AT_ONCE))})",
    )
    parser.add_argument("--docs", type=Path, metavar="FOLDER", help="where benchmarks.md is to show what was found")
    return parser


def _measured(
    kept: Databases, starts: Servers, settings: Settings, given: argparse.Namespace
) -> dict[str, Mapping[str, Any]]:
    """The rows of every part that is asked for, and what servers held."""
    results: dict[str, Mapping[str, Any]] = {}
    memory: dict[str, Mapping[str, int]] = {}
    if LISTS in given.only:
        for group in lists.groups(kept, given.courses, starts, settings):
            print(f"{group.title}: measured.", file=sys.stderr)
            results[group.title], memory[group.title] = group.rows, group.uss_bytes
        results[MEMORY] = memory
    if ENROLMENTS in given.only:
        for some in enrolments.groups(kept.engines, given.enrolling, starts, settings):
            print(f"{some.title}: measured.", file=sys.stderr)
            results[some.title] = some.rows
    if WORKERS in given.only and SQLITE in kept.engines:
        results[workers.WORKERS] = workers.rows(kept, starts, settings)
    return results
