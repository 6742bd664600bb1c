"""Where the store is and how one enters: the URL of a server or a cluster. No I/O but the reading of certificates."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from storage_backends.valkey.resp import command

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

DEFAULT_PORT: Final = 6379
_TCP: Final = {"valkey": False, "redis": False, "valkeys": True, "rediss": True}
_FILES: Final = ("ca_file", "cert_file", "key_file")


class Address(NamedTuple):
    """One server: a host and a port, or the path of a Unix socket as the host and no port."""

    host: str
    port: int | None

    def __str__(self) -> str:
        return self.host if self.port is None else f"{self.host}:{self.port}"


class Location:
    """What a URL says: the addresses to begin with, and what to say first on each connection.

    `is_cluster` tells whether the addresses are seeds of a cluster; `tls` is the context of encrypted connections.
    """

    __slots__ = ("_database", "_password", "_user", "addresses", "is_cluster", "tls")

    def __init__(
        self,
        addresses: list[Address],
        *,
        is_cluster: bool = False,
        user: str = "",
        password: str = "",
        database: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.addresses = addresses
        self.is_cluster = is_cluster
        self.tls = tls
        self._user = user
        self._password = password
        self._database = database

    def introduction(self) -> list[bytes]:
        """The commands that begin a connection, each of which must be answered by OK."""
        commands = []
        if self._password:
            commands.append(command("AUTH", *filter(None, (self._user,)), self._password))
        if self._database:
            commands.append(command("SELECT", str(self._database)))
        return commands

    def __repr__(self) -> str:
        return f"Location({', '.join(map(str, self.addresses))})"


def locate(url: str) -> Location:
    """What a URL names; ValueError, which never repeats the URL, since it may hold a password.

    `valkey://user:password@host:6379/0`, all but the scheme and the host being optional; `valkeys://` with TLS, whose
    certificates are verified, with `?ca_file=` against that authority, with `?cert_file=&key_file=` showing one's own;
    `valkey+cluster://host:6379,other:6379` and `valkeys+cluster://` with seeds of a cluster; `unix:///path?db=0`. For
    `valkey` also `redis`, for `valkeys` also `rediss`. What is special in a URL is percent-encoded.
    """
    scheme, separator, rest = url.partition("://")
    family, _, form = scheme.partition("+")
    if not separator or form not in ("", "cluster") or family not in {*_TCP, "unix"} or (family == "unix" and form):
        raise ValueError("the store's URL begins with valkey://, valkeys://, valkey+cluster:// or unix://")
    try:
        parts = urlsplit(f"//{rest}")
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)) if parts.query else {}
    except ValueError:
        raise ValueError("the store's URL is malformed") from None
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    place = _unix(hosts, parts.path, options) if family == "unix" else _tcp(hosts, parts.path, bool(form))
    tls = _context(options) if _TCP.get(family) else None
    if options or parts.fragment:
        raise ValueError(f"the store's URL has something unknown: {', '.join(sorted(options)) or 'a fragment'}")
    if user and not password:
        raise ValueError("the store's URL has a user without a password")
    addresses, database = place
    return Location(
        addresses,
        is_cluster=bool(form),
        user=unquote(user),
        password=unquote(password),
        database=database,
        tls=tls,
    )


def _tcp(hosts: str, path: str, is_cluster: bool) -> tuple[list[Address], int]:
    addresses = [_address(host) for host in hosts.split(",")]
    if len(addresses) > 1 and not is_cluster:
        raise ValueError("the store's URL names several hosts: that is valkey+cluster://")
    database = _database(path.removeprefix("/") or "0")
    if database and is_cluster:
        raise ValueError("a cluster has no database but 0")
    return addresses, database


def _unix(hosts: str, path: str, options: dict[str, str]) -> tuple[list[Address], int]:
    if hosts or not path or "%00" in path:
        raise ValueError("a socket's URL has three slashes and a path: unix:///run/valkey.sock")
    return [Address(unquote(path), None)], _database(options.pop("db", "0"))


def _address(text: str) -> Address:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or "@" in text or "%00" in text:
        raise ValueError("the store's URL needs a host, and a port from 1 to 65535 if any")
    return Address(unquote(host), DEFAULT_PORT if port is None else port)


def _database(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError("the store's URL has a database that is no number")
    return int(text)


def _context(options: dict[str, str]) -> ssl.SSLContext:
    import ssl  # noqa: PLC0415 - costs 10 ms, and only encrypted connections need it

    ca_file, cert_file, key_file = (options.pop(name, None) for name in _FILES)
    if key_file and not cert_file:
        raise ValueError("the store's URL has a key_file without a cert_file")
    with _naming(ca_file):
        context = ssl.create_default_context(cafile=ca_file)
    if cert_file:
        with _naming(cert_file, key_file):
            context.load_cert_chain(cert_file, key_file)
    return context


@contextmanager
def _naming(*files: str | None) -> Iterator[None]:
    """Say which files cannot be used: the errors of the library do not."""
    try:
        yield
    except OSError as failure:
        named = " or ".join(filter(None, files))
        raise ValueError(f"the store's URL names {named}, which cannot be used: {failure.strerror}") from failure
