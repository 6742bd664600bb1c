"""One connection of a thread, with an end to every wait."""

from __future__ import annotations

import os
import select
import socket
import time
from typing import TYPE_CHECKING, Final, TypeAlias

from storage_backends.valkey.resp import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage_backends.valkey.calls import Call
    from storage_backends.valkey.cluster import Command
    from storage_backends.valkey.greeting import Greeting

    Question: TypeAlias = tuple[Call | Command, str]

LOOKS: Final = 100
"""How often to look for an answer before sleeping until it comes: some 100 µs.

A server on the same machine answers sooner, and to fall asleep and be woken takes longer than its work: 65 µs
a decision, measured, against 28 by looking, which costs no more CPU. Between two looks others may run.
"""

RESTS: Final = 128
"""After an answer that did not come in that time nobody looks for the next one, then two, four, up to so many: a server
that is far is soon slept for, and one that was late once is not."""

_CHUNK: Final = 16_384
_yield = getattr(os, "sched_yield", lambda: None)


class Connection:
    """Sends questions and waits for their answers; whoever sees it raise must close it.

    A TimeoutError of `exchange` is the exception: once the late answers have arrived, it `is_usable` again, and they
    are taken for nobody else's. `until` is the instant, by `time.monotonic_ns`, at which waiting ends. What raises is
    OSError (TimeoutError among them), ProtocolError and, when connecting, UnwelcomeError. `made_ns` is when it was
    made, and `era` its owner's.
    """

    __slots__ = ("__weakref__", "_late", "_next_rests", "_not_now", "_poll", "_rests", "_socket", "era", "made_ns")

    def __init__(self, opened: socket.socket, greeting: Greeting, until: int) -> None:
        opened.setblocking(False)
        self._socket = opened
        self._not_now = _not_now(opened)
        self._poll = select.poll()
        self._poll.register(opened, select.POLLIN)
        self._rests = 0
        self._next_rests = 1
        self._late: tuple[Sequence[Question], bytes] | None = None
        self.era = 0
        try:
            self._send(greeting.words, until)
            heard = self._more(until)
            while not greeting.is_over(heard):
                heard += self._more(until)
        except BaseException:
            self.close()
            raise
        self.made_ns = time.monotonic_ns()

    def exchange(self, request: bytes, questions: Sequence[Question], until: int) -> list[object]:
        """The answers to the questions, which `request` has in their order."""
        self._send(request, until)
        if len(questions) == 1:
            self._look()
        answers: list[object] = []
        data, at = b"", 0
        try:
            data = self._more(until)
            for call, key in questions:
                while (found := call.read(data, at, key)) is None:
                    data, at = data[at:] + self._more(until), 0
                answer, at = found
                answers.append(answer)
        except TimeoutError:
            self._late = questions[len(answers) :], data[at:]
            raise
        if at < len(data):
            raise ProtocolError("more answers than questions")
        return answers

    def is_late(self) -> bool:
        """Whether nothing is wrong with it but that answers are late."""
        return self._late is not None

    def is_usable(self) -> bool:
        """Whether it is likely to work: nothing is late, and there is nothing to read, neither an end nor an answer."""
        if self._late is not None and not self._has_caught_up(*self._late):
            return False
        return not self._poll.poll(0)

    def _has_caught_up(self, questions: Sequence[Question], data: bytes) -> bool:
        """Whether the answers that were late are there by now; they are forgotten."""
        at, now = 0, time.monotonic_ns()
        try:
            for call, key in questions:
                while (found := call.read(data, at, key)) is None:
                    data, at = data[at:] + self._more(now), 0
                _, at = found
        except (OSError, ProtocolError):
            return False
        self._late = None
        return at == len(data)

    def close(self) -> None:
        """Let go, without a word."""
        self._socket.close()

    def _look(self) -> None:
        """Look for an answer for a while, without sleeping."""
        if self._rests:
            self._rests -= 1
            return
        look = self._poll.poll
        for _ in range(LOOKS):
            if look(0):
                self._next_rests = 1
                return
            _yield()
        self._rests = self._next_rests
        self._next_rests = min(2 * self._rests, RESTS)

    def _send(self, data: bytes, until: int) -> None:
        sent = 0
        while sent < len(data):
            try:
                sent += self._socket.send(data[sent:] if sent else data)
            except self._not_now:
                room = select.poll()
                room.register(self._socket, select.POLLIN | select.POLLOUT)
                room.poll(_left_ms(until))

    def _more(self, until: int) -> bytes:
        while True:
            try:
                data = self._socket.recv(_CHUNK)
            except self._not_now:
                self._poll.poll(_left_ms(until))
            else:
                if not data:
                    raise ConnectionResetError("closed by the server")
                return data


def _not_now(opened: socket.socket) -> tuple[type[OSError], ...]:
    """What a socket raises that would have to wait."""
    if type(opened) is socket.socket:
        return (BlockingIOError,)
    import ssl  # noqa: PLC0415 - it is loaded, since this is one of its sockets

    return ssl.SSLWantReadError, ssl.SSLWantWriteError


def _left_ms(until: int) -> float:
    left = until - time.monotonic_ns()
    if left <= 0:
        raise TimeoutError("the budget is over")
    return left / 1e6
