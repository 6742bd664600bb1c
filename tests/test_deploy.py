"""The files for running it for real: what they name exists, and a real nginx serves by the one that is for it."""

from __future__ import annotations

import http.client
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from learnflow_http.cli import learnflow
from learnflow_http.settings import SETTINGS
from tests.conftest import missing
from tests.fleet import Fleet, running
from tests.terminal import COMMAND, wait_until

ROOT = Path(__file__).parents[1]
FILES = sorted(path for path in (ROOT / "deploy").iterdir())
VARIABLES = {setting.variable for setting in SETTINGS.values()}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_variable_and_command_that_a_file_names_exists(file: Path) -> None:
    text = file.read_text("utf-8")
    assert set(re.findall(r"\bLEARNFLOW_[A-Z_]+", text)) <= VARIABLES
    assert set(re.findall(r"bin/learnflow (\w+)", text)) <= set(learnflow.commands)


def test_a_stop_gets_the_time_that_the_server_takes_for_it() -> None:
    for file in FILES:
        for seconds in re.findall(r"(?:TimeoutStopSec=|stop_grace_period: |stop -t )(\d+)", file.read_text("utf-8")):
            assert int(seconds) >= 20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Front(NamedTuple):
    """A proxy with a server behind it, and where the proxy is."""

    fleet: Fleet
    port: int

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] = {}, body: bytes = b""
    ) -> http.client.HTTPResponse:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with closing(http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=context)) as connection:
            connection.request(method, path, body, dict(headers))
            reply = connection.getresponse()
            reply.read()
        return reply


@contextmanager
def nginx(folder: Path, *addresses: str) -> Iterator[int]:
    """nginx by our file, but for its addresses and its certificate, before these servers; the port where it is."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/opt/homebrew/bin")
    openssl = shutil.which("openssl")
    if program is None or openssl is None:
        missing("nginx or openssl")
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=api.example.com -keyout key.pem -out certificate.pem"
    subprocess.run([openssl, *words.split()], cwd=folder, check=True, capture_output=True)
    port = free_port()
    upstreams = [f"server {address.removeprefix('http://')} fail_timeout=1s;" for address in addresses]
    ours = (ROOT / "deploy/nginx.conf").read_text("utf-8")
    for theirs, here in (
        ("    server learnflow:8000 fail_timeout=1s;", "\n".join(upstreams)),
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("/etc/ssl/api.example.com.pem", f"{folder}/certificate.pem"),
        ("/etc/ssl/api.example.com.key", f"{folder}/key.pem"),
    ):
        assert theirs in ours
        ours = ours.replace(theirs, here)
    whole = f"daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}} http {{ access_log off;\n{ours}}}"
    (folder / "nginx.conf").write_text(whole)
    process = subprocess.Popen([program, "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=subprocess.PIPE)
    try:
        wait_until(lambda: process.poll() is not None or can_connect(port))
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def serve(folder: Path, port: int = 0) -> list[str]:
    """A server with two workers that trusts the proxy."""
    options = f"--log-format json --trusted-proxies 127.0.0.1 --database sqlite:///{folder}/db"
    return [*COMMAND, *f"serve --port {port} --workers 2 {options}".split()]


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("nginx")
    with running(*serve(folder)) as fleet, nginx(folder, fleet.address) as port:
        yield Front(fleet, port)


def can_connect(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_reply_passes_the_proxy_as_it_is(front: Front) -> None:
    reply = front.ask("GET", "/v1/courses")
    assert (reply.status, reply.headers["X-RateLimit-Limit"]) == (200, "30")
    assert reply.headers["X-Request-Id"].startswith("req_")
    assert front.ask("GET", "/v1/courses", {"If-None-Match": reply.headers["ETag"] or ""}).status == 304


def test_limits_are_those_of_the_client_and_nobody_forges_an_address(front: Front) -> None:
    told = front.ask("GET", "/v1/courses", {"X-Forwarded-For": "203.0.113.9"})
    assert told.status == 200
    assert {record["client"] for record in front.fleet.said("request")} == {"127.0.0.1"}


def test_a_body_that_is_too_large_is_refused_in_the_servers_own_words(front: Front) -> None:
    reply = front.ask("POST", "/v1/auth/token", {"Content-Type": "application/json"}, b"[" * 2_000_000)
    assert (reply.status, reply.headers["Content-Type"]) == (413, "application/json")


def test_the_clients_request_id_is_the_one_that_nginx_logs(front: Front) -> None:
    front.ask("GET", "/v1/categories")
    assert all(len(record["client_request_id"]) == 32 for record in front.fleet.said("request"))


def test_servers_are_replaced_one_after_the_other_and_the_proxys_clients_do_not_notice(tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    statuses: Counter[int] = Counter()
    over = threading.Event()
    with ExitStack() as stack:
        fleets = [stack.enter_context(running(*serve(tmp_path, port))) for port in ports]
        front = Front(fleets[0], stack.enter_context(nginx(tmp_path, *(fleet.address for fleet in fleets))))

        def ask() -> None:
            while not over.is_set():
                statuses[front.ask("GET", "/v1/courses").status] += 1

        clients = [threading.Thread(target=ask) for _ in range(4)]
        for client in clients:
            client.start()
        for fleet, port in zip(fleets, ports, strict=True):
            wait_until(lambda fleet=fleet: len(fleet.said("request")) >= 5)  # type: ignore[misc]
            fleet.process.terminate()
            assert fleet.status() == 0
            successor = stack.enter_context(running(*serve(tmp_path, port)))
            wait_until(lambda successor=successor: is_ready(successor.address))  # type: ignore[misc]
            wait_until(lambda successor=successor: len(successor.said("request")) >= 5)  # type: ignore[misc]
        over.set()
        for client in clients:
            client.join()
    assert set(statuses) <= {200, 429}
    assert statuses[200] > 0


def is_ready(address: str) -> bool:
    with suppress(OSError), closing(http.client.HTTPConnection(address.removeprefix("http://"), timeout=5)) as probe:
        probe.request("GET", "/readyz")
        return probe.getresponse().status == 200
    return False
