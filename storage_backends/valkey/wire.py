"""One connection of an event loop, from the first word to the last."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, cast

from storage_backends.valkey.greeting import Greeting, UnwelcomeError
from storage_backends.valkey.opening import set_options
from storage_backends.valkey.resp import ProtocolError

if TYPE_CHECKING:
    import ssl

    from storage_backends.valkey.address import Address
    from storage_backends.valkey.names import Name
    from storage_backends.valkey.node import Node


class Wire(asyncio.Protocol):
    """Carries bytes for a node, once it is open; tells the node when it is no more."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._transport: asyncio.Transport | None = None
        self._greeting: Greeting | None = None
        self._welcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._heard = b""

    async def open(self, address: Address, name: Name | None, tls: ssl.SSLContext | None, greeting: Greeting) -> None:
        """Connect and greet. Raises OSError, ValueError (a host that is no name), UnwelcomeError, ProtocolError.

        `name` is that of the address, whose lookup other attempts share; None for the path of a Unix socket.
        """
        loop = asyncio.get_running_loop()
        self._greeting = greeting
        try:
            if name is None:
                await loop.create_unix_connection(lambda: self, address.host)
            else:
                opened = await _opened(loop, name)
                host = address.host if tls else None
                await loop.create_connection(lambda: self, sock=opened, ssl=tls, server_hostname=host)
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
        opened = self._transport.get_extra_info("socket") if self._transport else None
        return opened.fileno() if opened else -1

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


async def _opened(loop: asyncio.AbstractEventLoop, name: Name) -> socket.socket:
    """A socket that is connected to one of the addresses of the name."""
    lookup = name.lookup()
    try:
        places = await asyncio.wrap_future(lookup)
    finally:
        if lookup.done():
            name.used(lookup)
    failure: OSError = ConnectionError("the name has no address")
    for family, _, _, _, place in places:
        opened = socket.socket(family, socket.SOCK_STREAM)
        try:
            opened.setblocking(False)
            set_options(opened)
            await loop.sock_connect(opened, place)
        except OSError as one:
            opened.close()
            failure = one
        except BaseException:
            opened.close()
            raise
        else:
            return opened
    raise failure
