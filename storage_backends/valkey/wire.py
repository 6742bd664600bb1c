"""One connection of an event loop, from the first word to the last."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from storage_backends.valkey.greeting import Greeting, UnwelcomeError
from storage_backends.valkey.resp import ProtocolError

if TYPE_CHECKING:
    import ssl

    from storage_backends.valkey.address import Address
    from storage_backends.valkey.node import Node


class Wire(asyncio.Protocol):
    """Carries bytes for a node, once it is open; tells the node when it is no more."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._transport: asyncio.Transport | None = None
        self._greeting: Greeting | None = None
        self._welcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._heard = b""

    async def open(self, address: Address, tls: ssl.SSLContext | None, greeting: Greeting) -> None:
        """Connect and greet. Raises OSError, UnicodeError (a host that is no name), UnwelcomeError, ProtocolError."""
        loop = asyncio.get_running_loop()
        self._greeting = greeting
        try:
            if address.port is None:
                await loop.create_unix_connection(lambda: self, address.host)
            else:
                await loop.create_connection(lambda: self, address.host, address.port, ssl=tls)
            self.write(greeting.words)
            await self._welcome
        except BaseException:
            self.close()
            raise

    def write(self, data: bytes) -> None:
        """Send."""
        cast("asyncio.Transport", self._transport).write(data)

    def close(self) -> None:
        """Let go, without a word."""
        if self._transport is not None:
            self._transport.abort()

    def descriptor(self) -> int:
        """The number of the socket's file, or -1."""
        socket = self._transport.get_extra_info("socket") if self._transport else None
        return socket.fileno() if socket else -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._welcome.done():
            self._node.received(data)
            return
        self._heard += data
        try:
            if self._greeting is not None and self._greeting.is_over(self._heard):
                self._welcome.set_result(None)
        except (ProtocolError, UnwelcomeError) as failure:
            self._welcome.set_exception(failure)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._welcome.done():
            self._welcome.set_exception(ConnectionResetError("closed before the greeting was over"))
        self._node.lost(self)
