"""The server's edge, driven with raw bytes: what hostile and broken clients see, and that nobody else suffers."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from learnflow_http import server as server_module
from learnflow_http.edge import Edge, Limits
from learnflow_http.exchange import MAX_DROPPED
from learnflow_http.protocol import MAX_PIPELINED, MAX_TURNED_AWAY, EdgeProtocol
from learnflow_http.server import ServeError, Server, listen

MIB = 1024 * 1024
HELLO = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
LIMITS = Limits(stop_s=2)


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
    await asyncio.Event().wait()


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


async def wrong_length(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"three"})


async def split_reply(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"a\r\nset-cookie: b")]})
    await send({"type": "http.response.body", "body": b""})


async def large(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % (16 * MIB))]})
    for part in range(16):
        await send({"type": "http.response.body", "body": bytes(MIB), "more_body": part < 15})


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
    for each in (echo, too_large, slow, forever, lazy, crash, crash_behind_the_head, crash_within_the_body, nothing,
                 wrong_length, split_reply, large, chunks, not_modified)
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


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(Edge(LIMITS, headers_for=rate_limit)) as it:
        yield it


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever clients do, the log stays free of warnings and tracebacks."""
    caplog.set_level(logging.INFO)
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO or record.exc_info] == []


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
    """The replies in what was received, each with a Content-Length."""
    found = []
    while raw:
        head, _, raw = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        length = int(headers["content-length"])
        found.append(Received(int(first.split()[1]), headers, raw[:length]))
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
HOSTILE = {
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "words of another protocol": b"EHLO example.org\r\n",
    "HTTP/0.9": b"GET /hello\r\n\r\n",
    "HTTP/2.0": head(start=b"GET /hello HTTP/2.0"),
    "HTTP/1.2": head(start=b"GET /hello HTTP/1.2"),
    "a method in lower case": head(start=b"get /hello HTTP/1.1"),
    "an unknown method": head(start=b"BREW /hello HTTP/1.1"),
    "line feeds alone": b"GET /hello HTTP/1.1\nHost: a\n\n",
    "no Host in HTTP/1.1": head(host=b""),
    "two Hosts": head(b"Host: a"),
    "two Hosts in HTTP/1.0": head(b"Host: b", start=b"GET /hello HTTP/1.0"),
    "an empty Host": head(host=b"Host:"),
    "a Host with a path": head(host=b"Host: a/b"),
    "a Host with a user": head(host=b"Host: u@a"),
    "a folded header": head(b"X: 1", b"  2"),
    "a header folded into the first": head(host=b" Host: a"),
    "a NUL in a header": head(b"X: a\0b"),
    "a NUL in a name": head(b"X\0: a"),
    "a control character in a header": head(b"X: a\x01b"),
    "a bare CR in a header": head(b"X: a\rY: b"),
    "a header without a colon": head(b"X"),
    "a header without a name": head(b": x"),
    "a space before the colon": head(b"X : a"),
    "a name beyond ASCII": head(b"\xc3\xa9: a"),
    "101 headers": head(*[b"X: 1"] * 100),
    "a head above 32 KiB": head(*[b"X: " + b"x" * 1000] * 33),
    "a header of 64 KiB": head(b"X: " + b"x" * 65536),
    "a target of 64 KiB": head(start=b"GET /" + b"x" * 65536 + b" HTTP/1.1"),
    "a header of 64 KiB without an end": b"GET / HTTP/1.1\r\nX: " + b"x" * 65536,
    "a target without an end": b"GET /" + b"x" * 40_000,
    "a NUL in the target": head(start=b"GET /\0 HTTP/1.1"),
    "a control character in the target": head(start=b"GET /\x01 HTTP/1.1"),
    "a tab in the target": head(start=b"GET /\t HTTP/1.1"),
    "a space in the target": head(start=b"GET /a b HTTP/1.1"),
    "a path beyond ASCII": head(start=b"GET /\xc3\xa9 HTTP/1.1"),
    "a query beyond ASCII": head(start=b"GET /?q=\xc3\xa9 HTTP/1.1"),
    "a target that is no path": head(start=b"GET hello HTTP/1.1"),
    "a fragment": head(start=b"GET /hello#there HTTP/1.1"),
    "a broken escape in the path": head(start=b"GET /%zz HTTP/1.1"),
    "a cut escape in the path": head(start=b"GET /%2 HTTP/1.1"),
    "an escaped NUL in the path": head(start=b"GET /%00 HTTP/1.1"),
    "an escaped line end in the path": head(start=b"GET /%0d%0a HTTP/1.1"),
    "a path that is not UTF-8": head(start=b"GET /%ff HTTP/1.1"),
    "an asterisk for GET": head(start=b"GET * HTTP/1.1"),
    "an absolute target of another scheme": head(start=b"GET ftp://a/ HTTP/1.1"),
    "an absolute target with a user": head(start=b"GET http://u:p@a/ HTTP/1.1"),
    "CONNECT": head(start=b"CONNECT a:443 HTTP/1.1"),
    "CONNECT with a path": head(start=b"CONNECT /hello HTTP/1.1"),
    "both lengths": post(b"Content-Length: 3", CHUNKED, body=b"3\r\nabc\r\n0\r\n\r\n"),
    "both lengths the other way": post(CHUNKED, b"Content-Length: 3", body=b"3\r\nabc\r\n0\r\n\r\n"),
    "two lengths": post(b"Content-Length: 3", b"Content-Length: 4", body=b"abcd"),
    "one length twice": post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"),
    "a list of lengths": post(b"Content-Length: 3, 3", body=b"abc"),
    "a negative length": post(b"Content-Length: -1"),
    "a length with a plus": post(b"Content-Length: +3", body=b"abc"),
    "a hexadecimal length": post(b"Content-Length: 0x3", body=b"abc"),
    "an empty length": post(b"Content-Length:"),
    "a length beyond 64 bits": post(b"Content-Length: 18446744073709551616"),
    "another coding": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "the coding identity": post(b"Transfer-Encoding: identity"),
    "an empty coding": post(b"Transfer-Encoding:"),
    "chunked twice": post(CHUNKED, CHUNKED, body=b"0\r\n\r\n"),
    "chunked not last": post(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"),
    "chunked in HTTP/1.0": head(CHUNKED, start=b"POST /echo HTTP/1.0") + b"0\r\n\r\n",
    "a chunk size that is no number": post(CHUNKED, body=b"zz\r\n"),
    "a negative chunk size": post(CHUNKED, body=b"-1\r\n"),
    "an empty chunk size": post(CHUNKED, body=b"\r\n"),
    "a chunk size beyond 64 bits": post(CHUNKED, body=b"f" * 17 + b"\r\n"),
    "a chunk longer than told": post(CHUNKED, body=b"3\r\nabcd\r\n"),
    "chunks with line feeds alone": post(CHUNKED, body=b"3\nabc\n0\n\n"),
    "a NUL in a chunk extension": post(CHUNKED, body=b'3;a="\0"\r\nabc\r\n'),
    "a flood of chunk extensions": post(CHUNKED, body=b"3;" + b"x" * 400_000),
    "a flood of small chunk extensions": post(CHUNKED, body=(b"1;" + b"x" * 60 + b"\r\na\r\n") * 8_000),
    "a flood of zeros in a chunk size": post(CHUNKED, body=b"0" * 400_000),
    "a flood of trailers": post(CHUNKED, body=b"0\r\n" + b"X: y\r\n" * 70_000),
}


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("request_", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_not_proper_http_is_answered_in_the_envelope_and_closed(server: Running, request_: bytes) -> None:
    [reply] = replies(talk(server, request_))
    assert_refused(reply)
    assert reply.headers["x-client"] == "127.0.0.1"


GOOD = {
    "without a Host in HTTP/1.0": head(start=b"GET /hello HTTP/1.0", host=b""),
    "with 100 headers": head(b"Connection: close", *[b"X: 1"] * 98),
    "with a head just below 32 KiB": head(b"Connection: close", *[b"X: " + b"x" * 1000] * 32),
    "with an IPv6 Host": head(b"Connection: close", host=b"Host: [::1]:8000"),
    "behind empty lines": b"\r\n\r\n" + head(b"Connection: close"),
    "in one byte beyond ASCII in a value": head(b"Connection: close", b"X: \xe9"),
    "for a websocket": head(b"Connection: Upgrade, close", b"Upgrade: websocket"),
}


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("request_", GOOD.values(), ids=GOOD.keys())
def test_a_proper_request_reaches_the_application(server: Running, request_: bytes) -> None:
    [reply] = replies(talk(server, request_))
    assert reply.status == 200
    assert reply.json["path"] == "/hello"
    assert reply.headers["connection"] == "close"


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        (b"/a%20b/%C3%A9?q=%", "/a b/\xe9", "q=%", "a"),
        (b"//a//b?", "//a//b", "", "a"),
        (b"http://other.example:81/x?y=z", "/x", "y=z", "other.example:81"),
        (b"HTTPS://other.example", "/", "", "other.example"),
        (b"http://other.example?q", "/", "q", "other.example"),
    ],
)
def test_a_target_is_taken_apart_as_rfc_9112_says(
    server: Running, target: bytes, path: str, query: str, host: str
) -> None:
    [reply] = replies(talk(server, head(b"Connection: close", start=b"GET " + target + b" HTTP/1.1")))
    assert (reply.json["path"], reply.json["query"]) == (path, query)
    assert [value for name, value in reply.json["headers"] if name == "host"] == [host]


