"""The limit in front of an ASGI app: FastAPI, Starlette, Django, Quart, or a function of one's own."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from learnflow_core.limiter.address import client_network
from learnflow_core.limiter.asking import FORBIDDEN, NeverFitsError, asking
from learnflow_core.limiter.fields import headers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from learnflow_core.limiter.asking import Answers
    from learnflow_core.limiter.quota import Quota

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def client(scope: Scope) -> str:
    """The address that the server says the request came from, an IPv6 address by its /64.

    Behind a proxy that is the proxy's, and so all requests are one client's, unless the server is told to believe
    what the proxy says (`uvicorn --forwarded-allow-ips`). Where the server knows no address, as behind a Unix socket,
    all requests are one client's too.
    """
    return client_network(scope["client"][0] if scope.get("client") else "")


async def too_many_requests(scope: Scope, _receive: Receive, send: Send) -> None:
    """The plain answer 429 (RFC 6585, section 4)."""
    await _answer(scope, send, 429, b"Too many requests\n")


async def _answer(scope: Scope, send: Send, status: int, text: bytes) -> None:
    fields = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": b"" if scope.get("method") == "HEAD" else text})


class RateLimitMiddleware:
    """An ASGI app that hands on the HTTP requests which the limiter lets pass, and tells every reply how it stands.

    A request takes `cost` tokens from each of the `quotas` of `key`. All three hold for every request, or are
    functions of its scope: a key and a plan for each caller. `cost` can also be a table of paths below the app's root:
    `{"/export": 10, "/healthz": 0}`; a path stands for what lies below it, and what is not there costs 1. A request
    that costs 0 passes unasked. Raises TypeError or ValueError for what no request could be decided by: no limiter, no
    quotas, a cost that no request could pay.

    Replies that pass here get the fields of `headers`, but for those that they have already: of several limits, one
    around the other, the innermost is told. Their bodies pass as they are. A refused request is answered by `refused`,
    an ASGI app, and the app behind is not called. Both find the decision as `scope["learnflow.decision"]`. A request
    that costs more than its caller's plan ever holds is forbidden (403), because waiting cannot help: nobody is called,
    and nothing is taken. `clock` is the wall clock in nanoseconds, for `X-RateLimit-Reset`.

    Only HTTP is limited. A WebSocket is accepted or closed before any header can be told, and lives on; its messages
    are what to limit, in the app.
    """

    def __init__(
        self,
        app: App,
        *,
        limiter: Answers,
        quotas: Sequence[Quota] | Callable[[Scope], Sequence[Quota]],
        key: str | Callable[[Scope], str] = client,
        cost: int | Mapping[str, int] | Callable[[Scope], int] = 1,
        refused: App = too_many_requests,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._app = app
        self._ask = asking(limiter, quotas, key, cost, _path)
        self._refused = refused
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            decision = await self._ask(scope)
        except NeverFitsError:
            await _answer(scope, send, 403, FORBIDDEN)
            return
        # In the scope itself, not in a copy: outer layers read there what inner ones leave, such as the route.
        scope["learnflow.decision"] = decision
        told = [(name.lower().encode(), value.encode()) for name, value in headers(decision, self._clock())]

        async def send_told(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = list(message.get("headers", ()))
                names = {name.lower() for name, _ in own}
                message = {**message, "headers": [*own, *(field for field in told if field[0] not in names)]}
            await send(message)

        await (self._app if decision else self._refused)(scope, receive, send_told if told else send)


def _path(scope: Scope) -> str:
    """The path below where the app is mounted, as its own routes have it."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if path.startswith(f"{root}/") else path
