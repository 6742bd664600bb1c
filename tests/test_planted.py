"""Planted bugs fit the code as it is; `make planted` shows that their tests notice them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.planted.__main__ import GIT, HERE, ROOT, Bug, read

BUGS = [read(patch) for patch in sorted(HERE.glob("*.patch"))]


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_a_bug_can_be_planted(bug: Bug) -> None:
    command = [GIT, "apply", "--check", "-C1", "--recount", str(bug.patch)]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_there_are_at_least_twenty_five_and_tests_that_are_to_notice_each() -> None:
    assert len(BUGS) >= 25
    tests = {test for bug in BUGS for test in bug.tests}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    files = sorted({test.partition("::")[0] for test in tests})
    found = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [test for test in tests if not any(node.startswith(test) for node in found)] == []
