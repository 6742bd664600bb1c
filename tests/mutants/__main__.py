"""`python -m tests.mutants [WORD…] [--sample N]`: change the core, a thing at a time, and see whether the tests notice.

Without words every module is changed, else those whose path has one of the words. A sample is drawn from all changes
to them, each as likely as another. What nobody notices is told, and the share that was noticed.
"""

from __future__ import annotations

import argparse
import ast
import math
import os
import random
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.mutants.changes import changes
from tests.mutants.covering import Covering
from tests.mutants.nursery import Mutant, Nursery
from tests.planted.__main__ import ROOT, copy

CORE = "learnflow_core"
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
CORE_TESTS = "@tests/core.args"
CONTROL_S = 2
"""How many seconds' worth of tests are to pass on each module as it is."""


def main(arguments: Sequence[str]) -> int:
    """Try mutants; 1 when fewer of them than `--least` in a hundred are noticed."""
    options = parse(arguments)
    with TemporaryDirectory() as folder:
        covering = cover(copy(Path(folder) / "sound"), options.tests)
        tried = list(mutants(options.words, covering, options.budget))
        if options.sample is not None and options.sample < len(tried):
            tried = random.Random(options.seed).sample(tried, options.sample)
        print(f"{len(tried)} mutants are tried", flush=True)
        began = time.monotonic()
        with Nursery(Path(folder), covering, options.jobs) as nursery:
            for mutant, outcome in nursery.attempt(unchanged({mutant.module for mutant in tried}, covering)):
                if outcome != "survived":
                    sys.exit(f"the tests fail on {mutant.module} as it is: {outcome}")
            survivors = 0
            for done, (mutant, outcome) in enumerate(nursery.attempt(tried), 1):
                survivors += outcome == "survived"
                if outcome == "survived" or options.verbose:
                    print(f"{outcome} ({done})  {mutant}", flush=True)
    killed = len(tried) - survivors
    low, high = interval(killed, len(tried))
    print(
        f"{killed} of {len(tried)} mutants were noticed in {time.monotonic() - began:.0f} s: "
        f"{killed / len(tried):.1%} (of all, with 95 % confidence, {low:.1%} to {high:.1%})"
    )
    return 0 if killed / len(tried) >= options.least / 100 else 1


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("words", nargs="*", help="modules, by words of their paths; without, all")
    parser.add_argument("--sample", type=int, help="how many mutants to draw; without, all are tried")
    parser.add_argument("--seed", type=int, default=0, help="what to draw them by")
    parser.add_argument("--least", type=float, default=90, help="how many in a hundred must be noticed")
    parser.add_argument("--budget", type=float, default=10, help="seconds' worth of tests for each mutant")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many are tried at once")
    parser.add_argument("--tests", nargs="+", default=[CORE_TESTS], help="the tests that are to notice")
    parser.add_argument("--verbose", action="store_true", help="tell what is noticed, too")
    return parser.parse_args(arguments)


def cover(tree: Path, tests: Sequence[str]) -> Covering:
    """Run the tests once on the code as it is, and note which lines of the core each of them runs."""
    command = [sys.executable, "-m", "coverage", "run", "-m", "pytest", "-q", "-p", "tests.mutants.covering"]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    options = ["--hypothesis-profile=covered", *tests]
    done = subprocess.run([*command, *options], cwd=tree, env=environment, check=False)
    if done.returncode:
        sys.exit("the tests fail on the code as it is")
    return Covering.noted(tree)


def mutants(words: Sequence[str], covering: Covering, budget_s: float) -> Iterator[Mutant]:
    """Every change to the modules that are meant, but for those that make no difference."""
    no_difference = equivalents()
    for path in sorted((ROOT / CORE).rglob("*.py")):
        module = str(path.relative_to(ROOT))
        if words and not any(word in module for word in words):
            continue
        for change in changes(path.read_text("utf-8")):
            if (module, change.statement, change.before, change.after) not in no_difference:
                tests = covering.of(module, change.lines, budget_s)
                yield Mutant(module, change.line, change.before, change.after, change.source(), tests)


def equivalents() -> set[tuple[str, str, str, str]]:
    """The changes that make no difference: module, statement, before and after."""
    told = tomllib.loads(EQUIVALENT.read_text("utf-8"))["mutant"]
    return {(f"{CORE}/{one['module']}", one["statement"], one["before"], one["after"]) for one in told}


def unchanged(modules: Iterable[str], covering: Covering) -> list[Mutant]:
    """Mutants that are none, but for the comments: what notices these would prove nothing."""
    return [
        Mutant(module, 1, "", "", ast.unparse(ast.parse((ROOT / module).read_text("utf-8"))), tests)
        for module in sorted(modules)
        if (tests := covering.of(module, range(0), CONTROL_S))
    ]


def interval(killed: int, tried: int) -> tuple[float, float]:
    """Between which shares that of all mutants lies with 95 % confidence (Wilson's interval)."""
    z = 1.96
    share, spread = killed / tried, z * z / tried
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / tried + spread / tried / 4) / (1 + spread)
    return middle - half, middle + half


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
