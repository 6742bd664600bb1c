"""Enrolling many at once: every item for itself, paid for with as many requests, and safe to repeat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2 as httpx
import pytest

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import Course, User
from learnflow_http import batch
from tests import scene
from tests.scene import PAYS
from tests.school import School, school_on, told
from tests.world import World

PATH = "/v1/enrollments/batch"


@pytest.fixture
async def school(world: World) -> AsyncIterator[School]:
    """A school whose books agree at the end of the test."""
    yield await school_on(world, "professional")
    assert list(await world.services.storage.check()) == []


def item(user: User | str, course: Course | str, method: str | None = PAYS) -> dict[str, str]:
    named = {
        "user_id": user if isinstance(user, str) else user.id,
        "course_id": course if isinstance(course, str) else course.id,
    }
    return named if method is None else named | {"payment_method_id": method}


async def ask(school: School, *items: dict[str, str], credential: str | None = None, **headers: str) -> httpx.Response:
    return await school.world.ask("POST", PATH, credential or school.key, {"enrollments": list(items)}, **headers)


def told_of(reply: httpx.Response) -> list[tuple[int, str]]:
    """Each item's status, with its code or the status of its enrolment."""
    assert reply.status_code == 200, reply.text
    return [
        (one["status"], one["error"]["code"] if "error" in one else one["enrollment"]["status"])
        for one in reply.json()["results"]
    ]


class TestResults:
    async def test_each_item_is_answered_in_its_place_as_a_request_of_its_own_would_be(self, school: School) -> None:
        course, full = await school.course(), await school.course(seats=0)
        one, two, three = await school.crowd(3)
        done = await school.enrol(course, user=three)
        reply = await ask(
            school,
            item(one, course),
            item("usr_x", course),
            item(one, "crs_x"),
            item(one, full),
            item(two, course, None),
            item(two, course, "pm_visa_0002"),
            item(three, course),
        )
        assert told_of(reply) == [
            (201, "active"),
            (404, "user_not_found"),
            (404, "course_not_found"),
            (403, "enrollment_closed"),
            (400, "missing_parameter"),
            (403, "card_declined"),
            (200, "active"),
        ]
        results = reply.json()["results"]
        assert results[0]["enrollment"].keys() == done.json().keys()
        assert results[6] == {"status": 200, "enrollment": done.json()}
        assert results[4]["error"]["param"] == "payment_method_id"
        assert results[3]["error"]["details"]["rule"] == "seats"
        assert results[1]["error"].keys() == {"code", "message"}

    async def test_a_hundred_are_enrolled_and_each_is_charged_once(self, school: School) -> None:
        course = await school.course(seats=60)
        people = await school.crowd(100)
        replies = told_of(await ask(school, *[item(user, course) for user in people]))
        assert (replies.count((201, "active")), replies.count((403, "course_full"))) == (60, 40)
        assert len(school.gateway.paid) == len(school.gateway.asked) == 60

    async def test_one_place_named_many_times_is_one_enrolment(self, school: School) -> None:
        course = await school.course()
        reply = await ask(school, *[item(school.user, course)] * 20)
        assert sorted(told_of(reply)) == [(200, "active")] * 19 + [(201, "active")]
        assert len(school.gateway.paid) == 1

    @pytest.mark.parametrize(
        ("body", "code", "param"),
        [
            ({}, "missing_parameter", "enrollments"),
            ({"enrollments": []}, "invalid_parameter", "enrollments"),
            ({"enrollments": [{"user_id": "u", "course_id": "c"}] * 101}, "invalid_parameter", "enrollments"),
            ({"enrollments": [{"user_id": "u", "course_id": "c"}, {"user_id": "u"}]}, "missing_parameter", None),
            ({"enrollments": [{"user_id": "u", "course_id": "c", "x": 1}]}, "unknown_parameter", None),
            ({"enrollments": {"user_id": "u"}}, "invalid_parameter", "enrollments"),
        ],
    )
    async def test_a_body_of_another_shape_is_refused_whole(
        self, school: School, body: Any, code: str, param: str | None
    ) -> None:
        reply = await school.world.ask("POST", PATH, school.key, body)
        assert told(reply) == (400, code)
        assert param in (None, reply.json()["error"]["param"])

    async def test_a_learner_enrols_nobody_else(self, school: School) -> None:
        other, course = (await school.crowd(1))[0], await school.course()
        token = await school.world.token(school.user)
        reply = await ask(school, item(school.user, course), item(other, course), credential=token)
        assert told_of(reply) == [(201, "active"), (404, "user_not_found")]

    async def test_who_means_to_rehearse_a_batch_is_refused_and_pays_nothing(self, school: School) -> None:
        course, (one,) = await school.course(), await school.crowd(1)
        body = {"enrollments": [item(one, course)]}
        refused = await school.world.ask("POST", f"{PATH}?dry_run=true", school.key, body)
        assert scene.told(refused) == (400, "invalid_parameter", "dry_run")
        assert await school.enrollments() == []
        assert told_of(await school.world.ask("POST", f"{PATH}?dry_run=false", school.key, body)) == [(201, "active")]


