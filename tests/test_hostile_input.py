"""Bodies that are JSON and yet wrong: what is wrong is named, and nothing is a failure."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from learnflow_http.operations import OPERATIONS, Operation
from tests import scene
from tests.asgi import post
from tests.samples import sample_of
from tests.scene import told
from tests.world import World, open_world

COURSES = "/v1/courses"


COURSE: dict[str, Any] = {"title": "Rust", "category": "code", "price": {"amount": 10, "currency": "USD"}}


@pytest.fixture(scope="module")
def asked() -> Iterator[Any]:
    """A way to ask one world many times, without an event loop of one's own."""
    with asyncio.Runner() as runner:
        opened = open_world()
        world = runner.run(opened.__aenter__())
        try:
            key = runner.run(world.key(runner.run(world.account())))

            def ask(method: str, path: str, content: bytes) -> httpx.Response:
                world.clock.advance(60)
                headers = {"Authorization": f"Bearer {key}"}
                return runner.run(world.client.request(method, path, content=content, headers=headers))

            yield ask
        finally:
            runner.run(opened.__aexit__(None, None, None))


class TestFields:
    @pytest.mark.parametrize(
        ("path", "body", "code", "param"),
        [
            (COURSES, {}, "missing_parameter", "title"),
            (COURSES, {"title": "T"}, "missing_parameter", "category"),
            (COURSES, {"title": "T", "category": "c"}, "missing_parameter", "price"),
            (COURSES, COURSE | {"price": {"amount": 1}}, "missing_parameter", "price.currency"),
            (
                COURSES,
                COURSE | {"price": {"amount": 1, "currency": "USD", "x": 1}},
                "unknown_parameter",
                "price.x",
            ),
            (COURSES, COURSE | {"price": 10}, "invalid_parameter", "price"),
            (COURSES, COURSE | {"price": None}, "invalid_parameter", "price"),
            (
                COURSES,
                COURSE | {"price": {"amount": "10", "currency": "USD"}},
                "invalid_parameter",
                "price.amount",
            ),
            (COURSES, COURSE | {"price": {"amount": -1, "currency": "USD"}}, "invalid_parameter", "price.amount"),
            (
                COURSES,
                COURSE | {"price": {"amount": 1.001, "currency": "USD"}},
                "invalid_parameter",
                "price.amount",
            ),
            (
                COURSES,
                COURSE | {"price": {"amount": 0.5, "currency": "JPY"}},
                "invalid_parameter",
                "price.amount",
            ),
            (
                COURSES,
                COURSE | {"price": {"amount": 1, "currency": "usd"}},
                "invalid_parameter",
                "price.currency",
            ),
            (COURSES, COURSE | {"price": {"amount": 1, "currency": 840}}, "invalid_parameter", "price.currency"),
            (COURSES, COURSE | {"title": ""}, "invalid_parameter", "title"),
            (COURSES, COURSE | {"title": " \t "}, "invalid_parameter", "title"),
            (COURSES, COURSE | {"title": "x" * 201}, "invalid_parameter", "title"),
            (COURSES, COURSE | {"title": 1}, "invalid_parameter", "title"),
            (COURSES, COURSE | {"title": None}, "invalid_parameter", "title"),
            (COURSES, COURSE | {"category": "No Slug"}, "invalid_parameter", "category"),
            (COURSES, COURSE | {"level": "expert"}, "invalid_parameter", "level"),
            (COURSES, COURSE | {"language": "english, please"}, "invalid_parameter", "language"),
            (COURSES, COURSE | {"seats": -1}, "invalid_parameter", "seats"),
            (COURSES, COURSE | {"seats": 1.5}, "invalid_parameter", "seats"),
            (COURSES, COURSE | {"seats": True}, "invalid_parameter", "seats"),
            (COURSES, COURSE | {"seats": 10**30}, "invalid_parameter", "seats"),
            (COURSES, COURSE | {"status": "archived?"}, "invalid_parameter", "status"),
            (COURSES, COURSE | {"prerequisites": "crs_x"}, "invalid_parameter", "prerequisites"),
            (COURSES, COURSE | {"prerequisites": [1]}, "invalid_parameter", "prerequisites"),
            (COURSES, COURSE | {"prerequisites": ["crs_x"]}, "invalid_parameter", "prerequisites"),
            (COURSES, COURSE | {"curriculum": {}}, "invalid_parameter", "curriculum"),
            (COURSES, COURSE | {"curriculum": [1]}, "invalid_parameter", "curriculum.0"),
            (COURSES, COURSE | {"curriculum": [{"title": "A"}]}, "missing_parameter", "curriculum.0.lessons"),
            (
                COURSES,
                COURSE | {"curriculum": [{"title": "A", "lessons": [{"title": "B", "seconds": -1}]}]},
                "invalid_parameter",
                "curriculum.0.lessons.0.seconds",
            ),
            (
                COURSES,
                COURSE | {"curriculum": [{"title": "A", "lessons": [{"title": "B", "seconds": 1, "url": "x"}]}]},
                "unknown_parameter",
                "curriculum.0.lessons.0.url",
            ),
            (COURSES, COURSE | {"id": "crs_mine"}, "unknown_parameter", "id"),
            (COURSES, COURSE | {"Title": "T"}, "unknown_parameter", "Title"),
            (COURSES, [], "invalid_parameter", None),
            (COURSES, "x", "invalid_parameter", None),
            (COURSES, None, "invalid_parameter", None),
            ("/v1/users", {"email": "no address", "name": "N"}, "invalid_parameter", "email"),
            ("/v1/users", {"email": "a@b", "name": "N", "role": "owner"}, "invalid_parameter", "role"),
            ("/v1/users", {"email": "a@b", "name": "N", "password": "short"}, "invalid_parameter", "password"),
            ("/v1/users", {"email": "a@b", "name": "N", "password": "x" * 257}, "invalid_parameter", "password"),
            ("/v1/enrollments", {"user_id": "u"}, "missing_parameter", "course_id"),
            ("/v1/enrollments", {"user_id": 1, "course_id": "c"}, "invalid_parameter", "user_id"),
            ("/v1/enrollments", {"user_id": "u", "course_id": "c", "price": 0}, "unknown_parameter", "price"),
            ("/v1/api-keys", {"name": "k", "scopes": []}, "invalid_parameter", "scopes"),
            ("/v1/api-keys", {"name": "k", "scopes": ["root"]}, "invalid_parameter", "scopes"),
            ("/v1/api-keys", {"name": "k", "mode": "prod"}, "invalid_parameter", "mode"),
            ("/v1/api-keys", {"name": "k", "expires_at": "tomorrow"}, "invalid_parameter", "expires_at"),
            ("/v1/api-keys", {"name": "k", "expires_at": "2024-01-15T09:30:00Z"}, "invalid_parameter", "expires_at"),
        ],
        ids=lambda value: json.dumps(value)[:60],
    )
    def test_what_is_wrong_is_named_by_its_path(
        self, asked: Any, path: str, body: Any, code: str, param: str | None
    ) -> None:
        reply = asked("POST", path, json.dumps(body).encode())
        assert told(reply) == (400, code, param), reply.text

    async def test_the_first_error_of_several_is_told(self, world: World) -> None:
        reply = await post(world, COURSES, b'{"x": 1, "title": 2}')
        assert told(reply) == (400, "unknown_parameter", "x")

    async def test_a_repeated_field_is_its_last_value(self, world: World) -> None:
        reply = await post(world, COURSES, json.dumps(COURSE)[:-1].encode() + b', "title": "Second"}')
        assert (reply.status_code, reply.json()["title"]) == (201, "Second")

    async def test_card_numbers_are_refused_and_not_kept(self, world: World) -> None:
        account = await world.account()
        user, key = await world.user(account, "ada@acme.test"), await world.key(account)
        for number in ("4242424242424242", "4242 4242 4242 4242", "4242-4242-4242-4242", "\u0664\u0662" * 8):
            reply = await world.ask("POST", f"/v1/users/{user.id}/payment-methods", key, {"token": number})
            assert told(reply) == (400, "invalid_parameter", "token")
            assert number not in str(await scene.books(world))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


fields = {
    name: st.just(sample_of(field.type, name)) | json_values
    for row in OPERATIONS
    if row.body is not None
    for field in msgspec.structs.fields(row.body)
    for name in [field.encode_name]
}


almost_bodies = st.fixed_dictionaries({}, optional=fields) | json_values


class TestWhateverIsSent:
    @given(body=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
    @example(body=b'{"title":"a","category":"c","price":{"amount":1,"currency":"USD"},"title":null}')
    def test_no_bytes_are_a_failure(self, asked: Any, body: bytes) -> None:
        assert asked("POST", "/v1/courses", body).status_code in (201, 400)

    @given(operation=st.sampled_from([row for row in OPERATIONS if row.body is not None]), body=almost_bodies)
    def test_no_json_is_a_failure(self, asked: Any, operation: Operation, body: Any) -> None:
        path = operation.path.format(id="x", method_id="x")
        reply = asked(operation.method, path, json.dumps(body).encode())
        assert reply.status_code < 500
        assert reply.is_success or set(reply.json()["error"]) <= {"code", "message", "request_id", "param", "details"}
