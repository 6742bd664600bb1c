"""One server as an event loop sees it: one connection, on which calls leave together and are answered in order."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from storage_backends.valkey.breaker import PAUSE_NS
from storage_backends.valkey.greeting import FAILURES, Greeting, kind_of
from storage_backends.valkey.names import Name
from storage_backends.valkey.opening import CONNECT_NS
from storage_backends.valkey.resp import ErrorReply, ProtocolError
from storage_backends.valkey.wire import Wire

if TYPE_CHECKING:
    from storage_backends.valkey.address import Address, Location
    from storage_backends.valkey.calls import Call
    from storage_backends.valkey.cluster import Command
    from storage_backends.valkey.health import Health

BATCH: Final = 32
"""So many calls of one tick of the loop leave at once and not at its end: the server begins while more are made."""

TRIES: Final = 5
"""How often one call is sent at most: servers may redirect it, or have lost the script."""


class Waiter(Protocol):
    """Who waits for an answer: a future, or something like it."""

    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...


Asked: TypeAlias = "tuple[Waiter, Call | Command, str, int]"
"""One call on its way: who waits, what was asked, for which key, and how often it was sent before."""


class Owner(Protocol):
    """Who has the node, and knows more than one."""

    def otherwise(self, call: Call | Command, key: str, rest_ns: int) -> object:
        """What is answered without the store, which is asked again in `rest_ns`."""
        ...

    def redirect(self, node: Node, asked: Asked, error: ErrorReply, until: float) -> bool:
        """Ask another server, if the error names one; whether that was so."""
        ...

    def answered(self, calls: int) -> None:
        """Count what the store answered."""
        ...


class Node:
    """Asks one server, whose connection is made when it is needed, and made again when it broke.

    Calls of one tick leave in one write, answers are matched in order. What is late is answered by the owner at the
    end of the budget; its place is kept, so that the answer, when it comes, is taken for nobody else's. When
    a connection is given up, nothing that was sent on it is sent again: it may have been done. Where the server refuses
    what it is asked, the connection is made anew when what is on its way has been answered, once a second at most.
    """

    def __init__(self, owner: Owner, address: Address, location: Location, health: Health, budget_s: float) -> None:
        self.address = address
        self.health = health
        self._owner = owner
        self._tls = location.tls
        self._greeting = Greeting(location)
        self._budget_s = budget_s
        self._loop = asyncio.get_running_loop()
        self._name = None if address.port is None else Name(address.host, address.port)
        self._wire: Wire | None = None  # whose answers are expected
        self._taking: Wire | None = None  # the same, unless nothing more is to be sent on it
        self._made_ns = 0  # when it was
        self._heard_ns = 0  # when something came on it last
        self._connecting: asyncio.Task[None] | None = None
        self._asked: deque[Asked] = deque()  # without an answer so far, in order; the first `_sent` are on their way
        self._sent = 0
        self._answered = 0  # since the beginning: the position of the first that is asked
        self._due: deque[tuple[float, int]] = deque()  # until when those before which position are to be answered
        self._timer: asyncio.TimerHandle | None = None
        self._out: list[bytes] = []
        self._ticking = False
        self._rest = b""

    def ask(self, waiter: Waiter, call: Call | Command, key: str) -> None:
        """Send the call, at the end of this tick at the latest, and answer the waiter within the budget."""
        self._asked.append((waiter, call, key, 0))
        if self._taking is not None:
            self._out.append(call.request(key))
            if len(self._out) >= BATCH:
                self._write(self._taking)
        if not self._ticking:
            self._ticking = True
            self._loop.call_soon(self._tick)

    def ask_again(self, asked: Asked, until: float, first: Command | None = None) -> None:
        """Ask what was asked before, and bring the script along; it is due when it was due. `first` goes before it."""
        waiter, call, key, tries = asked
        if first is not None:
            self.ask(NOBODY, first, key)
        self._asked.append((waiter, call, key, tries + 1))
        if self._taking is not None:
            self._out.append(call.request_with_script(key))
        if not self._ticking:
            self._ticking = True
            self._loop.call_soon(self._tick)
        self._loop.call_at(until, self._loop.call_soon, self._loop.call_soon, self._expire, asked)

    async def close(self) -> None:
        """Answer all that wait without the store, and let go of the connection."""
        self.end()
        if self._connecting is not None:
            await asyncio.gather(self._connecting, return_exceptions=True)
        await asyncio.sleep(0)  # a connection is closed in the loop's next turn

    def end(self) -> None:
        """The same, without waiting until it is done."""
        if self._timer is not None:
            self._timer.cancel()
        self._drop()
        self._forget(len(self._asked))
        if self._connecting is not None:
            self._connecting.cancel()

    def is_busy(self) -> bool:
        """Whether anybody waits for it."""
        return bool(self._asked)

    def descriptor(self) -> int:
        """The number of the file of the connection's socket, or -1."""
        return self._wire.descriptor() if self._wire else -1

    def _tick(self) -> None:
        self._ticking = False
        if self._out and self._taking is not None:
            self._write(self._taking)
        self._reach()
        self._due.append((self._loop.time() + self._budget_s, self._answered + len(self._asked)))
        self._set_timer()

    def _reach(self) -> None:
        """Connect, if that is needed."""
        if self._wire is None and self._connecting is None and self._asked:
            self._connecting = self._loop.create_task(self._connect())

    def _write(self, wire: Wire) -> None:
        self._sent += len(self._out)
        wire.write(b"".join(self._out))
        self._out.clear()

    async def _connect(self) -> None:
        wire = Wire(self)
        try:
            async with asyncio.timeout(max(CONNECT_NS / 1e9, self._budget_s)):
                await wire.open(self.address, self._name, self._tls, self._greeting)
        except FAILURES as failure:
            self._fail(kind_of(failure), len(self._asked))
            return
        finally:
            self._connecting = None
        self._wire = self._taking = wire
        self._made_ns = self._heard_ns = time.monotonic_ns()
        if self._asked:
            self._out = [call.request(key) for _, call, key, _ in self._asked]
            self._write(wire)

    def received(self, data: bytes) -> None:
        """Match what arrived to what was asked."""
        if self._rest:
            data = self._rest + data
        asked, at, answered, position = self._asked, 0, 0, self._answered
        refused: list[tuple[Asked, ErrorReply, int]] = []
        try:
            for _ in range(self._sent):
                waiter, call, key, _tries = asked[0]
                found = call.read(data, at, key)
                if found is None:
                    break
                answer, at = found
                if type(answer) is ErrorReply:
                    refused.append((asked[0], answer, position))
                elif not waiter.done():
                    waiter.set_result(answer)
                    answered += 1
                asked.popleft()
                position += 1
        except ProtocolError:
            at = -1
        self._sent -= position - self._answered
        self._answered = position
        self._rest = data[at:]
        self._heard_ns = time.monotonic_ns()
        if answered:
            self._owner.answered(answered)
            self.health.succeeded(self._heard_ns)
        for once_asked, error, where in refused:
            self._refused(once_asked, error, self._until(where))
        self._go_on(is_garbled=at < 0)

    def lost(self, wire: Wire) -> None:
        """The connection is no more. Where nothing was on its way, as when a server closes an idle one, that is no
        failure."""
        if wire is self._wire:
            if self._sent:
                self._lose("lost")
            else:
                self._drop()
                self._reach()

    def _refused(self, asked: Asked, error: ErrorReply, until: float) -> None:
        """The server answered with an error."""
        waiter, call, key, tries = asked
        if waiter.done():
            return
        try:
            if tries < TRIES and self._loop.time() < until and self._is_remedied(asked, error, until):
                return
        except Exception as failure:  # noqa: BLE001 - whatever it is, nobody waits for ever because of it
            self._loop.call_exception_handler({"message": "an error of the store", "exception": failure})
        now = time.monotonic_ns()
        self.health.failed(error.code, now)
        waiter.set_result(self._otherwise(call, key))
        if now - self._made_ns >= PAUSE_NS:
            self._taking = None  # the name may stand for another server by now, one that takes writes
            self._out.clear()

    def _is_remedied(self, asked: Asked, error: ErrorReply, until: float) -> bool:
        """Whether the call was sent again, to this server or another."""
        if error.code == "NOSCRIPT":
            self.ask_again(asked, until)
            return True
        return self._owner.redirect(self, asked, error, until)

    def _otherwise(self, call: Call | Command, key: str) -> object:
        return self._owner.otherwise(call, key, self.health.breaker.rest(time.monotonic_ns()))

    def _settle(self, count: int) -> None:
        """Answer the first that are asked without the store."""
        for waiter, call, key, _ in islice(self._asked, count):
            if not waiter.done():
                waiter.set_result(self._otherwise(call, key))

    def _note(self, kind: str, count: int) -> None:
        """The first that are asked fail alike; said before they are settled, who are told of the next probe."""
        waiting = sum(not waiter.done() for waiter, _, _, _ in islice(self._asked, count))
        self.health.failed(kind, time.monotonic_ns(), max(1, waiting))

    def _fail(self, kind: str, count: int) -> None:
        """The same as a failure."""
        self._note(kind, count)
        self._forget(count)

    def _forget(self, count: int) -> None:
        """Answer the first that are asked without the store, and expect nothing for them."""
        self._settle(count)
        for _ in range(count):
            self._asked.popleft()
        self._answered += count

    def _drop(self) -> None:
        """Give the connection up."""
        wire, self._wire, self._taking = self._wire, None, None
        if wire is not None:
            wire.close()
        self._out.clear()
        self._rest = b""

    def _go_on(self, *, is_garbled: bool) -> None:
        """Use the connection further, unless what came was no answer or nothing more is to be sent on it."""
        if is_garbled or (self._rest and not self._sent):
            self._lose("protocol")
        elif self._wire is not None and self._taking is None and not self._sent:
            self._drop()
            self._reach()

    def _lose(self, kind: str) -> None:
        """Give the connection up because it failed: what was sent on it is answered without the store."""
        self._drop()
        sent, self._sent = self._sent, 0
        self._fail(kind, sent)
        self._reach()

    def _until(self, position: int) -> float:
        """When the call at this position is due."""
        for until, end in self._due:
            if position < end:
                return until
        return self._loop.time() + self._budget_s

    def _set_timer(self) -> None:
        if self._timer is None and self._due:
            self._timer = self._loop.call_at(self._due[0][0], self._time_is_up)

    def _time_is_up(self) -> None:
        """See who is late, and give them two turns of the loop more: where it was held up, the answers may be there and
        only wait to be read."""
        self._timer = None
        now, end = self._loop.time(), 0
        while self._due and self._due[0][0] <= now:
            end = self._due.popleft()[1]
        if end > self._answered:
            self._loop.call_soon(self._loop.call_soon, self._overdue, end)
        self._set_timer()

    def _overdue(self, end: int) -> None:
        """Answer those before this position without the store: their budget is over."""
        late = end - self._answered
        if late <= 0:
            return
        self._note("timeout", late)
        if self._wire is None:
            self._forget(late)
        elif self._is_given_up():
            self._drop()
            sent, self._sent = self._sent, 0
            self._forget(max(sent, late))
            self._reach()
        else:
            self._settle(late)

    def _is_given_up(self) -> bool:
        """Whether nothing more is expected of a connection on which an answer is late.

        One that is younger than a budget is kept: to connect took most of the time, and the next one to ask will have
        all of it for the answer.
        """
        now = time.monotonic_ns()
        if self._taking is None or now - self._heard_ns >= PAUSE_NS:
            return True
        return self.health.breaker.is_open and now - self._made_ns >= self._budget_s * 1e9

    def _expire(self, asked: Asked) -> None:
        """The time of a call that was asked again is up."""
        waiter, call, key, _ = asked
        if not waiter.done():
            self.health.failed("timeout", time.monotonic_ns())
            waiter.set_result(self._otherwise(call, key))


class _Nobody:
    """Waits for an answer that says nothing."""

    def done(self) -> bool:
        return True

    def set_result(self, result: object) -> None:
        raise AssertionError("nobody is told anything")


NOBODY: Final = _Nobody()