class TestItsPrice:
    async def remaining(self, school: School) -> int:
        quotas = (await school.world.ask("GET", "/v1/rate-limit", school.key)).json()["data"]
        return int(quotas[0]["remaining"])

    async def test_it_costs_as_many_requests_as_it_has_items_whatever_they_come_to(self, school: School) -> None:
        before = await self.remaining(school)
        reply = await ask(school, *[item("usr_x", "crs_x")] * 7)
        assert await self.remaining(school) == before - 7
        assert int(reply.headers["X-RateLimit-Remaining"]) == before - 7

    async def test_one_that_is_too_dear_now_costs_nothing_does_nothing_and_passes_when_it_is_told(
        self, school: School
    ) -> None:
        course, people = await school.course(), await school.crowd(100)
        items = [item(user, course) for user in people]
        for _ in range(2):
            assert (await ask(school, *items)).status_code == 200
        await school.world.ask("GET", "/v1/users", school.key)
        before = await self.remaining(school)
        books = await scene.books(school.world)
        refused = await ask(school, *items)
        assert told(refused) == (429, "rate_limit_exceeded")
        assert await self.remaining(school) == before
        assert await scene.books(school.world) == books
        school.world.clock.advance(int(refused.headers["Retry-After"]))
        assert (await ask(school, *items)).status_code == 200

    async def test_more_than_the_plan_ever_allows_at_once_is_refused_and_says_how_many_it_does(
        self, world: World
    ) -> None:
        school = await school_on(world, "starter")
        refused = await ask(school, *[item("usr_x", "crs_x")] * 31)
        error = refused.json()["error"]
        assert (*told(refused), error["param"], error["details"]) == (
            400,
            "invalid_parameter",
            "enrollments",
            {"most": 30},
        )
        assert await self.remaining(school) == 29

    async def test_what_is_wrong_with_it_costs_one_request_and_who_may_not_ask_is_told_first(
        self, school: School
    ) -> None:
        before = await self.remaining(school)
        assert (await school.world.ask("POST", PATH, school.key, {})).status_code == 400
        narrow = await school.world.key(school.account, ["users:read"])
        assert told(await school.world.ask("POST", PATH, narrow, {})) == (403, "insufficient_scope")
        assert await self.remaining(school) == before - 2

    async def test_who_has_no_request_left_is_refused_before_the_body_is_read(self, world: World) -> None:
        school = await school_on(world, "starter")
        for _ in range(30):
            await world.ask("GET", "/v1/users", school.key)
        reply = await world.client.post(PATH, content=b"{", headers={"Authorization": f"Bearer {school.key}"})
        assert told(reply) == (429, "rate_limit_exceeded")


