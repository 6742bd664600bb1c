"""Bodies, queries and addresses that mean no good: the contract's error each time, promptly, and never a failure."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, cast, get_args, get_origin

import httpx2 as httpx
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message

from learnflow_http.exchange import MAX_BODY, MAX_DROPPED
from learnflow_http.operations import OPERATIONS, Operation
from tests import scene
from tests.world import World, open_world

COURSES = "/v1/courses"
COURSE: dict[str, Any] = {"title": "Rust", "category": "code", "price": {"amount": 10, "currency": "USD"}}
DEEP = 100_000


def told(reply: httpx.Response) -> tuple[int, str, str | None]:
    error = reply.json()["error"]
    return reply.status_code, error["code"], error.get("param")


async def post(world: World, path: str, content: bytes | AsyncIterator[bytes], **headers: str) -> httpx.Response:
    """One body as it is, sent by a key that may do everything."""
    key = await world.key(await world.account())
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await world.client.post(path, content=content, headers={"Authorization": f"Bearer {key}", **named})


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


BROKEN: Sequence[bytes] = (
    b"{",
    b"}",
    b"nonsense",
    b"{'title': 'x'}",
    b'{"title": "x",}',
    b'{"title": NaN}',
    b'{"title": Infinity}',
    b'{"title": 01}',
    b'{"title": "x"} {}',
    b'{"title": "\x00"}',
    b'{"title": "\n"}',
    b'{"title": "\\x41"}',
    b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf{}",
    b'{"title": "\xff"}',
    b'{"title": "\xc0\x80"}',
    b'{"title": "\xed\xa0\x80"}',
    b'{"\xff": 1}',
    b'{"x": "\xff"}',
    b'{"title": "\\ud800"}',
    b'{"title": "\\udc00\\ud800"}',
    b'{"title": "\\ud800x"}',
    b'{"x": "\\ud800"}',
    b"[" * DEEP,
    b"[" * DEEP + b"]" * DEEP,
    b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    b'{"title":' + b"[" * DEEP + b"]" * DEEP + b"}",
    b'{"x":' + b"[" * DEEP + b"]" * DEEP + b"}",
    b'{"curriculum":' + b"[" * DEEP + b"]" * DEEP + b"}",
)
"""Bodies that are not JSON in UTF-8, or no JSON that anybody means."""


class TestBodies:
    @pytest.mark.parametrize("path", ["/v1/courses", "/v1/auth/token", "/v1/enrollments"])
    async def test_what_is_no_json_is_invalid_json_or_at_least_a_bad_request(self, world: World, path: str) -> None:
        for body in BROKEN:
            # Twenty-nine shapes that cannot be read are nearly all that an address may ask for in a minute.
            world.clock.advance(60)
            reply = await world.client.post(path, content=body) if "auth" in path else await post(world, path, body)
            assert reply.status_code == 400, body[:40]
            assert reply.json()["error"]["code"] in {"invalid_json", "unknown_parameter", "invalid_parameter"}

    @pytest.mark.parametrize("body", [b"{", b"nonsense", b'{"title": "\xff"}', b'{"title": "\\ud800"}', b"[" * DEEP])
    async def test_the_word_for_it_is_invalid_json(self, world: World, body: bytes) -> None:
        assert told(await post(world, "/v1/courses", body)) == (400, "invalid_json", None)

    @pytest.mark.parametrize(
        "number",
        [
            "1E+999999",
            "-1E+999999",
            "1E-999999",
            "1E+9999999999",
            "1e400",
            "9" * 30,
            "9" * 400,
            "9" * 5_000,
            "0." + "0" * 5_000 + "1",
            "[" * 500 + "]" * 500,
            "[" * DEEP + "]" * DEEP,
        ],
        ids=lambda number: f"{number[:12]} of {len(number)}",
    )
    @pytest.mark.parametrize("field", ["seats", "price"])
    async def test_a_number_beyond_all_measure_is_refused_at_once(self, world: World, field: str, number: str) -> None:
        value = number if field == "seats" else f'{{"amount":{number},"currency":"USD"}}'
        body = json.dumps({name: known for name, known in COURSE.items() if name != field})
        reply = await asyncio.wait_for(
            post(world, "/v1/courses", f'{body[:-1]}, "{field}": {value}}}'.encode(), Idempotency_Key="1"), 5
        )
        assert reply.status_code == 400, reply.text
        assert reply.json()["error"]["code"] in {"invalid_parameter", "invalid_json"}

    async def test_an_empty_body_is_an_object_without_fields(self, world: World) -> None:
        assert told(await post(world, "/v1/courses", b"")) == (400, "missing_parameter", "title")

    @pytest.mark.parametrize(
        "media_type",
        [
            "application/json",
            "application/json; charset=utf-8",
            'application/json;charset="UTF-8"',
            "APPLICATION/JSON; Charset=UTF-8",
            "application/json; charset=utf-8; version=1",
            "application/json; version=1; charset=utf-8",
            " application/json ;",
        ],
    )
    async def test_json_is_read_however_its_media_type_is_written(self, world: World, media_type: str) -> None:
        reply = await post(world, "/v1/courses", json.dumps(COURSE).encode(), Content_Type=media_type)
        assert reply.status_code == 201

    @pytest.mark.parametrize(
        "media_type",
        [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/json; charset=latin-1",
            "application/json; charset=utf-16",
            "application/jsonp",
            "application/json, text/plain",
            "json",
            "",
            "application/xml; x=application/json",
        ],
    )
    async def test_any_other_media_type_is_415(self, world: World, media_type: str) -> None:
        reply = await post(world, "/v1/courses", json.dumps(COURSE).encode(), Content_Type=media_type)
        assert told(reply) == (415, "unsupported_media_type", None)

    async def test_a_body_of_one_mebibyte_is_read_and_one_byte_more_is_413(self, world: World) -> None:
        body = json.dumps(COURSE).encode()
        assert (await post(world, "/v1/courses", body.ljust(MAX_BODY))).status_code == 201
        assert told(await post(world, "/v1/courses", body.ljust(MAX_BODY + 1))) == (413, "payload_too_large", None)

    async def test_a_body_without_an_announced_length_is_measured_as_it_comes(self, world: World) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(17):
                yield b" " * 65_536

        assert told(await post(world, "/v1/courses", chunks())) == (413, "payload_too_large", None)


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
                reply = await world.ask("GET", f"{operation.path}?{field.encode_name}=a%00b", key)
                nothing_found = reply.status_code == 200 and reply.json()["data"] == []
                assert reply.status_code == 400 or nothing_found, field.name

    async def test_an_address_with_nul_or_other_oddities_in_it_is_not_found(self, world: World) -> None:
        key = await world.key(await world.account())
        for part in ("%00", "a%00b", "%F0%9F%98%80", "x" * 10_000, "..%2F..", "%20", "'--", "%25", "*", "{id}"):
            for path in ("courses", "users", "enrollments", "certificates"):
                reply = await world.ask("GET", f"/v1/{path}/{part}", key)
                assert reply.status_code == 404, f"{path}/{part}"


def bodies_with_nul(operation: Operation) -> Iterator[dict[str, Any]]:
    """A body for each text of the operation's own, nested ones too, in which only that text is wrong."""
    if operation.body is None:
        return
    good = sample(operation.body)
    for path in texts(operation.body):
        body = json.loads(json.dumps(good))
        inner = body
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = "a\0b"
        yield body


