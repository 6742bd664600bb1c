"""The groups of rows over Valkey: one call at a time, without an event loop and in one, and many tasks at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

from benchmarks import valkey_server
from benchmarks.limiter.groups import (
    IN_TASKS,
    ONE_AT_A_TIME,
    ONE_IN_A_LOOP,
    TASKS,
    Group,
    Settings,
    cases_of,
    changed,
    title_of_leases,
)
from benchmarks.limiter.names import SHARED, SHARED_ASYNC
from benchmarks.limiter.ours import ALLOWED
from benchmarks.limiter.sampling import Case
from benchmarks.limiter.shared_subjects import ASYNCHRONOUS, FLOORS, LEASING, SUBJECTS, SYNCHRONOUS
from benchmarks.limiter.subjects import OURS
from benchmarks.limiter.usage import HIT, KEYS_A_CALL
from benchmarks.processes import cores_apart

FEW = 1_000
LEASED_KEYS = (1, 100)


def groups(settings: Settings) -> Iterator[Group]:
    """Every limiter that shares its buckets: one call at a time, without an event loop and in one, and 100 tasks; and
    those that lease, beside the ones in memory."""
    program = valkey_server.found()
    if program is None:
        print("There is no Valkey server here, so nothing is measured over it.\n", file=sys.stderr)
        return
    with valkey_server.running_valkey(program) as server:
        shared = settings._replace(seconds=5 * settings.seconds)  # a round trip is so much longer than a decision
        floors = cases_of(FLOORS, ALLOWED, FEW, shared, server.socket)
        synchronous = cases_of(SYNCHRONOUS, ALLOWED, FEW, shared, server.socket)
        asynchronous = cases_of(ASYNCHRONOUS, ALLOWED, FEW, shared, server.socket)
        # One that waits for the other needs no second core: to wake it would cost more than what it does there.
        yield Group(ONE_AT_A_TIME, _singly(floors) | synchronous, "wall_ns")
        yield Group(ONE_IN_A_LOOP, _singly(floors) | asynchronous, "wall_ns")
        in_tasks = {name: changed(case, tasks=TASKS) for name, case in _singly(asynchronous).items()}
        with cores_apart([server.pid]) as apart:
            if not apart:
                print("The server and its clients share the processor.", file=sys.stderr)
            yield Group(IN_TASKS, floors | in_tasks, "wall_ns")
            for size in LEASED_KEYS:
                yield Group(title_of_leases(size), _leases(size, shared, server.socket), "wall_ns")


def _leases(size: int, settings: Settings, socket: str) -> dict[str, Case]:
    alone = {name: subject._replace(ways=(HIT,)) for name, subject in OURS.items()}
    plain = {name: SUBJECTS[name]._replace(ways=(HIT,)) for name in (SHARED, SHARED_ASYNC)}
    return cases_of(alone, ALLOWED, size, settings) | cases_of(plain | LEASING, ALLOWED, size, settings, socket)


def _singly(cases: Mapping[str, Case]) -> dict[str, Case]:
    return {name: case for name, case in cases.items() if case.ask.way not in KEYS_A_CALL}