def test_an_asterisk_is_the_target_of_options(server: Running) -> None:
    [reply] = replies(talk(server, head(b"Connection: close", start=b"OPTIONS * HTTP/1.1")))
    assert reply.json["path"] == "*"


def test_the_white_space_around_a_value_is_no_part_of_it(server: Running) -> None:
    [reply] = replies(talk(server, head(b"Connection: close", b"X: \t a b \t ")))
    assert ["x", "a b"] in reply.json["headers"]


@pytest.mark.usefixtures("quiet")
def test_a_connection_serves_one_request_after_another(server: Running) -> None:
    with server.connect() as client:
        for _ in range(3):
            client.sendall(HELLO)
            assert read_reply(client).status == 200
            client.sendall(post(b"Content-Length: 3", body=b"abc"))
            assert read_reply(client).json["read"] == 3
        client.sendall(head(host=b""))
        assert_refused(read_reply(client))
        assert client.recv(1) == b""


@pytest.mark.usefixtures("quiet")
def test_pipelined_requests_are_answered_in_order_and_a_bad_one_after_them(server: Running) -> None:
    requests = [head(start=b"GET %s HTTP/1.1" % path) for path in (b"/slow", b"/a", b"/b")]
    slow, a, b, bad = replies(talk(server, b"".join([*requests, head(host=b""), HELLO])))
    assert slow.json == {"slow": True}
    assert (a.json["path"], b.json["path"]) == ("/a", "/b")
    assert_refused(bad)


