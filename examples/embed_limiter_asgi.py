"""Rate limits for any ASGI app, with every header: `python examples/embed_limiter_asgi.py` asks it four times.

`uvicorn embed_limiter_asgi:app --app-dir examples` serves it; the limit itself needs the standard library only.
"""

import asyncio
from typing import Any

from learnflow_core.limiter import MemoryLimiter, Quota
from learnflow_core.limiter.asgi import RateLimitMiddleware


async def hello(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"Hello\n"})


app = RateLimitMiddleware(hello, limiter=MemoryLimiter(), quotas=(Quota.per_minute(3), Quota.per_day(1_000)))


async def show(message: Any) -> None:
    """Print what a client would get."""
    if message["type"] == "http.response.start":
        print(message["status"])
        for name, value in message["headers"]:
            print(f"  {name.decode()}: {value.decode()}")


async def nothing() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


if __name__ == "__main__":
    for _ in range(4):
        asyncio.run(app({"type": "http", "path": "/", "client": ("192.0.2.1", 50_000)}, nothing, show))
