"""A server in a thread, an application that does what applications may do, and clients that send raw bytes."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import uvloop

from learnflow_http.edge import Edge, Limits
from learnflow_http.edge.protocol import EdgeProtocol
from learnflow_http.edge.server import Server, listen

MIB = 1024 * 1024
HELLO = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
LIMITS = Limits(stop_s=2)
GONE = threading.Event()
"""Set when `/watch` was told that its client has gone."""
STOPPED = threading.Event()
"""Set when `/forever` was cancelled."""


Endpoint = Callable[[Any, Any, Any], Awaitable[None]]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """An application with one path for each thing that an application may do."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await PATHS.get(scope["path"], hello)(scope, receive, send)


async def lifespan(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("shut down", flush=True)  # noqa: T201 - how a subprocess tells
    await send({"type": "lifespan.shutdown.complete"})


async def answer(send: Any, data: Any, status: int = 200) -> None:
    body = json.dumps(data).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read_all(receive: Any) -> bytes | None:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += bytes(message["body"])
        if not message["more_body"]:
            return body


async def hello(scope: Any, _receive: Any, send: Any) -> None:
    told = {key: scope[key] for key in ("method", "path", "http_version", "client")}
    told["query"] = scope["query_string"].decode()
    told["headers"] = [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]]
    await answer(send, told)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = await read_all(receive)
    if body is not None:
        await answer(send, {"read": len(body), "headers": len(scope["headers"])})


async def too_large(_scope: Any, _receive: Any, send: Any) -> None:
    await answer(send, {"error": {"code": "payload_too_large"}}, 413)


async def slow(_scope: Any, _receive: Any, send: Any) -> None:
    await asyncio.sleep(0.1)
    await answer(send, {"slow": True})


async def forever(_scope: Any, _receive: Any, _send: Any) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        STOPPED.set()


async def lazy(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(0.4)
    await echo(scope, receive, send)


async def crash(_scope: Any, _receive: Any, _send: Any) -> None:
    raise LookupError("a defect")


async def crash_behind_the_head(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise LookupError("a defect")


async def crash_within_the_body(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"some", "more_body": True})
    raise LookupError("a defect")


async def nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    return


async def crash_at_the_end(_scope: Any, _receive: Any, send: Any) -> None:
    await answer(send, {})
    raise LookupError("a defect")


async def too_short(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
    await send({"type": "http.response.body", "body": b"three"})


async def too_long(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"three"})


async def split_reply(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"a\r\nset-cookie: b")]})
    await send({"type": "http.response.body", "body": b""})


async def large(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % (16 * MIB))]})
    await send({"type": "http.response.body", "body": bytes(16 * MIB)})


