"""Rate limits for any ASGI app, with every header: `python examples/embed_limiter_asgi.py` asks it four times.

`uvicorn embed_limiter_asgi:app --app-dir examples` serves it; the limit itself needs the standard library only.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from learnflow_core.limiter import MemoryLimiter, Quota, headers


def limited(inner: Any, quotas: Sequence[Quota]) -> Any:
    """`inner`, for as many requests of each client address as `quotas` let through; every reply tells how it stands."""
    limiter = MemoryLimiter()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await inner(scope, receive, send)
            return
        decision = limiter.hit(scope["client"][0], quotas)
        told = [(name.lower().encode(), value.encode()) for name, value in headers(decision, time.time_ns())]

        async def send_told(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *told]}
            await send(message)

        await (inner if decision else too_many)(scope, receive, send_told)

    return app


async def too_many(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 429, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"Too many requests\n"})


async def hello(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"Hello\n"})


app = limited(hello, (Quota.per_minute(3), Quota.per_day(1_000)))


async def show(message: dict[str, Any]) -> None:
    """Print what a client would get."""
    if message["type"] == "http.response.start":
        print(message["status"])
        for name, value in message["headers"]:
            print(f"  {name.decode()}: {value.decode()}")


if __name__ == "__main__":
    for _ in range(4):
        asyncio.run(app({"type": "http", "client": ("192.0.2.1", 50_000)}, None, show))
