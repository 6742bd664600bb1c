"""The published shapes, to the letter."""

from __future__ import annotations

import json
import re

import pytest

from learnflow_core.model import Account
from learnflow_core.money import Money
from learnflow_core.usecases import catalogue
from learnflow_core.usecases.catalogue import ImportedCourse
from tests import scene
from tests.scene import links, told
from tests.world import World

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
            "description, language, curriculum, status, seats, prerequisites, enrolls_from, enrolls_until, "
            "access_days, version, external_id, created_at, updated_at"
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