@pytest.mark.usefixtures("quiet")
def test_a_flood_of_pipelined_requests_is_answered_up_to_its_bound(server: Running) -> None:
    *good, bad = replies(talk(server, head(start=b"GET /slow HTTP/1.1") + HELLO * 1_000))
    assert len(good) == 1 + MAX_PIPELINED
    assert_refused(bad)


@pytest.mark.usefixtures("quiet")
def test_what_follows_a_closing_request_is_not_read(server: Running) -> None:
    [reply] = replies(talk(server, head(b"Connection: close") + HELLO + b"\0" * 1000))
    assert reply.status == 200


@pytest.mark.usefixtures("quiet")
def test_an_upgrade_is_ignored_and_its_body_is_still_a_body(server: Running) -> None:
    h2c = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    first = post(*h2c, b"Content-Length: %d" % len(smuggled), body=smuggled)
    with server.connect() as client:
        client.sendall(first + HELLO[:10])
        assert read_reply(client).json == {"read": len(smuggled), "headers": 4}
        client.sendall(HELLO[10:] + head(*h2c) + HELLO)
        assert [reply.json["path"] for reply in read_replies(client, 3)] == ["/hello"] * 3


@pytest.mark.usefixtures("quiet")
def test_chunked_bodies_arrive_and_their_trailers_do_not(server: Running) -> None:
    body = b"3;name=value\r\nabc\r\n1\r\nd\r\n0\r\nAuthorization: Bearer stolen\r\n\r\n"
    with server.connect() as client:
        for _ in range(2):
            client.sendall(post(CHUNKED, body=body))
            assert read_reply(client).json == {"read": 4, "headers": 2}