class TestRepetition:
    async def test_repeating_it_without_a_key_enrols_and_charges_nobody_again(self, school: School) -> None:
        course = await school.course()
        items = [item(user, course) for user in await school.crowd(5)]
        first, again = await ask(school, *items), await ask(school, *items)
        assert (told_of(first), told_of(again)) == ([(201, "active")] * 5, [(200, "active")] * 5)
        assert len(school.gateway.paid) == 5

    async def test_one_key_at_once_and_later_answers_the_same(self, school: School) -> None:
        course = await school.course()
        items = [item(user, course) for user in await school.crowd(5)]
        replies = await asyncio.gather(*[ask(school, *items, Idempotency_Key="k") for _ in range(4)])
        assert {tuple(told_of(reply)) for reply in replies} == {((201, "active"),) * 5}
        assert sum("Idempotent-Replayed" in reply.headers for reply in replies) == 3
        assert len(school.gateway.paid) == 5

    async def test_a_reply_in_which_something_failed_is_not_kept(self, school: School) -> None:
        course = await school.course()
        one, two = await school.crowd(2)
        await school.enrol(course, user=one)
        school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE)
        items = [item(one, course), item(two, course)]
        failed = await ask(school, *items, Idempotency_Key="k")
        assert told_of(failed) == [(200, "active"), (503, "service_unavailable")]
        school.gateway.away = None
        again = await ask(school, *items, Idempotency_Key="k")
        assert told_of(again) == [(200, "active"), (200, "active")]
        assert "Idempotent-Replayed" not in again.headers
        assert len(school.gateway.paid) == 2


class TestSlowAndBroken:
    async def test_a_payment_that_hangs_holds_up_nobody_and_is_told_as_unknown(
        self, school: School, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(batch, "WITHIN_S", 0.5)
        course, charge = await school.course(), school.gateway.charge
        slow, *others = await school.crowd(10)
        waiting: set[str] = set()

        async def hang(payment: Any) -> Any:
            if not waiting:
                waiting.add(payment.id)
            if payment.id in waiting:
                await asyncio.Event().wait()
            return await charge(payment)

        school.gateway.charge = hang  # type: ignore[method-assign]
        reply = await ask(school, item(slow, course), *[item(user, course) for user in others])
        assert sorted(told_of(reply)) == [(201, "active")] * 9 + [(503, "service_unavailable")]
        school.gateway.charge = charge  # type: ignore[method-assign]
        school.world.clock.advance(11)
        await school.world.sweep()
        assert len(await school.enrollments(status="active")) == 10
        assert len(school.gateway.paid) == 10

    async def test_what_was_not_begun_in_time_is_told_as_unknown_and_nothing_of_it_is_there(
        self, school: School, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(batch, "WITHIN_S", 0.3)
        course = await school.course()

        async def hang(_payment: Any) -> Any:
            await asyncio.Event().wait()

        charge = school.gateway.charge
        school.gateway.charge = hang  # type: ignore[method-assign, assignment]
        reply = await ask(school, *[item(user, course) for user in await school.crowd(20)])
        assert told_of(reply) == [(503, "service_unavailable")] * 20
        assert len(await school.enrollments(status="pending")) == batch.AT_ONCE
        school.gateway.charge = charge  # type: ignore[method-assign]
        school.world.clock.advance(11)
        await school.world.sweep()

    async def test_a_failure_of_our_own_is_that_items_alone(self, school: School) -> None:
        course = await school.course()
        one, two = await school.crowd(2)
        school.gateway.away = ZeroDivisionError
        paid = await school.world.user(school.account, "free@acme.test")
        free = await school.course(cents=0)
        reply = await ask(school, item(one, course), item(paid, free, None), item(two, course))
        assert told_of(reply) == [(500, "internal_error"), (201, "active"), (500, "internal_error")]
        school.gateway.away = None
        school.world.clock.advance(11)
        await school.world.sweep()
        assert len(await school.enrollments(status="active")) == 3

    async def test_a_caller_who_leaves_or_a_crash_in_the_middle_loses_nothing(self, school: School) -> None:
        course, charge, begun = await school.course(), school.gateway.charge, asyncio.Event()

        async def charge_and_hang(payment: Any) -> Any:
            await charge(payment)
            begun.set()
            await asyncio.Event().wait()

        school.gateway.charge = charge_and_hang  # type: ignore[method-assign]
        items = [item(user, course) for user in await school.crowd(20)]
        doomed = asyncio.create_task(ask(school, *items, Idempotency_Key="k"))
        await begun.wait()
        doomed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await doomed
        school.gateway.charge = charge  # type: ignore[method-assign]
        reply = await ask(school, *items, Idempotency_Key="k")
        assert {status for status, _ in told_of(reply)} <= {200, 201}
        assert len(await school.enrollments(status="active")) == 20
        assert len(school.gateway.paid) == 20
