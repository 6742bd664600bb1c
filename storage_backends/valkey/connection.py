"""One connection of a thread: blocking, with an end to every wait."""

from __future__ import annotations

import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Final, TypeAlias

from storage_backends.valkey.resp import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage_backends.valkey.address import Address, Location
    from storage_backends.valkey.calls import Call
    from storage_backends.valkey.cluster import Command
    from storage_backends.valkey.greeting import Greeting

    Question: TypeAlias = tuple[Call | Command, str]
    Places: TypeAlias = Sequence[
        tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str | int | bytes, ...]]
    ]

_CHUNK: Final = 16_384
_FRESH_NS: Final = 1_000_000_000


class Connection:
    """Sends questions and waits for their answers; whoever sees it raise must close it.

    `until` is the instant, by `time.monotonic_ns`, at which waiting ends. What raises is OSError (TimeoutError among
    them), ProtocolError and, when connecting, UnwelcomeError.
    """

    __slots__ = ("_poll", "_socket", "used_at")

    def __init__(self, opened: socket.socket, greeting: Greeting, until: int) -> None:
        self._socket = opened
        self._poll = select.poll()
        self._poll.register(opened, select.POLLIN)
        self.used_at = 0
        try:
            opened.settimeout(_left_s(until))
            opened.sendall(greeting.words)
            heard = self._more(until)
            while not greeting.is_over(heard):
                heard += self._more(until)
        except BaseException:
            self.close()
            raise

    def exchange(self, request: bytes, questions: Sequence[Question], until: int) -> list[object]:
        """The answers to the questions, which `request` has in their order."""
        self._socket.settimeout(_left_s(until))
        self._socket.sendall(request)
        answers: list[object] = []
        data, at = self._more(until), 0
        for call, key in questions:
            while (found := call.read(data, at, key)) is None:
                data, at = data[at:] + self._more(until), 0
            answer, at = found
            answers.append(answer)
        if at < len(data):
            raise ProtocolError("more answers than questions")
        return answers

    def is_usable(self, now: int) -> bool:
        """Whether it is likely to work still: one that has rested may have been closed by the server."""
        return now - self.used_at < _FRESH_NS or not self._poll.poll(0)

    def close(self) -> None:
        """Let go, without a word."""
        self._socket.close()

    def _more(self, until: int) -> bytes:
        self._socket.settimeout(_left_s(until))
        data = self._socket.recv(_CHUNK)
        if not data:
            raise ConnectionResetError("closed by the server")
        return data


class Opener:
    """Opens sockets to one server; names are looked up anew for each, since they may move."""

    def __init__(self, address: Address, location: Location) -> None:
        self._address = address
        self._tls = location.tls
        self._lookup: _Lookup | None = None

    def open(self, until: int) -> socket.socket:
        """A socket that is connected; raises OSError, UnicodeError (a host that is no name)."""
        host, port = self._address
        if port is None:
            return _connected(socket.AF_UNIX, host, until)
        failure: OSError = ConnectionError("the name has no address")
        for family, _, _, _, place in self._places(host, port, until):
            try:
                return self._secured(_connected(family, place, until), host, until)
            except OSError as one:
                failure = one
        raise failure

    def _secured(self, opened: socket.socket, host: str, until: int) -> socket.socket:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            return opened
        try:
            opened.settimeout(_left_s(until))
            return self._tls.wrap_socket(opened, server_hostname=host)
        except BaseException:
            opened.close()
            raise

    def _places(self, host: str, port: int, until: int) -> Places:
        try:
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            lookup = self._lookup or _Lookup(host, port)
            self._lookup = lookup
            places = lookup.places(until)
            self._lookup = None
            return places


class _Lookup:
    """A name being looked up by a thread of its own: the system's resolver waits for as long as it likes."""

    def __init__(self, host: str, port: int) -> None:
        self._places: Places = []
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(host, port), daemon=True)
        self._thread.start()

    def places(self, until: int) -> Places:
        """What was found; TimeoutError when that takes longer, and whoever asks later may find it done."""
        self._thread.join(_left_s(until))
        if self._thread.is_alive():
            raise TimeoutError("the name is still being looked up")
        if self._failure is not None:
            raise self._failure
        return self._places

    def _run(self, host: str, port: int) -> None:
        try:
            self._places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as failure:
            self._failure = failure


def _connected(family: int, place: str | tuple[str | int | bytes, ...], until: int) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.settimeout(_left_s(until))
        opened.connect(place)
    except BaseException:
        opened.close()
        raise
    return opened


def _left_s(until: int) -> float:
    left = until - time.monotonic_ns()
    if left <= 0:
        raise TimeoutError("the budget is over")
    return left / 1e9