@pytest.mark.usefixtures("quiet")
def test_a_mebibyte_in_single_bytes_is_a_body_like_others(server: Running) -> None:
    with server.connect() as client:
        client.sendall(post(CHUNKED, body=b"1\r\na\r\n" * 50_000 + b"0\r\n\r\n"))
        assert read_reply(client).json["read"] == 50_000


@pytest.mark.usefixtures("quiet")
def test_expect_100_continue_is_answered_when_the_application_reads(server: Running) -> None:
    with server.connect() as client:
        client.sendall(post(b"Content-Length: 3", b"Expect: 100-continue"))
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert read_reply(client).json["read"] == 3


@pytest.mark.usefixtures("quiet")
def test_a_final_answer_in_place_of_100_continue_ends_the_connection(server: Running) -> None:
    [reply] = replies(talk(server, post(b"Content-Length: 3", b"Expect: 100-continue", path=b"/too-large")))
    assert (reply.status, reply.headers["connection"]) == (413, "close")


@pytest.mark.usefixtures("quiet")
def test_a_client_sees_the_413_although_it_goes_on_sending(server: Running) -> None:
    size = 3 * MIB
    with server.connect() as client:
        client.sendall(post(b"Content-Length: %d" % size, path=b"/too-large"))
        client.sendall(bytes(size))
        assert read_reply(client).status == 413
        client.sendall(HELLO)
        assert read_reply(client).status == 200


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("framing", [b"Content-Length: %d" % (64 * MIB), CHUNKED])
def test_a_body_that_nobody_reads_is_dropped_up_to_4_mib_and_then_closed(server: Running, framing: bytes) -> None:
    part = b"10000\r\n" + bytes(65536) + b"\r\n" if framing == CHUNKED else bytes(65536)
    sent = 0
    with server.connect() as client:
        client.sendall(post(framing, path=b"/too-large"))
        assert read_reply(client).status == 413
        with suppress(OSError):
            for _ in range(1024):
                client.sendall(part)
                sent += len(part)
    assert MAX_DROPPED / 2 < sent < 4 * MAX_DROPPED  # the rest was in the buffers of the two sockets


@pytest.mark.usefixtures("quiet")
def test_a_refusal_is_seen_although_the_client_is_still_sending(server: Running) -> None:
    with server.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\n" + b"X: yyyy\r\n" * 200_000)
        assert_refused(read_reply(client))
        assert client.recv(1) == b""


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("request_", [HELLO, head(start=b"GET /slow HTTP/1.1"), post(b"Content-Length: 1", body=b"a")])
def test_a_client_that_closes_its_sending_half_is_answered(server: Running, request_: bytes) -> None:
    with server.connect() as client:
        client.sendall(request_)
        client.shutdown(socket.SHUT_WR)
        [reply] = replies(read_to_end(client))
    assert reply.status == 200


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("cut", [HELLO[:-2], post(b"Content-Length: 9", body=b"abc"), post(CHUNKED, body=b"9\r\nabc")])
def test_a_request_cut_short_is_refused(server: Running, cut: bytes) -> None:
    with server.connect() as client:
        client.sendall(cut)
        client.shutdown(socket.SHUT_WR)
        [reply] = replies(read_to_end(client))
    assert_refused(reply)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    "sent",
    [b"", HELLO[:20], post(b"Content-Length: 9", body=b"abc"), head(start=b"GET /large HTTP/1.1"),
     head(start=b"GET /slow HTTP/1.1"), head(start=b"GET /slow HTTP/1.1") * 3],
)  # fmt: skip
def test_a_client_that_vanishes_leaves_no_trace(server: Running, sent: bytes) -> None:
    for graceful in (True, False):
        with server.connect() as client:
            client.sendall(sent)
            time.sleep(0.02)
            if not graceful:  # a reset
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    time.sleep(0.15)
    still_serves(server)


