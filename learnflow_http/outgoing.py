"""What every reply carries, whatever it answers and on whichever way it was made, and what is noted of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from learnflow_core import limiter
from learnflow_core.access import Actor
from learnflow_core.limiter import Decision
from learnflow_http import cors, logs
from learnflow_http.metrics import Endpoint, Metrics

LOGGER: Final = "learnflow.http"
"""Where requests are logged."""

_logger: Final = logging.getLogger(LOGGER)

Headers = list[tuple[bytes, bytes]]


def common(request_id: str, origin: str | None, origins: Sequence[str]) -> Headers:
    """Which reply it is, for whom it is, and who may read it; `origins` are those whose pages may."""
    return [(b"x-request-id", request_id.encode("ascii")), *_of_all(_known(origin, origins), tuple(origins))]


def common_lines(request_id: str, origin: str | None, origins: Sequence[str]) -> bytes:
    """The same as lines."""
    of_all = _lines_of_all(_known(origin, origins), tuple(origins))
    return b"x-request-id: %b\r\n%b" % (request_id.encode("ascii"), of_all)


def _known(origin: str | None, origins: Sequence[str]) -> str | None:
    """The origin, if it makes a difference: others are any client's to make up, and nothing is kept for them."""
    return origin if origin in origins else None


@lru_cache(maxsize=64)
def _of_all(origin: str | None, origins: tuple[str, ...]) -> Headers:
    return [
        (b"vary", b"Authorization, Origin" if origins else b"Authorization"),
        (b"x-content-type-options", b"nosniff"),
        *cors.response_headers(origin, origins),
    ]


@lru_cache(maxsize=64)
def _lines_of_all(origin: str | None, origins: tuple[str, ...]) -> bytes:
    return lines(_of_all(origin, origins))


def rate_limit(decision: Decision, now_ns: int, status: int) -> Headers:
    """The caller's rate limit; when to come back is told to those who are refused for it, and to no one else."""
    return [
        (_lower(name), value.encode("ascii"))
        for name, value in limiter.headers(decision, now_ns)
        if status == 429 or name != "Retry-After"
    ]


@lru_cache(maxsize=64)
def _lower(name: str) -> bytes:
    return name.lower().encode("ascii")


def lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as they go over the wire."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


class Asked(NamedTuple):
    """What is noted of a request: whose it was, by the address and by the credential, and what the limiter said."""

    request_id: str
    client_request_id: str | None
    method: str
    path: str
    client: str
    actor: Actor | None
    decision: Decision | None


def note(metrics: Metrics, endpoint: Endpoint, asked: Asked, *, status: int, took_ns: int) -> None:
    """Count a request that was answered, and log it."""
    endpoint.answered(asked.method, status, took_ns / 1_000_000_000)
    if asked.decision is not None:
        metrics.decided(asked.decision, refused=status == 429)
    actor = asked.actor
    logs.access(
        _logger,
        request_id=asked.request_id,
        client_request_id=asked.client_request_id,
        method=asked.method,
        path=asked.path,
        status=status,
        duration_ms=took_ns / 1_000_000,
        client=asked.client,
        account=actor and actor.account_id,
        caller=actor and (actor.user_id or actor.key_id),
    )
