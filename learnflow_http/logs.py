"""Logs: one JSON object a line for programs, or a plain line for a person at a terminal; never a secret in either.

Everything goes through the standard library's root logger, uvicorn's loggers too. What a record carries in `extra`
stands beside its message:

    logger.warning("payments unresolved", extra={"count": 3})
    {"time": "2024-01-15T09:30:00.123Z", "level": "warning", "logger": …, "message": "payments unresolved", "count": 3}

Two things are done to every line, whoever wrote it: secrets are redacted (`learnflow_http.redaction`), and characters
that could forge a line or command a terminal are escaped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from functools import lru_cache
from select import PIPE_BUF
from types import TracebackType
from typing import Any, Final, TextIO

import msgspec

from learnflow_http.redaction import REDACTED, names_secret, redact, suspicious
from learnflow_http.settings import LogFormat, LogLevel

_CHATTY: Final = ("stripe", "httpx", "httpcore")
"""Libraries that tell of every request, with what was in it."""
_UVICORN: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_CONTROLS_LEFT_BY_JSON: Final = re.compile(r"[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_NEEDS_QUOTES: Final = re.compile(r"[\s\"=]|\A\Z")

_SCALARS: Final = frozenset({str, int, float, bool})
_USUAL: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}

_REQUEST: Final = "request"
"""The message of lines about requests."""

_SHORT: Final = 128
_TOGETHER_S: Final = 0.01  # a write for each line would be a fifth of the quickest requests

_encode_json: Final = msgspec.json.Encoder().encode


def configure(log_format: LogFormat, level: LogLevel, stream: TextIO | None = None, *, pid: int | None = None) -> None:
    """Send every log line to `stream` (standard error), and uncaught exceptions as well. `auto` is plain at a terminal.

    Lines tell the `pid` where one is given: that of a process which writes to the same stream as others. For programs,
    once at their start: it replaces the root logger's handlers.
    """
    stream = stream or sys.stderr
    plain = stream.isatty() if log_format == "auto" else log_format == "plain"
    handler = _Handler(stream)
    handler.setFormatter(PlainFormatter(pid) if plain else JsonFormatter(pid))
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level.upper())
    for name in _UVICORN:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    for unused in ("logThreads", "logProcesses", "logMultiprocessing", "logAsyncioTasks"):
        setattr(logging, unused, False)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def access(logger: logging.Logger, **fields: Any) -> None:
    """Log one request that was answered, with these facts about it (None: left out), at level info.

    On the way of every request, so what costs most is left out: `logger.info` would look for its caller and merge
    `extra`, and where `configure` has set up the log, no record is made at all, and lines are written together.
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    handlers = logging.root.handlers
    if len(handlers) == 1 and isinstance(handlers[0], _Handler):
        handlers[0].access(logger.name, fields)
        return
    logger.handle(_access_record(logger.name, fields))


def _access_record(logger_name: str, fields: dict[str, Any]) -> logging.LogRecord:
    record = logging.LogRecord(logger_name, logging.INFO, "", 0, _REQUEST, None, None)
    record.fields = fields
    return record


class _Formatter(logging.Formatter):
    """What both have: the fields of the process, which stand before those of the record."""

    def __init__(self, pid: int | None = None) -> None:
        super().__init__()
        self.of_process = {} if pid is None else {"pid": pid}

    def access(self, logger_name: str, fields: dict[str, Any]) -> str:
        """The line about a request."""
        return self.format(_access_record(logger_name, fields))


class JsonFormatter(_Formatter):
    """A JSON object in one line: `time` (RFC 3339, UTC), `level`, `logger`, `message`, the fields, and `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        data = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self.of_process,
            **_fields(record),
        }
        if trouble := _trouble(self, record):
            data["exception"] = trouble
        return self._line(data)

    def access(self, logger_name: str, fields: dict[str, Any]) -> str:
        if _plain(fields.get("path")) and _plain(fields.get("client_request_id")):  # all else is the server's own
            line = _AccessLine(_time(time.time()), "info", logger_name, _REQUEST, self.of_process.get("pid"), **fields)
            return _encode_json(line).decode()
        return super().access(logger_name, fields)

    @staticmethod
    def _line(data: dict[str, Any]) -> str:
        line = _to_json(data)
        if suspicious(line):
            line = _to_json({name: _redacted(name, value) for name, value in data.items()})
        return line if line.isascii() and "\x7f" not in line else _CONTROLS_LEFT_BY_JSON.sub(_escaped, line)


class PlainFormatter(_Formatter):
    """Time, level, message, `name=value` for each field; a traceback follows, indented as no line of its own is."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = {**self.of_process, **_fields(record)}
        pairs = "".join(f" {name}={_shown(_redacted(name, value))}" for name, value in fields.items())
        message = _CONTROLS.sub(_escaped, redact(record.getMessage()))
        trouble = [_CONTROLS.sub(_escaped, line) for line in redact(_trouble(self, record)).split("\n") if line]
        return "\n    ".join([f"{clock} {record.levelname:<8} {message}{pairs}", *trouble])