FAILURES = ["crash", "crash-behind-the-head", "nothing", "wrong-length", "split-reply"]


@pytest.mark.parametrize("path", FAILURES)
def test_an_application_that_fails_is_answered_for(
    server: Running, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    [reply] = replies(talk(server, head(start=b"GET /%s HTTP/1.1" % path.encode())))
    assert_refused(reply, 500, "internal_error")
    assert [record.levelname for record in caplog.records if record.levelno > logging.INFO] == ["ERROR"]


def test_a_reply_that_breaks_off_is_seen_to_be_incomplete(server: Running) -> None:
    raw = talk(server, head(start=b"GET /crash-within-the-body HTTP/1.1"))
    assert raw.endswith(b"\r\n\r\n4\r\nsome\r\n")


def test_a_reply_without_a_length_goes_in_chunks_or_to_an_old_client_to_the_end(server: Running) -> None:
    raw = talk(server, head(b"Connection: close", start=b"GET /chunks HTTP/1.1"))
    assert b"transfer-encoding: chunked\r\n" in raw
    assert raw.endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
    raw = talk(server, head(start=b"GET /chunks HTTP/1.0"))
    assert b"chunked" not in raw
    assert raw.endswith(b"\r\n\r\nonetwo")


@pytest.mark.parametrize("request_", [b"HEAD /hello", b"HEAD /chunks", b"GET /not-modified"])
def test_a_reply_that_has_no_body_sends_none(server: Running, request_: bytes) -> None:
    raw = talk(server, head(b"Connection: close", start=request_ + b" HTTP/1.1"))
    assert raw.endswith(b"\r\nconnection: close\r\n\r\n")
    assert b"transfer-encoding" not in raw


# Time


@contextmanager
def impatient(**changes: Any) -> Iterator[Running]:
    limits = replace(LIMITS, **changes)
    with running(Edge(limits, headers_for=rate_limit)) as it:
        yield it


def drip(client: socket.socket, data: bytes, pause_s: float = 0.05) -> float:
    """Send byte by byte for at most two seconds; how long the other side bore it."""
    started = time.monotonic()
    client.settimeout(pause_s)
    with suppress(ConnectionError):
        for byte in data * 40:
            client.sendall(bytes([byte]))
            with suppress(TimeoutError):
                if client.recv(1 << 16) == b"":
                    break
            if time.monotonic() - started > 2:
                break
    return time.monotonic() - started


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("begun", "more"), [(b"", b"\r\n"), (b"GET /", b"x"), (HELLO[:-4], b"x"), (HELLO[:9], b"x")])
@pytest.mark.parametrize("before", [b"", HELLO])
def test_a_head_that_does_not_end_is_closed_in_time(before: bytes, begun: bytes, more: bytes) -> None:
    with impatient(head_s=0.2, idle_s=0.2) as server, server.connect() as client:
        if before:
            client.sendall(before)
            assert read_reply(client).status == 200
        client.sendall(begun)
        assert 0.1 < drip(client, more) < 1


@pytest.mark.usefixtures("quiet")
def test_a_silent_connection_is_closed_without_a_word() -> None:
    with impatient(head_s=0.2) as server:
        assert talk(server) == b""
        assert talk(server, b"\r\n") == b""
        assert talk(server, HELLO[:-3]) == b""


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("framing", [b"Content-Length: 1000", CHUNKED])
def test_a_body_that_does_not_end_is_closed_in_time(framing: bytes) -> None:
    with impatient(body_s=0.2) as server, server.connect() as client:
        client.sendall(post(framing))
        assert 0.1 < drip(client, b"1") < 1


