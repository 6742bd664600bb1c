"""Serving an ASGI app so that hostile and broken clients get the contract's answers.

Here is what all connections of a server share: its limits, its doors, and the replies that it gives in the app's stead.
`head` has the rules for the head of a request, `cycle` one request and its reply, `protocol` one connection, `server`
listens, sweeps and stops.
"""

from __future__ import annotations

import ipaddress
import logging
import os
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from learnflow_core.errors import Code, LearnFlowError, envelope
from learnflow_core.ids import new_id
from learnflow_http.errors import RETRY_AFTER_S, STATUS
from learnflow_http.exchange import Network, client_address

Headers = list[tuple[bytes, bytes]]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a client may take, in seconds, and how many connections there may be.

    `head_s`: from a request's first byte, or from connecting, to the end of its head. `body_s`: from there to the end
    of its body, not counting time in which the application does not read it. `idle_s`: between requests, longer than
    the 60 seconds after which common proxies let go of a connection. `reply_s`: without taking any of a reply that
    waits for it. `stop_s`: for requests in flight when the server is told to stop.

    `connections` counts all of them, `connections_per_client` those of one address (IPv6: one /64).
    """

    head_s: float = 10
    body_s: float = 30
    idle_s: float = 75
    reply_s: float = 30
    stop_s: float = 15
    connections: int = 4_000
    connections_per_client: int = 1_000


class Reply(NamedTuple):
    """An error reply, ready to be sent through the application's door or straight into the connection."""

    status: int
    headers: Headers
    body: bytes

    def encode(self, default_headers: Headers) -> bytes:
        """The reply as it goes over the wire."""
        lines = [b"%s: %s\r\n" % header for header in default_headers + self.headers]
        return b"".join([STATUS_LINE[self.status], *lines, b"\r\n", self.body])


AtOnce = Callable[[bytes, Headers, str], tuple[int, bytes, bytes] | None]
"""Answers `GET target` with these fields (names in lower case) of this address without waiting, where it can: with a
status, the header lines beside those that the server adds (with `content-length`, unless it is 304), and the body."""


def never(_target: bytes, _fields: Headers, _client_ip: str) -> None:
    """No request is answered at once."""


def no_headers(_client_ip: str) -> Headers:
    """The rate-limit headers of a server without a rate limit."""
    return []


def new_request_id() -> str:
    """A request id of its own for each reply."""
    return new_id("req", os.urandom)


class Edge:
    """The state that the connections of one server share.

    `proxies` are the addresses whose connections count for many clients: only the total limits them. `headers_for`
    gives the rate-limit headers for a client's address; if it fails, replies go without them. `at_once` is asked before
    the application is; what it does not answer goes to that. `date_line` is a reply's first. `stopping` says that
    requests are not begun any more; `turned_away` counts the connections that are open and were not let in.
    """

    def __init__(
        self,
        limits: Limits = Limits(),
        *,
        proxies: Collection[Network] = (),
        headers_for: Callable[[str], Headers] = no_headers,
        at_once: AtOnce = never,
        new_request_id: Callable[[], str] = new_request_id,
    ) -> None:
        self.limits = limits
        self.at_once = at_once
        self.date_line = b""
        self.stopping = False
        self.turned_away = 0
        self._proxies = tuple(proxies)
        self._headers_for = headers_for
        self._new_request_id = new_request_id
        self._total = 0
        self._clients: Counter[str] = Counter()

    def enter(self, client_ip: str) -> bool:
        """Count a connection in, unless it is one too many; who was let in must `leave`."""
        client = self._client(client_ip)
        if self._total >= self.limits.connections:
            return False
        if self._clients[client] >= self.limits.connections_per_client:
            return False
        self._total += 1
        if client:
            self._clients[client] += 1
        return True

    def leave(self, client_ip: str) -> None:
        """Count a connection out."""
        self._total -= 1
        client = self._client(client_ip)
        if not client:
            return
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]

    def reply(self, code: Code, client_ip: str, message: str | None = None) -> Reply:
        """The reply to a request that the application does not answer; the connection closes behind it."""
        request_id = self._new_request_id()
        body = msgspec.json.encode(envelope(LearnFlowError(code, message), request_id))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"x-request-id", request_id.encode("ascii")),
            (b"connection", b"close"),
        ]
        if code is Code.SERVICE_UNAVAILABLE:
            headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))
        log.info("%s answered with %s: %s (%s)", client_ip, code.value, message or "no reason given", request_id)
        return Reply(STATUS[code], [*headers, *self._rate_limit(client_ip)], body)

    def _rate_limit(self, client_ip: str) -> Headers:
        try:
            return self._headers_for(client_ip)
        except Exception:
            log.exception("no rate-limit headers for %s", client_ip)
            return []

    def _client(self, client_ip: str) -> str:
        """What one client's connections are counted under; empty if they count for no one client."""
        if not client_ip:
            return ""
        address = ipaddress.ip_address(client_ip)
        if any(address in network for network in self._proxies):
            return ""
        return client_address(client_ip, None, ())
