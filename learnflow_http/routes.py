"""From addresses to operations: one route for each path, and the operational pages outside `/v1`."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby

import msgspec
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from learnflow_core.audit import PAYMENT_SERVICE
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.ports import Context, PaymentNewsReader
from learnflow_core.usecases.payment_news import hear
from learnflow_http import cors, docs_page, error_reference, openapi
from learnflow_http.exchange import Exchange, Reply, is_api
from learnflow_http.metrics import Endpoint
from learnflow_http.operations import OPERATIONS, Operation
from learnflow_http.pipeline import Work, answer, respond, unrouted
from learnflow_http.services import Services
from learnflow_http.setting_values import secret_bytes

logger = logging.getLogger("learnflow.payments")

JSON = b"application/json"
HTML = b"text/html; charset=utf-8"
METRICS = "/metrics"
STRIPE_EVENTS = "/webhooks/stripe"
UNKNOWN = "unknown"
"""The route, in the metrics, of every address where there is nothing."""
FOR_EVER = b"public, max-age=31536000, immutable"


class Resource:
    """All operations of one path, as an ASGI app: HEAD is GET, OPTIONS tells the methods, any other is 405."""

    def __init__(self, services: Services, path: str, operations: Sequence[Operation]) -> None:
        self._services = services
        self._works: dict[str, Work] = {row.method: self._work(row) for row in operations}
        self._allow = allowed_methods(self._works)
        self._works["OPTIONS"] = self._options
        if "GET" in self._works:
            self._works["HEAD"] = self._works["GET"]
        self._endpoint = Endpoint(services.metrics, path, self._works)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = self._works.get(scope["method"], self._not_allowed)
        await answer(self._services, scope, receive, send, work, endpoint=self._endpoint)

    def _work(self, operation: Operation) -> Work:
        async def work(exchange: Exchange) -> Reply:
            return await respond(self._services, operation, exchange)

        return work

    async def _options(self, _exchange: Exchange) -> Reply:
        return Reply(200, b"", [(b"allow", self._allow), *cors.preflight_headers(self._allow)])

    async def _not_allowed(self, exchange: Exchange) -> Reply:
        reply = await unrouted(self._services, exchange, LearnFlowError(Code.METHOD_NOT_ALLOWED))
        reply.headers.append((b"allow", self._allow))
        return reply


class Page:
    """One address outside the API, as an ASGI app: free, and without a rate limit. It is read (GET, HEAD), or posted
    to."""

    def __init__(self, services: Services, path: str, work: Work, method: str = "GET") -> None:
        self._services = services
        self._works: dict[str, Work] = {method: work}
        self._allow = allowed_methods(self._works)
        self._works["OPTIONS"] = self._options
        if method == "GET":
            self._works["HEAD"] = work
        self._endpoint = Endpoint(services.metrics, path, self._works)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = self._works.get(scope["method"], self._not_allowed)
        await answer(self._services, scope, receive, send, work, endpoint=self._endpoint, limited=False)

    async def _options(self, _exchange: Exchange) -> Reply:
        return Reply(200, b"", [(b"allow", self._allow)])

    async def _not_allowed(self, exchange: Exchange) -> Reply:
        reply = await unrouted(self._services, exchange, LearnFlowError(Code.METHOD_NOT_ALLOWED))
        reply.headers.append((b"allow", self._allow))
        return reply


class NotFound:
    """What answers where there is nothing."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._endpoint = Endpoint(
            services.metrics, UNKNOWN, ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limited = is_api(scope["path"])
        await answer(self._services, scope, receive, send, self._not_found, endpoint=self._endpoint, limited=limited)

    async def _not_found(self, exchange: Exchange) -> Reply:
        return await unrouted(self._services, exchange, LearnFlowError(Code.NOT_FOUND))


