"""Rate limits for an aiohttp server: `python examples/embed_limiter_aiohttp.py` asks it a few times.

`python -m aiohttp.web -H 127.0.0.1 -P 8080 embed_limiter_aiohttp:make_app` serves it, within examples/.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from learnflow_core.limiter import Decision, MemoryLimiter, Quota, headers
from learnflow_core.limiter.address import client_network

PLAN = (Quota.per_minute(12), Quota.per_day(1_000))
COSTS = {"export": 10}  # by the name of the route
DECISION = web.RequestKey("decision", Decision)
limiter = MemoryLimiter()


@web.middleware
async def rate_limit(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """`await` serves a limiter in memory, which answers at once, and one behind a network."""
    cost = COSTS.get(request.match_info.route.name or "", 1)
    decision = request[DECISION] = await limiter.hit(client_network(request.remote or ""), PLAN, cost)
    return await handler(request) if decision else web.Response(text="Too many requests\n", status=429)


async def tell(request: web.Request, reply: web.StreamResponse) -> None:
    """Every reply says how it stands, streams and errors too: this is called just before the headers are sent."""
    reply.headers.update(headers(request[DECISION], time.time_ns()))


async def export(_request: web.Request) -> web.Response:
    return web.json_response({"rows": 10})


def make_app(_arguments: object = None) -> web.Application:
    app = web.Application(middlewares=[rate_limit])
    app.on_response_prepare.append(tell)
    app.add_routes([web.get("/export", export, name="export")])
    return app


async def main() -> None:
    async with TestClient(TestServer(make_app())) as browser:
        for target in ("/export", "/nowhere", "/export"):
            async with browser.get(target) as reply:
                print(target, reply.status, reply.headers["RateLimit"], reply.headers.get("Retry-After"))


if __name__ == "__main__":
    asyncio.run(main())
