"""A sample of one case over HTTP, and the rows that samples become."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.load import drive
from benchmarks.measure import interleaved, summary
from benchmarks.processes import Server, cpu_ns


class Settings(NamedTuple):
    """What the command was told: rounds, the seed, how long a sample takes, and how many requests are under way."""

    rounds: int
    seed: int
    seconds: float
    connections: int


class Sample(NamedTuple):
    """One sample of a case."""

    requests_per_s: float
    cpu_us: float
    """The server's, a request."""
    database_cpu_us: float
    """That of the database's own server, where there is one."""
    p50_ms: float
    p99_ms: float
    generator_busy: float


Case = Callable[[], Sample]
Row = dict[str, Any]
"""The summaries of the fields of `Sample`, by name."""


def sample(
    target: Server, requests: Iterator[bytes], settings: Settings, *, status: int = 200, database: int | None = None
) -> Sample:
    """Drive a server for a while, and say what that took. `database` is the process id of its database's server."""
    gc.collect()
    before, before_database = target.cpu_ns(), _cpu_ns(database)
    load = drive(target.port, requests, status=status, connections=settings.connections, seconds=settings.seconds)
    count = len(load.latencies_ns)
    ordered = sorted(load.latencies_ns)
    return Sample(
        requests_per_s=count / load.elapsed_s,
        cpu_us=(target.cpu_ns() - before) / count / 1e3,
        database_cpu_us=(_cpu_ns(database) - before_database) / count / 1e3,
        p50_ms=ordered[count // 2] / 1e6,
        p99_ms=ordered[count * 99 // 100] / 1e6,
        generator_busy=load.busy,
    )


def measured(cases: Mapping[str, Case], settings: Settings) -> dict[str, Row]:
    """The rows of cases that are compared, whose samples are taken in turn."""
    samples = interleaved(cases, settings.rounds, settings.seed)
    return {name: _row(samples[name]) for name in cases}


def _row(samples: Sequence[Sample]) -> Row:
    return {figure: summary([getattr(sample, figure) for sample in samples]) for figure in Sample._fields}


def _cpu_ns(pid: int | None) -> int:
    return 0 if pid is None else cpu_ns(pid)
