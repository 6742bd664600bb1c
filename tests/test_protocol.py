"""One connection: requests in a row, bodies nobody reads, clients that vanish or dawdle, applications that fail."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from learnflow_http.edge.protocol import MAX_PIPELINED
from learnflow_http.exchange import MAX_DROPPED
from tests.edge import (
    CHUNKED,
    GONE,
    HELLO,
    LIMITS,
    MIB,
    STOPPED,
    Recorded,
    Running,
    assert_refused,
    connected,
    edge,
    head,
    impatient,
    nothing_logged,
    post,
    read_replies,
    read_reply,
    read_to_end,
    replies,
    running,
    still_serves,
    talk,
)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(edge()) as it:
        yield it


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with nothing_logged(caplog):
        yield


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
def test_pipelined_requests_are_answered_in_order_and_others_follow(server: Running) -> None:
    with server.connect() as client:
        client.sendall(b"".join(head(start=b"GET %s HTTP/1.1" % path) for path in (b"/slow", b"/a", b"/b")))
        slow, a, b = read_replies(client, 3)
        assert slow.json == {"slow": True}
        assert (a.json["path"], b.json["path"]) == ("/a", "/b")
        client.sendall(HELLO)
        assert read_reply(client).status == 200


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("bad", [b"\0", post(CHUNKED, body=b"x")])
def test_a_fault_behind_requests_in_flight_waits_for_its_turn_and_is_told_once(
    bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with impatient(connections=1) as server, server.connect() as client:
        client.sendall(head(start=b"GET /slow HTTP/1.1") + bad)
        time.sleep(0.02)
        client.sendall(b"\0")
        client.shutdown(socket.SHUT_WR)
        slow, refused = replies(read_to_end(client))
        assert slow.json == {"slow": True}
        assert_refused(refused)
        time.sleep(0.02)
        still_serves(server)  # nothing is left of the connection, although its client holds on to it
    assert [record.message.split(" (")[0] for record in caplog.records].count("127.0.0.1 answered with") <= 1
    assert caplog.text.count("invalid_request") == 1


@pytest.mark.usefixtures("quiet")
def test_a_half_head_behind_a_large_body_is_not_too_large(server: Running) -> None:
    with server.connect() as client:
        client.sendall(post(b"Content-Length: 60000", body=bytes(60_000)) + HELLO[:9])
        assert read_reply(client).json["read"] == 60_000
        client.sendall(HELLO[9:])
        assert read_reply(client).status == 200


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("before", [b"", HELLO, post(b"Content-Length: 60000", body=bytes(60_000))])
async def test_a_head_that_is_too_large_is_so_behind_another_request_of_its_packet(
    before: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    protocol = connected(Recorded(), edge())
    protocol.data_received(before + head(*[b"X: " + b"x" * 1000] * 33))
    protocol.connection_lost(None)
    assert "larger than 32 KiB" in caplog.text


@pytest.mark.usefixtures("quiet")
async def test_a_head_is_refused_for_its_own_reason_while_another_exception_is_being_handled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    protocol = connected(Recorded(), edge())
    try:
        raise KeyError  # noqa: TRY301 - the handling of it is what matters
    except KeyError:
        protocol.data_received(head(start=b"CONNECT /a HTTP/1.1"))
    protocol.connection_lost(None)
    assert "This server is not a proxy." in caplog.text


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
@pytest.mark.parametrize("path", [b"/slow", b"/echo", b"/forever"])
def test_a_fault_in_a_body_is_answered_at_once_and_by_nobody_else(server: Running, path: bytes) -> None:
    with server.connect() as client:
        client.sendall(post(CHUNKED, body=b"x", path=path))
        [reply] = replies(read_to_end(client))
        time.sleep(0.15)  # the application, which has been slow, says something too
    assert_refused(reply)


@pytest.mark.usefixtures("quiet")
def test_a_fault_in_a_body_that_is_being_answered_cuts_the_answer_short(server: Running) -> None:
    with server.connect() as client:
        client.sendall(post(CHUNKED, b"Expect: 100-continue", path=b"/chatty"))
        raw = client.recv(1 << 16)
        client.sendall(b"x")
        raw += read_to_end(client)
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert raw.endswith(b"\r\n\r\nbegan")


@pytest.mark.usefixtures("quiet")
def test_a_fault_in_a_body_that_was_answered_is_not_answered_again(server: Running) -> None:
    with server.connect() as client:
        client.sendall(post(CHUNKED, path=b"/too-large"))
        assert read_reply(client).status == 413
        client.sendall(b"x")
        assert client.recv(1) == b""


@pytest.mark.usefixtures("quiet")
def test_a_client_sees_the_413_although_it_goes_on_sending(server: Running) -> None:
    with server.connect() as client:
        for _ in range(2):
            client.sendall(post(b"Content-Length: %d" % (3 * MIB), path=b"/too-large"))
            client.sendall(bytes(3 * MIB))
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
        reply = read_reply(client)
        assert (reply.status, reply.headers.get("connection")) == (413, None if framing == CHUNKED else "close")
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


@pytest.mark.usefixtures("quiet")
def test_the_application_is_told_that_its_client_has_gone(server: Running) -> None:
    GONE.clear()
    with server.connect() as client:
        client.sendall(head(start=b"GET /watch HTTP/1.1") + HELLO)
        time.sleep(0.02)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert GONE.wait(1)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("how", ["closed", "reset"])
def test_what_nobody_waits_for_any_more_is_cancelled_if_it_changes_nothing(server: Running, how: str) -> None:
    STOPPED.clear()
    with server.connect() as client:
        client.sendall(head(start=b"GET /forever HTTP/1.1"))
        time.sleep(0.02)
        if how == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert STOPPED.wait(2)
    still_serves(server)


def test_what_may_change_something_goes_on_without_its_client() -> None:
    STOPPED.clear()
    with impatient(stop_s=0.3) as server, server.connect() as client:
        client.sendall(head(start=b"POST /forever HTTP/1.1"))
        time.sleep(0.02)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        assert not STOPPED.wait(0.1)


FAILURES = ["crash", "crash-behind-the-head", "nothing", "too-short", "too-long", "split-reply"]


@pytest.mark.parametrize("path", FAILURES)
def test_an_application_that_fails_is_answered_for(
    server: Running, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    [reply] = replies(talk(server, head(start=b"GET /%s HTTP/1.1" % path.encode())))
    assert_refused(reply, 500, "internal_error")
    assert [record.levelname for record in caplog.records if record.levelno > logging.INFO] == ["ERROR"]


def test_a_defect_behind_a_reply_spares_the_connection(server: Running) -> None:
    with server.connect() as client:
        for path in (b"/crash-at-the-end", b"/hello"):
            client.sendall(head(start=b"GET %s HTTP/1.1" % path))
            assert read_reply(client).status == 200


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


async def test_a_closing_connection_waits_for_its_client_as_long_as_that_takes_something() -> None:
    transport = Recorded()
    protocol = connected(transport, edge(replace(LIMITS, reply_s=30)))
    protocol.data_received(b"\0")
    for now, unsent, aborted in ((100, 3, False), (129, 3, False), (130, 2, False), (159, 2, False), (160, 2, True)):
        transport.unsent = unsent
        protocol.expire(now)
        assert transport.aborted is aborted
    protocol.connection_lost(None)


@pytest.mark.usefixtures("quiet")
def test_a_client_that_does_not_take_its_reply_is_let_go_and_a_slow_one_is_not() -> None:
    with impatient(reply_s=0.2) as server, server.connect() as stuck, server.connect() as slow:
        for client in (stuck, slow):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            client.sendall(head(b"Connection: close", start=b"GET /large HTTP/1.1"))
        taken = 0
        while part := slow.recv(1 << 18):
            taken += len(part)
            time.sleep(0.01)
        assert taken > 16 * MIB
        assert len(read_to_end(stuck)) < 16 * MIB
