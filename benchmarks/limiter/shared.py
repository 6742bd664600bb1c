"""The project's limiter over Valkey as it is asked, and the floors below any: PING, and its own script without it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from itertools import pairwise
from os import urandom
from struct import pack
from typing import Any

from benchmarks.limiter.usage import BATCHES, HIT, PIPELINED, Plan, Usage
from storage_backends.valkey import AsyncLeasedValkeyLimiter, AsyncValkeyLimiter, LeasedValkeyLimiter, ValkeyLimiter
from storage_backends.valkey.calls import Call, Calls
from storage_backends.valkey.resp import command, parse

PATIENCE_NS = 10 * 10**9
"""How long the limiter waits for the server: here nobody else may decide, and a denial would be noticed."""
IN_BATCHES = max(BATCHES, key=lambda way: BATCHES[way])
WINDOW = 100
"""So many requests leave in one write, and as many more while their replies are awaited."""
ALLOWED = pack("<d", 1)
"""How the script's reply begins when a request passes."""


def ping(plan: Plan, path: str) -> Usage:
    """The least that a round trip takes."""
    return _raw(path, lambda key: command("PING"), b"")


def script(plan: Plan, path: str) -> Usage:
    """The limiter's script, in commands that were made before: what the server takes, and the way there."""
    call = Calls("raw:").hit("", plan, 1)
    learn(path, call)
    return _raw(path, lru_cache(maxsize=None)(call.request), ALLOWED)


def learn(path: str, call: Call) -> None:
    """Let the server have the script of a call, which from then on is named by its digest."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(call.request_with_script(""))
        connection.recv(4_096)


def _raw(path: str, request: Callable[[str], bytes], allowed: bytes) -> Usage:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    connection.sendall(request(""))
    size = len(connection.recv(4_096))

    def all_of(keys: list[str]) -> bytes:
        """Two windows of requests are under way at any time, so that the server never waits for the next."""
        windows = [keys[start : start + WINDOW] for start in range(0, len(keys), WINDOW)]
        connection.sendall(b"".join(map(request, windows[0])))
        missing, tail = 0, b""
        for answered, sent in pairwise([*windows, []]):
            connection.sendall(b"".join(map(request, sent)))
            missing += len(answered) * size
            while missing > 0:
                data = connection.recv(65_536)
                missing -= len(data)
                tail = (tail + data)[-size:]
        return tail

    ways = {
        HIT: "send(request(key))\nallowed = passes in receive(4_096)",
        PIPELINED: "allowed = passes in all_of(key)",
    }
    names = {"send": connection.sendall, "receive": connection.recv, "request": request, "passes": allowed}
    return Usage(ways, {**names, "all_of": all_of})


def ours(plan: Plan, path: str) -> Usage:
    """The project's limiter for threads and plain programs."""
    limiter = ValkeyLimiter(f"unix://{path}", fallback="closed", budget_ns=PATIENCE_NS)
    ways = {HIT: "allowed = hit(key, plan)", IN_BATCHES: "allowed = hit_many(key, plan)[-1]"}
    return Usage(ways, {"hit": limiter.hit, "hit_many": limiter.hit_many, "plan": plan})


def ours_async(plan: Plan, path: str) -> Usage:
    """The project's limiter in an event loop, where calls of one turn leave together."""
    limiter = AsyncValkeyLimiter(f"unix://{path}", fallback="closed", budget_ns=PATIENCE_NS)
    ways = {HIT: "allowed = await hit(key, plan)", IN_BATCHES: "allowed = (await hit_many(key, plan))[-1]"}
    return Usage(ways, {"hit": limiter.hit, "hit_many": limiter.hit_many, "plan": plan}, awaits=True)


def leased(plan: Plan, path: str) -> Usage:
    """The project's limiter that decides from tokens it leases; with buckets that nobody has taken from before."""
    limiter = LeasedValkeyLimiter(f"unix://{path}", fallback="closed", budget_ns=PATIENCE_NS, prefix=urandom(8).hex())
    return Usage({HIT: "allowed = hit(key, plan)"}, {"hit": limiter.hit, "plan": plan})


def leased_async(plan: Plan, path: str) -> Usage:
    """The same in an event loop."""
    limiter = AsyncLeasedValkeyLimiter(
        f"unix://{path}", fallback="closed", budget_ns=PATIENCE_NS, prefix=urandom(8).hex()
    )
    return Usage({HIT: "allowed = await hit(key, plan)"}, {"hit": limiter.hit, "plan": plan}, awaits=True)


def redis_py(plan: Plan, path: str) -> Usage:
    """The same script as whoever writes a script of his own would call it."""
    return _evalsha(import_module("redis").Redis(unix_socket_path=path), plan, path, awaits=False)


def redis_py_async(plan: Plan, path: str) -> Usage:
    """The same in an event loop."""
    return _evalsha(import_module("redis.asyncio").Redis(unix_socket_path=path), plan, path, awaits=True)


def _evalsha(client: Any, plan: Plan, path: str, *, awaits: bool) -> Usage:
    call = Calls("redis-py:").hit("", plan, 1)
    learn(path, call)
    words = parse(call.request(""))
    assert words is not None
    assert isinstance(words[0], list)
    _, digest, _, prefix, *arguments = words[0]
    assert isinstance(prefix, bytes)
    statement = (
        f"reply = {'await ' * awaits}evalsha(digest, 1, prefix + key, *arguments)\nallowed = reply[:8] == passes"
    )
    names = {"evalsha": client.evalsha, "digest": digest, "prefix": prefix.decode(), "arguments": arguments}
    return Usage({HIT: statement}, {**names, "passes": ALLOWED}, awaits)
