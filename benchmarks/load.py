"""A load generator that is much lighter than what it loads: one thread, raw sockets, one request at a time on each.

A Python client with a library behind it would be slower than the server; this one takes some 15 µs of its own core for
a request, and tells how busy it was.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import monotonic, perf_counter_ns, thread_time

LENGTH = b"content-length: "
END_OF_HEAD = b"\r\n\r\n"
SILENCE_S = 60.0


class LoadError(Exception):
    """The server did not answer as it must; the text says how."""


@dataclass
class Load:
    """What was asked and answered: each request's nanoseconds, the seconds all of it took, and how many of those this
    generator's own core was busy (as a share: at 1 it is the generator that was measured)."""

    latencies_ns: list[int] = field(default_factory=list)
    elapsed_s: float = 0.0
    busy: float = 0.0


class _Connection:
    """Opened with the first request: servers close one on which nothing comes for long."""

    __slots__ = ("buffer", "expected", "port", "selector", "sent_at", "socket", "stack")

    def __init__(self, port: int, selector: selectors.BaseSelector, stack: ExitStack) -> None:
        self.port, self.selector, self.stack = port, selector, stack
        self.socket: socket.socket | None = None
        self.buffer = b""
        self.expected = 0  # bytes of the whole reply, as soon as they are known
        self.sent_at = 0

    def ask(self, request: bytes) -> None:
        self.buffer, self.expected = b"", 0
        if self.socket is None:
            self.socket = self.stack.enter_context(socket.create_connection(("127.0.0.1", self.port)))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.selector.register(self.socket, selectors.EVENT_READ, self)
        self.sent_at = perf_counter_ns()
        self.socket.sendall(request)

    def take(self, status: bytes) -> bool:
        """Read what there is; whether the reply is whole."""
        assert self.socket is not None
        received = self.socket.recv(262_144)
        if not received:
            raise LoadError("the server closed the connection in the middle of a reply")
        self.buffer += received
        if not self.expected:
            self.expected = _size(self.buffer, status)
        return 0 < self.expected <= len(self.buffer)

    def rest(self) -> None:
        """Look no more at what comes: the server may close it while others are waited for."""
        if self.socket is not None:
            self.selector.unregister(self.socket)


def drive(port: int, requests: Iterator[bytes], *, status: int, connections: int, seconds: float) -> Load:
    """Send the requests over keep-alive connections, each as soon as the reply before it is there, until `seconds`
    are over or there is none left.

    The first goes alone, and the others begin when it is answered: so a server that takes longer than `seconds` for one
    is asked for one. Raises LoadError for a reply of another status, and for none within a minute.
    """
    load = Load()
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        idle = [_Connection(port, selector, stack) for _ in range(connections)]
        cpu, started = thread_time(), monotonic()
        under_way = _ask([idle.pop()], requests)
        while under_way:
            for connection in _answered(selector, b"%d" % status):
                load.latencies_ns.append(perf_counter_ns() - connection.sent_at)
                idle.append(connection)
                under_way -= 1
                if monotonic() < started + seconds:
                    under_way += _ask(idle, requests)
                if connection in idle:
                    connection.rest()
        load.elapsed_s = monotonic() - started
        load.busy = (thread_time() - cpu) / load.elapsed_s
    return load


def _ask(idle: list[_Connection], requests: Iterator[bytes]) -> int:
    """Send a request over each connection while there are any; how many were sent."""
    asked = 0
    while idle and (request := next(requests, None)) is not None:
        idle.pop().ask(request)
        asked += 1
    return asked


def _answered(selector: selectors.BaseSelector, status: bytes) -> Iterator[_Connection]:
    """The connections whose replies are now whole."""
    ready = selector.select(SILENCE_S)
    if not ready:
        raise LoadError(f"no reply within {SILENCE_S:.0f} s")
    for key, _ in ready:
        if key.data.take(status):
            yield key.data


def _size(reply: bytes, status: bytes) -> int:
    """The bytes of a reply whose head is there; 0 while it is not."""
    end = reply.find(END_OF_HEAD)
    if end < 0:
        return 0
    if reply[9:12] != status:
        raise LoadError(f"{status.decode()} was expected, not: {reply[:2_000].decode('latin-1')}")
    start = reply.index(LENGTH) + len(LENGTH)
    return end + len(END_OF_HEAD) + int(reply[start : reply.index(b"\r", start)])
