"""What is not proper HTTP: refused in the contract's envelope, whatever it is and however it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_http.edge import Edge
from tests.edge import (
    CHUNKED,
    HELLO,
    LIMITS,
    Recorded,
    Running,
    assert_refused,
    connected,
    edge,
    head,
    nothing_logged,
    post,
    replies,
    running,
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
    "with a length of 5,000 digits": head(b"Connection: close", b"Content-Length: " + b"0" * 5_000),
    "with one byte beyond ASCII in a value": head(b"Connection: close", b"X: \xe9"),
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


def play(parts: list[bytes]) -> tuple[bytes, bool]:
    """What a connection answers to these arrivals, and whether it closes, in a loop and with a server of its own."""

    async def run() -> tuple[bytes, bool]:
        transport = Recorded()
        protocol = connected(transport, Edge(LIMITS, new_request_id=lambda: "req_1"))
        for part in parts:
            if part and not transport.closed:
                protocol.data_received(part)
                await asyncio.sleep(0)
        for _ in range(20 * len(parts)):
            await asyncio.sleep(0)
        closed = transport.closed
        protocol.connection_lost(None)
        return transport.written, closed

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


@pytest.mark.parametrize("fields", [[], [b"Connection: Upgrade", b"Upgrade: h2c"]])
def test_a_head_below_32_kib_may_come_in_two_packets(fields: list[bytes]) -> None:
    stream = post(*fields, CHUNKED, *[b"X: " + b"x" * 1000] * 30, body=b"0;" + b"x" * 20_000)
    written, closed = play([stream[:30_000], stream[30_000:], b"\r\n\r\n"])
    assert written.startswith(b"HTTP/1.1 200 OK\r\n")
    assert not closed


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
