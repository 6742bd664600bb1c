"""What becomes of an enrolment: progress, the certificate, leaving."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from learnflow_core.errors import Code, LearnFlowError
from tests.school import DAY_S, School, school_on, told
from tests.world import World


@pytest.fixture
async def school(world: World) -> AsyncIterator[School]:
    """A school whose books agree at the end of the test."""
    yield await school_on(world, "professional")
    assert list(await world.services.storage.check()) == []


class TestLeaving:
    async def test_a_paid_enrolment_is_refunded_once(self, school: School) -> None:
        course = await school.course(seats=1)
        made = (await school.enrol(course)).json()["id"]
        for _ in range(3):
            left = await school.cancel(made)
            assert (left.status_code, left.json()["status"]) == (200, "refunded")
        assert len(school.gateway.refunds) == 1
        assert await school.students(course) == 0
        again = await school.enrol(course)
        assert (again.status_code, again.json()["id"] != made) == (201, True)
        assert len(school.gateway.paid) == 2

    async def test_a_hundred_cancellations_at_once_refund_once(self, school: School) -> None:
        made = (await school.enrol(await school.course())).json()["id"]
        replies = await asyncio.gather(*[school.cancel(made) for _ in range(100)])
        assert {(reply.status_code, reply.json()["status"]) for reply in replies} == {(200, "refunded")}
        assert len(school.gateway.refunds) == 1

    async def test_what_cost_nothing_is_cancelled_at_any_time(self, school: School) -> None:
        made = (await school.enrol(await school.course(cents=0), None)).json()["id"]
        school.world.clock.advance(100 * DAY_S)
        assert (await school.cancel(made)).json()["status"] == "cancelled"
        assert school.gateway.refunds == []

    async def test_the_refund_window_is_fourteen_days_to_the_second(self, school: School) -> None:
        early = (await school.enrol(await school.course())).json()["id"]
        late = (await school.enrol(await school.course())).json()["id"]
        school.world.clock.advance(14 * DAY_S)
        assert (await school.cancel(early)).json()["status"] == "refunded"
        school.world.clock.advance(1)
        assert told(await school.cancel(late)) == (403, "refund_window_closed")
        active = [one["id"] for one in await school.enrollments(status="active")]
        assert active == [late]

    async def test_what_is_completed_is_not_left(self, school: School) -> None:
        made = (await school.enrol(await school.course())).json()["id"]
        await school.progress(made, 100)
        assert told(await school.cancel(made)) == (403, "enrollment_not_active")

    async def test_a_refund_that_the_payment_service_does_not_take_is_given_by_the_sweep(self, school: School) -> None:
        made = (await school.enrol(await school.course())).json()["id"]
        school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE)
        left = await school.cancel(made)
        assert (left.status_code, left.json()["status"], school.gateway.refunds) == (200, "refunded", [])
        school.gateway.away = None
        school.world.clock.advance(11)
        await school.world.sweep()
        await school.world.sweep()
        assert len(school.gateway.refunds) == 1


class TestProgress:
    @pytest.mark.parametrize("value", [-1, 101, 1.5, "50", None, True, 10**30, [], "1e1"])
    async def test_it_is_a_whole_number_of_percent(self, school: School, value: Any) -> None:
        made = (await school.enrol(await school.course())).json()["id"]
        reply = await school.progress(made, value)
        assert told(reply) == (400, "invalid_parameter")
        assert reply.json()["error"]["param"] == "progress"

    async def test_it_moves_either_way_until_100_completes_it_for_good(self, school: School) -> None:
        made = (await school.enrol(await school.course())).json()["id"]
        for value in (0, 50, 20, 99):
            reply = await school.progress(made, value)
            assert (reply.json()["progress"], reply.json()["status"]) == (value, "active")
        school.world.clock.advance(60)
        done = (await school.progress(made, 100)).json()
        assert (done["status"], done["completed_at"]) == ("completed", "2024-01-15T09:31:00Z")
        school.world.clock.advance(60)
        assert (await school.progress(made, 100)).json() == done
        for value in (0, 99):
            assert told(await school.progress(made, value)) == (403, "enrollment_not_active")

    async def test_what_was_left_has_no_progress(self, school: School) -> None:
        made = (await school.enrol(await school.course())).json()["id"]
        await school.cancel(made)
        assert told(await school.progress(made, 50)) == (403, "enrollment_not_active")

    async def test_completing_twice_at_once_issues_one_certificate(self, school: School) -> None:
        made = (await school.enrol(await school.course())).json()["id"]
        replies = await asyncio.gather(*[school.progress(made, 100) for _ in range(20)])
        assert len({reply.json()["certificate_id"] for reply in replies}) == 1

    async def test_a_completed_prerequisite_opens_the_next_course(self, school: School) -> None:
        first = await school.course()
        second = await school.course(prerequisites=(first.id,))
        made = (await school.enrol(first)).json()["id"]
        assert told(await school.enrol(second)) == (403, "prerequisite_not_met")
        await school.progress(made, 100)
        assert (await school.enrol(second)).status_code == 201


class TestCertificates:
    async def completed(self, school: School) -> str:
        made = (await school.enrol(await school.course(title="Rust"))).json()["id"]
        certificate: str = (await school.progress(made, 100)).json()["certificate_id"]
        return certificate

    async def test_anyone_can_verify_one(self, school: School) -> None:
        certificate = await self.completed(school)
        reply = await school.world.ask("GET", f"/v1/certificates/{certificate}/verify")
        found = reply.json()
        assert (reply.status_code, found["valid"], found["recipient"]) == (200, True, school.user.name)
        assert (found["course_title"], found["issued_at"]) == ("Rust", "2024-01-15T09:30:00Z")
        absent = await school.world.ask("GET", "/v1/certificates/crt_x/verify")
        assert told(absent) == (404, "certificate_not_found")

    async def test_a_revoked_one_is_not_valid_any_more(self, school: School) -> None:
        certificate = await self.completed(school)
        path = f"/v1/certificates/{certificate}"
        revoked = await school.world.ask("DELETE", path, school.key)
        school.world.clock.advance(60)
        assert (await school.world.ask("DELETE", path, school.key)).json() == revoked.json()
        found = (await school.world.ask("GET", f"{path}/verify")).json()
        assert (found["valid"], found["revoked_at"]) == (False, "2024-01-15T09:30:00Z")

    async def test_it_says_what_was_true_on_its_day(self, school: School) -> None:
        certificate = await self.completed(school)
        await school.world.ask("PATCH", f"/v1/users/{school.user.id}", school.key, {"name": "Countess"})
        found = (await school.world.ask("GET", f"/v1/certificates/{certificate}", school.key)).json()
        assert found["recipient"] == school.user.name

    async def test_deleting_the_person_takes_the_name_off(self, school: School) -> None:
        certificate = await self.completed(school)
        await school.world.ask("DELETE", f"/v1/users/{school.user.id}", school.key)
        found = (await school.world.ask("GET", f"/v1/certificates/{certificate}/verify")).json()
        assert (found["valid"], found["recipient"]) == (True, None)
