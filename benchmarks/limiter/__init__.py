"""The limiter beside its floors and its peers: decisions, latencies and bytes a key, in memory and over Valkey.

Every row is a line of code, timed in a process of its own. The rows of a group ask for the same keys in random order,
and their samples are taken in turn. docs/benchmarks.md explains how to read them.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from benchmarks import valkey_server
from benchmarks.goals import judged, print_goals
from benchmarks.limiter import groups, valkey
from benchmarks.limiter.goals import GOALS
from benchmarks.limiter.groups import Group, Settings
from benchmarks.limiter.imports import measured_imports
from benchmarks.limiter.ours import MAX_KEYS
from benchmarks.limiter.peers import PEERS
from benchmarks.limiter.plots import draw
from benchmarks.limiter.sampling import Row, measured
from benchmarks.limiter.tables import print_group
from benchmarks.measure import options, print_table, write_report
from benchmarks.plots import can_draw

PARTS: Mapping[str, Callable[[Settings], Iterator[Group]]] = {
    "keys": groups.with_keys,
    "first-calls": groups.first_calls,
    "threads": groups.threads,
    "batches": groups.batches,
    "replies": groups.replies,
    "valkey": valkey.groups,
}
IMPORT = "import"


def run(argv: list[str]) -> int:
    """Measure what is asked for, print tables and goals, and write a report if a path is given."""
    parser = _parser()
    given = parser.parse_args(argv)
    if given.plots is not None and not can_draw():
        parser.error("--plots needs matplotlib (requirements/bench.txt)")
    settings = Settings(given.rounds, given.seed, given.seconds, given.max_keys)
    _introduce_peers()
    results = {
        group.title: _group(group, settings) for part in PARTS if part in given.only for group in PARTS[part](settings)
    }
    goals = judged(GOALS, results)
    print_goals(goals)
    report = {
        "versions": _versions(),
        "seconds_a_sample": settings.seconds,
        "results": results,
        "import_ms": measured_imports(settings) if IMPORT in given.only else None,
        "goals": goals,
    }
    write_report(given.json, "limiter", settings.seed, report)
    if given.plots is not None:
        print("Drawn:", *draw(results, given.plots))
    return 0


def _introduce_peers() -> None:
    missing = [name for name, peer in PEERS.items() if not peer.installed()]
    if missing:
        print(f"Not installed, and left out: {', '.join(missing)}.\n", file=sys.stderr)
    rows = [(name, version(name), peer.lacks) for name, peer in PEERS.items() if peer.installed()]
    print_table(("peer", "version", "what it does not do"), rows)


def _versions() -> dict[str, str]:
    """Of the peers, of the client they use over Valkey, and of the server."""
    libraries = [name for name, peer in PEERS.items() if peer.installed()]
    versions = {name: version(name) for name in [*libraries, *(["redis"] if find_spec("redis") else [])]}
    program = valkey_server.found()
    return versions | ({"server": valkey_server.version_of(program)} if program else {})


def _parser() -> ArgumentParser:
    parts = [*PARTS, IMPORT]
    parser = options("limiter", "The limiter beside its floors and its peers.")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, metavar="PART", help=", ".join(parts))
    parser.add_argument("--max-keys", type=int, default=MAX_KEYS, help="leave out groups with more keys")
    parser.add_argument("--seconds", type=float, default=0.03, help="about how long a sample takes (default: 0.03)")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="where to draw plots, by matplotlib")
    return parser


def _group(group: Group, settings: Settings) -> dict[str, Row]:
    rows = measured(group.cases, settings.rounds, settings.seed)
    print_group(group, rows)
    return rows
