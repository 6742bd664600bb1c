"""Limiters on a real server, with a clock that a test holds.

The scripts are those of the package but for two lines: the clock is read from a key that the test writes, and what is
kept does not expire, since the server's own clock goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, Final, TypeVar

from learnflow_core.limiter import Decision, Quota
from storage_backends.valkey import (
    AsyncLeasedValkeyLimiter,
    AsyncValkeyLimiter,
    Counts,
    LeasedValkeyLimiter,
    ValkeyLimiter,
)
from storage_backends.valkey.calls import TICK_NS, Calls
from storage_backends.valkey.scripts import SCRIPTS, Script, Scripts
from tests.limiting import Clock, Implementation
from tests.servers import Valkey, eventually

T = TypeVar("T")

PATIENT_NS: Final = 20_000_000_000
"""A budget for tests that are not about it: the machine may be busy."""

_CLOCK = "local time = redis.call('TIME')\nlocal now = time[1] * 1000000 + time[2]\n"
_HELD_CLOCK = "local now = tonumber(redis.call('GET', 'clock ' .. KEYS[1]:sub(1, 9)))\n"
_EXPIRY = ", 'PX', math.ceil((kept_until - now) / 1000))"
_numbers = count()


def _held(script: Script) -> Script:
    assert script.text.count(_CLOCK) == 1
    assert script.text.count(_EXPIRY) <= 1
    return Script(script.text.replace(_CLOCK, _HELD_CLOCK).replace(_EXPIRY, ", 'PX', 600000)"))


HELD = Scripts(*map(_held, SCRIPTS))


class Client:
    """Either client as one that answers at once: `call` calls its methods and gives what they come to."""

    def __init__(self, limiter: Any, call: Callable[..., Any]) -> None:
        self.limiter = limiter
        self._call = call

    @property
    def counts(self) -> Counts:
        counts: Counts = self.limiter.counts
        return counts

    def hit(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Any:
        return self._call(self.limiter.hit, key, quotas, cost)

    def hit_many(self, keys: Iterable[str], quotas: Sequence[Quota], cost: int = 1) -> Any:
        return self._call(self.limiter.hit_many, keys, quotas, cost)

    def peek(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Any:
        return self._call(self.limiter.peek, key, quotas, cost)

    def refund(self, decision: Decision) -> Any:
        return self._call(self.limiter.refund, decision)

    def reset(self, key: str, quotas: Sequence[Quota]) -> Any:
        return self._call(self.limiter.reset, key, quotas)

    def close(self) -> None:
        self._call(self.limiter.close if isinstance(self.limiter, ValkeyLimiter) else self.limiter.aclose)


class _Forward:
    """What a process's own clock shows, which never steps back: it goes on where the held one does."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen = self._now = clock.now

    def __call__(self) -> int:
        self._now += max(0, self._clock.now - self._seen)
        self._seen = self._clock.now
        return self._now


