"""Several workers as one server: one limit, nothing lost at a stop or a crash, and nobody left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest

from tests.fleet import Connection, Load, running, workers
from tests.limiting import ROOT
from tests.terminal import COMMAND, Operator, finished, wait_until

STARTER = 30
KNOTS = {"title": "Knots", "category": "sailing", "price": {"amount": 5, "currency": "USD"}, "status": "published"}
REFILL_S = 2


@pytest.fixture
def school(tmp_path: Path) -> Operator:
    """An operator with an account that may ask often."""
    operator = Operator(tmp_path)
    operator.told("accounts", "create", "--name", "Acme", "--plan", "enterprise", "--per-minute", "60000")
    return operator


def key_of_a_starter(school: Operator) -> str:
    account = school.told("accounts", "create", "--name", "Starter", "--plan", "starter").strip()
    return school.told("keys", "create", "--account", account).strip()


def test_two_workers_admit_exactly_the_limit_at_ten_times_the_load(school: Operator) -> None:
    with workers(2, "--database", school.url) as fleet:
        windows = 0
        while windows < 5:  # in which both of them answered: a connection goes to who is first
            key, before = key_of_a_starter(school), len(fleet.said("request"))
            load = Load(fleet.address, key)
            load.until(lambda load=load: load.answered >= 10 * STARTER)  # type: ignore[misc]
            flowed_in = int((time.monotonic() - load.began) / REFILL_S)
            assert STARTER <= load.statuses[200] <= STARTER + flowed_in
            assert set(load.statuses) == {200, 429}
            assert load.lost == 0
            windows += len({record["pid"] for record in fleet.said("request")[before:]}) == 2


@pytest.mark.parametrize("whom", ["supervisor", "everyone"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_loses_no_request(school: Operator, number: int, whom: str) -> None:
    key = school.told("keys", "create").strip()
    with workers(2, "--database", school.url) as fleet:
        load = Load(fleet.address, key)
        wait_until(lambda: load.answered >= 300 and len(fleet.worker_pids()) == 2)
        os.kill(fleet.process.pid, number) if whom == "supervisor" else os.killpg(fleet.process.pid, number)
        load.join()
        assert fleet.status() == 0
    assert load.lost == 0
    assert set(load.statuses) == {200}
    assert load.told_to_close >= 1
    assert len(fleet.said("request")) >= load.answered
    assert {record["level"] for record in fleet.records} == {"info"}


def test_a_killed_worker_is_replaced_and_takes_only_its_own_connections_along(school: Operator) -> None:
    busy, starter = school.told("keys", "create", "--account", account_id(school)).strip(), key_of_a_starter(school)
    with workers(2, "--database", school.url) as fleet:
        load = Load(fleet.address, busy)
        wait_until(lambda: load.answered >= 100 and len(fleet.worker_pids()) == 2)
        limited = Load(fleet.address, starter)
        wait_until(lambda: limited.answered >= 20)
        before = fleet.worker_pids()
        killed = min(before)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: bool(fleet.worker_pids() - before))
        load.stop()
        limited.until(lambda: limited.answered >= 10 * STARTER)
        flowed_in = int((time.monotonic() - limited.began) / REFILL_S)
        [record] = fleet.said("a worker ended, and is replaced")
        assert (record["worker"], record["how"]) == (killed, "SIGKILL")
        assert len(fleet.said("serving")) == 1
    assert load.lost <= 8
    assert set(load.statuses) == {200}
    assert limited.lost <= 8
    assert STARTER - limited.lost <= limited.statuses[200] <= STARTER + flowed_in


@pytest.mark.parametrize("whom", ["supervisor", "everyone"])
def test_workers_are_renewed_under_load_without_losing_a_request_or_a_bucket(school: Operator, whom: str) -> None:
    busy, starter = school.told("keys", "create", "--account", account_id(school)).strip(), key_of_a_starter(school)
    with workers(2, "--database", school.url) as fleet:
        load, limited = Load(fleet.address, busy), Load(fleet.address, starter, clients=1)
        for renewals in (1, 2, 3):
            wait_until(lambda: load.answered >= 300 and len(fleet.worker_pids()) == 2 * renewals)  # noqa: B023
            kill = os.kill if whom == "supervisor" else os.killpg
            kill(fleet.process.pid, signal.SIGHUP)
            wait_until(lambda: len(fleet.said("the workers are renewed")) == renewals)  # noqa: B023
        wait_until(lambda: len(fleet.worker_pids()) == 8)
        load.stop()
        limited.stop()
        flowed_in = int((time.monotonic() - limited.began) / REFILL_S)
        assert sum(is_alive(pid) for pid in fleet.worker_pids()) == 2
        os.kill(fleet.process.pid, signal.SIGTERM)
        assert fleet.status() == 0
    assert (load.lost, limited.lost) == (0, 0)
    assert set(load.statuses) == {200}
    assert load.told_to_close >= 1
    assert STARTER <= limited.statuses[200] <= STARTER + flowed_in
    assert {record["level"] for record in fleet.records} == {"info"}


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def account_id(school: Operator) -> str:
    accounts = school.json("accounts", "list")["data"]
    return str(next(account["id"] for account in accounts if account["name"] == "Acme"))


def test_workers_whose_supervisor_was_killed_end_and_leave_the_port(school: Operator) -> None:
    key = school.told("keys", "create").strip()
    with workers(2, "--database", school.url) as fleet:
        idle, load = Connection(fleet.address), Load(fleet.address, key)
        wait_until(lambda: load.answered >= 100)
        fleet.process.kill()
        load.join()
        wait_until(lambda: fleet.has_ended, seconds=5)
        idle.close()
        assert load.lost == 0
        with socket.create_server(("127.0.0.1", urlsplit(fleet.address).port or 0)):
            pass


def test_a_revoked_key_and_a_changed_plan_are_seen_by_every_worker_within_a_second(school: Operator) -> None:
    account = account_id(school)
    kept, revoked = (school.told("keys", "create").strip() for _ in range(2))
    revoked_id = school.json("keys", "list")["data"][0]["id"]
    with workers(2, "--database", school.url) as fleet:
        connections: list[Connection] = []
        while len(fleet.worker_pids()) < 2 or len(connections) < 16:
            connections += [Connection(fleet.address, key) for key in (kept, revoked)]
            assert {connection.get().status for connection in connections[-2:]} == {200}
        school.told("accounts", "set-plan", account, "--plan", "professional")
        school.told("keys", "revoke", revoked_id)

        keys = (kept, revoked) * len(connections)

        def knows(number: int) -> bool:
            reply = connections[number].get()
            return reply.status == 401 if keys[number] == revoked else reply.headers["X-RateLimit-Limit"] == "300"

        known_within_a_second(knows, len(connections))
        for connection in connections:
            connection.close()


def known_within_a_second(knows: Callable[[int], bool], connections: int) -> None:
    """Who asks a second from now or later, on whichever connection, knows; however slow the machine is meanwhile."""
    changed = time.monotonic()
    unknowing = set(range(connections))
    while unknowing:
        asked_late = time.monotonic() - changed > 1
        unknowing = {number for number in range(connections) if not knows(number)}
        assert not (asked_late and unknowing)


def test_a_changed_course_is_seen_by_every_worker_within_a_second(school: Operator) -> None:
    key = school.told("keys", "create").strip()
    with workers(2, "--database", school.url) as fleet, httpx.Client(headers={"Authorization": f"Bearer {key}"}) as api:
        made = api.post(f"{fleet.address}/v1/courses", json=KNOTS)
        assert made.status_code == 201, made.text
        course = f"/v1/courses/{made.json()['id']}"
        lists = ("/v1/courses", "/v1/courses?search=knots", course)
        connections: list[Connection] = []
        while len(fleet.worker_pids()) < 2 or len(connections) < 16:
            connections.append(Connection(fleet.address, key))
            assert {connections[-1].get(path).status for path in lists} == {200}
        for path in lists:
            before = connections[0].get(path).headers["ETag"]
            title = f"Knots and {before[-4:-1]}"
            assert api.patch(fleet.address + course, json={"title": title}).status_code == 200

            def knows(number: int, path: str = path, before: str | None = before) -> bool:
                return connections[number].get(path).headers["ETag"] != before

            known_within_a_second(knows, len(connections))
        for connection in connections:
            connection.close()


def test_a_reply_given_below_the_app_tells_of_the_limit_that_all_workers_share(school: Operator) -> None:
    with workers(2, "--database", school.url) as fleet:
        client = Connection(fleet.address)
        for _ in range(STARTER // 3):
            assert client.get("/v1/courses").status == 200
        client.close()
        told = set()
        for _ in range(8):
            with socket.create_connection(("127.0.0.1", urlsplit(fleet.address).port or 0)) as raw:
                raw.sendall(b"?\r\n\r\n")
                told |= set(re.findall(rb"x-ratelimit-remaining: (\d+)", raw.makefile("rb").read()))
        assert told <= {b"20", b"21", b"22"}
        assert told


def test_the_demo_is_made_and_told_once(tmp_path: Path) -> None:
    with workers(3, "--demo", "--database", f"sqlite:///{tmp_path}/demo.db") as fleet:
        os.kill(fleet.process.pid, signal.SIGTERM)
        assert fleet.status() == 0
        told = fleet.output()
        assert told.count("API keys, new at every start:") == 1
        assert fleet.said("serving")[0]["addresses"] in told
        assert len(fleet.said("serving")) == 1


def test_what_keeps_workers_from_starting_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database at all")
    for options, status, message in (
        (["--database", "sqlite://"], 2, "--workers: a database in memory has one; sqlite:///FILE serves several."),
        (["--database", f"sqlite:///{tmp_path}/text.db"], 1, "/text.db cannot be used: file is not a database"),
    ):
        done = finished(*COMMAND, "serve", "--port", "0", "--workers", "2", *options)
        assert (done.returncode, done.stdout) == (status, "")
        assert done.stderr.count(message) == done.stderr.count("Error: ") == 1


# What the supervisor does, shown with workers that do what is needed for it


def supervised(work: str, *, first: str = "") -> list[str]:
    """A program that runs this as the work of two workers, and something else first."""
    program = f"""
