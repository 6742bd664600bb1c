"""What HTTP itself asks for: conditional requests, HEAD, OPTIONS and Allow, caching, and CORS."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from itertools import groupby

import pytest

from learnflow_http.operations import OPERATIONS
from tests import scene
from tests.scene import RATE_LIMIT_FIELDS
from tests.world import World, open_world


class TestConditionalRequests:
    @pytest.fixture
    async def things(self) -> AsyncIterator[tuple[World, str, list[str]]]:
        """A world, a key, and the path of one thing for every GET of a resource."""
        async with open_world() as world:
            account = await world.account()
            user, course = await world.user(account, "ada@acme.test"), await scene.course(world, account)
            certificate = await scene.completed(world, account, user, course)
            ids = {
                "/v1/courses/{id}": course.id,
                "/v1/enrollments/{id}": certificate.enrollment_id,
                "/v1/certificates/{id}": certificate.id,
                "/v1/certificates/{id}/verify": certificate.id,
            }
            paths = [
                row.path.format(id=ids.get(row.path, user.id))
                for row in OPERATIONS
                if row.method == "GET" and row.name not in ("getRateLimit", "getMe")
            ]
            yield world, await world.key(account), paths

    async def test_who_has_a_representation_is_not_sent_it_again(self, things: tuple[World, str, list[str]]) -> None:
        world, key, paths = things
        for path in paths:
            reply = await world.ask("GET", path, key)
            tag = reply.headers["ETag"]
            assert (reply.status_code, re.fullmatch(r'"[^"]+"', tag) is not None) == (200, True), path
            for sent in (tag, f"W/{tag}", f'"other", {tag}', "*"):
                again = await world.ask("GET", path, key, If_None_Match=sent)
                assert (again.status_code, again.content) == (304, b""), path
                assert again.headers["ETag"] == tag
                assert "Content-Length" not in again.headers
                assert all(
                    name in again.headers for name in (*RATE_LIMIT_FIELDS, "X-Request-Id", "Vary", "Cache-Control")
                )
            for sent in ('"other"', tag.strip('"'), "", "W/"):
                assert (await world.ask("GET", path, key, If_None_Match=sent)).status_code == 200

    async def test_a_change_changes_the_tag(self, things: tuple[World, str, list[str]]) -> None:
        world, key, paths = things
        path = next(path for path in paths if path.startswith("/v1/courses/"))
        tag = (await world.ask("GET", path, key)).headers["ETag"]
        assert (await world.ask("PATCH", path, key, {"title": "Another"})).status_code == 200
        changed = await world.ask("GET", path, key, If_None_Match=tag)
        assert (changed.status_code, changed.headers["ETag"] != tag) == (200, True)

    async def test_head_answers_as_get_without_the_body(self, things: tuple[World, str, list[str]]) -> None:
        world, key, paths = things
        for path in [*paths, "/v1/rate-limit", "/healthz", "/openapi.json", "/docs"]:
            got, head = await world.ask("GET", path, key), await world.ask("HEAD", path, key)
            assert (head.status_code, head.content) == (200, b"")
            same = {"content-type", "content-length", "etag", "cache-control", "link", "vary"}
            assert {k: v for k, v in head.headers.items() if k in same} == {
                k: v for k, v in got.headers.items() if k in same
            }
            assert int(head.headers["Content-Length"]) == len(got.content)

    async def test_a_request_that_fails_has_no_tag(self, world: World) -> None:
        reply = await world.ask("GET", "/v1/courses/crs_x", If_None_Match="*")
        assert (reply.status_code, "ETag" in reply.headers) == (404, False)


METHODS = {
    path: {row.method for row in rows}
    for path, rows in groupby(sorted(OPERATIONS, key=lambda row: row.path), key=lambda row: row.path)
}


class TestMethods:
    @pytest.mark.parametrize("path", METHODS)
    async def test_options_and_405_name_the_methods_of_an_address(self, world: World, path: str) -> None:
        allowed = METHODS[path] | {"OPTIONS"} | ({"HEAD"} if "GET" in METHODS[path] else set())
        address = path.format(id="x", method_id="y")
        options = await world.ask("OPTIONS", address)
        assert (options.status_code, options.content) == (200, b"")
        assert set(options.headers["Allow"].split(", ")) == allowed
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"} - allowed:
            refused = await world.ask(method, address)
            assert (refused.status_code, refused.headers["Allow"]) == (405, options.headers["Allow"])

    async def test_an_address_with_a_slash_at_its_end_is_another_address(self, world: World) -> None:
        for path in ("/v1/courses/", "/v1/", "/v1//courses", "/V1/courses", "/v1/Courses", "/healthz/"):
            assert (await world.ask("GET", path)).status_code == 404


class TestCaching:
    async def test_secrets_are_stored_nowhere_and_all_else_by_its_reader_alone(self, world: World) -> None:
        account = await world.account()
        key = await world.key(account)
        user = await world.user(account, "ada@acme.test")
        made = await world.ask("POST", "/v1/api-keys", key, {"name": "x"})
        rotated = await world.ask("POST", f"/v1/api-keys/{made.json()['id']}/rotate", key, {})
        minted = await world.ask("POST", "/v1/auth/token", key, {"user_id": user.id})
        for reply in (made, rotated, minted):
            assert reply.is_success
            assert reply.headers["Cache-Control"] == "no-store"
        for path in ("/v1/courses", "/v1/account", "/v1/api-keys", "/v1/nothing", "/v1/courses?limit=0"):
            assert (await world.ask("GET", path, key)).headers["Cache-Control"] == "private"
        for path in ("/v1/courses", "/v1/nothing", "/v1/rate-limit", "/healthz"):
            assert (await world.ask("GET", path)).headers["Vary"] == "Authorization"


class TestCors:
    async def test_a_page_of_a_configured_origin_may_call_and_read(self) -> None:
        async with open_world(cors_origins="https://app.test,http://localhost:3000") as world:
            for origin in ("https://app.test", "http://localhost:3000"):
                preflight = await world.ask(
                    "OPTIONS",
                    "/v1/enrollments",
                    Origin=origin,
                    Access_Control_Request_Method="POST",
                    Access_Control_Request_Headers="authorization,content-type,idempotency-key",
                )
                allowed = preflight.headers["Access-Control-Allow-Headers"].lower().split(", ")
                assert preflight.status_code == 200
                assert preflight.headers["Access-Control-Allow-Origin"] == origin
                assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
                assert {"authorization", "content-type", "idempotency-key", "if-none-match"} <= set(allowed)
                assert int(preflight.headers["Access-Control-Max-Age"]) > 0
            for path in ("/v1/courses", "/v1/nothing", "/v1/account"):
                reply = await world.ask("GET", path, Origin="https://app.test")
                assert reply.headers["Access-Control-Allow-Origin"] == "https://app.test"
                assert "Access-Control-Allow-Credentials" not in reply.headers
                assert reply.headers["Vary"] == "Authorization, Origin"
                exposed = reply.headers["Access-Control-Expose-Headers"].lower()
                assert all(name.lower() in exposed for name in (*RATE_LIMIT_FIELDS, "ETag", "Link", "Retry-After"))

    async def test_a_page_of_any_other_origin_may_not(self) -> None:
        async with open_world(cors_origins="https://app.test") as world:
            for origin in ("https://evil.test", "https://app.test.evil.test", "http://app.test", "null", ""):
                for method in ("GET", "OPTIONS"):
                    reply = await world.ask(method, "/v1/courses", Origin=origin)
                    assert "Access-Control-Allow-Origin" not in reply.headers
                    assert reply.headers["Vary"] == "Authorization, Origin"

    async def test_a_star_allows_every_origin(self) -> None:
        async with open_world(cors_origins="*") as world:
            reply = await world.ask("GET", "/v1/courses", Origin="https://anyone.test")
            assert reply.headers["Access-Control-Allow-Origin"] == "*"

    async def test_by_default_no_origin_is_allowed(self, world: World) -> None:
        reply = await world.ask("GET", "/v1/courses", Origin="https://app.test")
        assert "Access-Control-Allow-Origin" not in reply.headers
