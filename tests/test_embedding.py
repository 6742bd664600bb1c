"""The examples of embedding the core: each runs as it stands, and prints what it is there to show.

That the blocks of the documents run is test_docs.py's; here they are held to the types that they tell readers of.
"""

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

import pytest

from tests.test_docs import README, blocks

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
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


def alone(example: str, cwd: Path) -> str:
    """Run an example where no third-party package can be imported: `-S` keeps site-packages away."""
    return run("-S", str(EXAMPLES / example), cwd=cwd)


HELD = """
import runpy, sys, time
time.monotonic_ns = lambda: 0
time.time_ns = lambda: 1_705_312_740_000_000_000
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def held(example: str, cwd: Path, *options: str) -> list[str]:
    """The lines that an example prints whose clocks stand, so that no header depends on how fast it runs."""
    return run(*options, "-c", HELD, str(EXAMPLES / example), cwd=cwd).splitlines()


def test_every_example_is_tried_here() -> None:
    tried = set(re.findall(r"embed_\w+\.py", Path(__file__).read_text("utf-8")))
    assert {path.name for path in EXAMPLES.glob("*.py")} == tried


def test_what_the_documents_show_of_the_limiter_passes_strict_type_checks(tmp_path: Path) -> None:
    for document in (README, ROOT / "docs/limiter.md"):
        for block in blocks(document):
            if block.language == "python":
                (tmp_path / f"{document.stem}_{block.line}.py").write_text(block.text, "utf-8")
    shown = sorted(str(path) for path in tmp_path.glob("*.py"))
    assert shown
    run("-m", "mypy", "--cache-dir", str(ROOT / ".mypy_cache"), *shown, cwd=ROOT)


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


def test_a_payment_service_of_ones_own_whose_answer_is_lost_charges_once_and_gives_back(tmp_path: Path) -> None:
    assert run(str(EXAMPLES / "embed_saga.py"), cwd=tmp_path).splitlines() == [
        "Ada: service_unavailable; slate: 49.99 USD",
        "Ada: service_unavailable; slate: 49.99 USD",
        "the sweep after 1 s: 0 carried on; slate: 49.99 USD",
        "the sweep after 10 s: 1 carried on; slate: 49.99 USD",
        "Ada: active; slate: 49.99 USD",
        "Ben would be refused: course_full",
        "Ada: refunded; slate: -",
        "Ben: active; slate: 49.99 USD",
        "the books: agree",
    ]


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


def test_a_program_limits_a_function_takes_gives_back_looks_and_resets(tmp_path: Path) -> None:
    assert held("embed_limiter.py", tmp_path, "-S") == [
        "ada: sent to ben",
        "ben: sent to ada",
        "ada: rate limit exceeded: 'minute' lets 3 pass; retry in 20 s",
        "ada: allowed, 0 of 3 left",
        "ada: refused, passes in 20 s",
        "cleo: Refund(given_back=True) Refund(given_back=False)",
        "ada: ['0 of 3 a minute', '997 of 1000 a day']",
        "ada: ['3 of 3 a minute', '1000 of 1000 a day']",
        "[True, True, False, False, False]",
    ]


def test_fastapi_has_a_plan_for_each_caller_a_cost_for_each_route_and_an_envelope_of_its_own(tmp_path: Path) -> None:
    assert held("embed_limiter_fastapi.py", tmp_path) == [
        'GET /healthz 200 "ok"',
        "    None",
        'GET /courses/knots 200 {"course":"knots"}',
        '    "minute";r=29;t=2, "day";r=999;t=87',
        'POST /exports 200 {"export":"started"}',
        '    "minute";r=19;t=2, "day";r=989;t=87',
        'POST /exports 200 {"export":"started"}',
        '    "minute";r=9;t=2, "day";r=979;t=87',
        'POST /exports 429 {"error":{"code":"rate_limit_exceeded","retry_after":2}}',
        '    "minute";r=9;t=2, "day";r=979;t=87',
        'POST /exports 200 {"export":"started"}',
        '    "minute";r=290;t=1, "day";r=24990;t=4',
        'GET /courses/knots 200 {"course":"knots"}',
        '    "minute";r=29;t=2, "day";r=999;t=87',
    ]


def test_starlette_streams_behind_the_limit_and_gives_back_what_a_cached_reply_took(tmp_path: Path) -> None:
    assert held("embed_limiter_starlette.py", tmp_path) == [
        '200 "minute";q=20;w=60 "minute";r=11;t=3',
        "line 0",
        "line 1",
        "line 2",
        '200 stonk, "minute";r=6;t=3 None',
        '200 stonk, "minute";r=1;t=3 None',
        '200 secilps, "minute";r=1;t=3 None',
        '429 Too many requests, "minute";r=1;t=3 12',
    ]


def test_flask_limits_addresses_in_front_and_people_inside(tmp_path: Path) -> None:
    refused = "rate limit exceeded: 'password' lets 2 pass; retry in 1800 s"
    assert held("embed_limiter_flask.py", tmp_path) == [
        """200 {'right': False} "minute";r=29;t=2, "day";r=999;t=87 None""",
        """200 {'right': False} "minute";r=28;t=2, "day";r=998;t=87 None""",
        f"""429 {{'error': "{refused}"}} "minute";r=27;t=2, "day";r=997;t=87 1800""",
        '200 {"rows":10} "minute";r=17;t=2, "day";r=987;t=87 None',
        '200 {"rows":10} "minute";r=7;t=2, "day";r=977;t=87 None',
        '429 Too many requests "minute";r=7;t=2, "day";r=977;t=87 6',
    ]


def test_django_limits_in_a_middleware_of_its_own_kind(tmp_path: Path) -> None:
    assert held("embed_limiter_django.py", tmp_path) == [
        '/export 200 "minute";r=20;t=2, "day";r=990;t=87 None',
        '/export 200 "minute";r=10;t=2, "day";r=980;t=87 None',
        '/nowhere 404 "minute";r=9;t=2, "day";r=979;t=87 None',
        '/export 429 "minute";r=9;t=2, "day";r=979;t=87 2',
    ]


def test_aiohttp_limits_by_the_name_of_the_route_and_tells_errors_too(tmp_path: Path) -> None:
    assert held("embed_limiter_aiohttp.py", tmp_path) == [
        '/export 200 "minute";r=2;t=5, "day";r=990;t=87 None',
        '/nowhere 404 "minute";r=1;t=5, "day";r=989;t=87 None',
        '/export 429 "minute";r=1;t=5, "day";r=989;t=87 45',
    ]


def test_an_asgi_app_is_limited_and_tells_so_in_every_header(tmp_path: Path) -> None:
    policy = '  ratelimit-policy: "minute";q=3;w=60, "day";q=1000;w=86400'
    lines = held("embed_limiter_asgi.py", tmp_path, "-S")
    assert [line for line in lines if not line.startswith("  ")] == ["200", "200", "200", "429"]
    assert lines[:7] == [
        "200",
        "  content-type: text/plain",
        "  x-ratelimit-limit: 3",
        "  x-ratelimit-remaining: 2",
        "  x-ratelimit-reset: 1705312760",
        policy,
        '  ratelimit: "minute";r=2;t=20, "day";r=999;t=87',
    ]
    assert lines[-9:] == [
        "429",
        "  content-type: text/plain; charset=utf-8",
        "  content-length: 18",
        "  x-ratelimit-limit: 3",
        "  x-ratelimit-remaining: 0",
        "  x-ratelimit-reset: 1705312800",
        policy,
        '  ratelimit: "minute";r=0;t=20, "day";r=997;t=87',
        "  retry-after: 20",
    ]


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


def get(connection: HTTPConnection, path: str = "/") -> HTTPResponse:
    connection.request("GET", path)
    reply = connection.getresponse()
    reply.read()
    return reply


def test_the_same_app_behind_a_real_server_refuses_the_fourth_request_of_a_burst() -> None:
    with served("embed_limiter_asgi:app") as connection:
        replies = [get(connection) for _ in range(4)]
    assert [reply.status for reply in replies] == [200, 200, 200, 429]
    assert [reply.headers["X-RateLimit-Remaining"] for reply in replies] == ["2", "1", "0", "0"]
    assert 1 <= int(replies[-1].headers["Retry-After"]) <= 20


@pytest.mark.parametrize(
    ("app", "path", "remaining"),
    [("embed_limiter_fastapi:app", "/courses/knots", "29"), ("embed_limiter_starlette:app", "/stream", "11")],
)
def test_the_apps_of_frameworks_are_served_as_they_are(app: str, path: str, remaining: str) -> None:
    with served(app) as connection:
        reply = get(connection, path)
    assert (reply.status, reply.headers["X-RateLimit-Remaining"]) == (200, remaining)
