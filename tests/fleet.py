"""A server with several workers in processes of their own, and clients that keep it busy and keep count."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from tests.terminal import COMMAND, environment, wait_until

REPLIES_A_CONNECTION = 17


class Fleet:
    """A program that logs JSON lines, read as they come; the workers are known by the lines that they write."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            start_new_session=True,
        )
        self.records: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.records.append(json.loads(line) if line.startswith("{") else {"message": line.strip()})

    def said(self, message: str) -> list[dict[str, Any]]:
        """The records with this message."""
        return [record for record in self.records.copy() if record["message"] == message]

    @property
    def address(self) -> str:
        wait_until(lambda: bool(self.said("serving")) or self.has_ended)
        address: str = self.said("serving")[0]["addresses"]
        return address

    @property
    def has_ended(self) -> bool:
        """Whether no process is left that could log anything."""
        return not self._reader.is_alive()

    def worker_pids(self) -> set[int]:
        """The workers that have answered a request."""
        return {record["pid"] for record in self.said("request")}

    def output(self) -> str:
        """What was written to standard output, once the program has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.read()

    def status(self, patience_s: float = 20) -> int:
        """How the program ended, with everything that it started."""
        status = self.process.wait(patience_s)
        wait_until(lambda: self.has_ended)
        return status

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@contextmanager
def running(*command: str) -> Iterator[Fleet]:
    fleet = Fleet([*command])
    try:
        yield fleet
    finally:
        fleet.end()


@contextmanager
def workers(number: int, *options: str) -> Iterator[Fleet]:
    """`learnflow serve` with so many workers, all of which serve."""
    words = ("serve", "--port", "0", "--log-format", "json", "--workers", str(number), *options)
    with running(*COMMAND, *words) as fleet:
        assert fleet.address
        yield fleet


class Connection:
    """A client that keeps its connection."""

    def __init__(self, address: str, key: str | None = None) -> None:
        self._http = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http.connect()

    def get(self, path: str = "/v1/account") -> http.client.HTTPResponse:
        self._http.request("GET", path, headers=self._headers)
        reply = self._http.getresponse()
        reply.read()
        return reply

    def close(self) -> None:
        self._http.close()


class Load:
    """Clients in threads, each asking again when it has its answer, until `stop` or until nobody listens any more.

    They connect anew now and then, so that none stays with one worker. `lost` counts requests whose connection was made
    and which were not answered.
    """

    def __init__(self, address: str, key: str, clients: int = 8) -> None:
        self.statuses: Counter[int] = Counter()
        self.lost = 0
        self.told_to_close = 0
        self.began = time.monotonic()
        self._address, self._key = address, key
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    @property
    def answered(self) -> int:
        return self.statuses.total()

    def _ask(self) -> None:
        connection = None
        while not self._over.is_set():
            try:
                connection = connection or Connection(self._address, self._key)
            except ConnectionRefusedError:
                return
            try:
                reply = connection.get()
            except (OSError, http.client.HTTPException):
                with self._lock:
                    self.lost += 1
                connection.close()
                connection = None
                continue
            with self._lock:
                self.statuses[reply.status] += 1
                self.told_to_close += reply.will_close
                over = reply.will_close or self.answered % REPLIES_A_CONNECTION == 0
            if over:
                connection.close()
                connection = None
        if connection:
            connection.close()

    def until(self, happened: Callable[[], bool]) -> None:
        """Go on until then, and a little further."""
        wait_until(happened)
        self.stop()

    def stop(self) -> None:
        self._over.set()
        self.join()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
