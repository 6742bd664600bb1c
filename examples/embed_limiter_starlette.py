"""Rate limits for Starlette, in front of replies that are streamed: `python examples/embed_limiter_starlette.py`.

`uvicorn embed_limiter_starlette:app --app-dir examples` serves it.
"""

from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Scope

from learnflow_core.limiter import MemoryLimiter, Quota
from learnflow_core.limiter.asgi import RateLimitMiddleware

limiter = MemoryLimiter()
CACHED: dict[str, str] = {}


async def stream(_request: Request) -> Response:
    async def lines() -> AsyncIterator[str]:
        for number in range(3):
            yield f"line {number}\n"

    return StreamingResponse(lines(), media_type="text/plain")


async def translate(request: Request) -> Response:
    """What is known already costs nothing: the request gives back what it took."""
    word = request.path_params["word"]
    if word in CACHED:
        await limiter.refund(request.scope["learnflow.decision"])
    return PlainTextResponse(CACHED.setdefault(word, word[::-1]))


def cost(scope: Scope) -> int:
    """Five for a word to translate, whatever else one sends; a table of paths would do, `{"/translate": 5}`."""
    return 5 if scope["path"].startswith("/translate/") else 1


app = Starlette(
    routes=[Route("/stream", stream), Route("/translate/{word}", translate)],
    middleware=[
        # In front of the limit, so that a refusal is readable by pages too, and their preflights cost nothing.
        Middleware(
            CORSMiddleware, allow_origins=["*"], expose_headers=["RateLimit", "RateLimit-Policy", "Retry-After"]
        ),
        Middleware(RateLimitMiddleware, limiter=limiter, quotas=(Quota.per_minute(20, burst=12),), cost=cost),
    ],
)

if __name__ == "__main__":
    browser = TestClient(app)
    with browser.stream("GET", "/stream") as reply:
        print(reply.status_code, reply.headers["RateLimit-Policy"], reply.headers["RateLimit"])
        print("".join(reply.iter_text()), end="")
    for word in ("knots", "knots", "splices", "sails"):
        reply = browser.get(f"/translate/{word}", headers={"Origin": "https://school.example"})
        print(reply.status_code, reply.text.strip() + ",", reply.headers["RateLimit"], reply.headers.get("Retry-After"))
