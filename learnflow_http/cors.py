"""Calls from browsers on other origins (the Fetch standard's CORS protocol).

Credentials travel in the Authorization header and never in cookies, so `Access-Control-Allow-Credentials` is never
sent. Starlette's middleware answers a refused preflight in plain text and outside the envelope; hence these few lines.
"""

from __future__ import annotations

from collections.abc import Sequence

ALLOWED_HEADERS = b"Authorization, Content-Type, Idempotency-Key, If-None-Match, X-Request-Id"
EXPOSED_HEADERS = (
    b"ETag, Idempotent-Replayed, Link, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, X-RateLimit-Limit, "
    b"X-RateLimit-Remaining, X-RateLimit-Reset, X-Request-Id"
)
PREFLIGHT_LIFETIME_S = 600


def response_headers(origin: str | None, allowed: Sequence[str]) -> list[tuple[bytes, bytes]]:
    """What lets a page of `origin` read the reply, where it may; replies differ by origin as soon as any is allowed."""
    if not allowed:
        return []
    if "*" in allowed:
        return [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", EXPOSED_HEADERS)]
    if origin is None or origin not in allowed:
        return []
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", EXPOSED_HEADERS),
    ]


def preflight_headers(methods: bytes) -> list[tuple[bytes, bytes]]:
    """What a preflight is told beside `response_headers`: the methods of the address, and the headers it takes."""
    return [
        (b"access-control-allow-methods", methods),
        (b"access-control-allow-headers", ALLOWED_HEADERS),
        (b"access-control-max-age", b"%d" % PREFLIGHT_LIFETIME_S),
    ]
