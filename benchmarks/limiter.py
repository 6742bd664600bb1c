"""The limiter in memory: decisions beside their floors, bytes a key, and the time to import it.

Every case of a group asks for the same keys in the same random order. A ratio is a case's median by a floor's median in
the same group: how many empty calls, or how many look-ups with a reading of the clock, one decision costs.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from time import monotonic_ns, perf_counter_ns, thread_time_ns, time_ns
from typing import Any

from benchmarks.measure import interleaved, options, print_table, summary, write_report
from learnflow_core.limiter import MemoryLimiter, Quota, headers
from learnflow_core.limiter.quota import MAX_PERIOD_NS, SECOND_NS

ROOT = Path(__file__).resolve().parent.parent
STATM = Path("/proc/self/statm")
CALLS = 50_000
SIZES = (1, 10_000, 1_000_000)
EMPTY, LOOK_UP, LOCK = "an empty call", "dict.get + clock", "a lock taken and released"
IMPORT = "import learnflow_core.limiter"

# A token is worth a second or ten, so that no caller runs dry; the last quota is dry for years after one request.
MINUTE, DAY = (Quota(name, 10**7, 10**7 * worth * SECOND_NS) for name, worth in (("minute", 1), ("day", 10)))
DRY = Quota("day", 1, MAX_PERIOD_NS)
MINUTE_AND_DAY = (MINUTE, DAY)
DECISIONS = {
    "minute: allowed": (MINUTE,),
    "minute: denied": (DRY,),
    "minute + day: allowed": MINUTE_AND_DAY,
    "minute + day: denied by the day": (MINUTE, DRY),
}

Plan = tuple[Quota, ...]
Function = Callable[[str, Plan], object]
Figures = dict[str, list[float]]


def run(argv: list[str]) -> int:
    """Measure, print tables, and write a report if a path is given."""
    parser = options("limiter", "Decisions of the limiter in memory, bytes a key, and the time to import it.")
    parser.add_argument("--max-keys", type=int, default=SIZES[-1], help="leave out groups with more keys")
    arguments = parser.parse_args(argv)
    rounds, seed = arguments.rounds, arguments.seed
    sizes = [size for size in SIZES if size <= arguments.max_keys]
    groups = {f"{size:,} key{'s' * (size > 1)}": _decisions(size, rounds, seed) for size in sizes}
    memory = {name: _bytes_a_key(sizes[-1], name) for name in ("minute: allowed", "minute + day: allowed")}
    imports = _imports(3 * rounds, seed)
    _print(groups, memory, imports, sizes[-1])
    results = {
        "calls_a_sample": CALLS,
        "ns_a_call": {group: _summaries(figures) for group, figures in groups.items()},
        "bytes_a_key": {"keys": sizes[-1], **memory},
        "import_ms": _summaries(imports),
    }
    write_report(arguments.json, "limiter", seed, results)
    return 0


def _decisions(size: int, rounds: int, seed: int) -> Figures:
    """Nanoseconds a call, with so many keys that have called before."""
    keys = [f"acct_{number}" for number in range(size)]
    asked = random.Random(seed).choices(keys, k=CALLS)
    cases = {name: _timed(function, asked, ()) for name, function in _floors(keys).items()}
    limiters = {name: _filled(keys, plan) for name, plan in DECISIONS.items()}
    cases |= {name: _timed(limiters[name].hit, asked, plan) for name, plan in DECISIONS.items()}
    limiter = limiters["minute + day: allowed"]

    def hit_with_headers(key: str, plan: Plan) -> object:
        return headers(limiter.hit(key, plan), time_ns())

    cases["minute + day: allowed, with headers"] = _timed(hit_with_headers, asked, MINUTE_AND_DAY)
    cases["minute + day: peek"] = _timed(limiter.peek, asked, MINUTE_AND_DAY)
    strangers = [f"stranger_{number}" for number in range(CALLS)]

    def first_calls() -> float:
        return _timed(MemoryLimiter().hit, strangers, MINUTE_AND_DAY)()

    cases["minute + day: first call of a key"] = first_calls
    return interleaved(cases, rounds, seed)


def _floors(keys: Sequence[str]) -> dict[str, Function]:
    table, lock = dict.fromkeys(keys, 0), Lock()

    def empty_call(key: str, plan: Plan) -> None:
        pass

    def look_up(key: str, plan: Plan) -> tuple[int | None, int]:
        return table.get(key), monotonic_ns()

    def locked(key: str, plan: Plan) -> None:
        with lock:
            pass

    return {EMPTY: empty_call, LOOK_UP: look_up, LOCK: locked}


def _filled(keys: Sequence[str], plan: Plan) -> MemoryLimiter:
    """A limiter in which every key owes, for longer than the benchmark takes."""
    limiter = MemoryLimiter(max_buckets=2 * SIZES[-1])
    for key in keys:
        for quota in plan:
            limiter.hit(key, (quota,), min(1_000, quota.burst))
    return limiter


def _timed(function: Function, keys: Sequence[str], plan: Plan) -> Callable[[], float]:
    def nanoseconds_a_call() -> float:
        started = thread_time_ns()
        for key in keys:
            function(key, plan)
        return (thread_time_ns() - started) / len(keys)

    return nanoseconds_a_call


def _bytes_a_key(size: int, decision: str) -> float | None:
    """What a fresh interpreter grows by for each key, key strings not counted; None where it cannot tell."""
    if not STATM.exists():
        return None
    code = f"from benchmarks.limiter import growth; print(growth({size}, {decision!r}))"
    fresh = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    return float(fresh.stdout)


def growth(size: int, decision: str) -> float:
    """How many resident bytes this process grows by for each of `size` keys that a limiter gets to know."""
    keys = [f"acct_{number}" for number in range(size)]
    before = _resident_bytes()
    limiter = _filled(keys, DECISIONS[decision])
    grown = _resident_bytes() - before
    assert len(limiter) == size * len(DECISIONS[decision])
    return grown / size


def _resident_bytes() -> int:
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _imports(rounds: int, seed: int) -> Figures:
    """Milliseconds of a fresh interpreter: one that does nothing, and one that imports the limiter."""

    def milliseconds(code: str) -> float:
        started = perf_counter_ns()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
        return (perf_counter_ns() - started) / 1e6

    return interleaved({code: partial(milliseconds, code) for code in ("pass", IMPORT)}, rounds, seed)


def _summaries(figures: Figures) -> dict[str, Any]:
    return {name: summary(samples) for name, samples in figures.items()}


def _print(groups: Mapping[str, Figures], memory: Mapping[str, float | None], imports: Figures, size: int) -> None:
    for group, figures in groups.items():
        medians = {name: statistics.median(samples) for name, samples in figures.items()}
        rows = [
            (name, f"{ns:,.0f}", f"{1e9 / ns:,.0f}", f"{ns / medians[EMPTY]:.1f}", f"{ns / medians[LOOK_UP]:.1f}")
            for name, ns in medians.items()
        ]
        print_table((f"{group}, median of {len(figures[EMPTY])}", "ns", "a second", "empty calls", "look-ups"), rows)
    print_table(
        (f"bytes a key, {size:,} keys (key strings not counted)", "bytes"),
        [
            (name.removesuffix(": allowed"), "unknown" if grown is None else f"{grown:.0f}")
            for name, grown in memory.items()
        ],
    )
    started, imported = (statistics.median(imports[code]) for code in ("pass", IMPORT))
    print_table(
        (f"a fresh interpreter, median of {len(imports[IMPORT])}", "ms"),
        [("pass", f"{started:.1f}"), (IMPORT, f"{imported:.1f}"), ("the import alone", f"{imported - started:.1f}")],
    )