class HeldLimiter(Client):
    """A limiter of keys that no other has, whose store tells the time that `clock` shows.

    `limiter` is a new one that uses the connections of another. One that leases has a clock of its own that
    goes on with it, and gives back what is not used when a test looks after it.
    """

    def __init__(self, server: Valkey, clock: Clock, limiter: Any, call: Callable[..., Any]) -> None:
        super().__init__(limiter, self._at_its_time)
        self.clock = clock
        self._server = server
        self._in_time = call
        self.use(f"{next(_numbers):08}:")
        if isinstance(limiter, LeasedValkeyLimiter | AsyncLeasedValkeyLimiter):
            limiter._hands.clock = _Forward(clock)
            limiter._watch = lambda *_: None  # type: ignore[method-assign]

    def use(self, prefix: str) -> None:
        """Take from the buckets of that prefix, as another limiter may as well."""
        self.prefix = prefix
        self._told: int | None = None
        self.limiter._store.calls = self.limiter._calls = Calls(prefix)
        self.limiter._calls.scripts = HELD

    def look(self) -> None:
        """What a limiter that leases does from time to time."""
        if isinstance(self.limiter, LeasedValkeyLimiter):
            self.limiter.look()
        else:
            self._call(self._awaited, self.limiter._look)

    def wait_for_renewals(self) -> None:
        """Wait until nothing is being asked for."""
        eventually(lambda: not any(hand.turn.locked() for hand in self.limiter._hands.everyone()))

    def give_back(self, key: str) -> None:
        """Give back all that is in hand."""
        if isinstance(self.limiter, LeasedValkeyLimiter):
            self.limiter._exchange_all(self.limiter._hands.give_back(key))
        else:
            self._call(self._awaited, self.limiter._give_back, key)

    @staticmethod
    async def _awaited(method: Callable[..., None], *args: object) -> None:
        method(*args)

    def _at_its_time(self, method: Callable[..., Any], *args: object) -> Any:
        assert self.clock.now % TICK_NS == 0, "the clock stands at whole ticks"
        if self._told != self.clock.now:
            self._told = self.clock.now
            self._server.call("SET", f"clock {self.prefix}", str(self.clock.now // TICK_NS))
        return self._in_time(method, *args)


def at_once(method: Callable[..., T], *args: object) -> T:
    return method(*args)


@contextmanager
def looping() -> Iterator[Callable[..., Any]]:
    """Calls what is to be awaited in an event loop, which runs in a thread of its own: a test may have one too."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def answer(method: Callable[..., Awaitable[T]], *args: object) -> T:
        return await method(*args)

    def call(method: Callable[..., Awaitable[T]], *args: object) -> T:
        return asyncio.run_coroutine_threadsafe(answer(method, *args), loop).result(PATIENT_NS / 1e9)

    try:
        yield call
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


CLIENTS = ["blocking", "asyncio"]
LEASED_CLIENTS = ["blocking, leased", "asyncio, leased"]
_CLASSES: Final[dict[str, type[ValkeyLimiter | AsyncValkeyLimiter]]] = {
    "blocking": ValkeyLimiter,
    "asyncio": AsyncValkeyLimiter,
    "blocking, leased": LeasedValkeyLimiter,
    "asyncio, leased": AsyncLeasedValkeyLimiter,
}


@contextmanager
def open_client(kind: str, url: str, **options: Any) -> Iterator[Client]:
    """One of the clients."""
    far = _CLASSES[kind](url, **options)
    if isinstance(far, ValkeyLimiter):
        with far:
            yield Client(far, at_once)
        return
    with looping() as call:
        try:
            yield Client(far, call)
        finally:
            call(far.aclose)


@contextmanager
def held_limiters(server: Valkey, kind: type[ValkeyLimiter] = ValkeyLimiter) -> Iterator[Implementation]:
    """Limiters for threads."""
    with ValkeyLimiter(server.url, budget_ns=PATIENT_NS) as first:

        def make(clock: Clock) -> HeldLimiter:
            limiter = kind(server.url, budget_ns=PATIENT_NS)
            limiter._servers = first._servers
            return HeldLimiter(server, clock, limiter, at_once)

        yield Implementation(make, TICK_NS)


@contextmanager
def held_asyncio_limiters(
    server: Valkey, kind: type[AsyncValkeyLimiter] = AsyncValkeyLimiter
) -> Iterator[Implementation]:
    """Limiters for an event loop."""
    with looping() as call:
        first = AsyncValkeyLimiter(server.url, budget_ns=PATIENT_NS)
        call(first.peek, "key", (Quota.per_minute(1),))

        def make(clock: Clock) -> HeldLimiter:
            limiter = kind(server.url, budget_ns=PATIENT_NS)
            limiter._loop, limiter._nodes = first._loop, first._nodes
            return HeldLimiter(server, clock, limiter, call)

        yield Implementation(make, TICK_NS)
        call(first.aclose)
