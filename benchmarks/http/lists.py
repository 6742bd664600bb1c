"""Lists, searches and single courses over HTTP: the project beside the floor and the peer, at any size."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
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
    ours, database = kept.ours(engine, courses), kept.server(engine)
    token = asyncio.run(starts.token(ours))
    with ExitStack() as stack:
        learnflow = _Target(stack.enter_context(starts.learnflow(ours)), token)
        peer = _Target(stack.enter_context(starts.peer(kept.peers(engine, courses))), starts.peers_token())
        catalogue = Catalogue(*learnflow)
        floors = {
            name: _Target(
                stack.enter_context(starts.floor({"GET": fetch(learnflow.server, request(path, token))})), token
            )
            for name, path in {FLOOR: COURSES_PATH, FLOOR_OF_ONE: next(catalogue.courses(0))}.items()
        }
        running = {
            LEARNFLOW: learnflow.server,
            PEER: peer.server,
            **{name: each.server for name, each in floors.items()},
        }
        beside = [] if database is None else [database]
        apart = stack.enter_context(cores_apart([server.pid for server in running.values()], beside))
        if not apart:
            print("The servers and the load generator share the processor.", file=sys.stderr)
        take = partial(_case, catalogue=catalogue, settings=settings, database=database)
        cases: dict[str, Case] = {name: take(target, ASKED[AGAIN]) for name, target in floors.items()}
        for subject, target in {LEARNFLOW: learnflow, PEER: peer}.items():
            cases |= {row_of(subject, asked): take(target, how) for asked, how in ASKED.items()}
        rows = measured(cases, settings)
        return Group(title_of(engine, courses), rows, {name: server.uss_bytes() for name, server in running.items()})


def _case(target: _Target, asked: Asked, catalogue: Catalogue, settings: Settings, database: int | None) -> Case:
    requests = (request(path, target.credential) for path in asked(catalogue, settings.seed))
    return partial(sample, target.server, requests, settings, database=database)
