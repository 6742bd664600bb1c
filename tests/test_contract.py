"""The published shapes to the letter, and what every reply carries."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from itertools import groupby
from typing import Any

import httpx2 as httpx
import pytest

from learnflow_core import pagination
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import Account
from learnflow_core.money import Money
from learnflow_core.usecases import catalogue
from learnflow_core.usecases.catalogue import ImportedCourse
from learnflow_http.operations import OPERATIONS
from tests import scene
from tests.world import World, open_world

RATE_LIMIT = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit-Policy", "RateLimit")
ID = r"_[0-9a-z]{12,}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


async def fill(world: World, account: Account, number: int) -> None:
    """Import so many courses, of which the first is the published example."""
    rows = [
        ImportedCourse(
            external_id=str(n),
            title="Complete Web Development Bootcamp" if n == 0 else f"Course {n}",
            category="development",
            category_name="Development",
            price=Money(4_999, "USD"),
            instructor="Dr. John Smith",
            rating=490,
            students=12_450 - n,
        )
        for n in range(number)
    ]
    ctx = world.ctx
    await world.services.storage.write(lambda tx: catalogue.import_courses(tx, account, rows, ctx))


async def walk(world: World, first: str) -> list[str]:
    """The ids on the page and on all that `Link` says come next."""
    ids: list[str] = []
    following: str | None = first
    while following is not None:
        reply = await world.ask("GET", following, await world.key(await world.account()))
        ids += [item["id"] for item in reply.json()["data"]]
        following = links(reply).get("next")
    return ids


def links(reply: httpx.Response) -> dict[str, str]:
    found = re.findall(r'<([^>]*)>; rel="(\w+)"', reply.headers["Link"])
    return {relation: target for target, relation in found}


def told(reply: httpx.Response) -> tuple[int, str, str | None]:
    error = reply.json()["error"]
    return reply.status_code, error["code"], error.get("param")


class TestThePublishedShapes:
    async def test_the_list_of_courses_is_the_example_to_the_letter(self, world: World) -> None:
        await fill(world, await world.account(), 2_085)
        reply = await world.ask("GET", "/v1/courses?limit=1")
        text = re.sub(f"crs{ID}", "crs_8x92k1", reply.text)
        assert text == (
            '{"data":[{"id":"crs_8x92k1","title":"Complete Web Development Bootcamp","instructor":"Dr. John Smith",'
            '"category":"development","level":"all","price":{"amount":49.99,"currency":"USD"},"rating":4.90,'
            '"total_students":12450}],"meta":{"current_page":1,"total_pages":2085,"total_items":2085}}'
        ).replace("4.90", "4.9")

    async def test_2085_courses_are_42_pages_and_every_walk_meets_each_course_once(self, world: World) -> None:
        await fill(world, await world.account(), 2_085)
        first = (await world.ask("GET", "/v1/courses")).json()
        assert first["meta"] == {"current_page": 1, "total_pages": 42, "total_items": 2_085}
        assert [len(first["data"]), len({frozenset(item) for item in first["data"]})] == [50, 1]
        last = (await world.ask("GET", "/v1/courses?page=42")).json()
        assert (len(last["data"]), last["meta"]["current_page"]) == (35, 42)
        beyond = await world.ask("GET", "/v1/courses?page=43")
        assert (beyond.status_code, beyond.json()) == (
            200,
            {"data": [], "meta": {"current_page": 43, "total_pages": 42, "total_items": 2_085}},
        )
        by_page = await walk(world, "/v1/courses")
        by_cursor = await walk(world, "/v1/courses?cursor=")
        assert by_page == by_cursor
        assert len(set(by_page)) == len(by_page) == 2_085

    async def test_an_empty_list_has_no_pages(self, world: World) -> None:
        reply = await world.ask("GET", "/v1/courses?category=nothing-at-all")
        assert reply.json() == {"data": [], "meta": {"current_page": 1, "total_pages": 0, "total_items": 0}}

    async def test_enrolling_answers_201_with_the_six_fields(self, world: World) -> None:
        account = await world.account()
        user, course = await world.user(account, "ada@acme.test"), await scene.course(world, account)
        body = {"user_id": user.id, "course_id": course.id, "payment_method_id": scene.PAYS}
        reply = await world.ask("POST", "/v1/enrollments", await world.key(account), body)
        assert reply.status_code == 201
        assert re.fullmatch(
            rf'\{{"id":"enr{ID}","user_id":"{user.id}","course_id":"{course.id}",'
            r'"status":"active","progress":0,"enrolled_at":"2024-01-15T09:30:00Z"\}',
            reply.text,
        )

    async def test_an_enrolment_read_later_has_four_fields_more(self, world: World) -> None:
        account = await world.account()
        user, course = await world.user(account, "ada@acme.test"), await scene.course(world, account)
        made = await scene.enrolled(world, account, user, course)
        reply = await world.ask("GET", f"/v1/enrollments/{made.id}", await world.key(account))
        six = ["id", "user_id", "course_id", "status", "progress", "enrolled_at"]
        assert list(reply.json()) == [*six, "updated_at", "completed_at", "expires_at", "certificate_id"]

    async def test_a_course_has_the_eight_fields_and_those_of_its_own_page(self, world: World) -> None:
        course = await scene.course(world, await world.account())
        found = (await world.ask("GET", f"/v1/courses/{course.id}")).json()
        assert ", ".join(list(found)[8:]) == (
            "description, language, curriculum, status, seats, prerequisites, external_id, created_at, updated_at"
        )
        assert found["rating"] is None
        assert found["created_at"] == found["updated_at"] == "2024-01-15T09:30:00Z"

    async def test_ids_are_a_prefix_and_an_opaque_part_of_enough_random_bits(self, world: World) -> None:
        account = await world.account()
        user, course = await world.user(account, "ada@acme.test"), await scene.course(world, account)
        certificate = await scene.completed(world, account, user, course)
        key = await scene.key_of(world, await world.key(account))
        for prefix, found in {
            "acct": account.id,
            "usr": user.id,
            "crs": course.id,
            "enr": certificate.enrollment_id,
            "key": key.id,
        }.items():
            assert re.fullmatch(rf"{prefix}_[0-9a-z]{{12,}}", found), found
        assert re.fullmatch(r"crt_[0-9a-z]{20,}", certificate.id)

    @pytest.mark.parametrize(
        ("sent", "currency", "shown"),
        [
            ("49.99", "USD", "49.99"),
            ("49.9", "USD", "49.90"),
            ("4.999e1", "USD", "49.99"),
            ("0", "USD", "0.00"),
            ("500", "JPY", "500"),
            ("1.5", "KWD", "1.500"),
            ("10000000000.00", "USD", "10000000000.00"),
        ],
    )
    async def test_an_amount_comes_back_as_the_exact_decimal_number(
        self, world: World, sent: str, currency: str, shown: str
    ) -> None:
        body = f'{{"title":"T","category":"c","price":{{"amount":{sent},"currency":"{currency}"}}}}'
        key = await world.key(await world.account())
        reply = await world.client.post("/v1/courses", content=body, headers={"Authorization": f"Bearer {key}"})
        assert reply.status_code == 201
        assert f'"price":{{"amount":{shown},"currency":"{currency}"}}' in reply.text


class TestErrors:
    async def test_a_bad_token_is_answered_with_the_published_envelope(self, world: World) -> None:
        reply = await world.ask("GET", "/v1/courses", "a.b.c")
        assert reply.status_code == 401
        assert reply.json() == {
            "error": {
                "code": "invalid_token",
                "message": "The access token provided is expired or invalid.",
                "request_id": reply.headers["X-Request-Id"],
            }
        }

    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (400, "invalid_parameter"),
            (401, "missing_token"),
            (403, "insufficient_scope"),
            (404, "not_found"),
            (404, "course_not_found"),
            (405, "method_not_allowed"),
            (413, "payload_too_large"),
            (415, "unsupported_media_type"),
            (429, "rate_limit_exceeded"),
            (500, "internal_error"),
            (503, "service_unavailable"),
        ],
    )
    async def test_every_error_has_the_envelope_the_limit_and_its_request_id(
        self, world: World, monkeypatch: pytest.MonkeyPatch, status: int, code: str
    ) -> None:
        reply = await provoke(world, monkeypatch, code)
        error = reply.json()["error"]
        assert (reply.status_code, error["code"]) == (status, code)
        assert list(error)[:3] == ["code", "message", "request_id"]
        assert reply.headers["Content-Type"] == "application/json"
        assert error["request_id"] == reply.headers["X-Request-Id"]
        assert re.fullmatch(f"req{ID}", error["request_id"])
        assert all(name in reply.headers for name in RATE_LIMIT)
        assert int(reply.headers["X-RateLimit-Reset"]) >= world.clock.now_ns // 1_000_000_000
        assert ("Retry-After" in reply.headers) == (status in (429, 503))
        assert ("WWW-Authenticate" in reply.headers) == (status == 401 or code == "insufficient_scope")
        assert ("Allow" in reply.headers) == (status == 405)
        assert reply.headers["Vary"] == "Authorization"

    async def test_an_internal_error_says_nothing_of_what_went_wrong(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reply = await provoke(world, monkeypatch, "internal_error")
        assert "secret" not in reply.text

    async def test_outside_the_api_errors_have_the_envelope_too(self, world: World) -> None:
        for method, path, status in (
            ("GET", "/nothing", 404),
            ("GET", "/v1x", 404),
            ("GET", "/docs/nothing.js", 404),
            ("POST", "/healthz", 405),
        ):
            reply = await world.ask(method, path)
            assert reply.status_code == status
            assert reply.json()["error"]["request_id"] == reply.headers["X-Request-Id"]
            assert not any(name in reply.headers for name in RATE_LIMIT)

    async def test_a_configured_public_address_is_where_the_errors_are_explained(self) -> None:
        async with open_world(public_url="https://api.example.test/") as world:
            error = (await world.ask("GET", "/v1/nothing")).json()["error"]
            assert error["doc_url"].startswith("https://api.example.test/")
            assert error["doc_url"].endswith("#not_found")
            page = error["doc_url"].removeprefix("https://api.example.test").partition("#")[0]
            shown = await world.ask("GET", page)
            assert (shown.status_code, 'id="not_found"' in shown.text) == (200, True)

    async def test_the_challenge_says_what_was_wrong_as_rfc_6750_does(self, world: World) -> None:
        account = await world.account()
        await world.user(account, "ada@acme.test")
        narrow = await world.key(account, ["users:read"])
        wrong = {"email": "ada@acme.test", "password": "wrong"}
        nothing, invalid = 'Bearer realm="learnflow"', 'Bearer realm="learnflow", error="invalid_token"'
        for reply, challenge in (
            (await world.ask("GET", "/v1/account"), nothing),
            (await world.ask("POST", "/v1/auth/token", json=wrong), nothing),
            (await world.ask("GET", "/v1/account", "a.b.c"), invalid),
            (await world.ask("GET", "/v1/courses", "a.b.c"), invalid),
            (await world.ask("GET", "/v1/courses", f"sk_live_{'0' * 36}"), invalid),
            (await world.ask("POST", "/v1/auth/refresh", json={"refresh_token": "x"}), invalid),
            (
                await world.ask("GET", "/v1/account", narrow),
                'Bearer realm="learnflow", error="insufficient_scope", scope="*"',
            ),
        ):
            assert reply.headers["WWW-Authenticate"] == challenge


PLAIN = {
    "invalid_parameter": ("GET", "/v1/courses?limit=51"),
    "missing_token": ("GET", "/v1/account"),
    "not_found": ("GET", "/v1/nothing"),
    "course_not_found": ("GET", "/v1/courses/crs_x"),
    "method_not_allowed": ("DELETE", "/v1/courses"),
}


async def provoke(world: World, monkeypatch: pytest.MonkeyPatch, code: str) -> httpx.Response:
    """A reply with this code."""
    account = await world.account()
    if code in PLAIN:
        return await world.ask(*PLAIN[code])
    if code == "insufficient_scope":
        return await world.ask("GET", "/v1/account", await world.key(account, ["users:read"]))
    if code == "rate_limit_exceeded":
        return [await world.ask("GET", "/v1/courses") for _ in range(31)][-1]
    if code in {"payload_too_large", "unsupported_media_type"}:
        headers = {"Authorization": f"Bearer {await world.key(account)}", "Content-Type": "application/json"}
        if code == "unsupported_media_type":
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        return await world.client.post("/v1/courses", content=b" " * (2**20 + 1), headers=headers)

    async def fail(_work: Any) -> Any:
        if code == "service_unavailable":
            raise LearnFlowError(Code.SERVICE_UNAVAILABLE, retry_after_s=3)
        raise RuntimeError("a secret of the database")

    monkeypatch.setattr(world.services.storage, "read", fail)
    return await world.ask("GET", "/v1/courses")


class TestQueries:
    @pytest.mark.parametrize("param", ["page", "limit"])
    async def test_an_integer_is_plain_digits_within_its_bounds(self, world: World, param: str) -> None:
        other_digits = ["\uff11", "\u0663", "\xb2", "\u2460"]
        marked = ["-1", "+1", " 1", "1 ", "1\n", "1.0", "1e1", "0x1", "1_0", "one", "null"]
        for value in ("", "0", *other_digits, *marked, "9" * 20, "9" * 5_000):
            reply = await world.client.get("/v1/courses", params={param: value})
            assert told(reply) == (400, "invalid_parameter", param), value

    async def test_the_bounds_themselves_are_allowed_and_leading_zeros_too(self, world: World) -> None:
        highest = pagination.MAX_PAGE
        for query in ("limit=50", "limit=1", "limit=050", "page=1", "page=01", f"page={highest}"):
            assert (await world.ask("GET", f"/v1/courses?{query}")).status_code == 200
        for query, param in (("limit=51", "limit"), (f"page={highest + 1}", "page")):
            assert told(await world.ask("GET", f"/v1/courses?{query}")) == (400, "invalid_parameter", param)

    @pytest.mark.parametrize(
        ("query", "param"),
        [
            ("page=1&page=1", "page"),
            ("limit=1&limit=2", "limit"),
            ("level=all&level=all", "level"),
            ("search=a&search=b", "search"),
            ("cursor=&cursor=", "cursor"),
            ("level=", "level"),
            ("level=All", "level"),
            ("level=expert", "level"),
            ("sort=", "sort"),
            ("sort=title", "sort"),
            ("status=published%20", "status"),
            ("status=draft", "status"),
            ("search=" + "x" * 257, "search"),
            ("search=" + "x+" * 17, "search"),
            ("category=a%00", "category"),
        ],
    )
    async def test_a_value_that_is_not_allowed_is_named(self, world: World, query: str, param: str) -> None:
        assert told(await world.ask("GET", f"/v1/courses?{query}")) == (400, "invalid_parameter", param)

    async def test_an_unknown_parameter_makes_no_difference(self, world: World) -> None:
        account = await world.account()
        for n in range(3):
            await scene.course(world, account, title=f"Course {n}")
        plain = await world.ask("GET", "/v1/courses?limit=1&cursor=")
        for extra in ("&_=1", "&utm_source=x", "&Page=2", "&limits=", "&%20=", "&"):
            assert (await world.ask("GET", f"/v1/courses?limit=1&cursor={extra}")).json() == plain.json()
            cursor = plain.json()["meta"]["next_cursor"]
            after = await world.ask("GET", f"/v1/courses?limit=1&cursor={cursor}{extra}")
            assert after.status_code == 200, after.text


class TestCursors:
    @pytest.fixture
    async def shelf(self) -> AsyncIterator[tuple[World, str]]:
        async with open_world() as world:
            account = await world.account()
            for n in range(4):
                await scene.course(world, account, title=f"Python {n}", cents=100 * n, by=None)
            yield world, await world.key(account)

    async def test_a_walk_ends_with_null_and_keeps_its_limit_free(self, shelf: tuple[World, str]) -> None:
        world, _ = shelf
        first = (await world.ask("GET", "/v1/courses?cursor=&limit=1")).json()
        assert first["meta"].keys() == {"next_cursor"}
        rest = await world.ask("GET", f"/v1/courses?limit=3&cursor={first['meta']['next_cursor']}")
        assert (len(rest.json()["data"]), rest.json()["meta"]) == (3, {"next_cursor": None})
        assert "next" not in links(rest)

    @pytest.mark.parametrize(
        "elsewhere",
        [
            "page=1&",
            "level=all&",
            "category=development&",
            "search=python&",
            "sort=price&",
            "sort=newest&",
            "status=published&",
        ],
    )
    async def test_a_cursor_is_good_for_the_list_it_came_from_alone(
        self, shelf: tuple[World, str], elsewhere: str
    ) -> None:
        world, key = shelf
        cursor = (await world.ask("GET", "/v1/courses?cursor=&limit=1", key)).json()["meta"]["next_cursor"]
        reply = await world.ask("GET", f"/v1/courses?{elsewhere}cursor={cursor}", key)
        assert told(reply) == (400, "invalid_parameter", "cursor")

    async def test_a_cursor_of_one_list_is_none_of_another(self, shelf: tuple[World, str]) -> None:
        world, key = shelf
        cursor = (await world.ask("GET", "/v1/courses?cursor=&limit=1", key)).json()["meta"]["next_cursor"]
        for path in ("/v1/users", "/v1/enrollments", "/v1/certificates", "/v1/api-keys", "/v1/categories"):
            assert told(await world.ask("GET", f"{path}?cursor={cursor}", key)) == (400, "invalid_parameter", "cursor")

    @pytest.mark.parametrize("text", ["x", "null", "%00", "%F0%9F%98%80", "a" * 1_399, "a" * 9_000, "====", "AAAA"])
    async def test_any_other_text_is_no_cursor(self, shelf: tuple[World, str], text: str) -> None:
        world, _ = shelf
        assert told(await world.ask("GET", f"/v1/courses?cursor={text}")) == (400, "invalid_parameter", "cursor")

    @pytest.mark.parametrize("path", sorted({row.path for row in OPERATIONS if row.paged}))
    async def test_a_forged_cursor_is_refused_or_read_and_never_a_failure(
        self, shelf: tuple[World, str], path: str
    ) -> None:
        world, key = shelf
        if "{id}" in path:
            user = await world.user(await world.account(), "ada@acme.test")
            path, key = path.format(id=user.id), await world.token(user)
        big = 2**63 - 1
        for position in (
            (),
            (None,),
            (0,),
            ("",),
            (0, 0),
            (0, "x"),
            (0, None, None),
            (0, "0", "x"),
            (0, 0, 0),
            (1, 0, "x"),
            (7, 0, "x"),
            (-1, 0, "x"),
            (big, 0, "x"),
            (0, big, "x"),
            (0, -big - 1, "x"),
            (0, big, "\U0010ffff"),
            (0, 0, "x" * 900),
            (0, 0, "x", "x"),
            (0,) * 8,
        ):
            forged = cursor_of(position, path)
            reply = await world.ask("GET", f"{path}?cursor={forged}", key)
            assert reply.status_code == 200 or told(reply) == (400, "invalid_parameter", "cursor"), position

    async def test_a_forged_cursor_with_the_right_shape_is_only_a_position(self, shelf: tuple[World, str]) -> None:
        world, _ = shelf
        reply = await world.ask("GET", f"/v1/courses?cursor={cursor_of((0, 1, ''), '/v1/courses')}")
        assert (reply.status_code, len(reply.json()["data"])) == (200, 4)


def cursor_of(position: tuple[int | str | None, ...], path: str) -> str:
    """The cursor for a position in the list at this path, without filters, as only a forger would make it."""
    if not position:
        return pagination.encode_cursor(("",), {"": path})[:13]
    return pagination.encode_cursor(position, {"": path})


class TestLinks:
    async def test_a_page_links_to_its_neighbours_and_keeps_the_rest_of_the_query(self, world: World) -> None:
        account = await world.account()
        for n in range(5):
            await scene.course(world, account, title=f"C++ {n}")
        path = "/v1/courses?search=c%2B%2B&limit=2"
        first, middle, last = [await world.ask("GET", f"{path}&page={n}") for n in (1, 2, 3)]
        assert links(first) == {"next": f"{path}&page=2", "first": f"{path}&page=1", "last": f"{path}&page=3"}
        assert links(middle).keys() == {"next", "prev", "first", "last"}
        assert links(last) == {"prev": f"{path}&page=2", "first": f"{path}&page=1", "last": f"{path}&page=3"}
        beyond = await world.ask("GET", f"{path}&page=9")
        assert links(beyond)["prev"] == f"{path}&page=3"

    async def test_a_part_by_cursor_links_to_the_next_and_the_first(self, world: World) -> None:
        account = await world.account()
        for n in range(3):
            await scene.course(world, account, title=f"Course {n}")
        reply = await world.ask("GET", "/v1/courses?limit=2&cursor=")
        cursor = reply.json()["meta"]["next_cursor"]
        assert links(reply) == {
            "next": f"/v1/courses?limit=2&cursor={cursor}",
            "first": "/v1/courses?limit=2&cursor=",
        }


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
                assert all(name in again.headers for name in (*RATE_LIMIT, "X-Request-Id", "Vary", "Cache-Control"))
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
                assert all(name.lower() in exposed for name in (*RATE_LIMIT, "ETag", "Link", "Retry-After"))

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


class TestResources:
    async def test_delete_answers_with_what_now_is(self, world: World) -> None:
        account = await world.account()
        key, user = await world.key(account), await world.user(account, "ada@acme.test")
        course = await scene.course(world, account)
        certificate = await scene.completed(world, account, user, course)
        method = (await world.ask("POST", f"/v1/users/{user.id}/payment-methods", key, {"token": "tok_x"})).json()
        for path, field in (
            (f"/v1/courses/{course.id}", "status"),
            (f"/v1/certificates/{certificate.id}", "revoked_at"),
            (f"/v1/users/{user.id}/payment-methods/{method['id']}", "deleted_at"),
            (f"/v1/users/{user.id}", "deleted_at"),
        ):
            reply = await world.ask("DELETE", path, key)
            assert reply.status_code == 200
            assert reply.json()[field] == ("archived" if field == "status" else "2024-01-15T09:30:00Z")

    async def test_every_time_is_utc_in_whole_seconds(self, world: World) -> None:
        account = await world.account()
        world.clock.advance(0.999)
        key, user = await world.key(account), await world.user(account, "ada@acme.test")
        certificate = await scene.completed(world, account, user, await scene.course(world, account))
        for path in (
            f"/v1/users/{user.id}",
            f"/v1/enrollments/{certificate.enrollment_id}",
            f"/v1/certificates/{certificate.id}",
            f"/v1/courses/{certificate.course_id}",
            "/v1/account",
        ):
            found = json.loads((await world.ask("GET", path, key)).content)
            times = [value for name, value in found.items() if name.endswith("_at") and value is not None]
            assert times
            assert all(re.fullmatch(TIME, text) for text in times)

    async def test_times_are_read_with_any_offset(self, world: World) -> None:
        account = await world.account()
        key, user = await world.key(account), await world.user(account, "ada@acme.test")
        await scene.enrolled(world, account, user, await scene.course(world, account))
        for since, found in (
            ("2024-01-15T09:30:00Z", 1),
            ("2024-01-15T10:30:00%2B01:00", 1),
            ("2024-01-15T09:30:01Z", 0),
            ("2024-01-15T10:30:01%2B01:00", 0),
            ("0001-01-01T00:00:00%2B23:59", 1),
            ("9999-12-31T23:59:59-23:59", 0),
        ):
            reply = await world.ask("GET", f"/v1/enrollments?updated_since={since}", key)
            assert (reply.status_code, len(reply.json()["data"])) == (200, found), since
        for since in ("", "yesterday", "2024-01-15", "2024-01-15T09:30:00", "1705311000", "2024-02-30T00:00:00Z"):
            reply = await world.ask("GET", f"/v1/enrollments?updated_since={since}", key)
            assert told(reply) == (400, "invalid_parameter", "updated_since"), since
