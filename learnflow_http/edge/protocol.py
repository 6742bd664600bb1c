"""One connection, read by uvicorn's HTTP protocol and guarded against clients that are hostile or broken.

What a connection may do is a small state machine over what is being read (nothing, a head, a body) beside the reply
that is under way. Everything is bounded: time by deadlines that the server's sweep enforces (a timer for each request
would cost more than all other checks together), space by the limits named here and in `head`.
"""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import Any, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from learnflow_core.errors import Code
from learnflow_http.edge import Edge
from learnflow_http.edge.cycle import Cycle
from learnflow_http.edge.head import (
    FRAMING_FIELDS,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    BadRequestError,
    Fields,
    body_length,
    expects_continue,
    from_absolute,
    head_bytes,
    split_target,
)
from learnflow_http.exchange import MAX_DROPPED

log = logging.getLogger(__name__)

MAX_PIPELINED: Final = 32
"""How many complete requests may wait on one connection for the reply before theirs."""

MAX_AT_ONCE: Final = 8
"""How many requests of one packet are answered at once; others have their turn before the rest."""

MAX_TURNED_AWAY: Final = 128
"""How many connections over the limit may wait to be told so; more are told and closed at once."""

_MAX_AROUND_BODY_BYTES: Final = MAX_HEAD_BYTES + 32 * 1024  # the head; extensions of chunks, and trailers
_CHUNK_BYTES: Final = 20  # sixteen digits of size and two line ends
_STOP_BODY_S: Final = 1.0  # a body that is on its way when the server stops arrives within that, or not at all
_STOP_IDLE_S: Final = 0.5  # when the server stops, a client that had its reply may have asked again, or is about to
_FIRST_ASKED_S: Final = 0.02  # most replies are out until then

_BETWEEN, _HEAD, _BODY = range(3)


