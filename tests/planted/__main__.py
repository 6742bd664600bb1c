"""`python -m tests.planted [WORD…]`: plant each bug (or those whose name has a word) in a copy, and run its tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
COPIED = ("learnflow_core", "learnflow_http", "storage_backends", "payment_gateways", "tests", "examples", "docs")
GIT = shutil.which("git") or "git"
PATIENCE_S = 300
CAUGHT_BY = "Caught by:"


class Bug(NamedTuple):
    """One patch: what it does wrong, and the tests that must notice."""

    name: str
    title: str
    patch: Path
    tests: tuple[str, ...]


def main(words: Sequence[str]) -> int:
    """Plant them all; 1 when a bug goes unnoticed, or a test of one fails without it."""
    bugs = [bug for bug in map(read, sorted(HERE.glob("*.patch"))) if not words or any(w in bug.name for w in words)]
    began = time.monotonic()
    with TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as workers:
        sound = copy(Path(folder) / "sound")
        healthy = workers.submit(failures, sound, sorted({test for bug in bugs for test in bug.tests}))
        wrong = 0
        for bug, complaint in zip(bugs, workers.map(lambda bug: missed(bug, Path(folder)), bugs), strict=True):
            print(f"{'MISSED' if complaint else 'caught'}  {bug.title}{complaint}", flush=True)
            wrong += bool(complaint)
        for test in sorted(healthy.result()):
            print(f"fails without any bug: {test}")
            wrong += 1
    print(f"{len(bugs)} bugs were planted in {time.monotonic() - began:.0f} s; {wrong or 'no'} complaints")
    return 1 if wrong or not bugs else 0


def read(patch: Path) -> Bug:
    """A patch with what its head says."""
    title, *lines = patch.read_text("utf-8").partition("\ndiff ")[0].splitlines()
    tests = [line.removeprefix(CAUGHT_BY).strip() for line in lines if line.startswith(CAUGHT_BY)]
    assert tests, f"{patch.name} names no test"
    return Bug(patch.stem, title, patch, tuple(tests))


def missed(bug: Bug, folder: Path) -> str:
    """What is wrong with a bug: that it cannot be planted, or that a test does not notice it; nothing when all do."""
    tree = copy(folder / bug.name)
    try:
        # One line around the change must be as it was; where it stands in the file, may change.
        planted = subprocess.run(
            [GIT, "apply", "-C1", "--recount", bug.patch], cwd=tree, capture_output=True, text=True, check=False
        )
        if planted.returncode:
            return f": the patch {bug.patch.name} does not apply: {planted.stderr.strip()}"
        unnoticed = set(bug.tests) - failures(tree, bug.tests)
        return "".join(f"\n        by {test} ({bug.patch.name})" for test in sorted(unnoticed))
    finally:
        shutil.rmtree(tree)


def copy(tree: Path) -> Path:
    """The project without anything that was made from it."""
    tree.mkdir()
    for name in COPIED:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.glob("*.*"):
        if file.is_file():
            shutil.copy(file, tree)
    return tree


def failures(tree: Path, tests: Iterable[str]) -> set[str]:
    """Those of the tests that fail in a tree; each is a node of pytest, or the beginning of several."""
    tests = list(tests)
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
    except subprocess.TimeoutExpired:
        return set()
    if done.returncode not in (0, 1):  # neither passed nor failed: they could not be run
        print(done.stdout[-2_000:] + done.stderr[-2_000:])
        return set()
    failed = [line.split(" ", 1)[1] for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return {test for test in tests if any(one.startswith(test) for one in failed)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