@pytest.mark.usefixtures("quiet")
def test_a_body_is_given_time_while_the_application_does_not_read_it() -> None:
    with impatient(body_s=0.1) as server, server.connect() as client:
        client.sendall(post(b"Content-Length: %d" % (4 * MIB), path=b"/lazy"))
        client.sendall(bytes(4 * MIB))
        assert read_reply(client).json["read"] == 4 * MIB


@pytest.mark.usefixtures("quiet")
def test_an_idle_connection_is_closed_in_time_but_not_one_whose_reply_is_awaited() -> None:
    with impatient(idle_s=0.2, head_s=0.05, body_s=0.05) as server, server.connect() as client:
        client.sendall(post(b"Content-Length: 0", path=b"/lazy"))
        assert read_reply(client).status == 200
        began = time.monotonic()
        assert client.recv(1) == b""
        assert 0.1 < time.monotonic() - began < 1


@pytest.mark.usefixtures("quiet")
def test_half_a_request_behind_another_closes_only_when_that_is_answered() -> None:
    with impatient(head_s=0.05) as server:
        [reply] = replies(talk(server, head(start=b"GET /slow HTTP/1.1") + HELLO[:9]))
        assert reply.json == {"slow": True}


@pytest.mark.usefixtures("quiet")
def test_a_client_that_does_not_take_its_reply_is_let_go_and_a_slow_one_is_not() -> None:
    with impatient(reply_s=0.2) as server, server.connect() as stuck, server.connect() as slow:
        for client in (stuck, slow):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            client.sendall(head(b"Connection: close", start=b"GET /large HTTP/1.1"))
        taken = 0
        while part := slow.recv(1 << 18):
            taken += len(part)
            time.sleep(0.005)
        assert taken > 16 * MIB
        assert len(read_to_end(stuck)) < 16 * MIB


# Too many connections


@contextmanager
def opened(server: Running, count: int, first: bytes = b"", source: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect(source)) for _ in range(count)]
        for client in clients:
            client.sendall(first)
        yield clients


@pytest.mark.usefixtures("quiet")
def test_nine_hundred_half_open_connections_do_not_starve_a_good_client() -> None:
    server_module._allow_connections(3_000)
    with running(Edge(LIMITS)) as server, opened(server, 900, HELLO[:-2]):
        began = time.monotonic()
        still_serves(server)
        assert time.monotonic() - began < 1


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("limits", [{"connections": 3}, {"connections_per_client": 3}])
def test_a_connection_too_many_is_answered_503_until_another_ends(limits: dict[str, int]) -> None:
    with impatient(**limits) as server:
        with opened(server, 3, HELLO[:9]):
            [reply] = replies(talk(server, HELLO))
            assert_refused(reply, 503, "service_unavailable")
            assert reply.headers["retry-after"] == "1"
            with server.connect() as silent, server.connect():
                silent.settimeout(0.1)
                with pytest.raises(TimeoutError):  # nobody is told what nobody asked for
                    silent.recv(1)
        time.sleep(0.05)
        still_serves(server)


def test_one_client_at_its_limit_does_not_take_the_place_of_another() -> None:
    with impatient(connections_per_client=3) as server, opened(server, 10), server.connect("127.0.0.2") as other:
        other.sendall(HELLO)
        assert read_reply(other).status == 200


def test_a_proxy_may_have_all_the_connections_it_needs() -> None:
    limits = replace(LIMITS, connections_per_client=1)
    with running(Edge(limits, proxies=[ip_network("127.0.0.0/8")])) as server, opened(server, 5):
        still_serves(server)


def test_those_turned_away_are_bounded_too() -> None:
    with impatient(connections=1) as server, opened(server, 1 + MAX_TURNED_AWAY), server.connect() as client:
        assert_refused(read_reply(client), 503, "service_unavailable")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_a_client_is_an_ipv4_address_or_an_ipv6_64(one: str, other: str, same: bool) -> None:
    edge = Edge(Limits(connections_per_client=1))
    assert edge.enter(one)
    assert edge.enter(other) is not same
    edge.leave(one)
    assert edge.enter(one)


