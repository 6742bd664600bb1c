"""HTTP/1.1 in as many lines as a server for tests takes, so that it can also break off, fall silent and lie."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 404: "Not Found"}


@dataclass
class Request:
    """A request with its form decoded; `card[number]` stays one name."""

    method: str
    path: str
    headers: dict[str, str]
    form: dict[str, str]


@dataclass
class Response:
    """A reply; `body` is written as JSON unless it is bytes. `broken_off`: the connection is reset in its place."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)
    broken_off: bool = False


Handler = Callable[[Request], Awaitable[Response]]


class Listener:
    """A server at a free port of 127.0.0.1, for the time in which it is entered."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "connections are served by tasks"
        self._tasks.add(task)
        try:
            while (request := await _read(reader)) is not None and await self._reply(request, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            with suppress(ConnectionError):
                writer.close()

    async def _reply(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Reply; whether the connection goes on."""
        response = await self._handler(request)
        if response.broken_off:
            connection: socket.socket = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        body = response.body if isinstance(response.body, bytes) else json.dumps(response.body).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **response.headers}
        lines = [f"HTTP/1.1 {response.status} {REASONS.get(response.status, 'Other')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await writer.drain()
        return True


async def _read(reader: asyncio.StreamReader) -> Request | None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1") if not reader.at_eof() else ""
    if not head:
        return None
    start, *lines = head.strip().split("\r\n")
    method, target, _ = start.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    url = urlsplit(target)
    pairs = parse_qsl(url.query) + parse_qsl(body.decode(), keep_blank_values=True)
    return Request(method, url.path, headers, dict(pairs))
