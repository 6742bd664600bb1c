"""The protocol of Valkey and Redis, RESP2, as pure functions: commands to bytes, bytes to replies."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would take longer than the rest of the module
if TYPE_CHECKING:
    from typing import TypeAlias

    Reply: TypeAlias = "bytes | int | ErrorReply | list[Reply] | None"

MAX_LINE = 64 * 1024
MAX_BULK = 16 * 1024 * 1024
MAX_ITEMS = 1024 * 1024
MAX_DEPTH = 8
"""What a reply to one of our commands stays far below: beyond it, it is no reply but garbage."""


class ProtocolError(Exception):
    """What arrived is not RESP2, or no answer to what was asked; what follows on the connection has no meaning."""


class ErrorReply:
    """An error that the server answered: its `code`, such as NOSCRIPT, and the rest of its line.

    An error inside a script, which servers before 7.0 wrap into an ERR, has the code of the inner one.
    """

    __slots__ = ("code", "rest")

    def __init__(self, line: bytes) -> None:
        code, _, self.rest = line.decode("utf-8", "replace").partition(" ")
        if self.rest.startswith("Error running script"):
            inner = self.rest.rpartition(": -")[2].partition(" ")[0]
            code = inner if inner.isalpha() and inner.isupper() else code
        self.code = code

    def __repr__(self) -> str:
        return f"ErrorReply({self.code})"  # the rest may name a key


def command(*words: bytes | str) -> bytes:
    """A command as the server reads it."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        raw = word.encode() if isinstance(word, str) else word
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


def parse(data: bytes, at: int = 0, depth: int = 0) -> tuple[Reply, int] | None:
    """The reply that begins at `at` and where it ends; None when the rest of it has not arrived.

    Raises ProtocolError for what is no reply, as early as that can be seen.
    """
    end = data.find(b"\r\n", at, at + MAX_LINE)
    if end < 0:
        if len(data) - at >= MAX_LINE:
            raise ProtocolError("a line without an end")
        if data[at : at + 1] not in b"+-:$*":
            raise ProtocolError("no reply begins like this")
        return None
    kind, line, after = data[at : at + 1], data[at + 1 : end], end + 2
    if kind == b"+":
        return line, after
    if kind == b"-":
        return ErrorReply(line), after
    if kind == b":":
        return _integer(line), after
    if kind == b"$":
        return _bulk(data, after, _integer(line))
    if kind == b"*":
        return _array(data, after, _integer(line), depth)
    raise ProtocolError("no reply begins like this")


def _integer(line: bytes) -> int:
    digits = line[1:] if line[:1] == b"-" else line
    if not (digits.isdigit() and len(digits) <= 19):
        raise ProtocolError("a number is needed")
    return int(line)


def _bulk(data: bytes, at: int, length: int) -> tuple[Reply, int] | None:
    if length == -1:
        return None, at
    if not 0 <= length <= MAX_BULK:
        raise ProtocolError("a length that no reply has")
    end = at + length
    if len(data) < end + 2:
        return None
    if data[end : end + 2] != b"\r\n":
        raise ProtocolError("a string that does not end where it should")
    return data[at:end], end + 2


def _array(data: bytes, at: int, count: int, depth: int) -> tuple[Reply, int] | None:
    if count == -1:
        return None, at
    if not 0 <= count <= MAX_ITEMS or depth == MAX_DEPTH:
        raise ProtocolError("a list that no reply has")
    items: list[Reply] = []
    for _ in range(count):
        item = parse(data, at, depth + 1)
        if item is None:
            return None
        items.append(item[0])
        at = item[1]
    return items, at