def sample(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """A body with every field of a Struct."""
    return {field.encode_name: sample_of(field.type, field.name) for field in msgspec.structs.fields(struct)}


EXAMPLES = {
    "email": "new@acme.test",
    "password": "correct horse battery",
    "language": "en",
    "category": "development",
    "amount": 1,
    "currency": "USD",
    "prerequisites": [],
    "scopes": ["users:read"],
    "expires_at": "2030-01-01T00:00:00Z",
    "mode": "live",
}


def sample_of(kind: Any, name: str) -> Any:
    if name in EXAMPLES:
        return EXAMPLES[name]
    for struct in structs(kind):
        return [sample(struct)] if is_list(kind) else sample(struct)
    choices = [choice for part in parts(kind) if type(choice := part) is str]
    if choices:
        return choices[0]
    return 1 if int in parts(kind) else "text"


def texts(struct: type[msgspec.Struct]) -> Iterator[tuple[Any, ...]]:
    """Where in a body the free texts are."""
    for field in msgspec.structs.fields(struct):
        inner = list(structs(field.type))
        for nested in inner:
            for path in texts(nested):
                yield (field.encode_name, 0, *path) if is_list(field.type) else (field.encode_name, *path)
        if not inner and str in parts(field.type):
            yield (field.encode_name, 0) if is_list(field.type) and EXAMPLES.get(field.name) else (field.encode_name,)


def parts(kind: Any) -> Iterator[Any]:
    """What a type is made of, through unions, sequences, literals and annotations."""
    if get_origin(kind) is None and not hasattr(kind, "__metadata__"):
        yield kind
    for part in get_args(kind):
        yield from parts(part)


def structs(kind: Any) -> Iterator[type[msgspec.Struct]]:
    for part in parts(kind):
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            yield part


def is_list(kind: Any) -> bool:
    return get_origin(kind) is tuple or any(is_list(part) for part in get_args(kind))


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


async def raw(
    world: World,
    method: str,
    path: str,
    query: bytes = b"",
    headers: Sequence[tuple[bytes, bytes]] = (),
    messages: Iterable[Message] = ({"type": "http.request", "body": b"", "more_body": False},),
) -> tuple[int, bytes]:
    """Ask as a server would, whatever a client's library would not send; status 0 when nothing was answered."""
    app = cast("ASGIApp", cast("Any", world.client)._transport.app)
    sent: list[Message] = []
    incoming = iter(messages)

    async def receive() -> Message:
        return next(incoming)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode("ascii", "replace"),
        "query_string": query,
        "headers": list(headers),
        "client": ("192.0.2.1", 1),
        "root_path": "",
    }
    await app(scope, receive, send)
    status = next((message["status"] for message in sent if message["type"] == "http.response.start"), 0)
    return status, b"".join(message.get("body", b"") for message in sent)


