"""What clients see while parts of an installation are killed: `python -m tests.outages` shows the figures.

Two servers of two workers each, on one PostgreSQL and one Valkey, are started by the lines of README and kept busy. A
worker, PostgreSQL and Valkey are killed by SIGKILL, one after the other; the last two stay away for a while.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count, pairwise
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from benchmarks.databases import fill
from storage_backends import open_storage
from tests.fleet import REPLIES_A_CONNECTION, Fleet, running
from tests.limiting import ROOT
from tests.postgres import Postgres
from tests.servers import Valkey, eventually
from tests.terminal import COMMAND, finished

CATALOGUE: Final = ROOT.parent / "shared" / "data" / "udemy_courses.csv"
PATIENCE_S: Final = 30.0
WRITERS: Final = 4
READERS: Final = 2
_BLOCK = re.compile(r"## Past one process\n.*?^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SOME: Final = 10
"""A server is back when it has answered so many more."""


class Reply(NamedTuple):
    """What one request came to; `status` 0: the connection broke. `made` is the id of what was acknowledged."""

    at: float
    waited_s: float
    server: int
    status: int
    retry_after: str | None
    made: str | None


class Outage(NamedTuple):
    """What was killed, and what the clients of both servers saw from then until all was as before.

    `away_s` is how long it was not there, `recovered_s` how long after that it took until all was as before, `gap_s`
    the longest time in which nothing was answered with 2xx.
    """

    what: str
    away_s: float
    recovered_s: float
    gap_s: float
    replies: list[Reply]

    def row(self) -> tuple[str, ...]:
        """The figures, as a table shows them."""
        seen = Counter(reply.status for reply in self.replies)
        good = sum(seen[status] for status in (200, 201))
        slowest = max(reply.waited_s for reply in self.replies)
        times = (f"{seconds:.2f}" for seconds in (self.away_s, self.recovered_s, self.gap_s, slowest))
        return (self.what, *times, *map(str, (good, seen[429], seen[503], seen[0])))


HEAD: Final = ("killed", "away s", "recovered s", "longest gap s", "slowest reply s", "2xx", "429", "503", "broken")


class Report(NamedTuple):
    """All that happened, which writes were acknowledged and are lost, and what the doctor finds."""

    outages: list[Outage]
    replies: list[Reply]
    lost: set[str]
    findings: str


class Clients:
    """Clients of both servers, in threads: some make users, some list courses, and one has a small plan."""

    def __init__(self, addresses: list[str], key: str, small_key: str) -> None:
        self.replies: list[Reply] = []
        self._over = threading.Event()
        self._numbers = count()
        self._threads = []
        for server, address in enumerate(addresses):
            works = [(self._make, key)] * WRITERS + [(self._list, key)] * READERS + [(self._list, small_key)]
            for work, of in works:
                thread = threading.Thread(target=self._ask, args=(server, urlsplit(address).netloc, of, work))
                self._threads.append(thread)
                thread.start()

    def _make(self) -> tuple[str, str, str]:
        body = json.dumps({"email": f"{next(self._numbers)}@crowd.test", "name": "Ada"})
        return "POST", "/v1/users", body

    def _list(self) -> tuple[str, str, str]:
        return "GET", f"/v1/courses?search=web&page={next(self._numbers) % 20 + 1}", ""

    def _ask(self, server: int, netloc: str, key: str, work: Callable[[], tuple[str, str, str]]) -> None:
        connection = http.client.HTTPConnection(netloc, timeout=PATIENCE_S)
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        asked = count()
        while not self._over.wait(0.005):
            if next(asked) % REPLIES_A_CONNECTION == 0:
                connection.close()  # so that nobody stays with one worker
            began = time.monotonic()
            status, retry_after, made = 0, None, None
            try:
                method, path, body = work()
                connection.request(method, path, body, headers)
                reply = connection.getresponse()
                data = reply.read()
                status, retry_after = reply.status, reply.headers["Retry-After"]
                made = json.loads(data)["id"] if status == 201 else None
            except (OSError, http.client.HTTPException):
                connection.close()
            now = time.monotonic()
            self.replies.append(Reply(now, now - began, server, status, retry_after, made))
        connection.close()

    def go_on(self, servers: int = 2, kinds: tuple[int, ...] = (200, 201)) -> None:
        """Wait until each server has answered some more with each of these."""
        before = len(self.replies)

        def all_answer() -> bool:
            seen = Counter((reply.server, reply.status) for reply in self.replies[before:])
            return all(seen[server, status] >= _SOME for server in range(servers) for status in kinds)

        eventually(all_answer, PATIENCE_S)

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def demonstrate(*, away_s: float, calm_s: float, courses: int = 0, durable: bool = True) -> Report:
    """Start everything, kill the parts one after the other, and look at what is left.

    PostgreSQL waits for the disk when it is `durable`; a process that is killed loses nothing either way.
    """
    with ExitStack() as stack:
        postgres = stack.enter_context(Postgres("max_connections=60", durable=durable))
        valkey = stack.enter_context(Valkey())
        database = postgres.url(name := asyncio.run(postgres.make(template=False)))
        commands = _commands(LEARNFLOW_DATABASE=database, LEARNFLOW_LIMITER=valkey.url, LEARNFLOW_JWT_SECRET="x" * 32)
        migrate, serve = commands
        _told(migrate)
        program = migrate[: migrate.index("migrate")]
        account, key, small_key = _school(program)
        _catalogue(program, account, database, courses)
        fleets = [stack.enter_context(running(*serve, "--log-format", "json")) for _ in range(2)]
        clients = Clients([fleet.address for fleet in fleets], key, small_key)
        stack.callback(clients.end)
        outages = list(_outages(fleets, postgres, valkey, clients, away_s, calm_s))
        clients.end()
        kept = {key for (key,) in asyncio.run(postgres.run("SELECT id FROM users", name))}
        lost = {reply.made for reply in clients.replies if reply.made is not None} - kept
        for fleet in fleets:
            fleet.process.terminate()
            assert fleet.status() == 0
        return Report(outages, clients.replies, lost, _told([*program, "doctor"], timeout=None))


def _commands(**variables: str) -> Iterator[list[str]]:
    """The commands that README shows for this, with our servers in place of those that it names."""
    found = _BLOCK.search((ROOT / "README.md").read_text("utf-8"))
    assert found
    lines = [line.removeprefix("$ ").partition("  #")[0] for line in found[1].splitlines()]
    named = {line.removeprefix("export ").partition("=")[0]: line for line in lines if line.startswith("export ")}
    assert set(variables) <= set(named), "README names the settings that there have to be"
    given = {name: variables.get(name, line.rpartition("=")[2]) for name, line in named.items()}
    for line in lines:
        if line.startswith("learnflow "):
            words = re.sub(r"--port \d+", "--port 0", line).split()[1:]
            yield ["env", *(f"{name}={value}" for name, value in given.items()), *COMMAND, *words]


def _told(command: list[str], **options: Any) -> str:
    done = finished(*command, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _school(program: list[str]) -> tuple[str, str, str]:
    """An account, a key of it that may ask often, and one of another that may not."""
    create = [*program, "accounts", "create", "--name", "Crowd", "--plan"]
    account = _told([*create, "enterprise", "--per-minute", "1000000"])
    small = _told([*create, "starter"])
    keys = [_told([*program, "keys", "create", "--name", "load", "--account", one]) for one in (account, small)]
    return account, keys[0], keys[1]


def _catalogue(program: list[str], account: str, database: str, courses: int) -> None:
    """The real catalogue where it is at hand, and so many generated courses."""

    async def generate() -> None:
        storage = await open_storage(database)
        await fill(storage, courses)
        await storage.close()

    if CATALOGUE.exists():
        _told([*program, "import", "courses", str(CATALOGUE), "--account", account, "--report", os.devnull])
    if courses:
        asyncio.run(generate())


def _outages(
    fleets: list[Fleet], postgres: Postgres, valkey: Valkey, clients: Clients, away_s: float, calm_s: float
) -> Iterator[Outage]:
    def all_serve() -> None:
        clients.go_on()

    def a_successor_serves() -> None:
        eventually(lambda: bool(fleets[0].worker_pids() - known), PATIENCE_S)
        clients.go_on()

    def the_store_decides() -> None:
        eventually(lambda: _asking(valkey) == 4, PATIENCE_S)
        clients.go_on()

    for fleet in fleets:
        eventually(lambda fleet=fleet: len(fleet.worker_pids()) == 2, PATIENCE_S)  # type: ignore[misc]
    time.sleep(calm_s)
    known = fleets[0].worker_pids()
    with _watched("a worker", clients, calm_s, a_successor_serves) as outage:
        os.kill(min(known), signal.SIGKILL)
    yield outage[0]
    with _watched("PostgreSQL", clients, calm_s, all_serve) as outage:
        postgres.stop(signal.SIGKILL)
        time.sleep(away_s)
        postgres.start()
    yield outage[0]
    assert _asking(valkey) == 4
    with _watched("Valkey", clients, calm_s, the_store_decides) as outage:
        valkey.kill()
        time.sleep(away_s)
        valkey.start()
    yield outage[0]


@contextmanager
def _watched(what: str, clients: Clients, calm_s: float, recover: Callable[[], None]) -> Iterator[list[Outage]]:
    """See what clients see from before something is killed until it is back, which happens inside, and a while on."""
    outage: list[Outage] = []
    first, began = len(clients.replies), time.monotonic()
    yield outage
    back = time.monotonic()
    recover()
    recovered_s = time.monotonic() - back
    time.sleep(calm_s)
    replies = clients.replies[first:]
    good = sorted([began, *(reply.at for reply in replies if reply.status in (200, 201))])
    gap_s = max(later - earlier for earlier, later in pairwise(good))
    outage.append(Outage(what, back - began, recovered_s, gap_s, replies))


def _asking(valkey: Valkey) -> int:
    """How many connections there are on which decisions are asked for: one of each worker."""
    return len(re.findall(rb" cmd=evalsha ", valkey.call("CLIENT", "LIST")))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.outages", description=__doc__)
    parser.add_argument("--away", type=float, default=3, metavar="SECONDS", help="how long a database stays away")
    parser.add_argument("--calm", type=float, default=3, metavar="SECONDS", help="between two outages")
    parser.add_argument("--courses", type=int, default=0, help="generated courses, beside the real catalogue")
    given = parser.parse_args()
    report = demonstrate(away_s=given.away, calm_s=given.calm, courses=given.courses)
    for row in (HEAD, *(outage.row() for outage in report.outages)):
        print(*(cell.rjust(15) for cell in row))  # noqa: T201
    acknowledged = sum(reply.made is not None for reply in report.replies)
    print(f"{len(report.replies)} requests, {acknowledged} writes acknowledged, {len(report.lost)} lost;", end=" ")  # noqa: T201
    print(f"the doctor: {report.findings or 'no findings'}")  # noqa: T201


if __name__ == "__main__":
    main()
