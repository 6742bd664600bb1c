"""The server: the courses list and the enrolment beside the floor, over HTTP, one process each, interleaved.

The floor is a raw ASGI callable on the same server that answers the very bytes the API answered (`benchmarks.floor`): a
ratio says how many times the work of HTTP alone a request is. CPU time is that of all threads of the server. Where the
system allows it, the servers have one core to themselves and the load generator another.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http.client import HTTPConnection
from importlib.metadata import version
from itertools import islice, repeat
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from benchmarks.floor import FixedReply
from benchmarks.load import drive
from benchmarks.measure import interleaved, options, print_table, summary, write_report
from benchmarks.processes import Server, cores_apart, running
from benchmarks.school import COURSES, Place, School, found
from learnflow_http.auth import TokenSigner
from storage_backends import open_storage

COURSES_LIST = "GET /v1/courses"
ENROLMENT = "POST /v1/enrollments"
FLOOR = "floor: the same bytes"
PAYS = "pm_visa_4242"
T = TypeVar("T")
OF_EVERY_REPLY = {"date", "content-length", "connection"}
"""The headers that the server adds by itself, or that belong to one connection."""


class Sample(NamedTuple):
    """One sample of a case."""

    requests_per_s: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    generator_busy: float


Case = Callable[[], Sample]
Groups = dict[str, dict[str, T]]
"""Something for each case of each operation."""


def run(argv: Sequence[str]) -> int:
    """Measure, print, and write the report where one is wanted."""
    parser = options("http", __doc__ or "")
    parser.add_argument("--connections", type=int, default=8, help="requests under way at once (default: 8)")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a sample of the list (default: 1.5)")
    parser.add_argument("--enrolments", type=int, default=700, help="enrolments in a sample of them (default: 700)")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="learnflow-benchmark-") as folder:
        groups = _measure(Path(folder), given)
    for operation, samples in groups.items():
        _print(operation, samples)
    busiest = max(sample.generator_busy for cases in groups.values() for case in cases.values() for sample in case)
    print(f"The load generator was at most {busiest:.0%} busy.")
    write_report(given.json, "http", given.seed, _report(groups, given))
    return 0


def _measure(folder: Path, given: Any) -> Groups[list[Sample]]:
    secret = "benchmark" * 5
    database = f"sqlite:///{folder}/benchmark.db"
    total = (given.rounds + 1) * given.enrolments + 1
    school = asyncio.run(_found(database, TokenSigner((secret.encode(),), "learnflow", "learnflow"), total, given.seed))
    api = ("learnflow_http", "serve", "--database", database, "--port", "0", "--log-format", "json")
    with running(folder / "api.log", *api, LEARNFLOW_JWT_SECRET=secret) as learnflow:
        replies = _replies(learnflow, school)
        (folder / "replies.json").write_bytes(msgspec.json.encode(replies))
        with running(folder / "floor.log", "benchmarks.floor", str(folder / "replies.json")) as floor:
            return _interleave(_cases(learnflow, floor, school, given), [learnflow, floor], given)


def _interleave(cases: Groups[Case], servers: list[Server], given: Any) -> Groups[list[Sample]]:
    with cores_apart([server.pid for server in servers]) as apart:
        if not apart:
            print("The servers and the load generator share the processor.", file=sys.stderr)
        flat = {(operation, name): case for operation, group in cases.items() for name, case in group.items()}
        samples = interleaved(flat, given.rounds, given.seed)
    return {operation: {name: samples[operation, name] for name in group} for operation, group in cases.items()}


async def _found(database: str, signer: TokenSigner, enrolments: int, seed: int) -> School:
    storage = await open_storage(database)
    try:
        return await found(storage, signer, enrolments=enrolments, seed=seed)
    finally:
        await storage.close()


def _cases(learnflow: Server, floor: Server, school: School, given: Any) -> Groups[Case]:
    free, paid = iter(school.free[1:]), iter(school.paid)

    def listing(target: Server, credential: str) -> Case:
        requests = repeat(_request("GET", "/v1/courses", credential))
        return partial(_sample, target, requests, 200, given)

    def enrolling(target: Server, places: Iterator[Place]) -> Case:
        return lambda: _sample(target, map(_enrolment, islice(places, given.enrolments)), 201, given)

    return {
        COURSES_LIST: {
            FLOOR: listing(floor, school.key),
            "with a key": listing(learnflow, school.key),
            "with a token": listing(learnflow, school.token),
        },
        ENROLMENT: {
            FLOOR: enrolling(floor, _again(school.free)),
            "in a free course": enrolling(learnflow, free),
            "paid in the sandbox": enrolling(learnflow, paid),
        },
    }


def _again(places: list[Place]) -> Iterator[Place]:
    while True:
        yield from places


def _sample(target: Server, requests: Iterator[bytes], status: int, given: Any) -> Sample:
    gc.collect()
    before = target.cpu_ns()
    load = drive(target.port, requests, status=status, connections=given.connections, seconds=given.seconds)
    cpu_ns = target.cpu_ns() - before
    count = len(load.latencies_ns)
    centiles = statistics.quantiles(load.latencies_ns, n=100)
    return Sample(count / load.elapsed_s, cpu_ns / count / 1e3, centiles[49] / 1e6, centiles[98] / 1e6, load.busy)


def _replies(learnflow: Server, school: School) -> dict[str, FixedReply]:
    """What the API answers to a request of each kind, for the floor to answer too."""
    wanted = {"GET": _request("GET", "/v1/courses", school.key), "POST": _enrolment(school.free[0])}
    return {method: _reply(learnflow, request) for method, request in wanted.items()}


def _reply(target: Server, request: bytes) -> FixedReply:
    head, _, body = request.partition(b"\r\n\r\n")
    line, *fields = head.decode("ascii").split("\r\n")
    method, path, _ = line.split(" ")
    connection = HTTPConnection("127.0.0.1", target.port, timeout=30)
    connection.request(method, path, body or None, dict(field.split(": ", 1) for field in fields))
    reply = connection.getresponse()
    headers = [(name.lower(), value) for name, value in reply.getheaders() if name.lower() not in OF_EVERY_REPLY]
    text = reply.read().decode()
    connection.close()
    if reply.status >= 300:
        raise RuntimeError(f"{line} is answered with {reply.status}: {text}")
    return FixedReply(reply.status, [*headers, ("content-length", str(len(text.encode())))], text)


def _request(method: str, path: str, credential: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {credential}\r\n"
    if body:
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode("ascii") + b"\r\n" + body


def _enrolment(place: Place) -> bytes:
    body = {"user_id": place.user_id, "course_id": place.course_id, "payment_method_id": PAYS}
    return _request("POST", "/v1/enrollments", place.key, msgspec.json.encode(body))


def _median(samples: list[Sample], figure: str) -> float:
    return float(statistics.median(getattr(sample, figure) for sample in samples))


def _print(operation: str, cases: dict[str, list[Sample]]) -> None:
    floor_cpu = _median(cases[FLOOR], "cpu_us")
    floor_speed = _median(cases[FLOOR], "requests_per_s")
    rows = []
    for name, samples in cases.items():
        speed, cpu = _median(samples, "requests_per_s"), _median(samples, "cpu_us")
        latencies = [f"{_median(samples, figure):.2f}" for figure in ("p50_ms", "p99_ms")]
        shown = [
            f"{speed:,.0f}",
            *latencies,
            f"{cpu:.0f}",
            f"{cpu / (floor_cpu or 1):.1f}",
            f"{speed / floor_speed:.3f}",
        ]
        rows.append([name, *shown])
    print_table([operation, "requests/s", "p50 ms", "p99 ms", "CPU µs", "CPU x floor", "speed x floor"], rows)


def _report(groups: Groups[list[Sample]], given: Any) -> dict[str, Any]:
    packages = ("uvicorn", "uvloop", "httptools", "starlette", "msgspec", "pyjwt")
    return {
        "connections": given.connections,
        "courses": COURSES,
        "versions": {name: version(name) for name in packages},
        "results": {
            operation: {
                name: {figure: summary([getattr(sample, figure) for sample in samples]) for figure in Sample._fields}
                | {"cpu_by_floor": _median(samples, "cpu_us") / (_median(cases[FLOOR], "cpu_us") or 1)}
                for name, samples in cases.items()
            }
            for operation, cases in groups.items()
        },
    }
