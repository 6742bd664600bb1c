"""The command line in processes of its own: signals, pipes and terminals, and a server that is started and stopped."""

import json
import os
import pty
import re
import signal
import socket
import sqlite3
import sys
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.terminal import COMMAND, Operator, finished, serving, started, wait_until


@pytest.fixture
def school(tmp_path: Path) -> Operator:
    """An operator with one account."""
    operator = Operator(tmp_path)
    operator.told("accounts", "create", "--name", "Acme", "--plan", "professional")
    return operator


def test_both_ways_to_call_it_are_one() -> None:
    for command in ([str(Path(sys.executable).with_name("learnflow"))], COMMAND):
        done = finished(*command, "--version")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("learnflow, version ")


def test_a_reader_who_goes_away_is_no_trouble() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as output:
        done = finished(*COMMAND, "openapi", stdout=output)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_defect_is_told_without_the_secrets_in_it() -> None:
    code = """if True:
        from learnflow_http import cli
        cli.learnflow.commands["migrate"].callback = lambda **options: int("postgresql://u:hunter2@h/x")
        cli.main()"""
    done = finished(sys.executable, "-c", code, "migrate")
    assert done.returncode == 1
    assert "ValueError" in done.stderr
    assert "hunter2" not in done.stderr


def courses_kept(school: Operator) -> int:
    with closing(sqlite3.connect(school.folder / "school.db")) as database:
        return int(database.execute("SELECT count(*) FROM courses").fetchone()[0])


def test_an_interrupted_import_ends_cleanly_and_can_be_repeated(school: Operator) -> None:
    file = school.folder / "many.csv"
    rows = (f"{number},Course {number},Cooking,5\n" for number in range(60_000))
    file.write_text("id,title,subject,price\n" + "".join(rows))
    with started(*COMMAND, "import", "courses", str(file), "--database", school.url) as running:
        wait_until(lambda: courses_kept(school) > 0)
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=30)
    assert running.returncode == 1
    assert told.endswith("Aborted!\n")
    assert "Traceback" not in told
    assert 0 < courses_kept(school) < 60_000
    assert school.run("doctor").exit_code == 0


def test_a_progress_bar_is_for_terminals_only(school: Operator) -> None:
    file = school.folder / "few.csv"
    file.write_text("id,title,subject,price\n1,A,Cooking,5\n2,B,Cooking,x\n")
    command = [*COMMAND, "import", "courses", str(file), "--database", school.url]
    assert "Importing" not in finished(*command).stderr
    screen, terminal = pty.openpty()
    finished(*command, stdout=terminal, stderr=terminal, stdin=terminal)
    os.close(terminal)
    shown = os.read(screen, 100_000).decode()
    os.close(screen)
    assert "Importing" in shown
    assert "100%" in shown


def fetch(url: str, **headers: str) -> tuple[int, Any]:
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - our own address
    with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310 - our own address
        return reply.status, json.loads(reply.read())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_answers_until_it_is_told_to_stop_and_then_ends_with_0(school: Operator, number: int) -> None:
    with serving("--database", school.url) as (server, address):
        assert fetch(f"{address}/healthz") == (200, {"status": "ok"})
        assert fetch(f"{address}/v1/courses")[1]["meta"]["total_items"] == 0
        server.send_signal(number)
        output, errors = server.communicate(timeout=20)
    assert (server.returncode, output) == (0, "")
    assert {json.loads(line)["level"] for line in errors.splitlines()} == {"info"}


def test_a_key_made_at_the_command_line_works_at_once_at_a_server_that_runs(school: Operator) -> None:
    with serving("--database", school.url) as (_, address):
        secret = school.told("keys", "create").strip()
        status, account = fetch(f"{address}/v1/account", Authorization=f"Bearer {secret}")
    assert (status, account["name"]) == (200, "Acme")


def test_a_server_beyond_loopback_warns_that_the_sandbox_takes_the_money(school: Operator) -> None:
    options = ("--port", "0", "--host", "0.0.0.0", "--log-format", "json")  # noqa: S104 - it is warned of
    with started(*COMMAND, "serve", *options, "--database", school.url) as server:
        assert server.stderr is not None
        first = json.loads(server.stderr.readline())
    assert (first["level"], "SANDBOX" in first["message"]) == ("warning", True)


def test_what_keeps_a_server_from_starting_is_said_in_a_sentence(school: Operator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = finished(*COMMAND, "serve", "--database", school.url, "--port", port)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"Error: Cannot listen on '127.0.0.1', port {port}: .*\.\n", done.stderr)


def test_no_secret_is_shown_by_a_server(school: Operator) -> None:
    secret = "s3cret-" * 6
    with serving("--database", school.url, LEARNFLOW_JWT_SECRET=secret) as (server, address):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            fetch(f"{address}/v1/account?access_token={secret}", Authorization=f"Bearer {secret}")
        refusal.value.close()
        server.send_signal(signal.SIGTERM)
        output, errors = server.communicate(timeout=20)
    assert "/v1/account" in errors
    assert secret not in output + errors
