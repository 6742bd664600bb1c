"""The servers of one store, as threads see them: who is asked, and who instead."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from weakref import WeakSet

from storage_backends.valkey.breaker import PAUSE_NS
from storage_backends.valkey.cluster import ASKING, Learn, Redirection, SlotMap
from storage_backends.valkey.connection import Connection
from storage_backends.valkey.greeting import FAILURES, Greeting, kind_of
from storage_backends.valkey.opening import CONNECT_NS, Opener
from storage_backends.valkey.resp import ErrorReply, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage_backends.valkey.address import Address
    from storage_backends.valkey.calls import Call
    from storage_backends.valkey.connection import Question
    from storage_backends.valkey.store import Store

T = TypeVar("T")

IDLE: Final = 32
"""So many connections to one server are kept for those who come next."""

TRIES: Final = 5
"""How often one call is sent again at most: servers may redirect it, or have lost the script."""


class UnansweredError(Exception):
    """The server did not answer; `kind` says why, as `Counts` has it."""

    def __init__(self, failure: Exception, *, was_connected: bool) -> None:
        super().__init__(failure)
        kind = kind_of(failure)
        self.kind = "lost" if was_connected and kind == "connect" else kind


class Server:
    """One server, and the connections to it that are not in use, the latest used first.

    A connection is made by a thread of its own. Who has waited for it as long as the budget allows leaves it to
    whoever comes next, so that a server to which connecting takes longer than a budget is used nevertheless.
    """

    def __init__(self, store: Store, address: Address) -> None:
        self.address = address
        self.health = store.health(address)
        self._budget_ns = store.budget_ns
        self._connect_ns = max(CONNECT_NS, store.budget_ns)
        self._greeting = Greeting(store.location)
        self._opener = Opener(address, store.location)
        self._idle: list[Connection] = []
        self._attempts: list[Future[Connection]] = []  # for which nobody waits
        self._is_closed = False
        self._all: WeakSet[Connection] = WeakSet()
        self._era = 0
        self._renewed = 0

    def exchange(self, request: bytes, questions: Sequence[Question], until: int) -> list[object]:
        """The answers to the questions, which `request` has in their order; UnansweredError when there are none."""
        try:
            connection = self._take(until)
        except FAILURES as failure:
            raise UnansweredError(failure, was_connected=False) from failure
        try:
            answers = connection.exchange(request, questions, until)
        except FAILURES as failure:
            self._close_idle()  # those that rest are unlikely to fare better
            if connection.is_late() and time.monotonic_ns() - connection.made_ns < self._budget_ns:
                self._give_back(connection)  # to connect took most of the time, and the next one has all of it
            else:
                self._discard(connection)
            raise UnansweredError(failure, was_connected=True) from failure
        except BaseException:
            self._discard(connection)
            raise
        self._give_back(connection)
        return answers

    def close(self) -> None:
        """Close the connections that are not in use, and the others when they have served."""
        self._is_closed = True
        self.let_go()

    def let_go(self) -> None:
        """Close the connections that are not in use, and the others when they have served; who comes next connects."""
        self._era += 1
        self._close_idle()
        while (attempt := _popped(self._attempts)) is not None:
            attempt.add_done_callback(_close)

    def renew(self, now: int) -> None:
        """Let go, once in `PAUSE_NS` at most: the name may stand for another server by now, one that takes writes."""
        if now - self._renewed >= PAUSE_NS:
            self._renewed = now
            self.let_go()

    def abandon(self) -> None:
        """In the child of a fork: close the child's copies of all sockets. That tells the server nothing."""
        for connection in self._all:
            connection.close()
        self._all.clear()
        self._idle.clear()
        self._attempts.clear()
        self._opener.forget()

    def _close_idle(self) -> None:
        while (connection := _popped(self._idle)) is not None:
            self._discard(connection)

    def _take(self, until: int) -> Connection:
        while (connection := _popped(self._idle)) is not None:
            if connection.is_usable():
                return connection
            self._discard(connection)
        return self._connected(until)

    def _connected(self, until: int) -> Connection:
        attempt = self._attempt()
        try:
            return attempt.result(max(0, until - time.monotonic_ns()) / 1e9)
        except BaseException:
            if len(self._attempts) < IDLE and not self._is_closed:
                self._attempts.append(attempt)
            else:
                attempt.add_done_callback(_close)
            raise

    def _attempt(self) -> Future[Connection]:
        """One that nobody waits for any more and that did not fail, or a new one."""
        while (attempt := _popped(self._attempts)) is not None:
            if not attempt.done():
                return attempt
            if attempt.exception() is None:
                if attempt.result().is_usable():
                    return attempt
                self._discard(attempt.result())
        attempt = Future()
        try:
            threading.Thread(target=self._connect, args=(attempt, self._era), daemon=True).start()
        except RuntimeError:  # there are too many, or the interpreter is about to end
            attempt.set_exception(OSError("no thread to connect with"))
        return attempt

    def _connect(self, attempt: Future[Connection], era: int) -> None:
        until = time.monotonic_ns() + self._connect_ns
        try:
            connection = Connection(self._opener.open(until), self._greeting, until)
        except FAILURES as failure:
            attempt.set_exception(failure)
            return
        connection.era = era
        self._all.add(connection)
        attempt.set_result(connection)

    def _give_back(self, connection: Connection) -> None:
        if connection.era == self._era and len(self._idle) < IDLE and not self._is_closed:
            self._idle.append(connection)
        else:
            self._discard(connection)

    def _discard(self, connection: Connection) -> None:
        self._all.discard(connection)
        connection.close()