class FixedPaths(BaseRoute):
    """The routes whose paths have no parameter, found by the path at once: to try them one by one took 5 µs."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._apps = {route.path: route.app for route in routes if "{" not in route.path}

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        app = self._apps.get(scope["path"]) if scope["type"] == "http" else None
        return (Match.NONE, {}) if app is None else (Match.FULL, {"endpoint": app, "path_params": {}})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await scope["endpoint"](scope, receive, send)


def allowed_methods(methods: Iterator[str] | dict[str, Work]) -> bytes:
    """The `Allow` field for these methods."""
    names = set(methods) | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    return ", ".join(sorted(names)).encode("ascii")


def routes(services: Services) -> list[BaseRoute]:
    """Every route: fixed paths before those with a parameter, which would match them too."""
    by_path = sorted(OPERATIONS, key=lambda row: (row.path.count("{"), row.path))
    every = [
        Route(path, Resource(services, path, tuple(rows))) for path, rows in groupby(by_path, key=lambda row: row.path)
    ]
    every += _pages(services)
    return [FixedPaths(every), *every]


def _pages(services: Services) -> Iterator[Route]:
    policy = (b"content-security-policy", docs_page.CONTENT_SECURITY_POLICY.encode("ascii"))

    async def ready(_exchange: Exchange) -> Reply:
        await services.storage.read(lambda tx: tx.accounts.get(""))
        return _fixed(b'{"status":"ready"}', JSON)

    for path, work in (
        ("/", _always(Reply(307, b"", [(b"location", b"/docs")]))),
        ("/healthz", _always(_fixed(b'{"status":"ok"}', JSON))),
        ("/readyz", ready),
        ("/openapi.json", _always(_fixed(_document(services.settings.public_url), JSON))),
        ("/docs", _always(_fixed(docs_page.page("/openapi.json"), HTML, policy))),
        (error_reference.PATH, _always(_fixed(error_reference.page(), HTML, policy))),
        ("/docs/{name}", _asset),
    ):
        yield Route(path, Page(services, path, work))
    events = services.stripe_events
    if events is not None:
        yield Route(STRIPE_EVENTS, Page(services, STRIPE_EVENTS, _stripe_events(services, events), "POST"))
    token = services.settings.metrics_token
    if token is not None:
        yield Route(METRICS, Page(services, METRICS, _metrics(services, token)))


@cache
def _document(public_url: str | None) -> bytes:
    """The description of the API, the same for every application of a process."""
    return msgspec.json.encode(openapi.document(public_url))


def _metrics(services: Services, token: str) -> Work:
    """The figures of the server, for who has the token."""
    from learnflow_http import metrics_page  # noqa: PLC0415 - takes 40 ms, for those who set the token

    expected = secret_bytes(token)

    async def work(exchange: Exchange) -> Reply:
        given = exchange.credential()
        if given is None:
            raise LearnFlowError(Code.MISSING_TOKEN)
        if not hmac.compare_digest(given.encode("latin-1"), expected):
            raise LearnFlowError(Code.INVALID_TOKEN)
        services.metrics.refresh()
        body = await asyncio.to_thread(metrics_page.page, services.metrics)  # up to 50 ms, in which others are answered
        return _fixed(body, metrics_page.CONTENT_TYPE, (b"cache-control", b"no-store"))

    return work


def _stripe_events(services: Services, events: PaymentNewsReader) -> Work:
    """What Stripe posts to us. It is answered when it has been acted on: until then, Stripe comes again."""

    async def work(exchange: Exchange) -> Reply:
        body = await exchange.body(services.bodies)
        news = await events.read(body, exchange.header(b"stripe-signature") or "")
        if news is not None:
            ctx = Context(exchange.now, services.random_bytes, PAYMENT_SERVICE, exchange.request_id, services.now)
            heard = await hear(services.storage, services.gateways, news, ctx)
            if heard == "for_the_operator":
                logger.error("a payment needs to be looked at", extra={"payment": news.payment_id, "news": news.kind})
        return _fixed(b"{}", JSON)

    return work


def _always(reply: Reply) -> Work:
    """The same reply to everyone, copied because what goes out is added to."""

    async def work(_exchange: Exchange) -> Reply:
        return Reply(reply.status, reply.body, list(reply.headers))

    return work


async def _asset(exchange: Exchange) -> Reply:
    """A file of the reference; its address changes with its bytes, so that it may be kept for ever."""
    found = docs_page.assets().get(exchange.scope["path_params"]["name"])
    if found is None:
        raise LearnFlowError(Code.NOT_FOUND)
    reply = _fixed(found.body, found.content_type.encode("ascii"), (b"cache-control", FOR_EVER))
    if found.content_encoding:
        reply.headers.append((b"content-encoding", found.content_encoding.encode("ascii")))
    return reply


def _fixed(body: bytes, content_type: bytes, *headers: tuple[bytes, bytes]) -> Reply:
    return Reply(200, body, [(b"content-type", content_type), *headers])
