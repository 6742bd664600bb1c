"""Enrolling over HTTP: the order of its checks, and that money and seats come out right whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx2 as httpx
import pytest

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import Account, Course, Mode, Plan, User
from learnflow_core.usecases import users
from learnflow_core.usecases.users import NewUser
from tests import scene
from tests.scene import PAYS
from tests.world import World

DAY_S = 86_400


class School:
    """An account on Professional with its key, a learner, and a payment service that is watched."""

    def __init__(self, world: World, account: Account, key: str, user: User) -> None:
        self.world = world
        self.account = account
        self.key = key
        self.user = user
        self.gateway = scene.watch_payments(world)

    async def course(self, **fields: Any) -> Course:
        return await scene.course(self.world, self.account, **fields)

    async def enrol(
        self,
        course: Course | str,
        method: str | None = PAYS,
        *,
        user: User | str | None = None,
        credential: str | None = None,
    ) -> httpx.Response:
        who = user or self.user
        body = {
            "user_id": who if isinstance(who, str) else who.id,
            "course_id": course if isinstance(course, str) else course.id,
        }
        if method is not None:
            body["payment_method_id"] = method
        return await self.world.ask("POST", "/v1/enrollments", credential or self.key, body)

    async def change(self, course: Course, **changes: Any) -> None:
        reply = await self.world.ask("PATCH", f"/v1/courses/{course.id}", self.key, changes)
        assert reply.status_code == 200, reply.text

    async def cancel(self, enrollment_id: str) -> httpx.Response:
        return await self.world.ask("POST", f"/v1/enrollments/{enrollment_id}/cancel", self.key)

    async def progress(self, enrollment_id: str, progress: Any) -> httpx.Response:
        body = {"progress": progress}
        return await self.world.ask("PATCH", f"/v1/enrollments/{enrollment_id}", self.key, body)

    async def enrollments(self, **filters: str) -> list[dict[str, Any]]:
        reply = await self.world.client.get(
            "/v1/enrollments", params=filters, headers={"Authorization": f"Bearer {self.key}"}
        )
        found: list[dict[str, Any]] = reply.json()["data"]
        return found

    async def students(self, course: Course) -> int:
        await self.world.sweep()
        return int((await self.world.ask("GET", f"/v1/courses/{course.id}")).json()["total_students"])

    async def crowd(self, number: int) -> list[User]:
        owner, ctx = self.world.owner(self.account), self.world.ctx
        people = [NewUser(email=f"{n}@crowd.test", name=f"Person {n}") for n in range(number)]
        return await self.world.services.storage.write(
            lambda tx: _all(users.create_user(tx, owner, new, None, ctx) for new in people)
        )


async def _all(made: Any) -> list[User]:
    return [await one for one in made]


async def school_on(world: World, plan: Plan, licenses: int | None = None) -> School:
    account = await world.account(plan=plan, licenses=licenses)
    return School(world, account, await world.key(account), await world.user(account, "ada@acme.test"))


@pytest.fixture
async def school(world: World) -> AsyncIterator[School]:
    """A school whose books agree at the end of the test."""
    yield await school_on(world, "professional")
    assert list(await world.services.storage.check()) == []


def told(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


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
        assert refused.json()["error"]["details"] == {"missing": [two.id]}

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
