"""The short way: the same replies as the long one, and no request that it may not answer."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

from learnflow_core.limiter import MemoryLimiter
from learnflow_core.limiter.memory import MemoryLimiter as PythonLimiter
from learnflow_http import outgoing
from learnflow_http.auth import FRESH_FOR
from learnflow_http.outgoing import Headers
from learnflow_http.shortcut import Shortcut
from tests import scene
from tests.world import World, open_world

PEER = "192.0.2.1"
ORIGIN = "https://school.example"


class Short(NamedTuple):
    """A reply of the short way."""

    status: int
    headers: dict[str, str]
    body: bytes


class Ways:
    """A server whose requests can go both ways, a course in it, and people who ask."""

    def __init__(self, world: World, key: str, token: str, course_id: str) -> None:
        assert isinstance(world.services.limiter, MemoryLimiter | PythonLimiter)
        self.world = world
        self.key = key
        self.token = token
        self.targets = ["/v1/courses", "/v1/courses?search=w&page=1", f"/v1/courses/{course_id}", "/v1/categories"]
        self._shortcut = Shortcut(world.services, world.services.limiter)

    def short(self, target: str, credential: str | None = None, *more: tuple[bytes, bytes]) -> Short | None:
        fields: Headers = [(b"host", b"learnflow.test"), *more]
        if credential is not None:
            fields.append((b"authorization", b"Bearer " + credential.encode()))
        reply = self._shortcut(target.encode(), fields, PEER)
        if reply is None:
            return None
        status, lines, body = reply
        headers = dict(line.split(": ", 1) for line in lines.decode().removesuffix("\r\n").split("\r\n"))
        return Short(status, headers, body)

    async def long(self, target: str, credential: str | None = None, **headers: str) -> Short:
        reply = await self.world.ask("GET", target, credential, **headers)
        return Short(reply.status_code, dict(reply.headers), reply.content)


@pytest.fixture
async def ways() -> AsyncIterator[Ways]:
    async with open_world(cors_origins=ORIGIN, trusted_proxies=f"{PEER}/32") as world:
        account = await world.account(per_minute=100)
        user = await world.user(account, "a@example.com")
        course = await scene.course(world, account)
        yield Ways(world, await world.key(account), await world.token(user), course.id)


def without_what_changes(reply: Short) -> tuple[int, dict[str, str], bytes]:
    """A reply without its id and what is left of the limit."""
    headers = {**reply.headers, "x-request-id": re.sub(r"[0-9a-z]{12}$", "", reply.headers["x-request-id"])}
    for name in ("x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit"):
        headers[name] = re.sub(r"\d+", "9", headers[name])
    return reply.status, headers, reply.body


@pytest.mark.parametrize("who", ["key", "token", None])
@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("origin", [None, ORIGIN, "https://other.example"])
async def test_the_reply_is_that_of_the_long_way(ways: Ways, who: str | None, number: int, origin: str | None) -> None:
    target, credential = ways.targets[number], who and getattr(ways, who)
    headers = {} if origin is None else {"Origin": origin}
    long = await ways.long(target, credential, **headers)
    short = ways.short(
        target, credential, *((name.lower().encode(), value.encode()) for name, value in headers.items())
    )
    assert short is not None
    assert without_what_changes(short) == without_what_changes(long)
    left = "x-ratelimit-remaining"
    assert int(short.headers[left]) == int(long.headers[left]) - 1
    assert short.headers["x-request-id"] != long.headers["x-request-id"]


def test_nothing_is_kept_for_origins_that_clients_make_up() -> None:
    origin = "".join(["https://", "x" * 32_000])
    held = sys.getrefcount(origin)
    assert outgoing.common("req_1", origin, [ORIGIN]) == outgoing.common("req_1", None, [ORIGIN])
    assert outgoing.common_lines("req_1", origin, ["*"]) == outgoing.common_lines("req_1", None, ["*"])
    assert sys.getrefcount(origin) == held


async def test_who_has_the_answer_is_told_so_on_both_ways(ways: Ways) -> None:
    tag = (await ways.long("/v1/courses")).headers["etag"]
    long = await ways.long("/v1/courses", If_None_Match=tag)
    short = ways.short("/v1/courses", None, (b"if-none-match", tag.encode()))
    assert short is not None
    assert (short.status, short.body) == (304, b"")
    assert without_what_changes(short) == without_what_changes(long)


async def test_both_ways_are_counted_and_logged_alike(ways: Ways, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "learnflow.http")
    await ways.long("/v1/courses?page=1", ways.token, X_Request_Id="mine", X_Forwarded_For="198.51.100.7")
    ways.short("/v1/courses?page=1", ways.token, (b"x-request-id", b"mine"), (b"x-forwarded-for", b"198.51.100.7"))
    long, short = ({**record.__dict__["fields"], "request_id": "", "duration_ms": 0.0} for record in caplog.records)
    assert long == short
    assert (short["path"], short["client"], short["client_request_id"]) == ("/v1/courses", "198.51.100.7", "mine")
    requests = ways.world.services.metrics.requests
    assert ways.world.services.metrics.row[requests.cells["/v1/courses", "GET", "2xx"]] == 2


async def test_what_is_not_kept_goes_the_long_way(ways: Ways) -> None:
    for target in (*ways.targets, "/v1/users", "/healthz", "/v1/courses?page=x", "/v1/nothing"):
        assert ways.short(target, ways.key) is None


async def test_who_was_not_looked_up_or_too_long_ago_goes_the_long_way(ways: Ways) -> None:
    await ways.long("/v1/courses")
    assert ways.short("/v1/courses", ways.key) is None
    await ways.long("/v1/courses", ways.key)
    assert ways.short("/v1/courses", ways.key) is not None
    ways.world.clock.advance(FRESH_FOR / 1_000_000)
    await ways.long("/v1/courses")
    assert ways.short("/v1/courses", ways.key) is None


async def test_a_revoked_key_is_refused_at_once_where_it_was_revoked(ways: Ways) -> None:
    await ways.long("/v1/courses", ways.key)
    key_id = (await scene.key_of(ways.world, ways.key)).id
    await ways.world.ask("DELETE", f"/v1/api-keys/{key_id}", ways.key)
    assert ways.short("/v1/courses", ways.key) is None
    assert (await ways.long("/v1/courses", ways.key)).status == 401


@pytest.mark.parametrize("field", [b"Basic YTpi", b"bearer x", b"Bearer", b"Bearer  ", b"Bearer sk_live_x", b"\xff"])
async def test_what_is_no_known_credential_goes_the_long_way(ways: Ways, field: bytes) -> None:
    await ways.long("/v1/courses")
    assert ways.short("/v1/courses", None, (b"authorization", field)) is None


async def test_fields_that_are_repeated_go_the_long_way(ways: Ways) -> None:
    await ways.long("/v1/courses", ways.key)
    assert ways.short("/v1/courses", ways.key, (b"authorization", b"Bearer x")) is None
    assert ways.short("/v1/courses", ways.key, (b"x-forwarded-for", b"::1"), (b"x-forwarded-for", b"::2")) is None


async def test_who_has_used_up_the_limit_is_refused_by_the_long_way(ways: Ways) -> None:
    await ways.long("/v1/courses", ways.key)
    told: list[Any] = [ways.short("/v1/courses", ways.key) for _ in range(99)]
    assert None not in told
    assert told[-1].headers["x-ratelimit-remaining"] == "0"
    assert ways.short("/v1/courses", ways.key) is None
    assert (await ways.long("/v1/courses", ways.key)).status == 429


async def test_another_version_is_told_on_the_short_way_as_soon_as_on_the_long(ways: Ways) -> None:
    await ways.long("/v1/courses", ways.key)
    await ways.world.ask("PATCH", ways.targets[2], ways.key, {"title": "Another"})
    assert ways.short("/v1/courses", ways.key) is None
    await ways.long("/v1/courses", ways.key)
    short = ways.short("/v1/courses", ways.key)
    assert short is not None
    assert b"Another" in short.body
