"""The short way of a request: what is known and kept is told without a wait, a task or a scope.

It is the way of `learnflow_http.pipeline` for the requests that come most: a GET of a shared answer that is kept, by
somebody who was looked up a moment ago or has no credential, where the limiter answers at once. The steps are the same,
in the same order, and so is the reply. Where one of them would have to wait or to refuse, nothing has been done yet,
and the request goes the long way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from learnflow_core.access import Actor
from learnflow_core.limiter import Decision, Quota, header_lines
from learnflow_core.model import Instant
from learnflow_http import conditional
from learnflow_http.answers import Answer
from learnflow_http.exchange import address_key, client_address, printable_id
from learnflow_http.metrics import Endpoint
from learnflow_http.operations import OPERATIONS
from learnflow_http.operations.row import ANYONE
from learnflow_http.outgoing import Asked, Headers, common_lines, lines, note
from learnflow_http.pipeline import ANONYMOUS
from learnflow_http.services import Services

_BEARER = b"Bearer "


class LimiterAtOnce(Protocol):
    """A limiter whose answers need not be awaited."""

    def hit(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Decision:
        """Take `cost` tokens from each of the key's quotas, or none from any of them."""


class Shortcut:
    """Answers a GET in one call: with a status, the reply's own lines and its body, or with None.

    `limiter` is that of the `services`.
    """

    def __init__(self, services: Services, limiter: LimiterAtOnce) -> None:
        self._limiter = limiter
        self._answers = services.answers
        self._authenticator = services.authenticator
        self._metrics = services.metrics
        self._trusted = services.trusted_proxies
        self._origins = services.settings.cors_origins
        self._clock_ns: Callable[[], int] = services.clock_ns
        self._request_ids = services.request_ids
        self._endpoints = {
            row.path: Endpoint(services.metrics, row.path, (row.method,))
            for row in OPERATIONS
            if row.shared is not None and row.public and (row.scope, row.roles, row.cost) == (None, ANYONE, 1)
        }

    def __call__(self, target: bytes, fields: Headers, peer: str) -> tuple[int, bytes, bytes] | None:
        """The reply to `GET target` with these header fields, their names in lower case, from the address `peer`."""
        started = self._clock_ns()
        answer = self._answers.kept(target, started)
        if answer is None or answer.route not in self._endpoints:
            return None
        headers = dict(fields)
        if len(headers) < len(fields):  # several of one name are one list
            return None
        given, actor = headers.get(b"authorization"), None
        if given is not None:
            actor = self._actor(given, started // 1_000)
            if actor is None:
                return None
        client = client_address(peer, headers.get(b"x-forwarded-for"), self._trusted)
        key, quotas = (address_key(client), ANONYMOUS) if actor is None else (actor.account_id, actor.quotas)
        decision = self._limiter.hit(key, quotas)
        if not decision.allowed:  # nothing was taken: the long way is refused as well, and says so
            return None
        request_id = next(self._request_ids)
        status, own, body = _shown(answer, headers.get(b"if-none-match"))
        self._answers.hits.add()
        now = self._clock_ns()
        origin = headers.get(b"origin")
        common = common_lines(request_id, origin if origin is None else origin.decode("latin-1"), self._origins)
        head = b"%b%b%b" % (own, common, header_lines(decision, now))
        client_id = printable_id(headers.get(b"x-request-id"))
        asked = Asked(request_id, client_id, "GET", answer.path, client, actor, decision)
        note(self._metrics, self._endpoints[answer.route], asked, status=status, took_ns=max(0, now - started))
        return status, head, body

    def _actor(self, given: bytes, now: Instant) -> Actor | None:
        if not given.startswith(_BEARER):
            return None
        return self._authenticator.known(given[len(_BEARER) :].decode("latin-1"), now)


def _shown(answer: Answer, if_none_match: bytes | None) -> tuple[int, bytes, bytes]:
    """Status, own lines and body of the answer, or that the client has it already."""
    if if_none_match is not None and conditional.is_not_modified(if_none_match.decode("latin-1"), answer.tag):
        return 304, lines(answer.headers), b""
    return 200, answer.lines, answer.body
