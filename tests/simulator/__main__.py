"""`python -m tests.simulator`: many seeds, or one of them step by step."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.simulator.world import Outcome, simulate


def main() -> int:
    """Run what the command line asks for; 1 when an invariant was violated."""
    options = _options()
    if options.seed is not None:
        return _one(options.seed, trace=options.trace)
    began, deaths, charges, failed = time.monotonic(), 0, 0, 0
    for outcome in _outcomes(range(options.first, options.first + options.seeds)):
        deaths += outcome.deaths
        charges += outcome.charges
        if outcome.violations:
            failed += 1
            _tell(outcome)
    took = time.monotonic() - began
    print(f"{options.seeds} seeds, {failed} of them violated an invariant")
    print(f"{deaths} processes died, {charges} charges were asked for; {options.seeds / took:.1f} seeds a second")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many (100)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--trace", action="store_true", help="tell what happens in it, line by line")
    return parser.parse_args()


def _one(seed: int, *, trace: bool) -> int:
    outcome = simulate(seed)
    if trace:
        print("\n".join(outcome.trace))
    _tell(outcome)
    print(f"digest {outcome.digest}")
    return 1 if outcome.violations else 0


def _outcomes(seeds: range) -> Iterator[Outcome]:
    with ProcessPoolExecutor(os.cpu_count()) as workers:
        yield from workers.map(simulate, seeds, chunksize=10)


def _tell(outcome: Outcome) -> None:
    for violation in outcome.violations:
        print(f"seed {outcome.seed}: {violation}")
    if outcome.violations:
        print(f"    python -m tests.simulator --seed {outcome.seed} --trace")


if __name__ == "__main__":
    sys.exit(main())