import os, signal, sys
from pathlib import Path
from learnflow_http import logs
from learnflow_http.edge import Edge, Limits, server, supervisor
from tests.edge import app
logs.configure("json", "info")
supervisor.FIRST_PAUSE_S = 0.01
{first}
sockets = server.listen("127.0.0.1", 0)
told = [server.url(each) for each in sockets]
def serve(link):
    edge = Edge(Limits(stop_s=60))
    server.serve_at(sockets, app, edge=edge, on_started=lambda _: link.serves(), lifeline=link.lifeline)
def work(link):
    {work}
try:
    minding = supervisor.Supervisor(work, workers=2, sockets=sockets, stop_s=60)
    minding.run(lambda: supervisor.log.info("serving", extra={{"addresses": told[0]}}))
except server.ServeError as error:
    sys.exit(str(error))
"""
    return [sys.executable, "-c", program]


def test_when_no_worker_starts_the_reason_is_told_and_there_is_no_second_try() -> None:
    done = finished(*supervised("raise server.ServeError('the roof is on fire')"), cwd=ROOT)
    assert (done.returncode, done.stderr) == (1, "the roof is on fire\n")
    done = finished(*supervised("os._exit(3)"), cwd=ROOT)
    assert (done.returncode, done.stderr) == (1, "A worker ended with status 3 before it served.\n")


def test_workers_that_end_again_and_again_are_replaced_after_longer_and_longer_pauses() -> None:
    with running(*supervised("link.serves(); os._exit(3)")) as fleet:
        wait_until(lambda: len(fleet.said("a worker ended, and is replaced")) >= 10)
        os.kill(fleet.process.pid, signal.SIGTERM)
        assert fleet.status() == 0
    pauses = Counter(record["pause_s"] for record in fleet.said("a worker ended, and is replaced"))
    assert set(pauses) == {0.01 * 2**number for number in range(len(pauses))}
    assert max(pauses.values()) <= 2  # once for each of the two places


def test_a_machine_that_has_no_process_left_is_asked_again() -> None:
    failing = """
