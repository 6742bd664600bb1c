"""One request and its reply, between the application and its connection."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from learnflow_core.errors import Code
from learnflow_http.edge import Headers

if TYPE_CHECKING:
    from learnflow_http.edge.protocol import EdgeProtocol

log = logging.getLogger(__name__)

_PRINTABLE: Final = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_WITHOUT_BODY: Final = frozenset({204, 304})


class Cycle(RequestResponseCycle):
    """uvicorn's cycle, with replies that leave in one packet and failures that are answered in the contract's shape.

    The head waits for the first of the body, as ASGI asks: sent apart it costs a system call more, and the reply to a
    small request is little else.
    """

    def __init__(self, protocol: EdgeProtocol, scope: Any, *, keep_alive: bool, waits_for_continue: bool) -> None:
        super().__init__(
            scope=scope,
            transport=protocol.transport,
            flow=protocol.flow,
            logger=log,
            access_logger=log,
            access_log=False,
            default_headers=protocol.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=waits_for_continue,
            keep_alive=keep_alive,
            on_response=protocol.on_response_complete,
        )
        self.task: asyncio.Task[None] | None = None
        self._listening = False
        self._protocol = protocol
        self._head: bytes | None = None
        self._left: int | None = None  # how much of the body is still to come, where that was told
        self._chunked = False
        self._no_body = False

    async def run_asgi(self, app: Any) -> None:
        """Run the application; whatever it does, the client gets a complete reply or sees the connection close."""
        try:
            await app(self.scope, self.receive, self.send)
            if not self.response_complete and not self.disconnected:
                log.error("the application returned without a complete reply")
                await self._fail(Code.INTERNAL_ERROR)
        except asyncio.CancelledError:  # the server stops, and has waited long enough; or the client has gone
            if not self.disconnected:
                await self._fail(Code.SERVICE_UNAVAILABLE)
        except Exception:
            log.exception("the application failed outside its own handlers")
            await self._fail(Code.INTERNAL_ERROR)

    def abandon(self) -> None:
        """Let the application stop, because its client has gone: who waits for more of the request is told, and who
        does not is cancelled, if the request was to change nothing (RFC 9110, section 9.2.1)."""
        if self.task is not None and self.scope["method"] in _SAFE and not self._listening:
            self.task.cancel()

    async def receive(self) -> Any:
        """The next part of the request, or that the client has gone, as ASGI defines it."""
        self._listening = True
        try:
            return await super().receive()
        finally:
            self._listening = False

    async def _fail(self, code: Code) -> None:
        if self.response_complete:
            return
        if self.response_started and self._head is None:
            self.transport.close()
            return
        self.response_started = False
        reply = self._protocol.edge.reply(code, self._protocol.client_ip)
        await self.send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
        await self.send({"type": "http.response.body", "body": reply.body})

    async def send(self, message: Any) -> None:
        """Take the next part of the reply, as ASGI defines it. Raises RuntimeError for one that cannot follow."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            self._start(message)
        elif self.response_complete or message["type"] != "http.response.body":
            raise RuntimeError(f"{message['type']} cannot follow here in a reply")
        else:
            self._continue(message.get("body", b""), message.get("more_body", False))

    def _start(self, message: Any) -> None:
        if message["type"] != "http.response.start":
            raise RuntimeError(f"{message['type']} cannot start a reply")
        status, headers = message["status"], [*self.default_headers, *message.get("headers", ())]
        fields = dict(headers)
        self._no_body = status in _WITHOUT_BODY or self.scope["method"] == "HEAD"
        self._left = int(fields[b"content-length"]) if b"content-length" in fields else None
        self._chunked = self._left is None and not self._no_body and self.scope["http_version"] == "1.1"
        if self._chunked:
            headers.append((b"transfer-encoding", b"chunked"))
        if fields.get(b"connection", b"").lower() == b"close":
            self.keep_alive = False
        elif not self.keep_alive:
            headers.append((b"connection", b"close"))
        self._head = b"%b%b\r\n\r\n" % (STATUS_LINE[status], _encode(headers))
        self.response_started = True
        self.waiting_for_100_continue = False

    def _continue(self, body: bytes, more: bool) -> None:
        data = self._frame(body, more)
        if self._head is None:
            self.transport.write(data)
        else:
            self.transport.writelines((self._head, data))
            self._head = None
        if not more:
            self.response_complete = True
            self.message_event.set()
            self._protocol.on_response_complete()

    def _frame(self, body: bytes, more: bool) -> bytes:
        if self._no_body:
            return b""
        if self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return chunk if more else chunk + b"0\r\n\r\n"
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the body of the reply is not as long as its Content-Length")
        return body


def _encode(headers: Headers) -> bytes:
    lines = b"\r\n".join([name + b": " + value for name, value in headers])
    if lines.translate(None, _PRINTABLE) != b"\r\n" * (len(headers) - 1):
        raise RuntimeError("a header of the reply has a control character")
    return lines