class EdgeProtocol(HttpToolsProtocol):
    """uvicorn's protocol with deadlines, limits, strict heads, and error replies in the contract's envelope."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        edge: Edge,
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.edge = edge
        self._limits = edge.limits
        self.client_ip = ""
        self._entered = True
        self._dismissed = False
        self._active: Cycle | None = None  # the request that the application works on; `cycle` is the one being read
        self._reading = _BETWEEN
        self._framing: Fields = []
        self._failure: Exception | None = None  # why the head of a request could not be read
        self._upgrading = False
        self._at_once = 0  # requests answered at once in the call of data_received that is under way
        self._answered = False  # whether the request that is being read is one of them
        self._dropping = False  # what still arrives is not read as HTTP any more
        self._last_words: bytes | None = None  # to be said when the replies under way are out
        self._half_closed = False

        self._deadline = inf  # of what is being read; 0.0: begun just now
        self._write_deadline = inf
        self._stop_at = inf  # of an idle connection, when the server stops
        self._unsent = 0
        self._arriving = 0  # bytes that the parser is reading
        self._received = 0  # bytes since the last request ended, as far as it is known where that was
        self._body_bytes = 0
        self._chunks = 0
        self._dropped = 0

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.client_ip = self.client[0] if self.client else ""
        self._deadline = self.loop.time() + self._limits.head_s
        self._entered = self.edge.enter(self.client_ip)
        if not self._entered:
            self._turn_away()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._entered:
            self.edge.leave(self.client_ip)
        else:
            self.edge.turned_away -= 1
        if self._active is not None:
            _disconnect(self._active)
            self._active.abandon()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client will send nothing more: let what it has asked for be answered, then close."""
        self._half_closed = True
        if self._reading != _BETWEEN and not self._dropping:
            self._end(Code.INVALID_REQUEST, "The request ended before it was complete.")
        elif self._active is not None:
            self._last_words = self._last_words or b""
            self._ask_whether_it_is_there(_FIRST_ASKED_S)
        return self._active is not None

    def _ask_whether_it_is_there(self, seconds: float) -> None:
        """Find out in a while whether a client that sends nothing more still reads, unless it was answered until then.

        Only writing tells, and a line of `100 Continue` may come before any reply. One that has gone is known by the
        second of them, at the latest: its system refuses the first.
        """
        cycle = self._active
        if cycle is not None and cycle.scope["http_version"] == "1.1":
            self.loop.call_later(seconds, self._ask, cycle, seconds)

    def _ask(self, cycle: Cycle, seconds: float) -> None:
        if cycle is self._active and not cycle.response_started and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._ask_whether_it_is_there(2 * seconds)

    def data_received(self, data: bytes) -> None:
        if self._dropping:
            self._drop(len(data))
            return
        self._at_once = 0
        while data:
            data = self._feed(data)

    def _feed(self, data: bytes) -> bytes:
        """Let the parser read; what it is to read next, where it met a request to upgrade."""
        self._arriving = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._reject(error)
            return b""
        self._received += self._arriving
        if not self._deadline:
            seconds = self._limits.head_s if self._reading == _HEAD else self._limits.body_s
            self._deadline = self.loop.time() + seconds
        if self._reading:
            self._check_unfinished()
        return b""

    # What the parser reads

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self._framing = []
        self._reading = _HEAD
        self._deadline = 0.0

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        value = value.rstrip(b" \t")
        self.headers.append((name, value))
        if name in FRAMING_FIELDS:
            self._framing.append((name, value))

    def on_headers_complete(self) -> None:
        try:
            self._read_head()
        except Exception as error:
            self._failure = error
            raise

    def _read_head(self) -> None:
        parser = self.parser
        method = parser.get_method()
        version = parser.get_http_version()
        headers = self.headers
        if len(headers) > MAX_HEADERS:
            raise BadRequestError(f"The request has more than {MAX_HEADERS} headers.")
        # Below zero, another request has ended in what arrives: how much of that is this head is not known.
        surely_small = 0 <= self._received <= MAX_HEAD_BYTES - self._arriving
        if not surely_small and head_bytes(self.url, headers) > MAX_HEAD_BYTES:
            raise BadRequestError("The head of the request is larger than 32 KiB.")
        length = body_length(version, self._framing)
        if method == b"CONNECT":
            raise BadRequestError("This server is not a proxy.")
        if parser.should_upgrade():
            self._upgrading = True
            return
        target = self.url if self.url[:1] == b"/" else from_absolute(self.url, headers)
        if length == 0 and method == b"GET" and self._answer_at_once(version, target):
            return
        path, raw_path, query = split_target(method, target)
        self.headers = []  # trailers go there: they are no part of the head that the application was given
        self.scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme or "http",
            "method": method.decode("ascii"),
            "root_path": "",
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": headers,
            "state": self.app_state.copy(),
        }
        self._begin(self._cycle(version, length))

    def on_chunk_header(self) -> None:
        """Count a chunk: each brings its share of bytes that are no body."""
        self._chunks += 1

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()
        else:
            self._drop(len(body))

    def on_message_complete(self) -> None:
        if self._upgrading:
            return
        if self._answered:
            self._answered = False
        else:
            self.cycle.more_body = False
            self.cycle.message_event.set()
        self._reading = _BETWEEN
        self._received = -self._arriving
        self._deadline = inf if self._active else self.loop.time() + self._limits.idle_s

    # Requests and replies

    def _answer_at_once(self, version: str, target: bytes) -> bool:
        """Answer a request without a body in this very call, where nothing is in its way and the answer is at hand."""
        if (
            self._active is not None
            or self._at_once >= MAX_AT_ONCE
            or self.edge.stopping
            or self.flow.write_paused
            or version != "1.1"
            or not self.parser.should_keep_alive()
        ):
            return False
        reply = self.edge.at_once(target, self.headers, self.client_ip)
        if reply is None:
            return False
        status, lines, body = reply
        self.transport.writelines((b"%b%b%b\r\n" % (STATUS_LINE[status], self.edge.date_line, lines), body))
        self.headers = []
        self._at_once += 1
        self._answered = True
        return True

    def _cycle(self, version: str, length: int | None) -> Cycle:
        waits = length != 0 and expects_continue(version, self._framing)
        # Whoever never got `100 Continue` may or may not send the body, so that nothing behind it can be told from it.
        reusable = version == "1.1" and not waits and (length or 0) <= MAX_DROPPED
        keep_alive = reusable and not self.edge.stopping and self.parser.should_keep_alive()
        return Cycle(self, self.scope, keep_alive=keep_alive, waits_for_continue=waits)

    def _begin(self, cycle: Cycle) -> None:
        if self._active is None:
            self._start(cycle)
        elif len(self.pipeline) < MAX_PIPELINED:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))
        else:
            raise BadRequestError(f"More than {MAX_PIPELINED} requests wait on this connection.")
        self.cycle = cycle
        self._reading = _BODY
        self._deadline = 0.0
        self._body_bytes = self._chunks = self._dropped = 0

    def _start(self, cycle: Cycle) -> None:
        self._active = cycle
        cycle.task = self.loop.create_task(cycle.run_asgi(self.app))
        cycle.task.add_done_callback(self.tasks.discard)
        self.tasks.add(cycle.task)

    def on_response_complete(self) -> None:
        cycle, self._active = self._active, None
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if cycle is not None and not cycle.keep_alive:
            self._close_gently()
        elif self.pipeline:
            self._start(self.pipeline.pop()[0])  # type: ignore[arg-type]
        elif self._last_words is not None:
            self._close_with(self._last_words)
        elif self._reading == _BETWEEN:
            self._deadline = self.loop.time() + self._limits.idle_s

    def _close_gently(self) -> None:
        """Close behind a reply; while the request's body is still arriving, only the sending half for now."""
        if self._reading == _BODY and not self._half_closed:
            self._linger()
        else:
            self.transport.close()

    # Requests that are not the application's

    def _turn_away(self) -> None:
        """Let a connection too many learn why: when it asks for something, else many clients would not look."""
        self._dropping = True
        self.edge.turned_away += 1
        if self.edge.turned_away > MAX_TURNED_AWAY:
            self._dismiss()
            self.transport.close()

    def _dismiss(self) -> None:
        self._dismissed = True
        self._end(Code.SERVICE_UNAVAILABLE, "Too many connections are open.")

    def _ignore_upgrade(self, rest: bytes) -> bytes:
        """The request again, without its Upgrade field, and the rest: the parser takes what follows for no HTTP.

        A server may ignore that field (RFC 9110, section 7.8); `curl --http2` sends it with bodies too.
        """
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%s: %s" % field for field in self.headers if field[0] != b"upgrade"]
        self._upgrading = False
        self._received = 0
        self.parser = httptools.HttpRequestParser(self)
        return b"\r\n".join([*lines, b"", rest])

    def _reject(self, error: httptools.HttpParserError) -> None:
        cause = self._failure or error.__context__  # the latter is another where one is being handled around the parser
        if isinstance(cause, BadRequestError):
            self._end(Code.INVALID_REQUEST, str(cause))
        elif cause is not None:
            log.error("a request could not be read", exc_info=cause)
            self._end(Code.INTERNAL_ERROR)
        elif isinstance(error, httptools.HttpParserInvalidURLError):
            self._end(Code.INVALID_REQUEST, f"{error}: what is not printable ASCII must be percent-encoded.")
        else:
            self._end(Code.INVALID_REQUEST, f"The request is not valid HTTP: {error}.")

    def _check_unfinished(self) -> None:
        """Refuse a head, or what surrounds the chunks of a body, that has grown too large without an end."""
        if self._reading == _HEAD:
            if self._received > MAX_HEAD_BYTES:
                self._end(Code.INVALID_REQUEST, "The head of the request is larger than 32 KiB.")
        elif self._received - self._body_bytes > _MAX_AROUND_BODY_BYTES + _CHUNK_BYTES * self._chunks:
            self._end(Code.INVALID_REQUEST, "The chunks of the body carry too much that is not the body.")

    def _end(self, code: Code | None, message: str | None = None) -> None:
        """Read nothing more; answer in the application's stead (None: silently), in turn, and close."""
        answerable = self._abandon_unfinished()
        words = b""
        if code is not None and answerable:
            words = self.edge.reply(code, self.client_ip, message).encode(self.server_state.default_headers)
        self._dropping = True
        self._deadline = inf
        if self._active is not None:
            self._last_words = words
        else:
            self._close_with(words)

    def _abandon_unfinished(self) -> bool:
        """Tell the application that the body it may be waiting for will not come; whether a reply is still owed."""
        if self._reading != _BODY:
            return True
        if self.cycle.response_complete:
            return False
        _disconnect(self.cycle)
        if self.cycle is not self._active:
            self.pipeline.popleft()
            return True
        self._active = None
        return not self.cycle.response_started

    def _close_with(self, words: bytes) -> None:
        self._last_words = None
        if not words:
            self.transport.close()
            return
        self.transport.write(words)
        if self._half_closed:
            self.transport.close()
        else:
            self._linger()

    def _linger(self) -> None:
        """Say that nothing more will be sent, and read on for a while, so that the reply is not lost to a reset."""
        self.pipeline.clear()
        self._dropping = True
        self._deadline = self.loop.time() + (_STOP_BODY_S if self.edge.stopping else self._limits.body_s)
        self.flow.resume_reading()
        self.transport.write_eof()

    def _drop(self, size: int) -> None:
        """Count what is read only so that its sender comes to read the reply; there is an end to that too."""
        self._dropped += size
        if not self._entered and not self._dismissed:
            self._dismiss()
        elif self._dropped > MAX_DROPPED:
            self.transport.close()

    # Time

    def expire(self, now: float) -> None:
        """Close the connection if a deadline has passed; called often, with the time of the event loop."""
        if now >= self._write_deadline:
            self._check_writing(now)
        elif self.transport.is_closing():
            if self._write_deadline == inf:
                self._await_writing(now)
        elif now >= self._deadline:
            self._check_reading(now)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_writing(self.loop.time())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_deadline = inf

    def _await_writing(self, now: float) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        self._write_deadline = now + self._limits.reply_s

    def _check_writing(self, now: float) -> None:
        if self.transport.get_write_buffer_size() < self._unsent:
            self._await_writing(now)
        else:
            log.info("%s does not take its reply", self.client_ip)
            self.transport.abort()

    def _check_reading(self, now: float) -> None:
        if self.flow.read_paused:  # it is the application that takes its time
            self._deadline = now + self._limits.body_s
        elif self._dropping or self._reading == _BETWEEN:
            self.transport.close()
        elif self.edge.stopping and self._reading == _BODY:
            self._end(Code.SERVICE_UNAVAILABLE, "The server is stopping.")
        else:
            log.info("%s did not finish its request in time", self.client_ip)
            self._end(None)

    def shutdown(self) -> None:
        """Close once the requests that have arrived are answered; called often while the server stops.

        A client may have sent a request, or be about to, that crosses with the decision to stop: so an idle connection
        is closed a moment later, and a body that is on its way may arrive.
        """
        now = self.loop.time()
        self._stop_at = min(self._stop_at, now + _STOP_IDLE_S)
        if self._active is None:
            until = now + _STOP_BODY_S if self._dropping else self._stop_at
            self._deadline = min(self._deadline, until)
            return
        self.cycle.keep_alive = False
        if self._reading == _BODY and not self._dropping:
            self._deadline = min(self._deadline, now + _STOP_BODY_S)


def _disconnect(cycle: RequestResponseCycle) -> None:
    cycle.disconnected = True
    cycle.message_event.set()
