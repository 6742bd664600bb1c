"""Bodies that mean no good, and connections that end in them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from starlette.types import Message

from learnflow_http.exchange import MAX_BODY, MAX_DROPPED
from tests import scene
from tests.asgi import post, raw
from tests.scene import told
from tests.world import World

COURSE: dict[str, Any] = {"title": "Rust", "category": "code", "price": {"amount": 10, "currency": "USD"}}


DEEP = 100_000


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
