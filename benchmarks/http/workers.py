"""What sharing the limits costs: one worker, whose buckets are its own, beside two that share theirs in memory.

The list is asked for again and again, which is the cheapest request there is: what differs is the limiter, and what
two processes take from each other by sharing a processor. Nothing is kept on a core of its own here, since two workers
would never be inside the shared table together then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import repeat

from benchmarks.databases import SQLITE, Databases
from benchmarks.http.requests import COURSES_PATH, request
from benchmarks.http.sampling import Case, Row, Settings, measured, sample
from benchmarks.http.servers import Servers

WORKERS = "the list again, on SQLite"
COURSES = 2_000
ONE, TWO = "1 worker", "2 workers"


def rows(kept: Databases, starts: Servers, settings: Settings) -> dict[str, Row]:
    """One worker and two, over the same database."""
    database = kept.ours(SQLITE, COURSES)
    token = asyncio.run(starts.token(database))
    asked: Iterator[bytes] = repeat(request(COURSES_PATH, token))
    with ExitStack() as stack:
        cases: dict[str, Case] = {}
        for name, workers in {ONE: "1", TWO: "2"}.items():
            server = stack.enter_context(starts.learnflow(database, "--workers", workers))
            cases[name] = partial(sample, server, asked, settings)
        return measured(cases, settings)
