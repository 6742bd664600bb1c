"""Running an ASGI application: one process, one event loop, from listening to a graceful stop.

The parts are uvicorn's (its HTTP protocol, its lifespan); the loop around them is ours, because uvicorn's own waits
for half-open connections when it stops, and ends by the signal that stopped it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import signal
import socket
import struct
import sys
from array import array
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from email.utils import formatdate
from functools import partial
from typing import Any, Final, cast

import uvloop
from uvicorn.config import Config
from uvicorn.lifespan.on import LifespanOn
from uvicorn.server import ServerState

from learnflow_http.edge import Edge
from learnflow_http.edge.protocol import EdgeProtocol

log = logging.getLogger(__name__)

_BACKLOG: Final = 2048
_OTHER_FILES: Final = 200  # which the process may have open beside its connections, to databases and the like
_SWEEP_S: Final = 0.5
_DRAIN_POLL_S: Final = 0.02
_CANCEL_S: Final = 1.0
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
LEAVE: Final = signal.SIGUSR1
"""Tells a worker to stop alone, and to leave its sockets to the others that serve there."""
_SO_ATTACH_FILTER: Final = 26  # of Linux; Python has no name for it
_NOT_HERE: Final = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
_REASONS: Final = {
    errno.EADDRINUSE: "another program listens there already",
    errno.EACCES: "this user is not allowed to",
    errno.EADDRNOTAVAIL: "this machine has no such address",
}


class ServeError(Exception):
    """The server could not start; the text tells a person why."""


def serve(
    app: Any, *, host: str, port: int, edge: Edge | None = None, on_started: Callable[[list[str]], None] | None = None
) -> None:
    """Serve `app` until SIGTERM or SIGINT, then stop gracefully and return. To be called in the main thread.

    At the first signal the server stops listening, closes idle connections, finishes the requests in flight within
    `Limits.stop_s` and shuts the application down, so that the process can end with status 0. A second signal ends
    the process at once, the way it does by default (a shell shows 130 or 143).

    Addresses are seen by the application as they connect: X-Forwarded-For is its own to read. `on_started` is given
    the URLs at which the server answers. Raises ServeError when it cannot listen or the application does not start.
    """
    serve_at(listen(host, port), app, edge=edge or Edge(), on_started=on_started)


def serve_at(
    sockets: list[socket.socket],
    app: Any,
    *,
    edge: Edge,
    on_started: Callable[[list[str]], None] | None = None,
    lifeline: int | None = None,
) -> None:
    """`serve` at sockets that listen already, which it closes.

    With a `lifeline` it is the worker of a supervisor, who sees to signals: it stops when that descriptor reads as
    ended, because the supervisor closed its end, or has ended itself; and at LEAVE.
    """
    edge.limits = replace(edge.limits, connections=_allow_connections(edge.limits.connections))
    server = Server(app, edge)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        loop = runner.get_loop()
        if lifeline is None:
            for number in _SIGNALS:
                loop.add_signal_handler(number, _on_signal, loop, server)
        else:
            loop.add_reader(lifeline, _on_end, loop, lifeline, server, os.getppid())
            loop.add_signal_handler(LEAVE, server.leave)
        runner.run(server.run(sockets, on_started))


class Server:
    """An ASGI application being served in an event loop that is already there; `serve` is this and the signals."""

    def __init__(self, app: Any, edge: Edge) -> None:
        self._config = Config(
            app, interface="asgi3", lifespan="on", ws="none", workers=1, log_config=None, log_level="warning",
            access_log=False, proxy_headers=False, server_header=False,
        )  # fmt: skip
        self._config.load()
        self._edge = edge
        self._state = ServerState()
        self._stop = asyncio.Event()
        self._leaves = False
        limits = edge.limits
        self._sweep_s = min(_SWEEP_S, min(limits.head_s, limits.body_s, limits.idle_s, limits.reply_s) / 4)

    async def run(self, sockets: list[socket.socket], on_started: Callable[[list[str]], None] | None = None) -> None:
        """Serve on listening sockets, and close them in the end, until `stop` or `leave` is called.

        Raises ServeError when the application does not start.
        """
        lifespan = LifespanOn(self._config)
        await lifespan.startup()
        if lifespan.should_exit:
            _close(sockets)
            raise ServeError("The application did not start; the log tells why.")
        addresses = [url(each) for each in sockets]
        connect = partial(EdgeProtocol, self._config, self._state, lifespan.state, self._edge)
        loop = asyncio.get_running_loop()
        waiting = [each.dup() for each in sockets]
        listeners = [await loop.create_server(connect, sock=each, backlog=_BACKLOG) for each in sockets]
        try:
            self._sweep()
            if on_started is not None:
                on_started(addresses)
            while not self._stop.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), self._sweep_s)
                self._sweep()
        finally:
            if self._stop.is_set() and not self._leaves:  # nor after a failure, which is this process's alone
                shut(waiting)
            for listener in listeners:
                listener.close()
            for each in [] if self._leaves else waiting:
                await _let_in(each, connect)
            _close(waiting)
            await self._drain()
            await lifespan.shutdown()

    def stop(self) -> None:
        """Begin to stop; from another thread, by way of the loop's `call_soon_threadsafe`."""
        self._stop.set()

    def leave(self) -> None:
        """Begin to stop, while other processes go on at the same sockets."""
        self._leaves = True
        self._stop.set()

    def _connections(self) -> list[EdgeProtocol]:
        return cast(list[EdgeProtocol], list(self._state.connections))

    def _sweep(self) -> None:
        date = formatdate(usegmt=True).encode("ascii")
        self._state.default_headers = [(b"date", date)]
        self._edge.date_line = b"date: %b\r\n" % date
        now = asyncio.get_running_loop().time()
        for connection in self._connections():
            connection.expire(now)

    async def _drain(self) -> None:
        """Let what is in flight end by itself, then by force."""
        loop = asyncio.get_running_loop()
        self._edge.stopping = True
        until = loop.time() + self._edge.limits.stop_s
        while (self._state.connections or self._state.tasks) and loop.time() < until:
            for connection in self._connections():
                connection.shutdown()
            self._sweep()
            await asyncio.sleep(_DRAIN_POLL_S)
        if tasks := set(self._state.tasks):
            log.warning("%d requests did not end in time and were cancelled", len(tasks))
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_CANCEL_S)
        for connection in self._connections():
            connection.transport.abort()
        await asyncio.sleep(0)


