"""What a run prints: a table for each group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from benchmarks.goals import median, times
from benchmarks.limiter.groups import Group
from benchmarks.limiter.names import ACCELERATED, EMPTY, LOOK_UP, PING, PURE, SCRIPT, SHARED, SHARED_ASYNC
from benchmarks.limiter.sampling import Row
from benchmarks.measure import print_table

BESIDE = {
    EMPTY: "empty calls",
    LOOK_UP: "look-ups",
    PING: "PINGs",
    SCRIPT: "raw scripts",
    PURE: "pure is",
    ACCELERATED: "accelerated is",
    SHARED: "learnflow is",
    SHARED_ASYNC: "learnflow is",
}
"""The rows that a group's other rows are compared with, where it has them, and the heads of the columns for it."""


def print_group(group: Group, rows: Mapping[str, Row]) -> None:
    """Decisions a second with their latencies, and each row's time as a multiple of that of the rows beside it."""
    beside = {name: head for name, head in BESIDE.items() if name in rows}
    with_bytes = group.with_bytes and any(row["bytes_a_key"] is not None for row in rows.values())
    head = [group.title, "a second", "ns", "p50 ns", "p99 ns", *(["B a key"] if with_bytes else []), *beside.values()]
    print_table(head, [_cells(name, row, rows, group, [*beside], with_bytes) for name, row in rows.items()])


def _cells(
    name: str, row: Row, rows: Mapping[str, Row], group: Group, beside: Iterable[str], with_bytes: bool
) -> list[str]:
    took = median(row, group.clock)
    latencies = [f"{median(row, figure):,.0f}" if figure in row else "" for figure in ("p50_ns", "p99_ns")]
    grown = [f"{row['bytes_a_key']:.0f}"] if with_bytes else []
    ratios = [f"{times(row, rows[other], group.clock):.2f}x" for other in beside]
    return [name, f"{1e9 / took:,.0f}", f"{took:,.0f}", *latencies, *grown, *ratios]
