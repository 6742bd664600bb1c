"""Deleting a person: the money of what they leave goes back while it can, and the books stay."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import Course
from tests.school import DAY_S, School, school_on, told
from tests.world import World


@pytest.fixture
async def school(world: World) -> AsyncIterator[School]:
    """A school whose books agree at the end of the test."""
    yield await school_on(world, "professional")
    assert list(await world.services.storage.check()) == []


async def delete(school: School) -> None:
    reply = await school.world.ask("DELETE", f"/v1/users/{school.user.id}", school.key)
    assert reply.status_code == 200, reply.text


async def statuses(school: School) -> dict[str, str]:
    return {one["course_id"]: one["status"] for one in await school.enrollments()}


async def is_free(school: School, course: Course) -> bool:
    other = await school.world.user(school.account, f"{course.id}@crowd.test")
    return (await school.enrol(course, user=other)).status_code == 201


async def test_what_was_paid_within_the_refund_window_goes_back_once(school: School) -> None:
    course = await school.course(seats=1)
    await school.enrol(course)
    school.world.clock.advance(14 * DAY_S)
    await delete(school)
    assert await statuses(school) == {course.id: "refunded"}
    school.world.clock.advance(11)
    for _ in range(3):
        await school.world.sweep()
    assert school.gateway.refunds == list(school.gateway.paid)
    assert await is_free(school, course)


async def test_after_the_window_the_place_is_given_up_and_the_money_kept(school: School) -> None:
    course = await school.course(seats=1)
    await school.enrol(course)
    school.world.clock.advance(14 * DAY_S + 1)
    await delete(school)
    await school.world.sweep()
    assert (await statuses(school), school.gateway.refunds) == ({course.id: "cancelled"}, [])
    assert await is_free(school, course)


async def test_a_place_that_cost_nothing_is_given_up_and_what_is_completed_stays(school: School) -> None:
    free, done = await school.course(cents=0, seats=1), await school.course(seats=1)
    await school.enrol(free, None)
    certificate = await school.progress((await school.enrol(done)).json()["id"], 100)
    await delete(school)
    assert await statuses(school) == {free.id: "cancelled", done.id: "completed"}
    verified = await school.world.ask("GET", f"/v1/certificates/{certificate.json()['certificate_id']}/verify")
    assert (verified.json()["valid"], verified.json()["recipient"]) == (True, None)
    assert await is_free(school, free)
    assert not await is_free(school, done)


async def test_access_that_was_over_stays_expired(school: School) -> None:
    course = await school.course(access_days=1)
    await school.enrol(course)
    school.world.clock.advance(DAY_S)
    await delete(school)
    assert (await statuses(school), school.gateway.refunds) == ({course.id: "expired"}, [])


async def test_what_is_pending_is_undone_as_soon_as_it_is_known(school: School) -> None:
    course = await school.course(seats=1)
    school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE)
    assert told(await school.enrol(course)) == (503, "service_unavailable")
    await delete(school)
    assert await statuses(school) == {course.id: "pending"}
    school.gateway.away = None
    school.world.clock.advance(11)
    await school.world.sweep()
    assert await statuses(school) == {course.id: "refunded"}
    assert len(school.gateway.refunds) == len(school.gateway.paid) == 1
    assert await is_free(school, course)
