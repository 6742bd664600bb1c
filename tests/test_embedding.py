"""The examples of embedding the core: each runs as it stands, and prints what it is there to show."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"


def run(*arguments: str, cwd: Path) -> str:
    """What a program prints that ends well and says nothing on standard error, warnings included."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "always"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def alone(example: str, cwd: Path) -> str:
    """Run an example where no third-party package can be imported: `-S` keeps site-packages away."""
    return run("-S", str(EXAMPLES / example), cwd=cwd)


def test_every_example_is_tried_here() -> None:
    tried = set(re.findall(r"embed_\w+\.py", Path(__file__).read_text("utf-8")))
    assert {path.name for path in EXAMPLES.glob("*.py")} == tried


def test_enrolling_without_http_charges_once_fills_the_seat_and_ends_in_a_certificate(tmp_path: Path) -> None:
    assert run(str(EXAMPLES / "embed_enrollment.py"), cwd=tmp_path).splitlines() == [
        "Ben Nevis: card_declined: The payment method was declined.",
        "Ada Lovelace: active, charged",
        "Ada Lovelace: active, enrolled before",
        "Ben Nevis: course_full: Every seat of the course is taken.",
        "completed: Ada Lovelace has a certificate for Knots and Splices",
        "the books: agree",
    ]
    assert not list(tmp_path.iterdir())


def test_pages_cursors_and_errors_need_the_standard_library_only(tmp_path: Path) -> None:
    page, links, walk, *refusals = alone("embed_pagination.py", tmp_path).splitlines()
    assert page == "Book 69 {'current_page': 2, 'total_pages': 3, 'total_items': 24}"
    assert re.findall(r'page=(\d)>; rel="(\w+)"', links) == [
        ("3", "next"),
        ("1", "prev"),
        ("1", "first"),
        ("3", "last"),
    ]
    assert walk == "120 books walked, 120 different"
    errors = [json.loads(refusal)["error"] for refusal in refusals]
    assert [(error["code"], error["request_id"]) for error in errors] == [("invalid_parameter", "req_1")] * 4
    assert [error["param"] for error in errors] == ["page", "limit", "cursor", "stars"]


def test_a_program_limits_by_key_and_gives_back_what_did_not_count(tmp_path: Path) -> None:
    assert alone("embed_limiter.py", tmp_path).splitlines() == [
        "ada: sent to 1, 2 more at once",
        "ada: sent to 2, 0 more at once",
        "ada: not sent, passes in 20 s",
        "ben: sent to 1, 2 more at once",
        "ada: sent to 1, 1 more at once",
        "minute: 1 of 3 left",
        "day: 998 of 1000 left",
    ]


FIELDS = {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit-policy", "ratelimit"}


def test_an_asgi_app_is_limited_and_tells_so_in_every_header(tmp_path: Path) -> None:
    printed = alone("embed_limiter_asgi.py", tmp_path)
    replies = [reply.splitlines() for reply in re.split(r"^(?=\d{3}$)", printed, flags=re.MULTILINE)[1:]]
    assert [status for status, *_ in replies] == ["200", "200", "200", "429"]
    for status, *lines in replies:
        names = {line.split(":")[0].strip() for line in lines}
        assert names - {"content-type"} == FIELDS | ({"retry-after"} if status == "429" else set())
    assert [re.search(r"remaining: (\d+)", "".join(reply))[1] for reply in replies] == ["2", "1", "0", "0"]  # type: ignore[index]


@contextmanager
def served(app: str) -> Iterator[HTTPConnection]:
    """A connection to the app, served by uvicorn on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", "uvicorn", app, "--app-dir", str(EXAMPLES), "--fd", str(listener.fileno())]
        server = subprocess.Popen(
            [*command, "--log-level", "error"],
            pass_fds=[listener.fileno()],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        host, port = listener.getsockname()
        connection = HTTPConnection(host, port, timeout=30)
        try:
            yield connection
        finally:
            connection.close()
            server.terminate()
            server.wait()


def get(connection: HTTPConnection) -> HTTPResponse:
    connection.request("GET", "/")
    reply = connection.getresponse()
    reply.read()
    return reply


def test_the_same_app_behind_a_real_server_refuses_the_fourth_request_of_a_burst() -> None:
    with served("embed_limiter_asgi:app") as connection:
        replies = [get(connection) for _ in range(4)]
    assert [reply.status for reply in replies] == [200, 200, 200, 429]
    assert [reply.headers["X-RateLimit-Remaining"] for reply in replies] == ["2", "1", "0", "0"]
    assert 1 <= int(replies[-1].headers["Retry-After"]) <= 20
