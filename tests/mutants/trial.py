"""Runs tests on one changed module after the other, in a copy of the project: `python -m tests.mutants.trial`.

Each trial is a line of JSON in, and a word out. The process has imported what the tests need of others, and forks for
each trial: so one costs the import of the project and of its tests, and what it spoils is gone afterwards.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

Outcome = Literal["killed", "survived", "timeout"]

OF_OTHERS = [
    *("asyncpg", "argon2", "httpx2", "hypothesis.strategies", "jwt", "msgspec", "prometheus_client"),
    *("starlette.applications", "starlette.routing", "stripe", "uvicorn", "uvloop"),
]
MEMORY = 8 * 2**30
"""What a change may make of a loop before it is stopped, in bytes."""
OPTIONS = [
    *("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # what was imported before the fork is not rewritten
]


def main() -> None:
    """Answer each trial on standard output."""
    for module in OF_OTHERS:
        importlib.import_module(module)
    assert not any(name.startswith("learnflow") for name in sys.modules), "the project is to be imported when changed"
    for line in sys.stdin:
        trial = json.loads(line)
        print(attempt(Path(trial["module"]), trial["source"], trial["tests"], trial["patience_s"]), flush=True)


def attempt(module: Path, source: str, tests: Sequence[str], patience_s: float) -> Outcome:
    """What becomes of a change to a module; as it was, it is put back."""
    sound = module.read_bytes()
    write(module, source.encode())
    child = os.fork()
    if child == 0:
        run(tests)
    try:
        return wait(child, time.monotonic() + patience_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        write(module, sound)


def write(module: Path, source: bytes) -> None:
    """Replace a module. Its compiled form would be taken for the same by its size and the second of its change."""
    for compiled in (module.parent / "__pycache__").glob(f"{module.stem}.*.pyc"):
        compiled.unlink()
    module.write_bytes(source)


def run(tests: Sequence[str]) -> None:
    """Run tests until one fails, in this process, which ends by that."""
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    code: int = pytest.ExitCode.INTERNAL_ERROR
    try:
        # Always the same examples, none of which an earlier change has found: so the outcome depends on this one alone.
        shutil.rmtree(".hypothesis", ignore_errors=True)
        code = pytest.main([*OPTIONS, *tests])
    finally:
        os._exit(code)


def wait(child: int, until: float) -> Outcome:
    """What the tests in a forked process say."""
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return "killed" if status else "survived"
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


if __name__ == "__main__":
    main()
