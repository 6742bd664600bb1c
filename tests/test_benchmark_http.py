"""The benchmark of the server: it measures what it says, and stops when it would measure something else."""

from __future__ import annotations

import json
import socket
from itertools import repeat
from pathlib import Path
from threading import Thread

import pytest

from benchmarks.http import COURSES_LIST, ENROLMENT, FLOOR, run
from benchmarks.load import LoadError, drive

REQUEST = b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"


def test_every_case_is_measured_beside_its_floor_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    short = ["--rounds", "5", "--seconds", "0.05", "--enrolments", "8", "--connections", "2", "--seed", "7"]
    assert run([*short, "--json", str(path)]) == 0
    report = json.loads(path.read_text("utf-8"))
    assert (report["benchmark"], report["seed"], report["connections"]) == ("http", 7, 2)
    assert {"machine", "versions", "courses"} <= report.keys()
    results = report["results"]
    assert {operation: set(cases) for operation, cases in results.items()} == {
        COURSES_LIST: {FLOOR, "with a key", "with a token"},
        ENROLMENT: {FLOOR, "in a free course", "paid in the sandbox"},
    }
    printed = capsys.readouterr().out
    for operation, cases in results.items():
        assert operation in printed
        for name, figures in cases.items():
            assert len(figures["requests_per_s"]["samples"]) == 5
            assert figures["p50_ms"]["median"] <= figures["p99_ms"]["median"]
            assert (figures["cpu_by_floor"] == 1.0) == (name == FLOOR)
            assert name in printed


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
