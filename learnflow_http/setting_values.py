"""What the value of a setting may be: readers from text to value, which raise ValueError with what is allowed."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, get_args
from urllib.parse import unquote, urlsplit

_MEMORY: Final = ":memory:"

IN_MEMORY: Final = "memory://"
"""Rate limits are counted in memory: that of the process, or what its workers share."""

MIN_SECRET_BYTES: Final = 32
"""As many bytes as the digest of HS256 has (RFC 7518, section 3.2)."""

_HOST_NAME: Final = re.compile(r"(?=.{1,253}\Z)([A-Za-z0-9_-]{1,63}\.)*(?![0-9]+\Z)[A-Za-z0-9-]{1,63}")
_ORIGIN: Final = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://\S+")
_LIMITER: Final = re.compile(r"((valkey|redis)s?(\+cluster)?|unix)://\S+")
_STRIPE_KEY: Final = re.compile(r"[sr]k_(live|test)_[0-9A-Za-z_]{8,}")
_STRIPE_WEBHOOK_SECRET: Final = re.compile(r"whsec_[0-9A-Za-z+/=_-]{8,}")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


def text(text: str) -> str:
    """Printable text."""
    if not text.isprintable() or text != text.strip() or not text:
        raise ValueError("must be printable text without spaces around it")
    return text


def number(minimum: int, maximum: int) -> Callable[[str], int]:
    """Whole numbers within bounds, in plain digits."""

    def read(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) <= 20 and minimum <= (number := int(text)) <= maximum:
            return number
        raise ValueError(f"must be a whole number from {minimum} to {maximum}")

    return read


def choice(words: object) -> Callable[[str], str]:
    """One of the words of a Literal."""
    allowed: tuple[str, ...] = get_args(words)

    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"must be {' or '.join(allowed)}")
        return text

    return read


def each(read_one: Callable[[str], str]) -> Callable[[str], tuple[str, ...]]:
    """Several values, separated by commas; none for an empty text."""

    def read(text: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(read_one(item.strip()) for item in text.split(",") if item.strip()))

    return read


def host(text: str) -> str:
    """An IP address or a host name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if not _HOST_NAME.fullmatch(text):
            raise ValueError("must be an IP address or a host name") from None
    return text


def database(text: str) -> str:
    """The address of a database."""
    if text.startswith("sqlite:"):
        sqlite_file(text)
    elif not _URL.fullmatch(text):
        raise ValueError("must be sqlite:///FILE or postgresql://USER@HOST/NAME")
    return text


def sqlite_file(url: str) -> Path | None:
    """The file of an SQLite database; None for one in memory. Raises ValueError for what names neither."""
    parts = urlsplit(url)
    path = unquote(parts.path.removeprefix("/"))
    if parts.scheme != "sqlite" or parts.netloc or parts.query or parts.fragment or path.endswith("/") or "\0" in path:
        raise ValueError("must be sqlite:///FILE, sqlite:////ABSOLUTE/FILE, or sqlite:// for a database in memory")
    return None if path in ("", _MEMORY) else Path(path)


def limiter(text: str) -> str:
    """Where rate limits are counted; whether the address of a store is a good one, its own client knows."""
    if text != IN_MEMORY and not _LIMITER.fullmatch(text):
        raise ValueError(f"must be {IN_MEMORY}, valkey://HOST, valkeys://HOST, valkey+cluster://HOST,… or unix:///PATH")
    return text


def secret(text: str) -> str:
    """A secret long enough to sign with."""
    if len(secret_bytes(text)) < MIN_SECRET_BYTES:
        raise ValueError(f"must have at least {MIN_SECRET_BYTES} bytes; `openssl rand -hex 32` makes a good one")
    return text


def stripe_key(text: str) -> str:
    """A secret key of Stripe, or one that is restricted."""
    return _stripe(
        text, _STRIPE_KEY, "must be one of Stripe's secret keys, which begin with sk_live_, rk_live_, sk_test_"
    )


def stripe_webhook_secret(text: str) -> str:
    """The signing secret of an endpoint at Stripe."""
    return _stripe(text, _STRIPE_WEBHOOK_SECRET, "must be signing secrets of Stripe, which begin with whsec_")


def _stripe(text: str, form: re.Pattern[str], allowed: str) -> str:
    if not form.fullmatch(text):
        raise ValueError(allowed)
    return text


def origin(text: str) -> str:
    """An origin (RFC 6454) as browsers send it, or `*`."""
    match = _ORIGIN.fullmatch(text)
    if text != "*" and (match is None or match[3] == _DEFAULT_PORTS.get(match[1], "")):
        raise ValueError(
            "must be * or origins as browsers send them: lower case, without path or default port"
            " (https://app.example.com,http://localhost:3000)"
        )
    return text


def network(text: str) -> str:
    """An IP address or network, in its normal form."""
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise ValueError("must be addresses or networks (10.0.0.1,192.168.0.0/16,2001:db8::/32)") from None


def public_url(text: str) -> str:
    """The beginning of links to the server, without the last slash."""
    if not _is_public_url(text):
        raise ValueError("must be an http or https address without user, query and fragment (https://api.example.com)")
    return text.rstrip("/")


def _is_public_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        port_is_good = url.port is None or url.port > 0
    except ValueError:
        return False
    plain = text.isprintable() and not re.search(r"[\s?#@\\]", text)
    return url.scheme in {"http", "https"} and bool(url.hostname) and port_is_good and plain


def secret_bytes(text: str) -> bytes:
    """The bytes of an option or variable as they were given, UTF-8 or not."""
    return text.encode("utf-8", "surrogateescape")