def test_rate_limit_headers_that_fail_do_not_break_the_reply(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_client_ip: str) -> list[tuple[bytes, bytes]]:
        raise LookupError("a defect")

    with running(Edge(LIMITS, headers_for=broken, new_request_id=lambda: "req_1")) as server:
        [reply] = replies(talk(server, b"?"))
    assert reply.headers["x-request-id"] == "req_1"
    assert "no rate-limit headers" in caplog.text


# Stopping


@pytest.mark.usefixtures("quiet")
def test_stopping_ends_idle_and_half_open_connections_at_once() -> None:
    with impatient(stop_s=5) as server, opened(server, 20, HELLO[:9]) as half, opened(server, 20) as silent:
        idle = server.connect()
        with idle:
            idle.sendall(HELLO)
            read_reply(idle)
            began = time.monotonic()
            server.stop()
            server.thread.join(5)
            assert time.monotonic() - began < 1
            assert all(client.recv(1) == b"" for client in [*half, *silent, idle])


@pytest.mark.usefixtures("quiet")
def test_stopping_finishes_the_requests_in_flight_and_refuses_new_connections() -> None:
    with impatient() as server, server.connect() as one, server.connect() as pipelining:
        one.sendall(head(start=b"GET /slow HTTP/1.1"))
        pipelining.sendall(head(start=b"GET /slow HTTP/1.1") * 2)
        time.sleep(0.05)
        server.stop()
        assert read_reply(one).headers["connection"] == "close"
        assert [reply.json for reply in replies(read_to_end(pipelining))] == [{"slow": True}] * 2
        with pytest.raises(ConnectionRefusedError):
            server.connect()


@pytest.mark.usefixtures("quiet")
def test_stopping_waits_a_moment_for_a_body_that_is_on_its_way() -> None:
    with impatient() as server, server.connect() as arriving, server.connect() as stuck:
        for client in (arriving, stuck):
            client.sendall(post(b"Content-Length: 6", body=b"abc"))
        time.sleep(0.05)
        began = time.monotonic()
        server.stop()
        time.sleep(0.05)
        arriving.sendall(b"def")
        assert read_reply(arriving).json["read"] == 6
        assert_refused(read_reply(stuck), 503, "service_unavailable")
        assert time.monotonic() - began < 2


def test_stopping_cancels_what_does_not_end_and_says_so_to_its_client(caplog: pytest.LogCaptureFixture) -> None:
    with impatient(stop_s=0.1) as server, server.connect() as client:
        client.sendall(head(start=b"GET /forever HTTP/1.1"))
        time.sleep(0.05)
        server.stop()
        assert_refused(read_reply(client), 503, "service_unavailable")
    assert [record.levelname for record in caplog.records if record.levelno > logging.INFO] == ["WARNING"]


PROGRAM = """
from learnflow_http.edge import Edge, Limits
from learnflow_http.server import serve
from tests.test_server import app
edge = Edge(Limits(stop_s={stop_s}))
serve(app, host="127.0.0.1", port=0, edge=edge, on_started=lambda urls: print(*urls, flush=True))
"""


@contextmanager
def process(stop_s: float = 5) -> Iterator[tuple[subprocess.Popen[str], Running]]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(stop_s=stop_s)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, cwd=Path(__file__).parents[1],
    ) as child:  # fmt: skip
        assert child.stdout is not None
        try:
            port = int(child.stdout.readline().rpartition(":")[2])
            yield child, Running(port, child.terminate, threading.current_thread())
        finally:
            child.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_with_status_0_whatever_is_half_open(number: int) -> None:
    with process() as (child, server), opened(server, 50, HELLO[:9]), opened(server, 50):
        still_serves(server)
        child.send_signal(number)
        out, err = child.communicate(timeout=3)
    assert (child.returncode, out, err) == (0, "shut down\n", "")


