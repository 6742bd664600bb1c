"""One limiter in a process of its own, which takes samples when it is told to.

So nobody pays for another's threads, garbage or heap, and memory a key is measured where none is left over to reuse.
The first line of standard input is an `Order`, every other one an `Ask`; each is answered with a line of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import statistics
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from time import perf_counter_ns, process_time_ns
from typing import Any, NamedTuple

from benchmarks.limiter.ours import DRY, MINUTE, PLANS
from benchmarks.limiter.subjects import Subject
from benchmarks.limiter.usage import KEYS_A_CALL, Loops, Usage, compiled

STATM = Path("/proc/self/statm")
FEWEST, MOST = 200, 150_000
"""Calls in a sample."""
CLOCKED = 5_000
"""Calls of it, at most, that are timed one by one as well."""


class Order(NamedTuple):
    """Whom to ask, under which plan, for how many keys, and at which socket, if it is not in memory."""

    subject: str
    plan: str
    keys: int
    seed: int
    socket: str = ""

    def usage(self) -> Usage:
        """The limiter, made anew."""
        subject = subjects_of(self.socket)[self.subject]
        where = [self.socket] if self.socket else []
        return subject.usage(PLANS[self.plan], *where)


class Ask(NamedTuple):
    """One sample: how to ask, for about how long, in how many threads or tasks at once; or keys never seen before."""

    way: str
    seconds: float
    threads: int = 1
    tasks: int = 1
    strangers: bool = False


class Bench:
    """A limiter under one plan, and the keys it is asked for."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._random = random.Random(order.seed)
        self._keys = [f"acct_{number}" for number in range(order.keys)]
        self._loop = asyncio.new_event_loop()
        self._allowed = DRY not in PLANS[order.plan]
        self._ns_a_call: dict[Ask, float] = {}
        self._begin()

    def _begin(self) -> None:
        self._usage = self._order.usage()
        self._loops: dict[str, Loops] = {}
        self._asked_for = 0

    def fill(self) -> dict[str, Any]:
        """Let every key ask once, and say by how much the process has grown for each, key strings not counted."""
        gc.collect()
        before = resident_bytes()
        self._plain(self._usage, next(iter(self._usage.ways)), self._keys)
        gc.collect()
        grown = resident_bytes() - before
        return {"ways": dict(self._usage.ways), "bytes_a_key": grown / len(self._keys) if before else None}

    def sample(self, ask: Ask) -> dict[str, Any]:
        """Ask for random keys: what a decision takes of the processor and of the clock, and how calls differ."""
        calls = max(FEWEST, min(MOST, round(ask.seconds * 1e9 / self._ns_a_call.get(ask, 1e9))))
        sampled = self._first_calls(ask, calls) if ask.strangers else self._calls(ask, calls)
        self._ns_a_call[ask] = sampled["wall_ns"]
        return {"calls": calls, **sampled}

    def _calls(self, ask: Ask, calls: int) -> dict[str, float]:
        if self._allowed and self._asked_for + 3 * calls > MINUTE.limit * len(self._keys):
            self._begin()  # before the keys run dry
        self._asked_for += 3 * calls
        asked = self._random.choices(self._keys, k=calls)
        gc.collect()
        self._asked(ask, self._random.choices(self._keys, k=calls // 4))  # the caches are others' until then
        cpu, wall = process_time_ns(), perf_counter_ns()
        answers = self._asked(ask, asked)
        cpu, wall = process_time_ns() - cpu, perf_counter_ns() - wall
        for answer in answers:
            self._check(answer)
        clocked = self._random.choices(self._keys, k=min(calls, CLOCKED))
        return {"cpu_ns": cpu / calls, "wall_ns": wall / calls, **self._latencies(ask, clocked)}

    def _first_calls(self, ask: Ask, calls: int) -> dict[str, float]:
        usage = self._order.usage()
        asked = [f"stranger_{number}" for number in range(calls)]
        gc.collect()
        cpu, wall = process_time_ns(), perf_counter_ns()
        self._plain(usage, ask.way, asked)
        cpu, wall = process_time_ns() - cpu, perf_counter_ns() - wall
        return {"cpu_ns": cpu / calls, "wall_ns": wall / calls}

    def _asked(self, ask: Ask, keys: list[str]) -> list[Any]:
        if ask.tasks > 1:
            return self._in_tasks(ask, shares(keys, ask.tasks))
        if ask.threads > 1:
            return self._in_threads(ask, shares(keys, ask.threads))
        return [self._plain(self._usage, ask.way, keys)]

    def _plain(self, usage: Usage, way: str, keys: list[str]) -> Any:
        loops = self._compiled(way) if usage is self._usage else compiled(usage, way)
        answer = loops.plain(batched(way, keys))
        return self._loop.run_until_complete(answer) if usage.awaits else answer

    def _in_threads(self, ask: Ask, of_threads: list[list[str]]) -> list[Any]:
        plain = self._compiled(ask.way).plain
        answers: list[Any] = []
        threads = [threading.Thread(target=lambda keys=share: answers.append(plain(keys))) for share in of_threads]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers

    def _in_tasks(self, ask: Ask, of_tasks: list[list[str]]) -> list[Any]:
        plain = self._compiled(ask.way).plain

        async def together() -> list[Any]:
            return await asyncio.gather(*map(plain, of_tasks))

        return self._loop.run_until_complete(together())

    def _latencies(self, ask: Ask, keys: list[str]) -> dict[str, float]:
        """What one call in two, and 99 in 100, take at most; not for threads and batches, whose calls share time."""
        if ask.threads > 1 or ask.way in KEYS_A_CALL:
            return {}
        took: list[int] = []
        clocked = self._compiled(ask.way).clocked

        async def together() -> None:
            await asyncio.gather(*(clocked(share, took) for share in shares(keys, ask.tasks)))

        if self._usage.awaits:
            self._loop.run_until_complete(together())
        else:
            clocked(keys, took)
        centiles = statistics.quantiles(took, n=100)
        return {"p50_ns": centiles[49], "p99_ns": centiles[98]}

    def _compiled(self, way: str) -> Loops:
        if way not in self._loops:
            self._loops[way] = compiled(self._usage, way)
        return self._loops[way]

    def _check(self, answer: Any) -> None:
        if self._usage.checked and bool(answer) is not self._allowed:
            raise RuntimeError(f"{self._order.subject}, {self._order.plan}: it is {answer!r}")

    def close(self) -> None:
        """Let go of the event loop."""
        self._loop.close()


def subjects_of(socket: str) -> Mapping[str, Subject]:
    """What there is in memory, or over Valkey, which takes more to import."""
    module = import_module(f"benchmarks.limiter.{'shared_subjects' if socket else 'subjects'}")
    subjects: Mapping[str, Subject] = module.SUBJECTS
    return subjects


def shares(keys: list[str], among: int) -> list[list[str]]:
    """The keys dealt out, so that nobody has none."""
    return [keys[one::among] for one in range(min(among, len(keys)))]


def batched(way: str, keys: list[str]) -> Sequence[Any]:
    """The keys as a way wants them."""
    size = KEYS_A_CALL.get(way)
    return keys if size is None else [keys[start : start + size] for start in range(0, len(keys), size)]


def resident_bytes() -> int:
    """How much memory the process has; 0 where the system does not tell."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if STATM.exists() else 0


def main() -> None:
    """Do what standard input says, line by line, until it ends."""
    bench = Bench(Order(*json.loads(sys.stdin.readline())))
    answer = bench.fill()
    answer["gil"] = getattr(sys, "_is_gil_enabled", lambda: True)()  # an extension may have switched it on
    print(json.dumps(answer), flush=True)
    for line in sys.stdin:
        print(json.dumps(bench.sample(Ask(*json.loads(line)))), flush=True)
    bench.close()