class _AccessLine(msgspec.Struct, omit_defaults=True):
    """A line about a request, in the order in which it is written."""

    time: str
    level: str
    logger: str
    message: str
    pid: int | None = None
    request_id: str | None = None
    client_request_id: str | None = None
    method: str | None = None
    path: str | None = None
    status: int | None = None
    duration_ms: float | None = None
    client: str | None = None
    account: str | None = None
    caller: str | None = None


def _plain(text: str | None) -> bool:
    """Whether a text that a client wrote is sure to stand in a line as it is. Long ones are not looked at, nor kept."""
    return text is None or (len(text) <= _SHORT and _harmless(text))


@lru_cache(maxsize=1_024)
def _harmless(text: str) -> bool:
    return text.isascii() and text.isprintable() and not suspicious(text)


class _Handler(logging.StreamHandler[TextIO]):
    """A stream that nobody reads any more, or a line that cannot be made, never disturbs the program.

    Lines about requests wait for each other for a moment, so that those of it are few writes; they come before whatever
    is logged after them. A write holds whole lines and no more than a pipe takes as one (`PIPE_BUF`, POSIX), so that
    those of several processes do not get into each other.
    """

    formatter: _Formatter

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._waiting: deque[str] = deque()

    def access(self, logger_name: str, fields: dict[str, Any]) -> None:
        """Write a line about a request, soon."""
        try:
            line = self.formatter.access(logger_name, fields)
        except Exception:  # noqa: BLE001 - the way of other lines may make it, or say that it cannot
            self.handle(_access_record(logger_name, fields))
            return
        self._waiting.append(line)
        if len(self._waiting) > 1:
            return
        try:
            asyncio.get_running_loop().call_later(_TOGETHER_S, self.flush)
        except RuntimeError:  # nobody would wake it
            self.flush()

    def emit(self, record: logging.LogRecord) -> None:
        self._write_waiting()
        super().emit(record)

    def flush(self) -> None:
        with self.lock or contextlib.nullcontext(), contextlib.suppress(OSError, ValueError):
            self._write_waiting()
            super().flush()

    def _write_waiting(self) -> None:
        lines = [self._waiting.popleft() + self.terminator for _ in range(len(self._waiting))]
        for piece in _pieces(lines):
            with contextlib.suppress(OSError, ValueError):
                self.stream.write(piece)
                self.stream.flush()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        data = {"template": str(record.msg), "error": type(sys.exception()).__name__}
        lost = logging.LogRecord(record.name, logging.ERROR, "", 0, "a log line could not be made", None, None)
        lost.fields = data
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(self.format(lost) + self.terminator)


def _pieces(lines: Iterable[str]) -> Iterator[str]:
    """The lines, as many together as a pipe takes as one write; a longer one by itself."""
    piece, size = "", 0
    for line in lines:
        length = len(line.encode(errors="backslashreplace"))
        if piece and size + length > PIPE_BUF:
            yield piece
            piece, size = "", 0
        piece += line
        size += length
    if piece:
        yield piece


def _log_uncaught(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt | SystemExit):
        logging.getLogger("learnflow").critical("stopped by a defect", exc_info=(kind, error or kind(), traceback))


class _Clock:
    """The text of an instant; that of its second is made once."""

    second = -1
    text = ""


def _time(created: float) -> str:
    second = int(created)
    if second != _Clock.second:
        _Clock.text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        _Clock.second = second
    return f"{_Clock.text}.{int((created - second) * 1000):03}Z"


def _trouble(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info else []
    return "\n".join([*parts, record.stack_info] if record.stack_info else parts)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What the record carries beside its message; what is no scalar becomes text, in which a secret can be seen."""
    data = record.__dict__.get("fields")
    if data is None:
        data = {name: value for name, value in record.__dict__.items() if name not in _USUAL}
    return {name: value if type(value) in _SCALARS else str(value) for name, value in data.items() if value is not None}


def _to_json(data: dict[str, Any]) -> str:
    try:
        return _encode_json(data).decode()
    except (UnicodeEncodeError, OverflowError):  # a lone surrogate; an integer beyond 64 bits
        texts = {name: str(value).encode("utf-8", "backslashreplace").decode() for name, value in data.items()}
        return _encode_json(texts).decode()


def _redacted(name: str, value: object) -> object:
    """The value of a field without secrets; its name may say that it is one as a whole."""
    if not isinstance(value, str):
        return value
    return REDACTED if names_secret(name) else redact(value)


def _shown(value: object) -> str:
    text = _CONTROLS.sub(_escaped, str(value))
    return '"' + text.replace('"', '\\"') + '"' if _NEEDS_QUOTES.search(text) else text


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
