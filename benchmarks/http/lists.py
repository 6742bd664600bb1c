"""Lists, searches and single courses over HTTP: the project beside the floor and the peer, at any size."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Final, NamedTuple

from benchmarks.databases import Databases
from benchmarks.http.requests import COURSES_PATH, Asked, Catalogue, fetch, request
from benchmarks.http.sampling import Case, Row, Settings, measured, sample
from benchmarks.http.servers import Servers
from benchmarks.processes import Server, cores_apart

AGAIN, ANY_PAGE, SEARCH, ONE = "the list again", "any page", "a search", "one course"
LEARNFLOW, PEER = "learnflow", "FastAPI"
FLOOR, FLOOR_OF_ONE = "floor: the list's bytes", "floor: a course's bytes"
ASKED: Final[Mapping[str, Asked]] = {
    AGAIN: Catalogue.same_list,
    ANY_PAGE: Catalogue.any_page,
    SEARCH: Catalogue.searches,
    ONE: Catalogue.courses,
}


class Group(NamedTuple):
    """What was measured at one size on one database: a row for each case, and each server's memory after it (USS)."""

    title: str
    rows: Mapping[str, Row]
    uss_bytes: Mapping[str, int]


class _Target(NamedTuple):
    server: Server
    credential: str


def title_of(engine: str, courses: int) -> str:
    """The title of the group of a size on a database."""
    return f"{courses:,} courses on {engine}"


def row_of(subject: str, asked: str) -> str:
    """The name of the row of what is asked of the project or of the peer."""
    return f"{subject}: {asked}"


def floor_of(row: str) -> str:
    """The row of the floor under another."""
    return FLOOR_OF_ONE if row in {row_of(LEARNFLOW, ONE), row_of(PEER, ONE), FLOOR_OF_ONE} else FLOOR


def groups(kept: Databases, sizes: tuple[int, ...], starts: Servers, settings: Settings) -> Iterator[Group]:
    """Every size on every database; the databases are filled before anything is measured."""
    for engine in kept.engines:
        for courses in sizes:
            kept.ours(engine, courses)
            kept.peers(engine, courses)
    for engine in kept.engines:
        for courses in sizes:
            yield _group(kept, engine, courses, starts, settings)


def _group(kept: Databases, engine: str, courses: int, starts: Servers, settings: Settings) -> Group:
    database = kept.server(engine)
    beside = [] if database is None else [database]
    with _running(kept, engine, courses, starts) as (targets, catalogue):
        cases = _cases(targets, catalogue, settings, database)
        with cores_apart([target.server.pid for target in targets.values()], beside) as apart:
            if not apart:
                print("The servers and the load generator share the processor.", file=sys.stderr)
            rows = measured(cases, settings)
        held = {name: target.server.uss_bytes() for name, target in targets.items()}
    return Group(title_of(engine, courses), rows, held)


@contextmanager
def _running(
    kept: Databases, engine: str, courses: int, starts: Servers
) -> Iterator[tuple[Mapping[str, _Target], Catalogue]]:
    """The servers by their names, and what there is to ask them for."""
    ours = kept.ours(engine, courses)
    token = asyncio.run(starts.token(ours))
    with starts.learnflow(ours) as learnflow, starts.peer(kept.peers(engine, courses)) as peer:
        catalogue = Catalogue(learnflow, token)
        of_list, of_one = (
            starts.floor({"GET": fetch(learnflow, request(path, token))})
            for path in (COURSES_PATH, next(catalogue.courses(0)))
        )
        with of_list as floor, of_one as floor_of_one:
            targets = {
                FLOOR: _Target(floor, token),
                FLOOR_OF_ONE: _Target(floor_of_one, token),
                LEARNFLOW: _Target(learnflow, token),
                PEER: _Target(peer, starts.peers_token()),
            }
            yield targets, catalogue


def _cases(
    targets: Mapping[str, _Target], catalogue: Catalogue, settings: Settings, database: int | None
) -> dict[str, Case]:
    def take(name: str, asked: str) -> Case:
        target = targets[name]
        requests = (request(path, target.credential) for path in ASKED[asked](catalogue, settings.seed))
        return partial(sample, target.server, requests, settings, database=database)

    floors = {floor: take(floor, AGAIN) for floor in (FLOOR, FLOOR_OF_ONE)}
    return floors | {row_of(name, asked): take(name, asked) for name in (LEARNFLOW, PEER) for asked in ASKED}
