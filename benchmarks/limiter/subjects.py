"""Everything that can be measured in memory, by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from benchmarks.limiter.ours import EMPTY, LOOK_UP, empty, implementations, look_up, ours, served
from benchmarks.limiter.peers import PEERS
from benchmarks.limiter.usage import FIGURES, HIT, Plan, Usage


class Subject(NamedTuple):
    """How to make something to ask, the ways to ask it, and for how many quotas at once it can be asked."""

    usage: Callable[[Plan], Usage]
    ways: Sequence[str]
    quotas: int = 2


def in_the_server(name: str) -> str:
    """The name of a limiter where it is asked as the HTTP server asks it."""
    return f"{name}, with all fields of the reply"


FLOORS = {EMPTY: Subject(empty, (HIT,)), LOOK_UP: Subject(look_up, (HIT,))}
OURS = {name: Subject(partial(ours, make), (HIT, FIGURES)) for name, make in implementations().items()}
SERVING = {in_the_server(name): Subject(partial(served, make), (HIT,)) for name, make in implementations().items()}
THEIRS = {name: Subject(peer.usage, peer.ways, peer.quotas) for name, peer in PEERS.items() if peer.installed()}
SUBJECTS = {**FLOORS, **OURS, **SERVING, **THEIRS}