def _popped(rest: list[T]) -> T | None:
    try:
        return rest.pop()
    except IndexError:  # there is none, or another thread was quicker
        return None


def _close(attempt: Future[Connection]) -> None:
    if attempt.exception() is None:
        attempt.result().close()


class Servers:
    """One server, or the nodes of a cluster, each with connections of its own."""

    def __init__(self, store: Store) -> None:
        location = store.location
        self._store = store
        self._servers: dict[Address, Server] = {}
        self._map = SlotMap(location.addresses) if location.is_cluster else None
        self._only = None if self._map else self._server(location.addresses[0])

    def ask(self, call: Call, key: str) -> Any:
        """The answer of the server that has the key or, when it has none or is not to be asked now, one without it."""
        started = time.monotonic_ns()
        server = self._only or self._owner(call, key)
        breaker = server.health.breaker
        if breaker.is_open:
            if not breaker.may_ask(started):
                return self._store.otherwise(call, key, breaker.rest(started))
            server = self._messenger(server)
        return self._answers(server, [(call, key)], started + self._store.budget_ns)[0]

    def ask_many(self, questions: Sequence[tuple[Call, str]], until: int | None = None) -> list[Any]:
        """The same for several, which are sent to each server together; answered by `until`, or within the budget."""
        until = until or time.monotonic_ns() + self._store.budget_ns
        if self._map is not None and not self._map.is_learnt:
            self._learn(self._map, until)
        of_server: dict[Server, list[int]] = {}
        for index, (call, key) in enumerate(questions):
            of_server.setdefault(self._only or self._owner(call, key), []).append(index)
        answers: list[Any] = [None] * len(questions)
        for server, indices in of_server.items():
            asked = [questions[index] for index in indices]
            is_open = server.health.breaker.is_open
            found = [self.ask(*question) for question in asked] if is_open else self._answers(server, asked, until)
            for index, answer in zip(indices, found, strict=True):
                answers[index] = answer
        return answers

    def close(self) -> None:
        """Close the connections: those in use when they have served."""
        for server in list(self._servers.values()):
            server.close()

    def abandon(self) -> None:
        """See `Server.abandon`."""
        for server in list(self._servers.values()):
            server.abandon()

    def _answers(self, server: Server, asked: list[tuple[Call, str]], until: int) -> list[Any]:
        request = b"".join([call.request(key) for call, key in asked])
        try:
            answers = server.exchange(request, asked, until)
        except UnansweredError as failure:
            server.health.failed(failure.kind, time.monotonic_ns(), len(asked))
            return [self._otherwise(server, call, key) for call, key in asked]
        return [
            self._settled(server, call, key, answer, until) for (call, key), answer in zip(asked, answers, strict=True)
        ]

    def _settled(self, server: Server, call: Call, key: str, answer: object, until: int) -> object:
        """The answer to one call; where it is an error that names a remedy, the answer after that."""
        kind = ""
        for _ in range(TRIES):
            if not isinstance(answer, ErrorReply):
                server.health.succeeded(time.monotonic_ns())
                self._store.answered()
                return answer
            kind = answer.code
            remedy = self._remedy(server, call, key, answer)
            if remedy is None:
                break
            server, request, questions = remedy
            try:
                answer = server.exchange(request, questions, until)[-1]
            except UnansweredError as failure:
                kind = failure.kind
                break
        now = time.monotonic_ns()
        server.health.failed(kind, now)
        server.renew(now)
        return self._otherwise(server, call, key)

    def _learn(self, slots: SlotMap, until: int) -> None:
        """Ask for the map, since to be redirected call by call would take too long. Failures show with the calls."""
        server = self._seed(slots)
        learn = Learn(slots, server.address)
        with suppress(UnansweredError):
            server.exchange(learn.request(""), [(learn, "")], until)

    def _remedy(
        self, server: Server, call: Call, key: str, error: ErrorReply
    ) -> tuple[Server, bytes, list[Question]] | None:
        """Whom to ask what instead, the last question being the call; None when the error is final."""
        if error.code == "NOSCRIPT":
            return server, call.request_with_script(key), [(call, key)]
        if self._map is None or error.code not in ("MOVED", "ASK"):
            return None
        try:
            found = Redirection(error, server.address)
        except ProtocolError:
            return None
        other, first = self._server(found.address), None
        if found.once:
            first = ASKING
        else:
            self._map.owners[found.slot] = found.address
            if self._map.is_refresh_due(time.monotonic_ns()):
                first = Learn(self._map, found.address)
        if first is None:
            return other, call.request_with_script(key), [(call, key)]
        return other, first.request(key) + call.request_with_script(key), [(first, key), (call, key)]

    def _otherwise(self, server: Server, call: Call, key: str) -> object:
        return self._store.otherwise(call, key, server.health.breaker.rest(time.monotonic_ns()))

    def _server(self, address: Address) -> Server:
        server = self._servers.get(address)
        if server is None:
            self._forget_strangers()
            server = self._servers.setdefault(address, Server(self._store, address))
        return server

    def _forget_strangers(self) -> None:
        """Let go of servers that the cluster has no more, as where each start gives them another address."""
        known = self._map.known() if self._map else ()
        for address in self._servers.keys() - known:
            if (stranger := self._servers.pop(address, None)) is not None:  # another thread may have been quicker
                stranger.close()

    def _owner(self, call: Call, key: str) -> Server:
        """The server that is known to have the key or, when none is, a seed that answers."""
        known = cast("SlotMap", self._map)
        address = known.owners[call.slot(key)]
        return self._seed(known) if address is None else self._server(address)

    def _seed(self, known: SlotMap) -> Server:
        seeds = [self._server(seed) for seed in known.seeds]
        return next((server for server in seeds if not server.health.breaker.is_open), seeds[0])

    def _messenger(self, server: Server) -> Server:
        """Whom to ask in place of a server that did not answer: in a cluster another one, which knows its successor or
        sends the call on to it."""
        if self._map is None:
            return server
        others = [self._server(address) for address in self._map.known()]
        healthy = [other for other in others if not other.health.breaker.is_open]
        return random.choice(healthy) if healthy else server  # noqa: S311 - to spread probes, not to hide them
