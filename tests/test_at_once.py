"""Requests that are answered in the call that reads them: nobody sees a difference, and nobody waits for them."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from learnflow_http.edge import Edge, Headers
from learnflow_http.edge.protocol import MAX_AT_ONCE, MAX_PIPELINED
from tests.edge import (
    HELLO,
    LIMITS,
    MIB,
    Recorded,
    Running,
    connected,
    head,
    post,
    read_replies,
    read_reply,
    read_to_end,
    replies,
    running,
)

UPGRADE = (b"Connection: upgrade", b"Upgrade: x")
ASKED: list[tuple[bytes, Headers, str]] = []


def at_once(target: bytes, fields: Headers, client_ip: str) -> tuple[int, bytes, bytes] | None:
    ASKED.append((target, fields, client_ip))
    if target.startswith(b"/known"):
        return 200, b"x: %b\r\ncontent-length: 5\r\n" % target, b"known"
    return (304, b"etag: 1\r\n", b"") if target == b"/same" else None


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(Edge(LIMITS, at_once=at_once)) as it:
        yield it


@pytest.fixture(autouse=True)
def nobody_asked() -> None:
    ASKED.clear()


def get(target: str, *fields: bytes, version: str = "1.1") -> bytes:
    return head(*fields, start=f"GET {target} HTTP/{version}".encode())


def test_the_reply_has_its_lines_the_date_and_its_body_and_the_connection_stays(server: Running) -> None:
    with server.connect() as client:
        for _ in range(3):
            client.sendall(get("/known?a=%20b"))
            reply = read_reply(client)
            assert (reply.status, reply.body) == (200, b"known")
            assert set(reply.headers) == {"date", "x", "content-length"}
            assert reply.headers["x"] == "/known?a=%20b"
    assert ASKED[0][2] == "127.0.0.1"
    assert (b"host", b"a") in ASKED[0][1]


def test_a_reply_without_a_body_has_none(server: Running) -> None:
    with server.connect() as client:
        client.sendall(get("/same") + get("/known"))
        client.shutdown(socket.SHUT_WR)
        raw = read_to_end(client)
    assert raw.startswith(b"HTTP/1.1 304 Not Modified\r\ndate: ")
    assert raw.endswith(b"known")


def test_what_is_not_known_is_the_applications(server: Running) -> None:
    with server.connect() as client:
        client.sendall(HELLO)
        assert read_reply(client).json["path"] == "/hello"
    assert [target for target, _, _ in ASKED] == [b"/hello"]


@pytest.mark.parametrize("count", [1, MAX_AT_ONCE, MAX_AT_ONCE + 1, 30])
def test_requests_in_a_row_are_answered_in_their_order_whoever_answers(server: Running, count: int) -> None:
    asked = [f"/known{number}" if number % 3 else f"/hello{number}" for number in range(1, count + 1)]
    with server.connect() as client:
        client.sendall(b"".join(map(get, asked)))
        told = read_replies(client, count)
    for target, reply in zip(asked, told, strict=True):
        known = reply.headers.get("x")  # beyond the first few, the application answers
        assert target == (known or reply.json["path"])


@pytest.mark.parametrize("fields", [(), UPGRADE])
def test_of_one_packet_only_the_first_few_are_answered_at_once(server: Running, fields: tuple[bytes, ...]) -> None:
    with server.connect() as client:
        client.sendall(get("/known", *fields) * 30)
        told = read_replies(client, 30)
    assert [reply.headers.get("x") for reply in told] == MAX_AT_ONCE * ["/known"] + (30 - MAX_AT_ONCE) * [None]


@pytest.mark.parametrize("fields", [(), UPGRADE])
async def test_a_packet_of_thousands_is_read_up_to_the_bound_of_those_that_wait(fields: tuple[bytes, ...]) -> None:
    transport = Recorded()
    protocol = connected(transport, Edge(LIMITS, at_once=at_once))
    protocol.data_received(get("/known", *fields) * 3_000)
    assert transport.written.count(b"\r\n\r\nknown") == len(ASKED) == MAX_AT_ONCE
    assert len(protocol.pipeline) == MAX_PIPELINED
    protocol.connection_lost(None)


def test_a_server_that_stops_tells_everybody_to_close() -> None:
    edge = Edge(LIMITS, at_once=at_once)
    with running(edge) as server, server.connect() as client:
        edge.stopping = True
        client.sendall(get("/known"))
        reply = read_reply(client)
    assert reply.headers["connection"] == "close"


@pytest.mark.parametrize(
    "request_",
    [
        get("/known", version="1.0"),
        get("/known", b"Connection: close"),
        get("/known", b"Content-Length: 1") + b"a",
        post(b"Content-Length: 1", body=b"a"),
        head(start=b"HEAD /known HTTP/1.1"),
    ],
)
def test_requests_of_another_kind_are_the_applications(server: Running, request_: bytes) -> None:
    with server.connect() as client:
        client.sendall(request_)
        client.shutdown(socket.SHUT_WR)
        read_to_end(client)
    assert ASKED == []


def test_a_request_that_breaks_the_rules_is_refused_first(server: Running) -> None:
    with server.connect() as client:
        client.sendall(b"GET /known HTTP/1.1\r\n\r\n")
        [reply] = replies(read_to_end(client))
    assert (reply.status, ASKED) == (400, [])


def test_what_waits_behind_the_application_is_not_told_before_it(server: Running) -> None:
    with server.connect() as client:
        client.sendall(get("/slow") + get("/known"))
        slow, known = read_replies(client, 2)
    assert slow.json == {"slow": True}
    assert known.headers.get("x", known.json) != "/known"


def test_while_a_client_does_not_take_its_reply_it_gets_no_other_at_once() -> None:
    body = bytes(32 * MIB)

    def large(*asked: object) -> tuple[int, bytes, bytes]:
        ASKED.append(asked)  # type: ignore[arg-type]
        return 200, b"content-length: %d\r\n" % len(body), body

    with running(Edge(LIMITS, at_once=large)) as server, server.connect() as client:
        client.sendall(get("/a") + get("/b"))
        client.shutdown(socket.SHUT_WR)
        received = read_to_end(client)
    assert len(received) > len(body)
    assert b'"path": "/b"' in received[-1000:]
    assert [asked[0] for asked in ASKED] == [b"/a"]
