"""The rules of enrolling over HTTP: windows and access that end when they say, and rehearsals that change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2 as httpx
import pytest

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import Course
from tests import scene
from tests.scene import PAYS
from tests.school import DAY_S, School, school_on, told
from tests.world import World

ONE_HOUR_ON = "2024-01-15T10:30:00Z"


@pytest.fixture
async def school(world: World) -> AsyncIterator[School]:
    """A school whose books agree at the end of the test."""
    yield await school_on(world, "professional")
    assert list(await world.services.storage.check()) == []


class TestWindows:
    async def test_a_course_that_has_not_opened_tells_when_it_does_and_opens_then(self, school: School) -> None:
        course = await school.course(enrolls_from=ONE_HOUR_ON)
        refused = await school.enrol(course)
        assert told(refused) == (403, "enrollment_closed")
        assert refused.json()["error"]["details"] == {"rule": "window", "passes_from": ONE_HOUR_ON}
        school.world.clock.advance(3_599.999)
        assert told(await school.enrol(course)) == (403, "enrollment_closed")
        school.world.clock.advance(0.001)
        assert (await school.enrol(course)).status_code == 201

    async def test_a_course_that_has_closed_tells_since_when_and_keeps_who_is_in_it(self, school: School) -> None:
        course = await school.course(enrolls_until=ONE_HOUR_ON)
        assert (await school.enrol(course)).status_code == 201
        school.world.clock.advance(3_600)
        refused = await school.enrol(course, user=(await school.crowd(1))[0])
        assert told(refused) == (403, "enrollment_closed")
        facts = {"rule": "window", "closed_at": ONE_HOUR_ON, "passes_from": None}
        assert refused.json()["error"]["details"] == facts
        assert (await school.enrol(course)).status_code == 200

    async def test_it_is_asked_after_the_prerequisites_and_before_the_seats(self, school: School) -> None:
        first = await school.course()
        course = await school.course(prerequisites=(first.id,), enrolls_from=ONE_HOUR_ON, seats=0)
        assert told(await school.enrol(course)) == (403, "prerequisite_not_met")
        await school.change(course, prerequisites=[])
        assert (await school.enrol(course)).json()["error"]["details"]["rule"] == "window"

    async def test_a_course_shows_and_changes_its_window_in_whole_seconds(self, school: School) -> None:
        course = await school.course(enrolls_from="2024-01-15T12:30:00.987+02:00", access_days=30)
        path = f"/v1/courses/{course.id}"
        shown = (await school.world.ask("GET", path)).json()
        assert (shown["enrolls_from"], shown["enrolls_until"], shown["access_days"]) == (ONE_HOUR_ON, None, 30)
        await school.change(course, enrolls_from=None, enrolls_until=ONE_HOUR_ON, access_days=None)
        shown = (await school.world.ask("GET", path)).json()
        assert (shown["enrolls_from"], shown["enrolls_until"], shown["access_days"]) == (None, ONE_HOUR_ON, None)

    @pytest.mark.parametrize(
        ("changes", "param"),
        [
            ({"enrolls_from": "tomorrow"}, "enrolls_from"),
            ({"enrolls_until": "2024-01-15"}, "enrolls_until"),
            ({"enrolls_until": "2024-01-15T10:30:00"}, "enrolls_until"),
            ({"enrolls_from": ONE_HOUR_ON, "enrolls_until": ONE_HOUR_ON}, "enrolls_until"),
            ({"access_days": 0}, "access_days"),
            ({"access_days": 36_501}, "access_days"),
            ({"version": 3}, "version"),
        ],
    )
    async def test_a_window_that_is_none_is_refused_by_name(
        self, school: School, changes: dict[str, Any], param: str
    ) -> None:
        course = await school.course()
        reply = await school.world.ask("PATCH", f"/v1/courses/{course.id}", school.key, changes)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


class TestTerms:
    async def test_the_version_grows_with_the_price_and_the_access_and_with_nothing_else(self, school: School) -> None:
        course = await school.course()

        async def version_after(**changes: Any) -> int:
            await school.change(course, **changes)
            return int((await school.world.ask("GET", f"/v1/courses/{course.id}")).json()["version"])

        assert await version_after(title="Another", seats=5) == 1
        assert await version_after(price={"amount": 10, "currency": "USD"}) == 2
        assert await version_after(price={"amount": 10.00, "currency": "USD"}) == 2
        assert await version_after(access_days=7) == 3

    async def test_what_was_agreed_is_charged_whatever_the_course_costs_meanwhile(self, school: School) -> None:
        course = await school.course(cents=4_999)
        school.gateway.away, school.gateway.away_when = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE), "before"
        assert (await school.enrol(course)).status_code == 503
        await school.change(course, price={"amount": 99.99, "currency": "EUR"}, access_days=3)
        school.gateway.away = None
        asked: list[Any] = []
        charge = school.gateway.charge

        async def note(payment: Any) -> Any:
            asked.append(payment)
            return await charge(payment)

        school.gateway.charge = note  # type: ignore[method-assign]
        assert (await school.enrol(course)).status_code == 200
        (payment,) = asked
        assert (payment.amount.amount_minor, payment.amount.currency, payment.course_version) == (4_999, "USD", 1)
        (found,) = await school.enrollments()
        assert found["expires_at"] is None


class TestAccess:
    async def made(self, school: School, **fields: Any) -> tuple[Course, str]:
        course = await school.course(access_days=1, **fields)
        return course, str((await school.enrol(course)).json()["id"])

    async def read(self, school: School, enrollment_id: str) -> dict[str, Any]:
        found: dict[str, Any] = (await school.world.ask("GET", f"/v1/enrollments/{enrollment_id}", school.key)).json()
        return found

    async def test_it_is_over_at_the_very_instant_wherever_one_looks_and_before_any_sweep(self, school: School) -> None:
        _, made = await self.made(school)
        assert (await self.read(school, made))["expires_at"] == "2024-01-16T09:30:00Z"
        for seconds, status, other in ((DAY_S - 0.000_001, "active", "expired"), (0.000_001, "expired", "active")):
            school.world.clock.advance(seconds)
            assert (await self.read(school, made))["status"] == status
            assert [one["status"] for one in await school.enrollments()] == [status]
            assert [one["id"] for one in await school.enrollments(status=status)] == [made]
            assert await school.enrollments(status=other) == []

    async def test_the_sweep_writes_it_down_and_frees_the_seat(self, school: School) -> None:
        course, made = await self.made(school)
        assert await school.students(course) == 1
        school.world.clock.advance(DAY_S)
        assert await school.students(course) == 0
        found = await self.read(school, made)
        assert (found["status"], found["updated_at"]) == ("expired", "2024-01-16T09:30:00Z")

    async def test_a_seat_that_is_over_is_anothers_without_waiting_for_the_sweep(self, school: School) -> None:
        course, made = await self.made(school, seats=1)
        other, third = await school.crowd(2)
        assert told(await school.enrol(course, user=other)) == (403, "course_full")
        school.world.clock.advance(DAY_S)
        assert (await school.enrol(course, user=other)).status_code == 201
        assert told(await school.enrol(course, user=third)) == (403, "course_full")
        assert (await self.read(school, made))["status"] == "expired"

    async def test_who_was_there_may_come_again_and_pays_again(self, school: School) -> None:
        course, made = await self.made(school, seats=1)
        school.world.clock.advance(DAY_S)
        again = await school.enrol(course)
        assert (again.status_code, again.json()["id"] != made) == (201, True)
        assert len(school.gateway.paid) == 2

    async def test_nothing_can_be_done_with_it_any_more(self, school: School) -> None:
        _, made = await self.made(school)
        school.world.clock.advance(DAY_S)
        for reply in (await school.progress(made, 100), await school.cancel(made)):
            assert told(reply) == (403, "enrollment_not_active")
            assert reply.json()["error"]["details"]["status"] == "expired"

    async def test_what_is_completed_stays(self, school: School) -> None:
        _, made = await self.made(school)
        await school.progress(made, 100)
        school.world.clock.advance(10 * DAY_S)
        await school.world.sweep()
        assert (await self.read(school, made))["status"] == "completed"

    async def test_it_begins_when_the_payment_has_come(self, school: School) -> None:
        course = await school.course(access_days=1)
        school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE)
        assert (await school.enrol(course)).status_code == 503
        school.world.clock.advance(3_600)
        school.gateway.away = None
        assert (await school.enrol(course)).status_code == 200
        assert (await school.enrollments())[0]["expires_at"] == "2024-01-16T10:30:00Z"

    async def test_a_licence_is_free_again_too(self, world: World) -> None:
        school = await school_on(world, "enterprise", licenses=1)
        course = await school.course(access_days=1)
        assert (await school.enrol(course, None)).status_code == 201
        other = (await school.crowd(1))[0]
        assert told(await school.enrol(course, None, user=other)) == (403, "license_exhausted")
        world.clock.advance(DAY_S)
        await world.sweep()
        assert (await school.enrol(course, None, user=other)).status_code == 201
        assert list(await world.services.storage.check()) == []

    async def test_a_hundred_sweeps_and_posts_at_once_end_it_once(self, school: School) -> None:
        course, _ = await self.made(school, seats=1)
        people = await school.crowd(30)
        school.world.clock.advance(DAY_S)
        replies = await asyncio.gather(
            *[school.enrol(course, user=user) for user in people], *[school.world.sweep() for _ in range(10)]
        )
        assert sorted(reply.status_code for reply in replies if reply is not None) == [201] + [403] * 29


class TestRehearsals:
    async def ask(
        self, school: School, course: Course | str, method: str | None = PAYS, **headers: str
    ) -> httpx.Response:
        body = {"user_id": school.user.id, "course_id": course if isinstance(course, str) else course.id}
        if method is not None:
            body["payment_method_id"] = method
        return await school.world.ask("POST", "/v1/enrollments?dry_run=true", school.key, body, **headers)

    async def rules(self, school: School, course: Course, method: str | None = PAYS) -> dict[str, str | None]:
        reply = await self.ask(school, course, method)
        assert reply.status_code == 200, reply.text
        return {rule["rule"]: rule["code"] for rule in reply.json()["rules"]}

    async def test_it_tells_price_seats_and_access_and_that_every_rule_passes(self, school: School) -> None:
        course = await school.course(seats=3, access_days=1)
        found = (await self.ask(school, course)).json()
        rules = found.pop("rules")
        assert found == {
            "user_id": school.user.id,
            "course_id": course.id,
            "course_version": 1,
            "outcome": "enrolled",
            "enrollment_id": None,
            "price": {"amount": 49.99, "currency": "USD"},
            "charge": {"amount": 49.99, "currency": "USD"},
            "licensed": False,
            "seats_left": 3,
            "expires_at": "2024-01-16T09:30:00Z",
        }
        names = ["published", "prerequisites", "window", "seats", "payment_method"]
        assert [rule["rule"] for rule in rules] == names
        assert all(rule["passes"] and rule["code"] is None for rule in rules)

    async def test_it_tells_all_that_speaks_against_it_and_not_only_the_first(self, school: School) -> None:
        first = await school.course()
        course = await school.course(prerequisites=(first.id,), enrolls_from=ONE_HOUR_ON, seats=0)
        reply = (await self.ask(school, course, None)).json()
        assert reply["outcome"] == "refused"
        assert {rule["rule"]: rule["code"] for rule in reply["rules"]} == {
            "published": None,
            "prerequisites": "prerequisite_not_met",
            "window": "enrollment_closed",
            "seats": "enrollment_closed",
            "payment_method": "missing_parameter",
        }
        window = next(rule for rule in reply["rules"] if rule["rule"] == "window")
        assert window["details"] == {"rule": "window", "passes_from": ONE_HOUR_ON}

    async def test_its_first_refusal_is_the_one_that_enrolling_then_gets(self, school: School) -> None:
        first = await school.course()
        for fields, method in (
            ({"status": "draft"}, PAYS),
            ({"prerequisites": (first.id,), "seats": 0}, PAYS),
            ({"enrolls_until": "2024-01-15T09:30:00Z", "seats": 0}, None),
            ({"seats": 0}, None),
            ({}, None),
            ({}, "pm_nobodys"),
        ):
            course = await school.course(**fields)
            rules = (await self.ask(school, course, method)).json()["rules"]
            foretold = next(rule for rule in rules if not rule["passes"])
            error = (await school.enrol(course, method)).json()["error"]
            assert (error["code"], error["message"]) == (foretold["code"], foretold["message"])

    async def test_who_is_enrolled_stays_so_at_no_charge(self, school: School) -> None:
        course = await school.course(seats=1)
        made = (await school.enrol(course)).json()["id"]
        found = (await self.ask(school, course, None)).json()
        assert (found["outcome"], found["enrollment_id"], found["charge"]) == ("already_enrolled", made, None)
        assert [rule["rule"] for rule in found["rules"]] == ["published"]

    async def test_it_counts_the_seats_of_those_whose_access_is_over_as_free(self, school: School) -> None:
        course = await school.course(seats=1, access_days=1)
        other = (await school.crowd(1))[0]
        await school.enrol(course, user=other)
        assert (await self.rules(school, course))["seats"] == "course_full"
        school.world.clock.advance(DAY_S)
        assert (await self.rules(school, course))["seats"] is None

    async def test_licences_stand_in_for_money(self, world: World) -> None:
        school = await school_on(world, "enterprise", licenses=1)
        course = await school.course()
        found = (await self.ask(school, course, None)).json()
        assert (found["licensed"], found["charge"], found["outcome"]) == (True, None, "enrolled")
        await school.enrol(await school.course(), None)
        assert (await self.rules(school, course, None))["license"] == "license_exhausted"

    async def test_it_changes_nothing_and_uses_no_key_up(self, school: School) -> None:
        course = await school.course()
        before = await scene.books(school.world)
        for _ in range(2):
            reply = await self.ask(school, course, Idempotency_Key="key-1")
            assert (reply.status_code, "Idempotent-Replayed" in reply.headers) == (200, False)
        assert await scene.books(school.world) == before
        assert school.gateway.asked == []

    async def test_what_does_not_exist_is_not_found_and_bad_values_are_named(self, school: School) -> None:
        assert told(await self.ask(school, "crs_x")) == (404, "course_not_found")
        body = {"user_id": school.user.id, "course_id": "crs_x"}
        for value in ("1", "True", ""):
            reply = await school.world.ask("POST", f"/v1/enrollments?dry_run={value}", school.key, body)
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, "dry_run")
