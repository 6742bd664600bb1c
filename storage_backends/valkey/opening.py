"""Sockets to a server for threads: names, addresses, TLS, each with an end to every wait."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage_backends.valkey.address import Address, Location

    Places: TypeAlias = Sequence[
        tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str | int | bytes, ...]]
    ]


class Opener:
    """Opens sockets to one server; its name is looked up anew for each, since it may move.

    `until` is the instant, by `time.monotonic_ns`, at which waiting ends.
    """

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
            lookup = self._lookup = self._lookup or _Lookup(host, port)
            lookup.wait(until)
            self._lookup = None
            return lookup.places()


class _Lookup:
    """A name being looked up by a thread of its own: the system's resolver waits for as long as it likes."""

    def __init__(self, host: str, port: int) -> None:
        self._places: Places = []
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(host, port), daemon=True)
        self._thread.start()

    def wait(self, until: int) -> None:
        """Wait for it; TimeoutError when it takes longer, and whoever asks later may find it done."""
        self._thread.join(_left_s(until))
        if self._thread.is_alive():
            raise TimeoutError("the name is still being looked up")

    def places(self) -> Places:
        """What was found; what was raised instead is raised."""
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
