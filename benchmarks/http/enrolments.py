"""Enrolments over HTTP, free and paid in the sandbox, beside the floor; on SQLite, each for another user."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks.http.requests import fetch, request
from benchmarks.http.sampling import Case, Row, Settings, measured, sample
from benchmarks.http.servers import Servers
from benchmarks.processes import Server, cores_apart
from benchmarks.school import Place, School, found
from storage_backends import open_storage

ENROLMENTS = "enrolments on SQLite"
FLOOR, FREE, PAID = "floor: an enrolment's bytes", "in a free course", "paid in the sandbox"
PAYS = "pm_visa_4242"


def rows(starts: Servers, enrolments: int, settings: Settings) -> dict[str, Row]:
    """So many enrolments in each sample, however long they take."""
    in_all = (settings.rounds + 1) * enrolments + 1
    with TemporaryDirectory(prefix="learnflow-benchmark-") as folder, ExitStack() as stack:
        database = f"sqlite:///{Path(folder)}/enrolments.db"
        school = asyncio.run(_found(database, starts, in_all, settings.seed))
        learnflow = stack.enter_context(starts.learnflow(database))
        floor = stack.enter_context(starts.floor({"POST": fetch(learnflow, _enrolment(school.free[0]))}))
        if not stack.enter_context(cores_apart([learnflow.pid, floor.pid])):
            print("The servers and the load generator share the processor.", file=sys.stderr)
        return measured(_cases(learnflow, floor, school, enrolments, settings), settings)


async def _found(database: str, starts: Servers, enrolments: int, seed: int) -> School:
    storage = await open_storage(database)
    try:
        return await found(storage, starts.signer, enrolments=enrolments, seed=seed)
    finally:
        await storage.close()


def _cases(learnflow: Server, floor: Server, school: School, enrolments: int, settings: Settings) -> dict[str, Case]:
    unhurried = settings._replace(seconds=float("inf"))

    def take(target: Server, places: Iterator[Place]) -> Case:
        return lambda: sample(target, map(_enrolment, islice(places, enrolments)), unhurried, status=201)

    return {
        FLOOR: take(floor, cycle(school.free)),
        FREE: take(learnflow, iter(school.free[1:])),
        PAID: take(learnflow, iter(school.paid)),
    }


def _enrolment(place: Place) -> bytes:
    body = {"user_id": place.user_id, "course_id": place.course_id, "payment_method_id": PAYS}
    return request("/v1/enrollments", place.key, method="POST", body=msgspec.json.encode(body))
