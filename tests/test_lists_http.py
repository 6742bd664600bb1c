"""Lists: strict numbers, cursors that belong to their list, and links that lead on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from learnflow_core import pagination
from learnflow_http.operations import OPERATIONS
from tests import scene
from tests.scene import links, told
from tests.world import World, open_world


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
