"""The limit in front of a WSGI app: Flask, Django, or a function of one's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from learnflow_core.limiter.address import client_network
from learnflow_core.limiter.asking import FORBIDDEN, NeverFitsError, asking_at_once
from learnflow_core.limiter.fields import headers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from learnflow_core.limiter.asking import AnswersAtOnce
    from learnflow_core.limiter.quota import Quota

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]
App = Callable[[Environ, StartResponse], Iterable[bytes]]


def client(environ: Environ) -> str:
    """The address that the server says the request came from, an IPv6 address by its /64.

    Behind a proxy that is the proxy's, and so all requests are one client's, unless the server or a middleware in front
    of this one replaces it by what a trusted proxy says (Flask: `werkzeug.middleware.proxy_fix.ProxyFix`). Where the
    server knows no address, as behind a Unix socket, all requests are one client's too.
    """
    return client_network(environ.get("REMOTE_ADDR", ""))


def too_many_requests(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The plain answer 429 (RFC 6585, section 4)."""
    return _answer(environ, start_response, "429 Too Many Requests", b"Too many requests\n")


def _answer(environ: Environ, start_response: StartResponse, status: str, text: bytes) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))])
    return [] if environ.get("REQUEST_METHOD") == "HEAD" else [text]


class RateLimitMiddleware:
    """A WSGI app that hands on the requests which the limiter lets pass, and tells every reply how it stands.

    As `learnflow_core.limiter.asgi.RateLimitMiddleware`, with functions of the request's environ in place of its scope:
    `refused` is a WSGI app, and the decision is `environ["learnflow.decision"]`. The limiter must answer at once:
    TypeError for one whose answers have to be awaited, here or, where that cannot be seen yet, at the first request.
    """

    def __init__(
        self,
        app: App,
        *,
        limiter: AnswersAtOnce,
        quotas: Sequence[Quota] | Callable[[Environ], Sequence[Quota]],
        key: str | Callable[[Environ], str] = client,
        cost: int | Mapping[str, int] | Callable[[Environ], int] = 1,
        refused: App = too_many_requests,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._app = app
        self._ask = asking_at_once(limiter, quotas, key, cost, _path)
        self._refused = refused
        self._clock = clock

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            decision = environ["learnflow.decision"] = self._ask(environ)
        except NeverFitsError:
            return _answer(environ, start_response, "403 Forbidden", FORBIDDEN)
        told = headers(decision, self._clock())

        def start_told(status: str, fields: list[tuple[str, str]], *exc_info: object) -> Callable[[bytes], object]:
            names = {name.lower() for name, _ in fields}
            new = [field for field in told if field[0].lower() not in names]
            return start_response(status, [*fields, *new], *exc_info)

        return (self._app if decision else self._refused)(environ, start_told)


def _path(environ: Environ) -> str:
    """The path below where the app is mounted; its bytes come as Latin-1 (PEP 3333), and should be UTF-8."""
    path: str = environ.get("PATH_INFO", "")
    return path.encode("latin-1", "replace").decode("utf-8", "replace")
