"""Requests that the library of a client would not send, or not so easily."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, cast

import httpx2 as httpx
from starlette.types import ASGIApp, Message

from tests.world import World


async def post(world: World, path: str, content: bytes | AsyncIterator[bytes], **headers: str) -> httpx.Response:
    """One body as it is, sent by a key that may do everything."""
    key = await world.key(await world.account())
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await world.client.post(path, content=content, headers={"Authorization": f"Bearer {key}", **named})


async def raw(
    world: World,
    method: str,
    path: str,
    query: bytes = b"",
    headers: Sequence[tuple[bytes, bytes]] = (),
    messages: Iterable[Message] = ({"type": "http.request", "body": b"", "more_body": False},),
) -> tuple[int, bytes]:
    """Ask as a server would, whatever a client's library would not send; status 0 when nothing was answered."""
    app = cast("ASGIApp", cast("Any", world.client)._transport.app)
    sent: list[Message] = []
    incoming = iter(messages)

    async def receive() -> Message:
        return next(incoming)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode("ascii", "replace"),
        "query_string": query,
        "headers": list(headers),
        "client": ("192.0.2.1", 1),
        "root_path": "",
    }
    await app(scope, receive, send)
    status = next((message["status"] for message in sent if message["type"] == "http.response.start"), 0)
    return status, b"".join(message.get("body", b"") for message in sent)