def shut(listeners: Iterable[socket.socket]) -> None:
    """Let nobody wait at these sockets any more, where the system can do that (Linux); who waits already, still does.

    A connection that comes between the last look at a socket and its closing is reset, though its client thinks that
    it is served. So from here on packets for the socket itself are dropped by a filter, which also every other process
    finds that has the socket; established connections have sockets of their own.
    """
    if sys.platform != "linux":
        return
    keep_nothing = array("B", struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF_RET | BPF_K, of 0 bytes
    program = struct.pack("HP", 1, keep_nothing.buffer_info()[0])
    for listener in listeners:
        with suppress(OSError):  # as where a sandbox forbids it: then a few microseconds remain in which it can happen
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


async def _let_in(listener: socket.socket, connect: Callable[[], EdgeProtocol]) -> None:
    """Take the connections that wait at a socket, whose clients think that they are served, and close it."""
    with listener, suppress(OSError):
        listener.setblocking(False)
        while True:
            connection, _ = listener.accept()
            await asyncio.get_running_loop().connect_accepted_socket(connect, connection)


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for every address of `host` (empty: of this machine); port 0 takes a free one.

    Raises ServeError, whose text names the host and the port.
    """
    if not 0 <= port < 2**16:
        raise ServeError(f"Cannot listen on port {port}: ports are numbers up to 65535.")
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    for family, address in _addresses(host, port):
        shared = sockets[0].getsockname()[1] if sockets else port
        try:
            sockets.append(_listen_at(family, (address[0], shared, *address[2:])))
        except OSError as error:
            if error.errno in _NOT_HERE:  # as `localhost` is where there is no IPv6
                missing = error
                continue
            _close(sockets)
            raise _cannot_listen(host, port, error) from error
    if missing is not None and not sockets:
        raise _cannot_listen(host, port, missing) from missing
    return sockets


def _addresses(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ServeError(f"Cannot listen on {host!r}, port {port}: there is no such address.") from error
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _listen_at(family: int, address: tuple[Any, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _cannot_listen(host: str, port: int, error: OSError) -> ServeError:
    reason = _REASONS.get(error.errno or 0, error.strerror)
    return ServeError(f"Cannot listen on {host!r}, port {port}: {reason}.")


def _close(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()


def url(listener: socket.socket) -> str:
    """The address at which a listening socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _allow_connections(wanted: int) -> int:
    """Raise the process's limit of open files as far as these connections need it; how many of them it then allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    log.warning("the limit of %d open files leaves room for fewer than %d connections", soft, wanted)
    return max(soft - _OTHER_FILES, soft // 2)


def _on_signal(loop: asyncio.AbstractEventLoop, server: Server) -> None:
    for number in _SIGNALS:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)
    server.stop()


def _on_end(loop: asyncio.AbstractEventLoop, lifeline: int, server: Server, supervisor: int) -> None:
    loop.remove_reader(lifeline)
    if os.getppid() != supervisor:
        log.warning("the supervisor has ended, and so does this worker")
    server.stop()