fork, left = os.fork, [None, None, BlockingIOError(11, "Try again"), BlockingIOError(11, "Try again")]
def fork_or_fail():
    error = left.pop(0) if left else None
    if error:
        raise error
    return fork()
os.fork = fork_or_fail"""
    waiting = "supervisor.log.info('request', extra={'pid': os.getpid()}); link.serves(); signal.pause()"
    with running(*supervised(waiting, first=failing)) as fleet:
        assert fleet.address
        before = fleet.worker_pids()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(fleet.worker_pids() - before) == 2)
    how = [record["how"] for record in fleet.said("a worker ended, and is replaced")]
    assert sorted(how) == ["SIGKILL", "SIGKILL", "no process: Try again", "no process: Try again"]


def test_the_supervisor_gives_up_when_workers_served_once_and_cannot_start_any_more(tmp_path: Path) -> None:
    work = f"Path('{tmp_path}/' + str(os.getpid())).touch()"
    work += f"; n = len(os.listdir('{tmp_path}'))"
    work += "; sys.exit() if n > 8 else None; link.serves() if n <= 2 else None; os._exit(4)"
    done = finished(*supervised(work), cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.endswith("A worker ended with status 4 before it served.\n")
    assert len(list(tmp_path.iterdir())) <= 8


COUNTED = "Path('{0}/' + str(os.getpid())).touch(); started = len(os.listdir('{0}')); "


def test_workers_go_on_while_those_that_would_renew_them_cannot_start(tmp_path: Path) -> None:
    broken = "serve(link) if started <= 2 or Path('{0}.mended').exists() else os._exit(3)"
    with running(*supervised((COUNTED + broken).format(tmp_path))) as fleet:
        assert fleet.address
        before = started(tmp_path)
        os.kill(fleet.process.pid, signal.SIGHUP)
        wait_until(lambda: len(fleet.said("a worker ended, and is replaced")) >= 3)
        assert all(map(is_alive, before))
        Path(f"{tmp_path}.mended").touch()
        wait_until(lambda: bool(fleet.said("the workers are renewed")))
        assert not any(map(is_alive, before))
        assert sum(map(is_alive, started(tmp_path))) == 2


def test_who_ends_before_its_turn_to_leave_is_replaced_and_none_is_too_many(tmp_path: Path) -> None:
    slow = "time.sleep(0.5) if started == 3 else None; serve(link)"
    with running(*supervised(("import time; " + COUNTED + slow).format(tmp_path))) as fleet:
        assert fleet.address
        before = started(tmp_path)
        os.kill(fleet.process.pid, signal.SIGHUP)
        wait_until(lambda: len(started(tmp_path)) == 3)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: bool(fleet.said("the workers are renewed")))
        assert sum(map(is_alive, started(tmp_path))) == 2


def test_who_does_not_leave_in_time_is_killed(tmp_path: Path) -> None:
    impatient = "supervisor._OVERTIME_S = -59.9"
    stubborn = "link.serves(); signal.signal(signal.SIGUSR1, signal.SIG_IGN); signal.pause()"
    with running(*supervised((COUNTED + stubborn).format(tmp_path), first=impatient)) as fleet:
        assert fleet.address
        before = started(tmp_path)
        os.kill(fleet.process.pid, signal.SIGHUP)
        wait_until(lambda: bool(fleet.said("the workers are renewed")))
        assert {record["worker"] for record in fleet.said("a worker did not leave in time and is killed")} == before


def started(folder: Path) -> set[int]:
    """The workers that noted that they began."""
    return {int(path.name) for path in folder.iterdir()}


def test_a_second_signal_ends_supervisor_and_workers_at_once() -> None:
    with running(*supervised("serve(link)")) as fleet, socket.socket() as client:
        client.connect(("127.0.0.1", urlsplit(fleet.address).port or 0))
        client.sendall(b"GET /forever HTTP/1.1\r\nHost: a\r\n\r\n")
        os.kill(fleet.process.pid, signal.SIGTERM)
        wait_until(lambda: refused(fleet.address))
        assert fleet.process.poll() is None
        os.kill(fleet.process.pid, signal.SIGTERM)
        assert fleet.status(2) == -signal.SIGTERM


def refused(address: str) -> bool:
    try:
        Connection(address).close()
    except ConnectionRefusedError:
        return True
    return False
