"""Somebody at a terminal: commands run here and in processes of their own, and a server that is being watched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from learnflow_http.cli import learnflow

COMMAND = [sys.executable, "-m", "learnflow_http"]


class Operator:
    """Whoever runs the commands, with a database of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder}/school.db"

    def run(self, *arguments: str, typed: str | None = None, **environ: str) -> Result:
        """Run a command here, which is quick."""
        return CliRunner().invoke(learnflow, arguments, input=typed, env={"LEARNFLOW_DATABASE": self.url, **environ})

    def told(self, *arguments: str, typed: str | None = None) -> str:
        """What a command that succeeds prints."""
        result = self.run(*arguments, typed=typed)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments: str) -> Any:
        """The same as data."""
        return json.loads(self.told(*arguments, "--json"))

    def kept(self) -> bytes:
        """Every byte of the database."""
        return b"".join(path.read_bytes() for path in self.folder.iterdir())


def environment(**more: str) -> dict[str, str]:
    """This process's environment without settings, for processes that must not warn."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEARNFLOW_")}
    return kept | {"PYTHONWARNINGS": "error", **more}


def finished(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """A process that has ended by itself."""
    usual = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 60}
    return subprocess.run(command, text=True, check=False, env=environment(), **(usual | options))


@contextmanager
def started(*command: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs until the block ends."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**environ)
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def serving(*options: str, **environ: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and the address at which it says it is."""
    with started(*COMMAND, "serve", "--port", "0", "--log-format", "json", *options, **environ) as server:
        assert server.stderr is not None
        records = (json.loads(line) for line in server.stderr)
        yield server, next(record["addresses"] for record in records if record["message"] == "serving")


def wait_until(happened: Callable[[], bool], seconds: float = 30) -> None:
    """Ask again and again, for what another process does when it comes to it."""
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)
