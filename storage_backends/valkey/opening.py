"""Sockets to a server for threads: names, addresses, TLS, each with an end to every wait."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Final

from storage_backends.valkey.names import Name

if TYPE_CHECKING:
    from storage_backends.valkey.address import Address, Location
    from storage_backends.valkey.names import Place, Places

CONNECT_NS: Final = 1_000_000_000
"""How long an attempt to connect goes on, or a budget if that is longer. Callers wait no longer than their budget;
those after them may profit."""

_QUIET_S: Final = 60
"""A connection on which nothing happened for so long is seen to still lead to the server."""

_PROBES: Final = {"TCP_KEEPIDLE": _QUIET_S, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


class Opener:
    """Opens sockets to one server; its name is looked up anew for each, since it may move.

    `until` is the instant, by `time.monotonic_ns`, at which waiting ends.
    """

    def __init__(self, address: Address, location: Location) -> None:
        self._address = address
        self._tls = location.tls
        self.forget()

    def forget(self) -> None:
        """In the child of a fork: whoever looked the name up did so in the parent."""
        host, port = self._address
        self._name = None if port is None else Name(host, port)

    def open(self, until: int) -> socket.socket:
        """A socket that is connected; raises OSError, ValueError (a host that is no name)."""
        if self._name is None:
            return _connected(socket.AF_UNIX, self._address.host, until)
        failure: OSError = ConnectionError("the name has no address")
        for family, _, _, _, place in _places(self._name, until):
            try:
                return self._secured(_connected(family, place, until), until)
            except OSError as one:
                failure = one
        raise failure

    def _secured(self, opened: socket.socket, until: int) -> socket.socket:
        if self._tls is None:
            return opened
        try:
            opened.settimeout(_left_s(until))
            return self._tls.wrap_socket(opened, server_hostname=self._address.host)
        except BaseException:
            opened.close()
            raise


def set_options(opened: socket.socket) -> None:
    """What a TCP socket to a server needs: what is written leaves at once, and a silent end is noticed."""
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _PROBES.items():
        if hasattr(socket, name):
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _places(name: Name, until: int) -> Places:
    lookup = name.lookup()
    try:
        places = lookup.result(_left_s(until))
    except TimeoutError:
        raise TimeoutError("the name is still being looked up") from None
    except (OSError, ValueError):
        name.used(lookup)
        raise
    name.used(lookup)
    return places


def _connected(family: int, place: str | Place, until: int) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            set_options(opened)
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
