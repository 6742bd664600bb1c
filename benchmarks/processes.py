"""The servers of a benchmark: processes, on a core of their own where there are two, and what they cost."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tests.servers import free_port

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 60.0
_CPUCLOCK_SCHED = 2
_PRIVATE = re.compile(r"^Private_\w+: +(\d+) kB", re.MULTILINE)


class Server(NamedTuple):
    """A server that runs, and the port it listens on."""

    pid: int
    port: int

    def cpu_ns(self) -> int:
        """What it and its workers have taken of the processor so far."""
        return cpu_ns(self.pid)

    def uss_bytes(self) -> int:
        """The memory that would be free without it: pages that no other process maps (USS)."""
        return uss_bytes(self.pid)


def family(pid: int) -> list[int]:
    """A process, and what it has started that still runs; the process alone where the system does not tell."""
    with suppress(OSError):
        of_threads = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
        return [pid, *(one for children in of_threads for child in children for one in family(int(child)))]
    return [pid]


def cpu_ns(pid: int) -> int:
    """What all threads of a process and of its family, those that have ended too, have taken of the processor so far;
    0 where the system does not tell (it is Linux's)."""
    return sum(map(_of_process, family(pid))) if sys.platform == "linux" else 0


def _of_process(pid: int) -> int:
    """What it and those of its children that have ended have taken."""
    with suppress(OSError):  # it has ended meanwhile
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ended = sum(map(int, fields[13:15])) * 10**9 // os.sysconf("SC_CLK_TCK")  # cutime and cstime of proc(5)
        return ended + time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)  # as clock_getcpuclockid(3) makes it
    return 0


def waited_ns(pid: int) -> int:
    """How long the first thread of a process has been ready and had no processor, so far; 0 where the system does not
    tell."""
    path = Path(f"/proc/{pid}/task/{pid}/schedstat")
    return int(path.read_text().split()[1]) if path.exists() else 0


def uss_bytes(pid: int) -> int:
    """The private pages of a process and of its family; 0 where the system does not tell."""
    maps = (Path(f"/proc/{member}/smaps_rollup") for member in family(pid))
    return sum(1_024 * int(size) for path in maps if path.exists() for size in _PRIVATE.findall(path.read_text()))


@contextmanager
def running(log: Path, *arguments: str, **variables: str) -> Iterator[Server]:
    """Run a Python module as a server, at a port that it is told, from its first connection to the end of the block."""
    port = free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments, "--port", str(port)],
            cwd=ROOT,
            env=_environment(variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _await_port(port, process, log)
        yield Server(process.pid, port)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def cores_apart(servers: Collection[int], beside: Collection[int] = ()) -> Iterator[bool]:
    """Give the servers, by their process ids, one core, and another to this thread, the processes it starts, and those
    `beside` it.

    For the block; False where there are no two to give.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        yield False
        return
    _pin(servers, {cores[0]})
    _pin(beside, {cores[1]})
    os.sched_setaffinity(0, {cores[1]})
    try:
        yield True
    finally:
        os.sched_setaffinity(0, cores)
        _pin(beside, set(cores))


def _pin(processes: Collection[int], cores: set[int]) -> None:
    """Keep every thread of these processes and of their families on some cores; what they start inherits it."""
    for member in (member for process in processes for member in family(process)):
        with suppress(OSError):  # one that has ended meanwhile
            for thread in Path(f"/proc/{member}/task").iterdir():
                os.sched_setaffinity(int(thread.name), cores)


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("LEARNFLOW_")} | dict(variables)


def _await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    raise RuntimeError(f"the server did not start:\n{log.read_text('utf-8', 'replace')}")
