"""The server: too many connections, stopping, and starting."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from learnflow_http.edge import Edge, Limits
from learnflow_http.edge import server as server_module
from learnflow_http.edge.protocol import MAX_TURNED_AWAY
from learnflow_http.edge.server import ServeError, Server, listen
from tests.edge import (
    HELLO,
    LIMITS,
    Running,
    assert_refused,
    head,
    impatient,
    nothing_logged,
    opened,
    post,
    read_reply,
    read_to_end,
    replies,
    running,
    still_serves,
    talk,
)


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with nothing_logged(caplog):
        yield


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
    with impatient(connections=1) as server, server.connect():
        with opened(server, MAX_TURNED_AWAY), server.connect() as client:
            assert_refused(read_reply(client), 503, "service_unavailable")
        time.sleep(0.05)
        with server.connect() as silent:
            silent.settimeout(0.1)
            with pytest.raises(TimeoutError):
                silent.recv(1)


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
    edge.leave(one)
    if not same:
        edge.leave(other)
    assert not edge._clients  # nobody who has left is remembered


def test_rate_limit_headers_that_fail_do_not_break_the_reply(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_client_ip: str) -> list[tuple[bytes, bytes]]:
        raise LookupError("a defect")

    with running(Edge(LIMITS, headers_for=broken, new_request_id=lambda: "req_1")) as server:
        [reply] = replies(talk(server, b"?"))
    assert reply.headers["x-request-id"] == "req_1"
    assert "no rate-limit headers" in caplog.text


# Stopping


@pytest.mark.usefixtures("quiet")
def test_stopping_ends_idle_and_half_open_connections_soon() -> None:
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
def test_stopping_answers_the_request_that_crosses_with_it_on_an_open_connection() -> None:
    with impatient() as server, server.connect() as client, server.connect() as new:
        client.sendall(HELLO)
        assert "connection" not in read_reply(client).headers
        server.stop()
        time.sleep(0.1)
        for each in (client, new):
            each.sendall(HELLO)
            assert read_reply(each).headers["connection"] == "close"


@pytest.mark.usefixtures("quiet")
def test_stopping_answers_who_connected_at_the_last_instant(monkeypatch: pytest.MonkeyPatch) -> None:
    late: list[socket.socket] = []

    def connect_now(listeners: list[socket.socket]) -> None:
        late.append(socket.create_connection(listeners[0].getsockname()))
        late[0].sendall(HELLO)

    monkeypatch.setattr(server_module, "shut", connect_now)
    with impatient() as server:
        server.stop()
    with late[0] as client:
        reply = read_reply(client)
    assert (reply.status, reply.headers["connection"]) == (200, "close")


@pytest.mark.skipif(sys.platform != "linux", reason="there is no such filter")
def test_at_a_socket_that_is_shut_nobody_comes_to_wait_any_more() -> None:
    [listener] = listen("127.0.0.1", 0)
    listener.setblocking(False)
    with listener, socket.create_connection(listener.getsockname()) as early, socket.socket() as late:
        server_module.shut([listener])
        late.settimeout(0.1)
        with pytest.raises(TimeoutError):
            late.connect(listener.getsockname())
        accepted, address = listener.accept()
        with accepted:
            assert address == early.getsockname()
            early.sendall(b"there")
            accepted.settimeout(5)
            assert accepted.recv(9) == b"there"  # what is established is not filtered
        with pytest.raises(BlockingIOError):
            listener.accept()


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
from learnflow_http.edge.server import serve
from tests.edge import app
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


@pytest.mark.parametrize("host", ["localhost", ""])
def test_every_address_of_a_host_is_listened_at_on_one_port(host: str) -> None:
    listeners = listen(host, 0)
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
