"""Identifiers and API keys: a prefix that tells what a thing is, and randomness that tells nothing.

Randomness is an argument (`os.urandom` in production), so that a simulation with a seed makes the same ids again.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Final, Literal

RandomBytes = Callable[[int], bytes]
"""Gives that many bytes, uniformly distributed and unpredictable: what `os.urandom` does."""

PREFIXES: Final = frozenset(
    ("crs", "usr", "enr", "crt", "key", "acct", "pm", "req", "whk", "evt", "pay", "fam", "tok", "aud"),
)
"""Course, user, enrolment, certificate, API key, account, payment method, request, webhook endpoint, event; and
never seen by clients: payment attempt, family of refresh tokens, token, row of the audit."""

_BASE_36: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_BASE_62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def _byte_table(alphabet: str) -> tuple[bytes, bytes]:
    """For bytes.translate: each digit for equally many bytes, and the bytes left over, which must be rejected."""
    share = 256 // len(alphabet) * len(alphabet)
    return bytes(ord(alphabet[byte % len(alphabet)]) for byte in range(256)), bytes(range(share, 256))


_TABLES: Final = {alphabet: _byte_table(alphabet) for alphabet in (_BASE_36, _BASE_62)}

_LENGTH: Final = 12  # 62 bits: among a thousand million ids of a kind, a collision has a chance of one in ten
_LENGTH_CERTIFICATE: Final = 20  # 103 bits: anyone may ask about a certificate, so that its id must not be guessable

_AT_A_TIME: Final = 64  # ids whose chance is drawn together

_SECRET_LENGTH: Final = 30  # 178 bits
_CHECKSUM_LENGTH: Final = 6  # 62 ** 6 > 2 ** 32
_API_KEY: Final = re.compile(r"sk_(live|test)_[0-9A-Za-z]{36}")


def new_id(prefix: str, random_bytes: RandomBytes) -> str:
    """A new id `<prefix>_<base-36>` of fixed length: 62 random bits, 103 for a certificate.

    Every part of that length is equally likely. Raises ValueError for a prefix not in PREFIXES.
    """
    if prefix not in PREFIXES:
        raise ValueError(f"unknown id prefix: {prefix!r}")
    length = _LENGTH_CERTIFICATE if prefix == "crt" else _LENGTH
    return f"{prefix}_{_random_digits(_BASE_36, length, random_bytes)}"


def new_ids(prefix: str, random_bytes: RandomBytes) -> Iterator[str]:
    """New ids without end, as `new_id` makes them (no certificates). For one thread.

    Their chance is drawn for many together, which takes a quarter of the time.
    """
    while True:
        digits = _random_digits(_BASE_36, _AT_A_TIME * _LENGTH, random_bytes)
        for start in range(0, len(digits), _LENGTH):
            yield f"{prefix}_{digits[start : start + _LENGTH]}"


def new_api_key(mode: Literal["live", "test"], random_bytes: RandomBytes) -> str:
    """A new secret key: `sk_<mode>_`, 30 random digits of base 62 (178 bits), and six that check what precedes them."""
    body = f"sk_{mode}_{_random_digits(_BASE_62, _SECRET_LENGTH, random_bytes)}"
    return body + _checksum(body)


def api_key_mode(text: str) -> Literal["live", "test"] | None:
    """The mode that a well-formed key names; None for every other text, whatever it holds.

    A key with one wrong character always fails its CRC-32, so typos never cost a look-up. It proves
    nothing else: whether the key exists is known only where its digest is kept.
    """
    if not _API_KEY.fullmatch(text) or _checksum(text[:-_CHECKSUM_LENGTH]) != text[-_CHECKSUM_LENGTH:]:
        return None
    return "live" if text.startswith("sk_live_") else "test"


def api_key_digest(secret: str) -> str:
    """What is kept of a key: its SHA-256 in lower-case hexadecimal.

    A plain digest is enough, because a secret of 178 random bits cannot be searched for.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _random_digits(alphabet: str, length: int, random_bytes: RandomBytes) -> str:
    table, rejected = _TABLES[alphabet]
    digits = b""
    while len(digits) < length:  # nearly always once
        digits += random_bytes(length + 8).translate(table, rejected)
    return digits[:length].decode("ascii")


def _checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode("ascii")), ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, 62)
        digits = _BASE_62[digit] + digits
    return digits
