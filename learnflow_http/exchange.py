"""One request as the pipeline sees it, and the reply it gets: plain ASGI, read and written as bytes."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import parse_qsl, quote

import msgspec
from starlette.types import Receive, Scope, Send

from learnflow_core.access import Actor
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.limiter import Decision
from learnflow_core.model import User

MAX_BODY = 1024 * 1024
MAX_DROPPED = 4 * 1024 * 1024
"""How much of a body that is too large is read and thrown away, so that the client gets to read the reply."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Reply(msgspec.Struct):
    """A reply before it is sent: its status, its body, and the headers that are its own."""

    status: int
    body: bytes
    headers: list[tuple[bytes, bytes]]


class Exchange:
    """A request, and what the pipeline has learnt about it so far.

    `now_ns` is when it arrived; `client` the address its quotas go by; `actor` and `decision` are None until the caller
    is known and counted. `login` is the user whose password came in the body, as it was when it was verified.
    """

    __slots__ = (
        "actor",
        "client",
        "decision",
        "headers",
        "login",
        "method",
        "now_ns",
        "path",
        "receive",
        "request_id",
        "scope",
        "started_ns",
    )

    def __init__(
        self, scope: Scope, receive: Receive, request_id: str, now_ns: int, trusted: Sequence[Network]
    ) -> None:
        self.scope = scope
        self.receive = receive
        self.request_id = request_id
        self.started_ns = self.now_ns = now_ns
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            self.headers[name] = self.headers[name] + b", " + value if name in self.headers else value
        peer = scope["client"][0] if scope.get("client") else ""
        self.client = client_address(peer, self.headers.get(b"x-forwarded-for"), trusted)
        self.actor: Actor | None = None
        self.decision: Decision | None = None
        self.login: User | None = None

    @property
    def target(self) -> bytes:
        """What is asked for, as it was sent: the path, and the query where there is one."""
        path: bytes = self.scope.get("raw_path") or quote(self.path, errors="surrogatepass").encode("ascii")
        query: bytes = self.scope["query_string"]
        return b"%b?%b" % (path, query) if query else path

    @property
    def now(self) -> int:
        """When the request arrived, in the domain's microseconds."""
        return self.now_ns // 1_000

    @property
    def address_key(self) -> str:
        """The limiter's key of the address, for requests without a credential."""
        return address_key(self.client)

    @property
    def failed_key(self) -> str:
        """The limiter's key of the address, for refused credentials."""
        return f"failed:{self.client}"

    def header(self, name: bytes) -> str | None:
        """A header's text (its bytes as Latin-1), several of one name joined by commas (RFC 9110, section 5.3)."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def client_request_id(self) -> str | None:
        """The client's own `X-Request-Id`, where it is 1-128 printable ASCII characters: for the log."""
        return printable_id(self.headers.get(b"x-request-id"))

    def credential(self) -> str | None:
        """The bearer credential (RFC 6750): None without one, `invalid_token` for what is no bearer credential."""
        text = self.header(b"authorization")
        if text is None:
            return None
        scheme, _, credential = text.partition(" ")
        if scheme.lower() != "bearer" or not credential.strip():
            raise LearnFlowError(
                Code.INVALID_TOKEN, "The Authorization header must be: Bearer, a space, the credential."
            )
        return credential.strip()

    def query(self) -> list[tuple[str, str]]:
        """The parameters of the query, decoded; `invalid_request` when they are not UTF-8, or too many."""
        try:
            return parse_qsl(
                self.scope["query_string"].decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=100,
            )
        except ValueError as error:
            raise LearnFlowError(Code.INVALID_REQUEST, "The query must be percent-encoded UTF-8.") from error

    async def body(self, memory: BodyMemory) -> bytes:
        """The whole body; `payload_too_large` beyond 1 MiB, once what was sent is read and dropped (up to 4 MiB)."""
        chunks: list[bytes] = []
        size = held = 0
        more = True
        try:
            while more and size <= MAX_DROPPED:
                message = await self.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnectedError
                chunk = message.get("body", b"")
                size += len(chunk)
                more = message.get("more_body", False)
                if size <= MAX_BODY:
                    memory.take(self.client, len(chunk))
                    held += len(chunk)
                    chunks.append(chunk)
        finally:
            memory.give_back(self.client, held)
        if size > MAX_BODY:
            raise LearnFlowError(Code.PAYLOAD_TOO_LARGE)
        return b"".join(chunks)

    async def send(self, send: Send, reply: Reply) -> None:
        """Send a reply; to HEAD its headers only."""
        headers = (
            [*reply.headers, (b"content-length", b"%d" % len(reply.body))] if reply.status != 304 else reply.headers
        )
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if self.method == "HEAD" else reply.body})


def address_key(client: str) -> str:
    """The limiter's key of an address, for requests without a credential."""
    return f"address:{client}"


def printable_id(value: bytes | None) -> str | None:
    """A request id of a client's own, where it is 1-128 printable ASCII characters."""
    if not value or len(value) > 128 or not value.isascii():
        return None
    text = value.decode("ascii")
    return text if text.isprintable() else None


def is_api(path: str) -> bool:
    """Whether a path belongs to the API, whose replies tell of the rate limit."""
    return path == "/v1" or path.startswith("/v1/")


class BodyMemory:
    """How many bytes of bodies that are not whole yet are held at the same time: in all, and for one address, so that
    those who never finish what they send cannot fill the memory, nor keep others from sending.

    `held_in_all` is how many that are now.
    """

    def __init__(self, in_all: int = 128 * MAX_BODY, for_one: int = 16 * MAX_BODY) -> None:
        self._in_all = in_all
        self._for_one = for_one
        self._held: Counter[str] = Counter()
        self.held_in_all = 0

    def take(self, client: str, size: int) -> None:
        """Hold `size` more bytes for an address, unless that is too much (`service_unavailable`)."""
        if self.held_in_all + size > self._in_all or self._held[client] + size > self._for_one:
            raise LearnFlowError(Code.SERVICE_UNAVAILABLE, "Too many bodies are on their way.", retry_after_s=1)
        self._held[client] += size
        self.held_in_all += size

    def give_back(self, client: str, size: int) -> None:
        """Hold so many bytes less."""
        self.held_in_all -= size
        self._held[client] -= size
        if not self._held[client]:
            del self._held[client]


class ClientDisconnectedError(Exception):
    """The client went away before its request was whole: there is nobody to answer."""


def client_address(peer: str, forwarded: bytes | None, trusted: Sequence[Network]) -> str:
    """The address whose quotas a request takes from: the peer's, or the one that trusted proxies say they speak for.

    `X-Forwarded-For` is read from the right, as long as the speaker is trusted. An IPv6 address counts by its /64.
    """
    if forwarded is not None and trusted:
        for claimed in reversed(forwarded.decode("latin-1").split(",")):
            if not _is_trusted(peer, trusted) or _parsed(claimed.strip()) is None:
                break
            peer = claimed.strip()
    return _counted(peer)


@lru_cache(maxsize=4_096)
def _counted(peer: str) -> str:
    address = _parsed(peer)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address) if address else "unknown"


def _is_trusted(address: str, trusted: Sequence[Network]) -> bool:
    parsed = _parsed(address)
    return parsed is not None and any(parsed in network for network in trusted)


@lru_cache(maxsize=4_096)
def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    return parsed.ipv4_mapped or parsed if isinstance(parsed, ipaddress.IPv6Address) else parsed
