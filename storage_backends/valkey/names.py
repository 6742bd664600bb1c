"""The name of a server, looked up by a thread of its own: the system's resolver waits for as long as it likes."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    Place: TypeAlias = tuple[str | int | bytes, ...]
    Places: TypeAlias = Sequence[tuple[socket.AddressFamily, socket.SocketKind, int, str, Place]]
    Lookup: TypeAlias = Future[Places]


class Name:
    """A host and a port, with one lookup at a time, for whoever waits for it and whoever comes when it has ended.

    The thread is a daemon, and of no pool: a resolver that hangs holds up neither other work nor the program's end.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._lookup: Lookup | None = None

    def lookup(self) -> Lookup:
        """The lookup that is under way, or has ended and was used by nobody, or else a new one.

        It comes to the addresses, or to OSError or ValueError (a host that is no name). Whoever has waited for it to
        its end says so by `used`, since the name may soon stand for another server.
        """
        lookup = self._lookup
        if lookup is None:
            lookup = self._lookup = Future()
            lookup.set_running_or_notify_cancel()  # from now on nobody who stops waiting cancels it for the others
            if _is_address(self._host):
                _look_up(lookup, self._host, self._port)
            else:
                self._begin(lookup)
        return lookup

    def used(self, lookup: Lookup) -> None:
        """The next one who asks wants a new lookup."""
        if self._lookup is lookup:
            self._lookup = None

    def _begin(self, lookup: Lookup) -> None:
        thread = threading.Thread(target=_look_up, args=(lookup, self._host, self._port), daemon=True)
        try:
            thread.start()
        except RuntimeError:  # there are too many, or the interpreter is about to end
            lookup.set_exception(OSError("no thread to look the name up with"))


def _look_up(lookup: Lookup, host: str, port: int) -> None:
    try:
        lookup.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (OSError, ValueError) as failure:
        lookup.set_exception(failure)


def _is_address(host: str) -> bool:
    """Whether nobody needs to be asked what the host is."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError, ValueError):
            socket.inet_pton(family, host)
            return True
    return False
