"""What can be measured over Valkey, by its name; peers where redis-py is installed, through which they all go."""

from __future__ import annotations

from importlib.util import find_spec

from benchmarks.limiter.names import (
    LEASED,
    LEASED_ASYNC,
    PING,
    REDIS_PY,
    REDIS_PY_ASYNC,
    SCRIPT,
    SHARED,
    SHARED_ASYNC,
    in_a_loop,
    without_a_loop,
)
from benchmarks.limiter.shared import (
    IN_BATCHES,
    leased,
    leased_async,
    ours,
    ours_async,
    ping,
    redis_py,
    redis_py_async,
    script,
)
from benchmarks.limiter.shared_peers import SHARED_PEERS
from benchmarks.limiter.subjects import THEIRS, Subject
from benchmarks.limiter.usage import HIT, PIPELINED

FLOORS = {PING: Subject(ping, (HIT, PIPELINED)), SCRIPT: Subject(script, (HIT, PIPELINED))}
SYNCHRONOUS = {SHARED: Subject(ours, (HIT, IN_BATCHES))}
ASYNCHRONOUS = {SHARED_ASYNC: Subject(ours_async, (HIT, IN_BATCHES))}
LEASING = {LEASED: Subject(leased, (HIT,)), LEASED_ASYNC: Subject(leased_async, (HIT,))}
if find_spec("redis"):
    SYNCHRONOUS[REDIS_PY] = Subject(redis_py, (HIT,))
    ASYNCHRONOUS[REDIS_PY_ASYNC] = Subject(redis_py_async, (HIT,))
    for _name, (_sync, _async) in SHARED_PEERS.items():
        if _name in THEIRS:
            SYNCHRONOUS[without_a_loop(_name)] = Subject(_sync, THEIRS[_name].ways)
            ASYNCHRONOUS[in_a_loop(_name)] = Subject(_async, THEIRS[_name].ways)
SUBJECTS = {**FLOORS, **SYNCHRONOUS, **ASYNCHRONOUS, **LEASING}
