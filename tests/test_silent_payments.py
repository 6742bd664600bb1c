"""A payment service that does not answer: one charge in the end, or none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import Course
from tests.school import School, school_on, told
from tests.world import World


@pytest.fixture
async def school(world: World) -> AsyncIterator[School]:
    """A school whose books agree at the end of the test."""
    yield await school_on(world, "professional")
    assert list(await world.services.storage.check()) == []


class TestASilentPaymentService:
    @pytest.fixture
    async def pending(self, school: School) -> Course:
        """A course in which an enrolment is pending: the payment service charged, and its answer was lost."""
        course = await school.course(seats=1)
        school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE, retry_after_s=7)
        reply = await school.enrol(course)
        assert told(reply) == (503, "service_unavailable")
        assert reply.headers["Retry-After"] == "7"
        return course

    async def test_until_it_answers_the_enrolment_is_pending_and_holds_its_seat(
        self, school: School, pending: Course
    ) -> None:
        (found,) = await school.enrollments()
        assert found["status"] == "pending"
        assert told(await school.enrol(pending, user=(await school.crowd(1))[0])) == (403, "course_full")
        assert told(await school.progress(found["id"], 10)) == (403, "enrollment_not_active")
        assert told(await school.cancel(found["id"])) == (403, "enrollment_not_active")
        assert told(await school.enrol(pending)) == (503, "service_unavailable")
        await school.world.sweep()
        assert (await school.enrollments())[0]["status"] == "pending"

    async def test_a_retry_finishes_it_and_charges_nothing_more(self, school: School, pending: Course) -> None:
        school.gateway.away = None
        retried = await school.enrol(pending)
        assert (retried.status_code, retried.json()["status"]) == (200, "active")
        assert len(set(school.gateway.asked)) == len(school.gateway.paid) == 1

    async def test_a_retry_with_another_method_still_means_the_first_charge(
        self, school: School, pending: Course
    ) -> None:
        school.gateway.away = None
        for method in ("pm_visa_0002", None):
            assert (await school.enrol(pending, method)).status_code == 200
        assert len(set(school.gateway.asked)) == 1

    async def test_the_sweep_finishes_it(self, school: School, pending: Course) -> None:
        school.gateway.away = None
        school.world.clock.advance(11)
        await school.world.sweep()
        assert (await school.enrollments())[0]["status"] == "active"
        assert await school.students(pending) == 1
        assert len(school.gateway.paid) == 1

    async def test_sweeps_and_retries_at_once_agree(self, school: School, pending: Course) -> None:
        school.gateway.away = None
        school.world.clock.advance(11)
        replies = await asyncio.gather(
            *[school.enrol(pending) for _ in range(20)], *[school.world.sweep() for _ in range(5)]
        )
        assert {reply.status_code for reply in replies if reply is not None} == {200}
        assert len(school.gateway.paid) == 1

    async def test_a_service_that_charged_nothing_before_it_went_away_charges_on_the_retry(
        self, school: School
    ) -> None:
        school.gateway.away, school.gateway.away_when = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE), "before"
        course = await school.course()
        assert (await school.enrol(course)).status_code == 503
        assert len(school.gateway.paid) == 0
        school.gateway.away = None
        assert (await school.enrol(course)).status_code == 200
        assert len(school.gateway.paid) == 1

    async def test_a_refusal_that_comes_late_frees_the_seat(self, school: School) -> None:
        school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE)
        course = await school.course(seats=1)
        assert (await school.enrol(course, "pm_visa_0002")).status_code == 503
        school.gateway.away = None
        school.world.clock.advance(11)
        await school.world.sweep()
        assert [one["status"] for one in await school.enrollments()] == ["cancelled"]
        assert (await school.enrol(course, user=(await school.crowd(1))[0])).status_code == 201

    async def test_a_retry_after_a_late_refusal_tries_with_its_own_method(self, school: School) -> None:
        school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE)
        course = await school.course(seats=1)
        assert (await school.enrol(course, "pm_visa_0002")).status_code == 503
        school.gateway.away = None
        retried = await school.enrol(course)
        assert (retried.status_code, retried.json()["status"]) == (201, "active")
        assert len(school.gateway.paid) == 1

    async def test_a_crash_right_after_the_charge_is_put_right_by_the_sweep(self, school: School) -> None:
        charged = asyncio.Event()
        charge = school.gateway.charge

        async def charge_and_hang(payment: Any) -> Any:
            await charge(payment)
            charged.set()
            await asyncio.Event().wait()

        school.gateway.charge = charge_and_hang  # type: ignore[method-assign]
        course = await school.course()
        doomed = asyncio.create_task(school.enrol(course))
        await charged.wait()
        doomed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await doomed
        school.gateway.charge = charge  # type: ignore[method-assign]
        school.world.clock.advance(11)
        await school.world.sweep()
        assert (await school.enrollments())[0]["status"] == "active"
        assert len(school.gateway.paid) == 1
