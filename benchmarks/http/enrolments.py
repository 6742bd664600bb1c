"""Enrolments over HTTP beside the floor and the peer, on each database, with different numbers of them under way.

Every enrolment is durable before it is answered, in the project and in the peer: SQLite commits with `synchronous=FULL`
to a write-ahead log, and PostgreSQL runs with fsync and synchronous commits.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import repeat
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import msgspec

from benchmarks.databases import SQLITE
from benchmarks.http.requests import fetch, request
from benchmarks.http.sampling import Case, Row, Settings, measured, sample
from benchmarks.http.servers import Servers
from benchmarks.peers.fastapi_sqlalchemy import filling
from benchmarks.processes import Server, cores_apart
from benchmarks.school import Place, School, found
from storage_backends import migrate, open_storage
from tests.postgres import Postgres

TITLE: Final = "enrolments"
LEARNFLOW, PEER = "learnflow", "FastAPI"
FLOOR: Final = "floor: an enrolment's bytes"
FREE, FREE_KEY, CROWDED = "free courses", "free courses, Idempotency-Key", "one free course"
PAID, PAID_KEY = "paid in the sandbox", "paid in the sandbox, Idempotency-Key"
OURS, THEIRS = (FREE, FREE_KEY, CROWDED, PAID, PAID_KEY), (FREE, CROWDED)
PAYS: Final = "pm_visa_4242"
AT_ONCE: Final = (64, 256)
"""How many are under way."""
_CROWDED: Final = 10
"""So many courses are there to be crowded into, one after the other."""


class Group(NamedTuple):
    """What was measured on one database with so many under way."""

    title: str
    rows: Mapping[str, Row]


class _Urls(NamedTuple):
    """A database for each of the two, and the process id of their server, where there is one."""

    ours: str
    peers: str
    server: int | None


class _Targets(NamedTuple):
    learnflow: Server
    peer: Server
    floor: Server
    database: int | None


class _Places:
    """Places that nobody has taken yet, in one of the two."""

    def __init__(self, school: School) -> None:
        crowded, spread = school.free[:_CROWDED], school.free[_CROWDED:]
        self.free = school.spread(spread)
        self.crowded = school.crowded(crowded)
        self.paid = school.spread(school.paid)


def title_of(engine: str, at_once: int) -> str:
    """The title of the group on a database with so many under way."""
    return f"{TITLE} on {engine}, {at_once} at once"


def row_of(subject: str, kind: str) -> str:
    """The name of the row of a kind of enrolments in the project or the peer."""
    return f"{subject}: {kind}"


def groups(engines: Sequence[str], at_once: Sequence[int], starts: Servers, settings: Settings) -> Iterator[Group]:
    """Every number on every database."""
    for engine in engines:
        with _empty(engine) as urls, ExitStack() as stack:
            school = asyncio.run(_filled(urls, settings.seed))
            ours, peers = _Places(school), _Places(school)
            learnflow = stack.enter_context(starts.learnflow(urls.ours))
            floor = stack.enter_context(starts.floor({"POST": fetch(learnflow, _asked_of_us(next(ours.free)))}))
            peer = stack.enter_context(starts.peer(filling.async_url(urls.peers)))
            beside = [] if urls.server is None else [urls.server]
            if not stack.enter_context(cores_apart([learnflow.pid, peer.pid, floor.pid], beside)):
                print("The servers and the load generator share the processor.", file=sys.stderr)
            targets = _Targets(learnflow, peer, floor, urls.server)
            for number in at_once:
                cases = _cases(targets, ours, peers, starts.peers_token(), settings._replace(connections=number))
                yield Group(title_of(engine, number), measured(cases, settings))


def _cases(targets: _Targets, ours: _Places, peers: _Places, peers_token: str, settings: Settings) -> dict[str, Case]:
    def take(server: Server, requests: Iterator[bytes]) -> Case:
        return partial(sample, server, requests, settings, status=201, database=targets.database)

    asked = partial(_asked_of_peer, token=peers_token)
    nothing = repeat(_asked_of_us(Place("", "", "")))
    return {
        FLOOR: take(targets.floor, nothing),
        row_of(LEARNFLOW, FREE): take(targets.learnflow, map(_asked_of_us, ours.free)),
        row_of(LEARNFLOW, FREE_KEY): take(targets.learnflow, map(_asked_with_key, ours.free)),
        row_of(LEARNFLOW, CROWDED): take(targets.learnflow, map(_asked_of_us, ours.crowded)),
        row_of(LEARNFLOW, PAID): take(targets.learnflow, map(_asked_of_us, ours.paid)),
        row_of(LEARNFLOW, PAID_KEY): take(targets.learnflow, map(_asked_with_key, ours.paid)),
        row_of(PEER, FREE): take(targets.peer, map(asked, peers.free)),
        row_of(PEER, CROWDED): take(targets.peer, map(asked, peers.crowded)),
    }


@contextmanager
def _empty(engine: str) -> Iterator[_Urls]:
    """Databases with nothing in them, for the block; a PostgreSQL that waits for the disk is run for them."""
    with ExitStack() as stack:
        if engine == SQLITE:
            folder = stack.enter_context(TemporaryDirectory(prefix="learnflow-benchmark-"))
            yield _Urls(f"sqlite:///{folder}/ours.db", f"sqlite:///{folder}/peers.db", None)
        else:
            server = stack.enter_context(Postgres("shared_buffers=256MB", "max_wal_size=4GB", durable=True))
            names = [asyncio.run(server.make("c", template=False)) for _ in range(2)]
            yield _Urls(server.url(names[0]), server.url(names[1]), server.pid)


async def _filled(urls: _Urls, seed: int) -> School:
    """The same school on both."""
    await migrate(urls.ours)
    storage = await open_storage(urls.ours)
    try:
        school = await found(storage, seed=seed)
    finally:
        await storage.close()
    await filling.fill(filling.async_url(urls.peers), school.catalogue, [each.user_id for each in school.learners])
    return school


def _asked_of_us(place: Place, key: str = "") -> bytes:
    body = {"user_id": place.user_id, "course_id": place.course_id, "payment_method_id": PAYS}
    return request("/v1/enrollments", place.key, method="POST", body=msgspec.json.encode(body), key=key)


def _asked_with_key(place: Place) -> bytes:
    return _asked_of_us(place, f"enrol-{place.user_id}-{place.course_id}")


def _asked_of_peer(place: Place, token: str) -> bytes:
    body = {"user_id": place.user_id, "course_id": place.course_id}
    return request("/v1/enrollments", token, method="POST", body=msgspec.json.encode(body))
