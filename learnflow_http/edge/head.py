"""What the head of a request must be: pure rules for its fields and its target.

The parser (llhttp) refuses what is not HTTP at all: folded lines, control characters, two lengths, a length beside a
transfer coding. These are the rules that RFC 9112 adds and the parser leaves to the server.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

MAX_HEADERS: Final = 100
MAX_HEAD_BYTES: Final = 32 * 1024

FRAMING_FIELDS: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})
"""The fields that decide how a request is read, in lower case."""

Fields = list[tuple[bytes, bytes]]
"""Header fields in the order sent: the name in lower case, the value as sent."""

_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::[0-9]{0,5})?")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE)
_BROKEN_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class BadRequestError(Exception):
    """A request that is refused before the application sees it; the text tells its sender why."""


def body_length(version: str, framing: Fields) -> int | None:
    """The length of the body in bytes, 0 where there is none, None where its chunks will tell.

    `framing` are the fields whose names are in FRAMING_FIELDS. Raises BadRequestError where RFC 9112 asks for it: a
    version other than 1.0 and 1.1; a Host that is repeated, malformed or (in 1.1) missing; a transfer coding other
    than chunked alone, or any at all in 1.0. The parser has seen to it that there is at most one, valid length.
    """
    if version not in {"1.0", "1.1"}:
        raise BadRequestError("This server speaks HTTP/1.0 and HTTP/1.1.")
    hosts, length, codings = 0, 0, []
    for name, value in framing:
        if name == b"host":
            hosts += 1
            _check_host(value)
        elif name == b"content-length":
            length = int(value[-20:])  # no valid length has more digits, save for zeros; int() raises beyond 4,300
        elif name == b"transfer-encoding":
            codings.append(value.lower())
    if hosts > 1 or (not hosts and version == "1.1"):
        raise BadRequestError("The request needs exactly one Host header.")
    if codings and (codings != [b"chunked"] or version == "1.0"):
        raise BadRequestError("The only transfer coding that this server reads is chunked, in HTTP/1.1.")
    return None if codings else length


def expects_continue(version: str, framing: Fields) -> bool:
    """Whether the sender waits for `100 Continue` before it sends the body (RFC 9110, section 10.1.1)."""
    expectations = [value.lower() for name, value in framing if name == b"expect"]
    return version == "1.1" and b"100-continue" in expectations


def split_target(method: bytes, target: bytes) -> tuple[str, bytes, bytes]:
    """A request target as (path, path as sent, query as sent): `/path?query`, or `*` for OPTIONS.

    Raises BadRequestError for every other form, for a fragment, and for a path whose escapes are broken, not UTF-8,
    or stand for control characters. The query is left to those who read it: a `%` alone means itself there.
    """
    if target[:1] != b"/" and (target != b"*" or method != b"OPTIONS"):
        raise BadRequestError("The request target must be a path.")
    if b"#" in target:
        raise BadRequestError("The request target must not have a fragment.")
    raw_path, _, query = target.partition(b"?")
    path = _unescape(raw_path) if b"%" in raw_path else raw_path.decode("ascii")
    return path, raw_path, query


def from_absolute(target: bytes, fields: Fields) -> bytes:
    """The path and query of an absolute target, `http://host/path`; every other target as it is.

    The host that an absolute target names replaces the Host header in `fields` (RFC 9112, section 3.2.2). Raises
    BadRequestError if it is malformed or has user information (RFC 9110, section 4.2.4).
    """
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        return target
    authority, rest = absolute.groups()
    _check_host(authority)
    fields[:] = [(b"host", authority), *(field for field in fields if field[0] != b"host")]
    return rest if rest.startswith(b"/") else b"/" + rest


def head_bytes(target: bytes, fields: Fields) -> int:
    """The size of a head as sent, give or take the white space around values."""
    return len(target) + sum(len(name) + len(value) + 4 for name, value in fields)


@lru_cache(maxsize=64)
def _check_host(value: bytes) -> None:
    if not _HOST.fullmatch(value):
        raise BadRequestError("The Host is malformed.")


def _unescape(raw_path: bytes) -> str:
    if _BROKEN_ESCAPE.search(raw_path):
        raise BadRequestError("The path has a % that is not followed by two hexadecimal digits.")
    try:
        path = unquote_to_bytes(raw_path).decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequestError("The path is not UTF-8.") from None
    if _CONTROL.search(path):
        raise BadRequestError("The path has a control character.")
    return path
