"""The floor: a raw ASGI callable on bare uvicorn that always answers the same bytes.

`python -m benchmarks.floor FILE --port N` serves the replies of a JSON file, `{method: {status, headers, body}}`. What
the API takes beyond this is the API and its guard against bad clients; the rest is HTTP in Python.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import uvicorn


class FixedReply(msgspec.Struct, frozen=True):
    """What one method is answered with; `body` and the headers are what a client saw of the API."""

    status: int
    headers: list[tuple[str, str]]
    body: str


class Floor:
    """Reads each request to its end, as the API does, and answers it."""

    def __init__(self, replies: dict[str, FixedReply]) -> None:
        self._messages = {method: _messages(reply) for method, reply in replies.items()}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for event in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{event}.complete"})
            return
        if scope["method"] == "POST":
            while (await receive()).get("more_body", False):
                pass
        start, body = self._messages[scope["method"]]
        await send(start)
        await send(body)


def _messages(reply: FixedReply) -> tuple[dict[str, Any], dict[str, Any]]:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
    start = {"type": "http.response.start", "status": reply.status, "headers": headers}
    return start, {"type": "http.response.body", "body": reply.body.encode()}


if __name__ == "__main__":
    _, file, _, port = sys.argv
    replies = msgspec.json.decode(Path(file).read_bytes(), type=dict[str, FixedReply])
    # uvicorn at its quickest; like the servers beside it, it writes no line for a request.
    uvicorn.run(Floor(replies), port=int(port), access_log=False, proxy_headers=False, server_header=False)
