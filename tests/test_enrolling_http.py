"""Enrolling over HTTP: the order of its checks, and that money and seats come out right at any rush."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from learnflow_core.model import Mode, User
from tests import scene
from tests.scene import PAYS
from tests.school import School, school_on, told
from tests.world import World


@pytest.fixture
async def school(world: World) -> AsyncIterator[School]:
    """A school whose books agree at the end of the test."""
    yield await school_on(world, "professional")
    assert list(await world.services.storage.check()) == []


class TestTheOrderOfChecks:
    async def test_the_user_is_looked_for_before_the_course(self, school: School) -> None:
        assert told(await school.enrol("crs_x", user="usr_x")) == (404, "user_not_found")
        assert told(await school.enrol("crs_x")) == (404, "course_not_found")

    async def test_a_course_must_be_published_before_anything_else_of_it_counts(self, school: School) -> None:
        first = await school.course()
        closed: dict[str, Any] = {"seats": 0, "prerequisites": (first.id,)}
        for status in ("draft", "archived"):
            course = await school.course(status=status, **closed)
            assert told(await school.enrol(course, None)) == (403, "course_not_available")
        foreign = await scene.course(school.world, await school.world.account("Other"), status="draft")
        assert told(await school.enrol(foreign)) == (404, "course_not_found")

    async def test_who_is_enrolled_stays_so_whatever_is_asked_of_newcomers(self, school: School) -> None:
        first, course = await school.course(), await school.course()
        made = await school.enrol(course)
        await school.change(course, seats=0, prerequisites=[first.id])
        again = await school.enrol(course, None)
        assert (again.status_code, again.json()) == (200, made.json())
        await school.change(course, status="archived")
        assert told(await school.enrol(course)) == (403, "course_not_available")

    async def test_prerequisites_come_before_seats_and_name_what_is_missing(self, school: School) -> None:
        one, two = await school.course(), await school.course()
        course = await school.course(seats=0, prerequisites=(one.id, two.id))
        done = (await school.enrol(one)).json()["id"]
        await school.enrol(two)
        await school.progress(done, 100)
        refused = await school.enrol(course, None)
        assert told(refused) == (403, "prerequisite_not_met")
        facts = {"rule": "prerequisites", "missing": [two.id], "passes_from": None}
        assert refused.json()["error"]["details"] == facts

    async def test_a_seat_comes_before_money(self, school: School) -> None:
        assert told(await school.enrol(await school.course(seats=0), None)) == (403, "enrollment_closed")
        full = await school.course(seats=1)
        other = (await school.crowd(1))[0]
        assert (await school.enrol(full, user=other)).status_code == 201
        assert told(await school.enrol(full, None)) == (403, "course_full")
        assert told(await school.enrol(full, "pm_visa_0002")) == (403, "course_full")

    async def test_money_comes_last(self, school: School) -> None:
        course = await school.course(seats=1)
        missing = await school.enrol(course, None)
        assert told(missing) == (400, "missing_parameter")
        assert missing.json()["error"]["param"] == "payment_method_id"
        assert (await school.enrol(course)).status_code == 201

    async def test_a_refusal_at_any_of_them_takes_nothing(self, school: School) -> None:
        first = await school.course()
        courses = [
            await school.course(prerequisites=(first.id,)),
            await school.course(seats=0),
            await school.course(status="draft"),
        ]
        before = await scene.books(school.world)
        for course in courses:
            assert (await school.enrol(course)).status_code == 403
        assert (await school.enrol(first, None)).status_code == 400
        assert (await school.enrol(first, "pm_nobodys")).status_code == 400
        assert await scene.books(school.world) == before
        assert school.gateway.asked == []


class TestPaying:
    @pytest.mark.parametrize(
        ("method", "status", "code"),
        [
            ("pm_visa_0002", 403, "card_declined"),
            ("pm_visa_9995", 403, "insufficient_funds"),
            ("pm_visa_3220", 403, "authentication_required"),
            ("pm_visa_1234", 400, "invalid_payment_method"),
            ("tok_visa_4242", 400, "invalid_payment_method"),
            ("pm_", 400, "invalid_payment_method"),
        ],
    )
    async def test_every_method_of_the_sandbox_does_what_it_is_for(
        self, school: School, method: str, status: int, code: str
    ) -> None:
        course = await school.course(seats=1)
        assert told(await school.enrol(course, method)) == (status, code)
        assert await school.enrollments(status="active") == []
        assert len(school.gateway.paid) == 0
        paid = await school.enrol(course)
        assert (paid.status_code, paid.json()["status"]) == (201, "active")
        assert len(school.gateway.paid) == 1

    async def test_added_methods_pay_for_their_owner_until_they_are_deleted(self, school: School) -> None:
        other = (await school.crowd(1))[0]
        path = f"/v1/users/{school.user.id}/payment-methods"
        good = (await school.world.ask("POST", path, school.key, {"token": "tok_visa_4242"})).json()["id"]
        bad = (await school.world.ask("POST", path, school.key, {"token": "tok_visa_0002"})).json()["id"]
        course = await school.course()
        assert told(await school.enrol(course, bad)) == (403, "card_declined")
        assert told(await school.enrol(course, good, user=other)) == (400, "invalid_payment_method")
        assert (await school.enrol(course, good)).status_code == 201
        assert (await school.world.ask("DELETE", f"{path}/{good}", school.key)).status_code == 200
        assert told(await school.enrol(await school.course(), good)) == (400, "invalid_payment_method")

    async def test_a_declined_payment_leaves_the_place_free_and_the_attempt_on_record(self, school: School) -> None:
        course = await school.course(seats=1)
        assert told(await school.enrol(course, "pm_visa_0002")) == (403, "card_declined")
        assert [one["status"] for one in await school.enrollments()] == ["cancelled"]
        assert (await school.enrol(course, user=(await school.crowd(1))[0])).status_code == 201
        assert told(await school.enrol(course)) == (403, "course_full")

    async def test_a_free_course_needs_no_payment_method_and_charges_nothing(self, school: School) -> None:
        course = await school.course(cents=0)
        assert (await school.enrol(course, None)).status_code == 201
        assert (await school.enrol(course, "pm_nobodys", user=(await school.crowd(1))[0])).status_code == 201
        assert school.gateway.asked == []

    async def test_posting_again_answers_200_with_the_same_and_charges_nothing(self, school: School) -> None:
        course = await school.course()
        first = await school.enrol(course)
        for method in (PAYS, "pm_visa_0002", None):
            again = await school.enrol(course, method)
            assert (again.status_code, again.json()) == (200, first.json())
        assert len(school.gateway.asked) == 1

    async def test_a_learner_enrols_themselves_and_pays(self, school: School) -> None:
        token = await school.world.token(school.user)
        foreign = await scene.course(school.world, await school.world.account("Other"))
        reply = await school.enrol(foreign, credential=token)
        assert (reply.status_code, len(school.gateway.paid)) == (201, 1)


class TestLicences:
    async def test_an_enterprise_account_pays_with_licences(self, world: World) -> None:
        school = await school_on(world, "enterprise")
        course = await school.course()
        for user in await school.crowd(5):
            assert (await school.enrol(course, None, user=user)).status_code == 201
        assert school.gateway.asked == []

    async def test_when_all_are_in_use_the_next_is_refused_until_one_is_given_back(self, world: World) -> None:
        school = await school_on(world, "enterprise", licenses=2)
        course, free = await school.course(seats=3), await school.course(cents=0)
        people = await school.crowd(3)
        places = [(await school.enrol(course, None, user=user)).json()["id"] for user in people[:2]]
        assert told(await school.enrol(course, PAYS, user=people[2])) == (403, "license_exhausted")
        assert (await school.enrol(free, None, user=people[2])).status_code == 201
        assert (await school.cancel(places[0])).json()["status"] == "cancelled"
        assert (await school.enrol(course, None, user=people[2])).status_code == 201
        assert told(await school.enrol(course, None, user=people[0])) == (403, "license_exhausted")
        assert await school.students(course) == 2
        assert list(await world.services.storage.check()) == []

    async def test_a_hundred_at_once_take_exactly_the_licences_there_are(self, world: World) -> None:
        school = await school_on(world, "enterprise", licenses=10)
        course = await school.course()
        people = await school.crowd(100)
        replies = await asyncio.gather(*[school.enrol(course, None, user=user) for user in people])
        assert Counter(reply.status_code for reply in replies) == {201: 10, 403: 90}
        assert list(await world.services.storage.check()) == []


class TestAtOnce:
    async def test_200_posts_for_one_user_make_one_enrolment_and_one_charge(self, school: School) -> None:
        course = await school.course()
        replies = await asyncio.gather(*[school.enrol(course) for _ in range(200)])
        assert Counter(reply.status_code for reply in replies) == {201: 1, 200: 199}
        assert len({reply.text for reply in replies}) == 1
        assert len(school.gateway.paid) == len(set(school.gateway.asked)) == 1
        assert len(await school.enrollments()) == 1
        assert await school.students(course) == 1
        charges = (await scene.books(school.world))["sandbox_charges"]
        assert len(charges) == 1

    async def test_of_1000_users_on_100_seats_exactly_100_get_in_and_nobody_else_is_charged(self, world: World) -> None:
        schools = [await school_on(world, "professional") for _ in range(4)]
        course = await schools[0].course(seats=100)
        crowds = [(school, user) for school in schools for user in await school.crowd(250)]
        replies = await asyncio.gather(*[school.enrol(course, user=user) for school, user in crowds])
        assert Counter(reply.status_code for reply in replies) == {201: 100, 403: 900}
        assert {told(reply)[1] for reply in replies if reply.status_code == 403} == {"course_full"}
        gateway = schools[0].gateway  # the innermost one, which all charges come to
        assert len(gateway.asked) == len(gateway.paid) == 100
        assert await schools[0].students(course) == 100
        assert list(await world.services.storage.check()) == []

    async def test_fifty_declined_at_once_leave_no_place_taken_and_nothing_charged(self, school: School) -> None:
        course = await school.course(seats=1)
        replies = await asyncio.gather(*[school.enrol(course, "pm_visa_0002") for _ in range(50)])
        assert {told(reply) for reply in replies} <= {(403, "card_declined"), (503, "service_unavailable")}
        assert (403, "card_declined") in {told(reply) for reply in replies}
        assert len(school.gateway.paid) == 0
        assert (await school.enrol(course)).status_code == 201

    async def test_declined_and_good_cards_at_once_make_one_enrolment_and_one_charge(self, school: School) -> None:
        course = await school.course(seats=1)
        methods = [PAYS, "pm_visa_0002", "pm_visa_9995"] * 20
        replies = await asyncio.gather(*[school.enrol(course, method) for method in methods])
        assert sum(reply.status_code == 201 for reply in replies) == 1
        assert {reply.status_code for reply in replies} <= {200, 201, 403, 503}
        assert len(school.gateway.paid) == 1

    async def test_enrolling_and_cancelling_at_once_never_loses_a_seat(self, school: School) -> None:
        course = await school.course(seats=5)
        people = await school.crowd(20)

        async def come_and_go(user: User) -> None:
            for _ in range(3):
                reply = await school.enrol(course, user=user)
                if reply.is_success:
                    assert (await school.cancel(reply.json()["id"])).status_code == 200

        await asyncio.gather(*[come_and_go(user) for user in people])
        assert await school.students(course) == 0
        replies = await asyncio.gather(*[school.enrol(course, user=user) for user in people])
        assert Counter(reply.status_code for reply in replies) == {201: 5, 403: 15}


class TestModes:
    async def test_the_test_mode_has_its_own_people_and_seats_and_counts_for_nothing(self, world: World) -> None:
        account = await world.account(plan="professional")
        course = await scene.course(world, account, seats=1)
        modes: tuple[Mode, ...] = ("live", "test")
        for mode in modes:
            gateway = scene.watch_payments(world, mode)
            user = await world.user(account, "ada@acme.test", mode=mode)
            body = {"user_id": user.id, "course_id": course.id, "payment_method_id": PAYS}
            reply = await world.ask("POST", "/v1/enrollments", await world.key(account, mode=mode), body)
            assert (reply.status_code, len(gateway.paid)) == (201, 1)
        await world.sweep()
        assert (await world.ask("GET", f"/v1/courses/{course.id}")).json()["total_students"] == 1
