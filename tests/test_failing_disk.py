"""A disk that fails at the Nth write: what was answered is kept, the rest is undone, and reads go on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.amount import amount

MOST = 500
WRITES = range(1, MOST + 1, amount(100, soak=1))


@pytest.mark.parametrize("share", range(2))
@pytest.mark.parametrize("kind", ["io", "full"])
def test_the_nth_write_fails_and_nothing_is_half_done(kind: str, share: int) -> None:
    counts = [str(writes) for writes in WRITES[share::2]]
    command = [sys.executable, "-m", "tests.failing_disk", kind, *counts]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    assert done.stdout.split() == [word for count in counts for word in (kind, count)]