def test_a_second_signal_ends_the_process_at_once() -> None:
    with process(stop_s=60) as (child, server), server.connect() as client:
        client.sendall(head(start=b"GET /forever HTTP/1.1"))
        still_serves(server)
        child.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.2)
        child.send_signal(signal.SIGINT)
        assert child.wait(1) == -signal.SIGINT


# Starting


def test_a_port_in_use_is_told_in_words() -> None:
    [listener] = listen("127.0.0.1", 0)
    with listener:
        port = listener.getsockname()[1]
        with pytest.raises(ServeError, match=f"'127.0.0.1', port {port}: another program listens there already"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "port", "reason"),
    [
        ("nowhere.invalid", 0, "there is no such address"),
        ("a" * 300, 0, "there is no such address"),
        ("127.0.0.1", 70_000, "ports are numbers up to 65535"),
        ("127.0.0.1", -1, "ports are numbers up to 65535"),
        ("192.0.2.1", 0, "this machine has no such address"),
    ],
)
def test_an_address_that_cannot_be_listened_at_is_told_in_words(host: str, port: int, reason: str) -> None:
    with pytest.raises(ServeError, match=reason):
        listen(host, port)


def test_a_forbidden_port_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: socket.socket, _address: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(ServeError, match="port 80: this user is not allowed to"):
        listen("127.0.0.1", 80)


def test_every_address_of_a_host_is_listened_at_on_one_port() -> None:
    listeners = listen("localhost", 0)
    ports = {listener.getsockname()[1] for listener in listeners}
    for listener in listeners:
        listener.close()
    assert len(ports) == 1


def test_an_application_that_does_not_start_is_told_in_words() -> None:
    async def broken(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    listeners = listen("127.0.0.1", 0)
    with pytest.raises(ServeError, match="did not start"):
        asyncio.run(Server(broken, Edge()).run(listeners))


# Any bytes at all


class Recorded(asyncio.Transport):
    """A transport that keeps what is written, so that a connection can be played through without a socket."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 5), "sockname": ("192.0.2.2", 80)})
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.written += data

    def write_eof(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def play(parts: list[bytes]) -> tuple[bytes, bool]:
    """What a connection answers to these arrivals, and whether it closes, in a loop and with a server of its own."""

    async def run() -> tuple[bytes, bool]:
        server = Server(app, Edge(LIMITS, new_request_id=lambda: "req_1"))
        transport = Recorded()
        protocol = EdgeProtocol(server._config, server._state, {}, server._edge)
        protocol.connection_made(transport)
        for part in parts:
            if part and not transport.closed:
                protocol.data_received(part)
        for _ in range(20 * len(parts)):
            await asyncio.sleep(0)
        protocol.connection_lost(None)
        return transport.written, transport.closed

    return asyncio.run(run())


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(edges)]


STREAMS = [request for request in (*HOSTILE.values(), *GOOD.values()) if len(request) < 5_000]
STREAMS += [
    HELLO * 3,
    post(b"Content-Length: 3", body=b"abc") + HELLO,
    post(CHUNKED, body=b"3\r\nabc\r\n0\r\n\r\n") * 2,
]


@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 4_999), max_size=8))
def test_how_bytes_are_cut_into_packets_changes_nothing(stream: bytes, places: list[int]) -> None:
    assert play(cut(stream, places)) == play([stream])


FRAGMENTS = [
    b"GET ", b"POST ", b"/echo", b" HTTP/1.1", b"\r\n", b"\r\n\r\n", b"Host: a\r\n", b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"abc", b"Connection: close\r\n", HELLO,
    b"Connection: upgrade\r\nUpgrade: x\r\n", b"Expect: 100-continue\r\n",
]  # fmt: skip


@given(st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=9), max_size=20))
def test_no_bytes_at_all_are_answered_with_a_server_error(parts: list[bytes]) -> None:
    written, closed = play(parts)
    statuses = [int(line.split()[1]) for line in written.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    assert set(statuses) <= {100, 200, 400}
    assert closed or 400 not in statuses
