"""What can be measured in memory, by its name: floors, the project's limiters, and the peers that are installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from benchmarks.limiter.names import BETWEEN_PROCESSES, EMPTY, LOOK_UP, in_the_server
from benchmarks.limiter.ours import empty, implementations, look_up, ours, served
from benchmarks.limiter.peers import PEERS
from benchmarks.limiter.usage import FIGURES, HIT, Usage
from storage_backends.shared_memory import SharedMemoryLimiter


class Subject(NamedTuple):
    """How to make something to ask, the ways to ask it, for how many quotas, and how from several threads at once."""

    usage: Callable[..., Usage]
    """Of a plan, and over Valkey of the server's socket as well."""
    ways: Sequence[str]
    quotas: int = 2
    in_threads: str = HIT


FLOORS = {EMPTY: Subject(empty, (HIT,)), LOOK_UP: Subject(look_up, (HIT,))}
OURS = {name: Subject(partial(ours, make), (HIT, FIGURES)) for name, make in implementations().items()}
_IN_THE_SERVER: dict[str, Callable[..., Any]] = {**implementations(), BETWEEN_PROCESSES: SharedMemoryLimiter}
SERVING = {in_the_server(name): Subject(partial(served, make), (HIT,)) for name, make in _IN_THE_SERVER.items()}
THEIRS = {
    name: Subject(peer.usage, peer.ways, peer.quotas, peer.in_threads)
    for name, peer in PEERS.items()
    if peer.installed()
}
SUBJECTS = {**FLOORS, **OURS, **SERVING, **THEIRS}