class TestTheConnection:
    async def test_a_client_that_goes_away_in_its_body_is_not_answered_and_does_nothing(self, world: World) -> None:
        key = await world.key(await world.account())
        before = await scene.books(world)
        whole = json.dumps(COURSE).encode()
        for start in ([], [{"type": "http.request", "body": whole, "more_body": True}]):
            status, _ = await raw(
                world,
                "POST",
                "/v1/courses",
                headers=[(b"authorization", f"Bearer {key}".encode())],
                messages=[*start, {"type": "http.disconnect"}],
            )
            assert status == 0
        assert await scene.books(world) == before

    async def test_of_a_huge_body_no_more_than_four_mebibytes_are_read(self, world: World) -> None:
        key = await world.key(await world.account())
        chunk: Message = {"type": "http.request", "body": b" " * 65_536, "more_body": True}
        chunks = iter([chunk] * (2 * MAX_DROPPED // 65_536))
        status, body = await raw(
            world,
            "POST",
            "/v1/courses",
            headers=[(b"authorization", f"Bearer {key}".encode())],
            messages=chunks,
        )
        taken = 2 * MAX_DROPPED - 65_536 * len(list(chunks))
        assert (status, json.loads(body)["error"]["code"]) == (413, "payload_too_large")
        assert MAX_DROPPED <= taken <= MAX_DROPPED + 65_536

    @pytest.mark.parametrize(
        "header",
        [
            (b"authorization", b"Bearer \xff\xfe"),
            (b"if-none-match", b'"\xff"'),
            (b"if-none-match", b"," * 1_000),
            (b"x-request-id", b"\xff" * 200),
            (b"x-forwarded-for", b"\xff"),
            (b"origin", b"\xff"),
            (b"content-type", b"\xff"),
            (b"idempotency-key", b"\xff"),
        ],
        ids=repr,
    )
    async def test_bytes_in_a_header_are_no_failure(self, world: World, header: tuple[bytes, bytes]) -> None:
        status, body = await raw(world, "GET", "/v1/courses", headers=[header])
        assert status in (200, 401)
        assert json.loads(body)


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
