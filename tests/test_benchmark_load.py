"""The load generator: it asks as it is told, and stops when what comes back is not what is to be measured."""

from __future__ import annotations

import socket
from itertools import repeat
from threading import Event, Thread

import pytest

from benchmarks.load import LoadError, drive

REQUEST = b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"


def answering(reply: bytes) -> int:
    """The port of a server that says this to whoever connects, and closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(65_536)
            connection.sendall(reply)

    Thread(target=answer, daemon=True).start()
    port: int = listener.getsockname()[1]
    return port


def test_a_refusal_is_not_measured_but_told() -> None:
    port = answering(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 4\r\n\r\nslow")
    with pytest.raises(LoadError, match=r"200 was expected, not: HTTP/1.1 429(.|\n|\r)*slow"):
        drive(port, repeat(REQUEST), status=200, connections=1, seconds=1)


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"])
def test_a_reply_that_breaks_off_is_not_measured_but_told(reply: bytes) -> None:
    with pytest.raises(LoadError, match="closed"):
        drive(answering(reply), repeat(REQUEST), status=200, connections=1, seconds=1)


def test_only_as_many_requests_are_sent_as_there_are() -> None:
    port = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine")
    load = drive(port, repeat(REQUEST, 1), status=200, connections=5, seconds=1)
    assert len(load.latencies_ns) == 1


def test_a_server_that_takes_longer_than_a_sample_for_one_request_is_asked_for_one() -> None:
    port = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine")
    load = drive(port, repeat(REQUEST), status=200, connections=5, seconds=0)
    assert len(load.latencies_ns) == 1


def test_a_connection_that_has_nothing_more_to_ask_may_be_closed_while_others_are_waited_for() -> None:
    reply = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine"
    closed = Event()

    def answer(listener: socket.socket) -> None:
        with listener.accept()[0] as first:
            first.recv(65_536)
            first.sendall(reply)
            first.recv(65_536)
            with listener.accept()[0] as second:
                second.recv(65_536)
                first.sendall(reply)
                first.close()
                closed.wait(0.05)  # the time it takes to be seen
                second.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=answer, args=(listener,), daemon=True).start()
        load = drive(listener.getsockname()[1], repeat(REQUEST, 3), status=200, connections=2, seconds=5)
    assert len(load.latencies_ns) == 3
