"""Texts that mean no good, in bodies, queries and addresses."""

from __future__ import annotations

import json

import msgspec
import pytest

from learnflow_http.operations import OPERATIONS
from tests import scene
from tests.asgi import raw
from tests.samples import bodies_with_nul
from tests.world import World


class TestTextWithNul:
    async def test_every_text_of_every_body_is_refused_with_nul_in_it(self, world: World) -> None:
        account = await world.account()
        key, user = await world.key(account), await world.user(account, "ada@acme.test")
        course = await scene.course(world, account)
        place = await scene.enrolled(world, account, user, course)
        ids = {"courses": course.id, "users": user.id, "enrollments": place.id}
        asked = 0
        for operation in OPERATIONS:
            for body in bodies_with_nul(operation):
                world.clock.advance(2)
                path = operation.path.format(id=ids.get(operation.path.split("/")[2], "x"), method_id="x")
                reply = await world.ask(operation.method, path, None if operation.sign_in else key, body)
                if operation.name != "revokeToken":  # which answers the same whatever the token was
                    assert reply.status_code in (400, 401), f"{operation.name} {body}: {reply.text}"
                asked += 1
        assert asked >= 30

    async def test_every_text_of_every_query_is_refused_with_nul_in_it_or_finds_nothing(self, world: World) -> None:
        key = await world.key(await world.account())
        for operation in OPERATIONS:
            for field in msgspec.structs.fields(operation.query) if operation.query else ():
                reply = await world.ask(operation.method, f"{operation.path}?{field.encode_name}=a%00b", key)
                nothing_found = reply.status_code == 200 and reply.json()["data"] == []
                assert reply.status_code == 400 or nothing_found, field.name

    async def test_an_address_with_nul_or_other_oddities_in_it_is_not_found(self, world: World) -> None:
        key = await world.key(await world.account())
        for part in ("%00", "a%00b", "%F0%9F%98%80", "x" * 10_000, "..%2F..", "%20", "'--", "%25", "*", "{id}"):
            for path in ("courses", "users", "enrollments", "certificates"):
                reply = await world.ask("GET", f"/v1/{path}/{part}", key)
                assert reply.status_code == 404, f"{path}/{part}"


class TestQueries:
    @pytest.mark.parametrize("query", [b"a=%ff", b"%ff=a", b"a=\xff", b"a=%ed%a0%80", b"a=&" * 101])
    async def test_a_query_that_cannot_be_read_is_an_invalid_request(self, world: World, query: bytes) -> None:
        status, body = await raw(world, "GET", "/v1/courses", query)
        assert (status, json.loads(body)["error"]["code"]) == (400, "invalid_request")

    @pytest.mark.parametrize("query", [b"%", b"%zz=%", b"&&&", b"=", b"a", b"a;b=1", b"+", b"?", b"a=b=c", b"%00=1"])
    async def test_odd_ones_that_can_be_read_are(self, world: World, query: bytes) -> None:
        status, _ = await raw(world, "GET", "/v1/courses", query)
        assert status == 200

    async def test_no_character_of_a_search_is_an_operator_or_an_error(self, world: World) -> None:
        marks = ['"', '""', "'", "*", "a*", "*a", "(", ")", "()", "^a", "-a", "a -b", "{a}", "a:b", "a&b", "a|b", "!a"]
        marks += ["<->", "a\\", "\\", "%", "_", ";", "--", "@development", "~all", "=a", "C++", "C#", ".NET"]
        words = ["a AND", "AND", "OR OR", "NOT", "a NOT b", "NEAR(a b)", "title:a"]
        signs = ["a\tb", "\u200b", "\u0301", "\ufeff", "a\u202eb", "\U0001f600", "\ufb01", "\u0130"]
        for search in marks + words + signs:
            for more in ({}, {"sort": "popular"}, {"cursor": ""}, {"category": "development", "level": "all"}):
                world.clock.advance(2)
                reply = await world.client.get("/v1/courses", params={"search": search, **more})
                assert reply.status_code == 200, f"{search!r}: {reply.text}"

    async def test_no_category_is_anything_but_the_name_of_one(self, world: World) -> None:
        await scene.course(world, await world.account(), title="Rust", category="code")
        others = ['"', 'x" OR "code', 'code" OR "~all', "a b", "\x01", "@code", "co*", "code\n", "CODE", "\u0441ode"]
        for category in ("", *others):
            for search in ({}, {"search": "rust"}):
                reply = await world.client.get("/v1/courses", params={"category": category, **search})
                assert (reply.status_code, len(reply.json()["data"])) == (200, 0 if category else 1), category
