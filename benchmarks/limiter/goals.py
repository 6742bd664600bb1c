"""The goals of the limiter, as ratios within one run wherever they can be."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.goals import Goal, Results, median, times
from benchmarks.limiter.groups import (
    IN_TASKS,
    ONE_AT_A_TIME,
    REPLIES,
    row_of,
    title_of,
    title_of_batches,
    title_of_leases,
)
from benchmarks.limiter.names import (
    ACCELERATED,
    BETWEEN_PROCESSES,
    EMPTY,
    LEASED,
    PURE,
    REDIS_PY_ASYNC,
    SCRIPT,
    SHARED,
    SHARED_ASYNC,
    in_a_loop,
    in_the_server,
    without_a_loop,
)
from benchmarks.limiter.ours import ALLOWED, MAX_KEYS
from benchmarks.limiter.peers import PEERS
from benchmarks.limiter.usage import BATCHES, FIGURES, PIPELINED

ONE_KEY, MILLION = title_of(1, ALLOWED), title_of(MAX_KEYS, ALLOWED)
CORE, THROTTLED = row_of(SCRIPT, PIPELINED), without_a_loop("throttled-py")
LARGEST_BATCH = max(BATCHES, key=lambda way: BATCHES[way])


def faster(group: str, row: str, than: str, clock: str = "cpu_ns") -> Callable[[Results], float]:
    """How many times as fast one row is as another."""
    return lambda results: times(results[group][than], results[group][row], clock)


def bytes_a_key(row: str) -> Callable[[Results], float]:
    """What a process grows by for each of a million keys."""
    return lambda results: float(results[MILLION][row]["bytes_a_key"])


def microseconds(group: str, row: str) -> Callable[[Results], float]:
    """What one call of a row takes."""
    return lambda results: median(results[group][row], "cpu_ns") / 1e3


def batched(results: Results) -> float:
    """Millions a second, on a machine whose empty call takes 30 ns."""
    rows = results[title_of_batches(1)]
    decision = median(rows[row_of(ACCELERATED, LARGEST_BATCH)], "cpu_ns")
    return 1e3 / decision * median(rows[EMPTY], "cpu_ns") / 30


def beside_the_best_peer(results: Results) -> float:
    """How many times as fast as the fastest peer, asked as its documentation says."""
    rows = results[IN_TASKS]
    peers = [rows[in_a_loop(name)] for name in PEERS if in_a_loop(name) in rows]
    if not peers:
        raise KeyError("peers")
    return min(times(peer, rows[SHARED_ASYNC], "wall_ns") for peer in peers)


LIMITS = row_of("limits", FIGURES)
GOALS = (
    Goal("pure Python beside limits with remaining and reset", 15, "x", faster(ONE_KEY, PURE, LIMITS)),
    Goal("pure Python beside throttled-py GCRA", 9, "x", faster(ONE_KEY, PURE, "throttled-py")),
    Goal("pure Python beside pyrate-limiter GCRA", 10, "x", faster(ONE_KEY, PURE, "pyrate-limiter")),
    Goal("pure Python beside token-bucket", 1.4, "x", faster(ONE_KEY, PURE, "token-bucket")),
    Goal("pure Python, 1,000,000 keys, beside limits with remaining and reset", 12, "x", faster(MILLION, PURE, LIMITS)),
    Goal("pure Python, 1,000,000 keys", 240, "B a key", bytes_a_key(PURE), at_least=False),
    Goal("accelerated beside floodgate-rs", 2, "x", faster(ONE_KEY, ACCELERATED, "floodgate-rs")),
    Goal(
        "accelerated beside rust-py check", 10, "x", faster(ONE_KEY, ACCELERATED, row_of("rust-py-rate-limit", FIGURES))
    ),
    Goal("accelerated, batches of 1,000, at 30 ns an empty call", 25, "M/s", batched),
    Goal("accelerated, 1,000,000 keys", 80, "B a key", bytes_a_key(ACCELERATED), at_least=False),
    Goal("Valkey, 100 tasks, beside the best peer", 12, "x", beside_the_best_peer),
    Goal("Valkey, 100 tasks, beside redis-py", 5, "x", faster(IN_TASKS, SHARED_ASYNC, REDIS_PY_ASYNC, "wall_ns")),
    Goal(
        "Valkey, 100 tasks, of what the server's core can execute",
        0.6,
        "",
        faster(IN_TASKS, SHARED_ASYNC, CORE, "wall_ns"),
    ),
    Goal("Valkey, one at a time, beside throttled-py", 6, "x", faster(ONE_AT_A_TIME, SHARED, THROTTLED, "wall_ns")),
    Goal("leased over Valkey, of pure in memory", 0.5, "", faster(title_of_leases(1), LEASED, PURE, "wall_ns")),
    Goal(
        "leased over Valkey, of accelerated in memory",
        0.5,
        "",
        faster(title_of_leases(1), LEASED, ACCELERATED, "wall_ns"),
    ),
    Goal("limit of an HTTP reply, pure Python", 5, "µs", microseconds(REPLIES, in_the_server(PURE)), at_least=False),
    Goal(
        "limit of an HTTP reply, accelerated",
        5,
        "µs",
        microseconds(REPLIES, in_the_server(ACCELERATED)),
        at_least=False,
    ),
    Goal(
        "limit of an HTTP reply, between the processes of a machine",
        25,
        "µs",
        microseconds(REPLIES, in_the_server(BETWEEN_PROCESSES)),
        at_least=False,
    ),
)