async def chatty(_scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
    await send({"type": "http.response.body", "body": b"began", "more_body": True})
    if await read_all(receive) is not None:
        await send({"type": "http.response.body", "body": b"ended"})


async def watch(_scope: Any, receive: Any, _send: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    GONE.set()


async def chunks(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for part in (b"one", b"", b"two"):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def not_modified(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 304, "headers": [(b"etag", b'"1"')]})
    await send({"type": "http.response.body"})


PATHS: dict[str, Endpoint] = {
    "/" + each.__name__.replace("_", "-"): each
    for each in (
        echo, too_large, slow, forever, lazy, nothing, too_short, too_long, split_reply, large, chatty, watch, chunks,
        crash, crash_behind_the_head, crash_within_the_body, crash_at_the_end, not_modified,
    )
}  # fmt: skip


class Running(NamedTuple):
    """A server in a thread of its own, and how to reach it."""

    port: int
    stop: Callable[[], None]
    thread: threading.Thread

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=5, source_address=(source, 0))


@contextmanager
def running(edge: Edge) -> Iterator[Running]:
    started = threading.Event()
    loop = uvloop.new_event_loop()
    server = Server(app, edge)
    sockets = listen("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]

    def run() -> None:
        loop.run_until_complete(server.run(sockets, lambda _: started.set()))
        loop.close()

    def stop() -> None:
        with suppress(RuntimeError):  # it has stopped already
            loop.call_soon_threadsafe(server.stop)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert started.wait(5)
        yield Running(port, stop, thread)
    finally:
        stop()
        thread.join(10)
        assert not thread.is_alive()


def rate_limit(client_ip: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-ratelimit-limit", b"30"), (b"x-client", client_ip.encode())]


def edge(limits: Limits = LIMITS) -> Edge:
    """What servers are made with here: short limits, and rate-limit headers to be found again in replies."""
    return Edge(limits, headers_for=rate_limit)


@contextmanager
def nothing_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever clients do, the log stays free of warnings and tracebacks."""
    caplog.set_level(logging.INFO)
    yield
    during = caplog.get_records("call")
    assert [record.getMessage() for record in during if record.levelno > logging.INFO or record.exc_info] == []


def read_to_end(client: socket.socket) -> bytes:
    received = b""
    while part := client.recv(1 << 16):
        received += part
    return received


def talk(server: Running, *parts: bytes) -> bytes:
    """Send, and read until the server closes; the client keeps its side open."""
    with server.connect() as client:
        for part in parts:
            client.sendall(part)
        return read_to_end(client)


class Received(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def replies(raw: bytes) -> list[Received]:
    """The replies in what was received, each with a Content-Length; interim ones are passed over."""
    found = []
    while raw:
        head, _, raw = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        status = int(first.split()[1])
        if status == 100:
            continue
        length = int(headers["content-length"])
        found.append(Received(status, headers, raw[:length]))
        raw = raw[length:]
    return found


def read_replies(client: socket.socket, count: int) -> list[Received]:
    raw = b""
    while True:
        with suppress(KeyError, ValueError):  # a head is cut
            found = replies(raw)
            if len(found) >= count and len(found[-1].body) == int(found[-1].headers["content-length"]):
                return found
        part = client.recv(1 << 16)
        assert part, raw
        raw += part


def read_reply(client: socket.socket) -> Received:
    [reply] = read_replies(client, 1)
    return reply


def assert_refused(reply: Received, status: int = 400, code: str = "invalid_request") -> None:
    assert reply.status == status
    error = reply.json["error"]
    assert error["code"] == code
    assert error["message"]
    assert error["request_id"] == reply.headers["x-request-id"]
    assert error["request_id"].startswith("req_")
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["connection"] == "close"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-ratelimit-limit"] == "30"
    assert "date" in reply.headers
    assert "server" not in reply.headers


def still_serves(server: Running) -> None:
    with server.connect() as client:
        client.sendall(HELLO)
        assert read_reply(client).status == 200


def head(*lines: bytes, start: bytes = b"GET /hello HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    return b"\r\n".join([start, *([host] if host else []), *lines, b"", b""])


def post(*lines: bytes, body: bytes = b"", path: bytes = b"/echo") -> bytes:
    return head(*lines, start=b"POST " + path + b" HTTP/1.1") + body


CHUNKED = b"Transfer-Encoding: chunked"


@contextmanager
def impatient(**changes: Any) -> Iterator[Running]:
    limits = replace(LIMITS, **changes)
    with running(edge(limits)) as it:
        yield it


@contextmanager
def opened(server: Running, count: int, first: bytes = b"", source: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect(source)) for _ in range(count)]
        for client in clients:
            client.sendall(first)
        yield clients


class Recorded(asyncio.Transport):
    """A transport that keeps what is written, so that a connection can be played through without a socket."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 5), "sockname": ("192.0.2.2", 80)})
        self.written = b""
        self.closed = False
        self.aborted = False
        self.unsent = 0

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.written += data

    def write_eof(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def connected(transport: asyncio.Transport, edge: Edge) -> EdgeProtocol:
    """A connection of a server that does not listen, over this transport."""
    server = Server(app, edge)
    protocol = EdgeProtocol(server._config, server._state, {}, edge)
    protocol.connection_made(transport)
    return protocol
