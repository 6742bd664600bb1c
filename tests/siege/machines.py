"""The processes of a siege: servers that are killed and started again, and the payment service that is not."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Self

from tests.servers import eventually, free_port
from tests.terminal import environment


class Machine:
    """A server at an address that stays the same, whichever process serves there."""

    def __init__(self, url: str, payments: Path, log: Path) -> None:
        self.port = free_port()
        self.kills = 0
        self._log = log
        self._environment = environment(SIEGE_PAYMENTS=str(payments), LEARNFLOW_JWT_SECRET="s" * 32)
        self._command = [sys.executable, "-m", "tests.siege.server", "serve", "--port", str(self.port)]
        self._command += ["--database", url, "--log-format", "json"]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start a process, which serves when it has come up."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, env=self._environment, stdout=log, stderr=log
            )

    async def kill(self) -> None:
        """SIGKILL, wherever it is."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
            self.kills += 1

    async def is_up(self) -> None:
        """Return when it accepts connections."""
        for _ in range(3_000):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return
        raise TimeoutError(self._log.read_text()[-2_000:])

    @property
    def sockets(self) -> int:
        """How many sockets and files the process has open (Linux)."""
        assert self._process is not None
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))

    @property
    def log(self) -> str:
        """Everything that its processes logged."""
        return self._log.read_text()


class PaymentProcess:
    """The payment service, at a socket."""

    def __init__(self, socket: Path, seed: int) -> None:
        self.socket = socket
        self._seed = seed
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        command = [sys.executable, "-m", "tests.siege.payments", str(self.socket), str(self._seed)]
        self._process = await asyncio.create_subprocess_exec(*command, env=dict(os.environ))
        await asyncio.to_thread(eventually, self.socket.exists)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()
