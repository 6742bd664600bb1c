"""How a limiter is asked: a line of Python as its user would write it, and the loops that time this very line.

A function around the line would cost a fast limiter a tenth of its speed and a slow one nothing, so the line is
compiled into the loop, as `timeit` does it; the report shows it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, NamedTuple

from learnflow_core.limiter import Quota

Plan = tuple[Quota, ...]
HIT = "hit"
FIGURES = "hit, remaining and reset read"
BATCHES = {f"hit_many of {size:,}": size for size in (1, 10, 100, 1_000)}
PIPELINED = "pipelined"
KEYS_A_CALL = {**BATCHES, PIPELINED: 10_000}
"""How many keys each call gets, in the ways that ask for many at once."""


@dataclass(frozen=True)
class Usage:
    """The ways to ask one limiter under one plan.

    A way is a statement about `key`, which leaves in `allowed` whether the request passes (for a floor, anything);
    `names` are what it uses besides. A way of `KEYS_A_CALL` gets as many keys in the list `key`. Where `awaits` is
    true, statements may await.
    """

    ways: Mapping[str, str]
    names: Mapping[str, Any]
    awaits: bool = False
    checked: bool = True
    """Whether `allowed` says what the plan expects; a floor has no opinion."""


class Loops(NamedTuple):
    """One way, compiled: each takes keys, asks for each of them, and returns the last answer."""

    plain: Callable[..., Any]
    clocked: Callable[..., Any]
    """Appends what each call took, in nanoseconds, to the list that it gets as its second argument."""


PLAIN = """
{define} plain(keys, {names}):
    for key in keys:
{statement}
    return allowed
"""
CLOCKED = """
{define} clocked(keys, took, {names}):
    note = took.append
    for key in keys:
        started = _clock()
{statement}
        note(_clock() - started)
    return allowed
"""


def compiled(usage: Usage, way: str) -> Loops:
    """The loops of one way. What the statement uses are local names, as in a function of the user's own."""
    names = ", ".join(f"{name}={name}" for name in ("_clock", *usage.names))
    fields = {
        "define": "async def" if usage.awaits else "def",
        "names": names,
        "statement": textwrap.indent(usage.ways[way], " " * 8),
    }
    space: dict[str, Any] = {"_clock": perf_counter_ns, **usage.names}
    exec(PLAIN.format(**fields) + CLOCKED.format(**fields), space)  # noqa: S102 - the statements are this package's own
    return Loops(space["plain"], space["clocked"])
