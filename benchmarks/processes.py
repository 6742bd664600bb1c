"""The servers of a benchmark: processes, on a core of their own where there are two, and what they cost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 60.0
_ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)")


class Server(NamedTuple):
    """A server that runs, and the port it listens on."""

    pid: int
    port: int

    def cpu_ns(self) -> int:
        """What its threads have taken of the processor so far; 0 where the system does not tell (it is Linux's)."""
        return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{self.pid}/task").glob("*/schedstat"))


@contextmanager
def running(log: Path, *arguments: str, **variables: str) -> Iterator[Server]:
    """Run a Python module as a server, from its first line with an address until the end of the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=_environment(variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Server(process.pid, _port(process, log))
    finally:
        process.terminate()
        process.wait()


@contextmanager
def cores_apart(servers: Collection[int]) -> Iterator[bool]:
    """Give the servers, by their process ids, one core, and another to this thread and the processes it starts.

    For the block; False where there are no two to give.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        yield False
        return
    for server in servers:
        for thread in Path(f"/proc/{server}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {cores[0]})
    os.sched_setaffinity(0, {cores[1]})
    try:
        yield True
    finally:
        os.sched_setaffinity(0, cores)


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("LEARNFLOW_")} | dict(variables)


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and process.poll() is None:
        if found := _ADDRESS.search(log.read_text("utf-8", "replace")):
            return int(found[1])
        time.sleep(0.02)
    raise RuntimeError(f"the server did not start:\n{log.read_text('utf-8', 'replace')}")
