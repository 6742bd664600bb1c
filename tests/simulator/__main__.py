"""`python -m tests.simulator`: many seeds, or many cuts of one story; or one of them step by step."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from tests.simulator.points import Cut, pairs, single, tell
from tests.simulator.world import Outcome, simulate

What = TypeVar("What")

TOLD_EVERY = 1_000
"""How many worlds pass before it is told how far this has come."""


def main() -> int:
    """Run what the command line asks for; 1 when an invariant was violated."""
    options = _options()
    if options.seed is not None:
        return _one(simulate(options.seed), trace=options.trace)
    if options.cut:
        return _one(_cut(options.cut), trace=options.trace)
    if options.points:
        return _many([(cut,) for cut in single()], _cut, _words_of_cuts)
    if options.pairs:
        return _many(pairs()[: options.pairs], _cut, _words_of_cuts)
    return _many(range(options.first, options.first + options.seeds), simulate, lambda seed: f"--seed {seed}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many worlds (100)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--seed", type=int, help="this world alone")
    parser.add_argument("--points", action="store_true", help="the story, with each fault of each of its points")
    parser.add_argument("--pairs", type=int, help="the story, with faults at so many of all pairs of its points")
    parser.add_argument("--cut", type=_read_cut, action="append", help="the story, with this fault: POINT:FAULT")
    parser.add_argument("--trace", action="store_true", help="tell what happens, line by line")
    return parser.parse_args()


def _read_cut(text: str) -> Cut:
    point, _, fault = text.partition(":")
    return int(point), int(fault)


def _cut(cuts: Sequence[Cut]) -> Outcome:
    return tell(cuts)[0]


def _words_of_cuts(cuts: Sequence[Cut]) -> str:
    return " ".join(f"--cut {point}:{fault}" for point, fault in cuts)


def _one(outcome: Outcome, *, trace: bool) -> int:
    if trace:
        print("\n".join(outcome.trace))
    print("\n".join(outcome.violations) or "no invariant was violated")
    print(f"digest {outcome.digest}")
    return 1 if outcome.violations else 0


def _many(whats: Sequence[What], run: Callable[[What], Outcome], words: Callable[[What], str]) -> int:
    """Run all of them on every core, and tell how to see again what went wrong."""
    began, deaths, charges, failed = time.monotonic(), 0, 0, 0
    for number, (what, outcome) in enumerate(zip(whats, _side_by_side(run, whats), strict=True), start=1):
        if number % TOLD_EVERY == 0:
            print(f"{number} of {len(whats)} worlds, {failed} violations", file=sys.stderr)
        deaths += outcome.deaths
        charges += outcome.charges
        if outcome.violations:
            failed += 1
            print("\n".join(outcome.violations))
            print(f"    python -m tests.simulator {words(what)} --trace", flush=True)
    a_second = len(whats) / (time.monotonic() - began)
    print(f"{len(whats)} worlds, {failed} of them violated an invariant")
    print(f"{deaths} processes died, {charges} charges were asked for; {a_second:.1f} worlds a second")
    return 1 if failed else 0


def _side_by_side(run: Callable[[What], Outcome], whats: Sequence[What]) -> Iterable[Outcome]:
    with ProcessPoolExecutor(os.cpu_count()) as workers:
        yield from workers.map(run, whats, chunksize=10)


if __name__ == "__main__":
    sys.exit(main())
