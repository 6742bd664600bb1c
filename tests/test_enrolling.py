"""Enrolling as the use cases have it: what a place is made of, who may do what with it, and what a rehearsal says."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable

import pytest

from learnflow_core.access import Actor, actor_for
from learnflow_core.audit import AuditRow
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import DAY, SECOND, Course, Enrollment, Payment, User
from learnflow_core.pagination import Page
from learnflow_core.ports import AuditQuery, Context
from learnflow_core.usecases import enrollments, payments
from learnflow_core.usecases.enrollments import NewEnrollment, ProgressChange
from learnflow_core.usecases.rehearsal import Rehearsal, rehearse
from storage_backends.repository.enrollments import Enrollments
from tests import scene
from tests.scene import PAYS, refusal
from tests.school import School, school_on
from tests.world import World


@pytest.fixture
async def school(world: World) -> AsyncIterator[School]:
    """A school whose books agree at the end of the test."""
    yield await school_on(world, "professional")
    assert list(await world.services.storage.check()) == []


@pytest.fixture
async def licensed(world: World) -> School:
    """A school on the Enterprise plan, with two licences."""
    return await school_on(world, "enterprise", licenses=2)


def person(school: School, user: User) -> Actor:
    return actor_for(school.account, mode=user.mode, scopes={"*"}, user_id=user.id, role=user.role)


async def enroll(
    school: School, course: Course, *, user: User | None = None, method: str | None = PAYS
) -> enrollments.Enrolled:
    services, owner = school.world.services, school.world.owner(school.account)
    new = NewEnrollment((user or school.user).id, course.id, method)
    return await enrollments.enroll(services.storage, services.gateways, owner, new, school.world.ctx)


async def rehearsed(
    school: School, course: Course, *, user: User | None = None, method: str | None = PAYS
) -> Rehearsal:
    services, owner, ctx = school.world.services, school.world.owner(school.account), school.world.ctx
    new = NewEnrollment((user or school.user).id, course.id, method)
    return await services.storage.read(lambda tx: rehearse(tx, services.gateways, owner, new, ctx))


async def payment_of(school: School, enrollment: Enrollment) -> Payment:
    found = await school.world.services.storage.read(lambda tx: tx.payments.get(enrollment.payment_id or ""))
    assert found is not None
    return found


async def told_of(school: School, object_id: str) -> list[AuditRow]:
    """What the audit has of a record."""
    query = AuditQuery(object_id=object_id)
    return (await school.world.services.storage.read(lambda tx: tx.audit.list(query, Page(1, 50)))).items


async def test_a_place_that_was_paid_has_all_that_was_agreed(school: School) -> None:
    course = await school.course(access_days=3)
    done = await enroll(school, course)
    place, now = done.enrollment, school.world.now
    payment = await payment_of(school, place)
    assert done.created
    assert place == Enrollment(
        id=place.id,
        account_id=school.account.id,
        mode="live",
        user_id=school.user.id,
        course_id=course.id,
        status="active",
        progress=0,
        licensed=False,
        payment_id=payment.id,
        certificate_id=None,
        enrolled_at=now,
        updated_at=now,
        completed_at=None,
        expires_at=now + 3 * DAY,
    )
    assert payment == Payment(
        id=payment.id,
        enrollment_id=place.id,
        payee_id=course.account_id,
        mode="live",
        method_id=PAYS,
        token="tok_visa_4242",
        amount=course.price,
        course_version=course.version,
        status="charged",
        created_at=now,
        updated_at=now,
        due_at=None,
        tries=0,
    )
    again = await enroll(school, course, method=None)
    assert (again.created, again.enrollment) == (False, place)


async def test_a_licence_and_a_free_course_take_no_money_and_no_method(licensed: School) -> None:
    paid, free = await licensed.course(), await licensed.course(cents=0)
    by_license, for_nothing = await enroll(licensed, paid, method=None), await enroll(licensed, free, method=None)
    for done, is_licensed in ((by_license, True), (for_nothing, False)):
        assert (done.enrollment.status, done.enrollment.payment_id) == ("active", None)
        assert (done.enrollment.licensed, done.enrollment.expires_at) == (is_licensed, None)
    for done, events in ((by_license, ["license.taken"]), (for_nothing, [])):
        rows = await told_of(licensed, done.enrollment.id)
        assert [(row.event, row.account_id) for row in rows] == [(event, licensed.account.id) for event in events]
    assert licensed.gateway.asked == []


async def test_somebody_who_enrols_the_same_person_at_once_is_asked_to_come_again(
    school: School, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def is_another_s(_self: Enrollments, _enrollment: Enrollment) -> bool:
        return False

    course = await school.course(seats=1)
    with monkeypatch.context() as patched:
        patched.setattr(Enrollments, "add", is_another_s)
        refused = await refusal(enroll(school, course))
    assert (refused.code, refused.retry_after_s) == (Code.SERVICE_UNAVAILABLE, 1)
    assert (await enroll(school, course)).created
    assert len(school.gateway.asked) == 1


@pytest.mark.parametrize(("clock", "later"), [(None, 5), (lambda: 7, 7), (lambda: 3, 5)])
def test_time_passes_as_the_clock_says_and_never_back_and_without_one_not_at_all(
    clock: Callable[[], int] | None, later: int
) -> None:
    assert Context(5, os.urandom, "ada", "req_1", clock).later() == Context(later, os.urandom, "ada", "req_1", clock)


async def test_who_comes_again_when_access_is_over_has_another_place_and_pays_for_it(school: School) -> None:
    course = await school.course(access_days=1)
    over = (await enroll(school, course)).enrollment
    school.world.clock.advance(86_400)
    again = await enroll(school, course)
    assert (again.created, again.enrollment.id != over.id, len(school.gateway.paid)) == (True, True, 2)
    assert [each["id"] for each in await school.enrollments(status="expired")] == [over.id]


async def test_a_seat_that_becomes_free_in_a_course_that_has_lost_seats_is_nobodys(school: School) -> None:
    course = await school.course(seats=2, access_days=1)
    first, second, third = await school.crowd(3)
    over = (await enroll(school, course, user=first)).enrollment
    school.world.clock.advance(43_200)
    await enroll(school, course, user=second)
    await school.change(course, seats=1)
    school.world.clock.advance(43_200)
    assert (await refusal(enroll(school, course, user=third))).code is Code.COURSE_FULL
    assert len(school.gateway.asked) == 2
    await school.world.sweep()
    assert [each["id"] for each in await school.enrollments(status="expired")] == [over.id]


async def test_progress_is_set_by_the_account_and_by_who_teaches_the_course(school: School) -> None:
    teacher = await school.world.user(school.account, "t@acme.test", role="instructor")
    other = await school.world.user(school.account, "o@acme.test", role="instructor")
    course = await scene.course(school.world, school.account, by=teacher)
    place = (await enroll(school, course)).enrollment
    taught = await scene.course(school.world, school.account, by=other)
    mine = (await enroll(school, taught, user=teacher)).enrollment
    storage, ctx = school.world.services.storage, school.world.ctx

    async def progress(actor: Actor, progress: int, of: Enrollment = place) -> Enrollment:
        change = ProgressChange(progress)
        return await storage.write(lambda tx: enrollments.set_progress(tx, actor, of.id, change, ctx))

    for at, actor in ((10, person(school, teacher)), (20, school.world.owner(school.account))):
        assert (await progress(actor, at)).progress == at
    assert (await refusal(progress(person(school, school.user), 30))).code is Code.FORBIDDEN
    assert (await refusal(progress(person(school, teacher), 30, mine))).code is Code.FORBIDDEN
    assert (await refusal(progress(person(school, other), 30))).code is Code.ENROLLMENT_NOT_FOUND


async def test_a_place_is_left_by_its_learner_and_by_the_account_and_not_by_who_teaches(school: School) -> None:
    teacher = await school.world.user(school.account, "t@acme.test", role="instructor")
    course = await scene.course(school.world, school.account, by=teacher)
    services, ctx = school.world.services, school.world.ctx
    for who in (person(school, school.user), school.world.owner(school.account)):
        place = (await enroll(school, course)).enrollment

        async def leave(actor: Actor, place: Enrollment = place) -> Enrollment:
            return await enrollments.leave(services.storage, services.gateways, actor, place.id, 14 * DAY, ctx)

        assert (await refusal(leave(person(school, teacher)))).code is Code.FORBIDDEN
        left = await leave(who)
        assert (left.status, (await payment_of(school, left)).status) == ("refunded", "refunded")


class TestRehearsals:
    async def test_a_newcomer_hears_every_rule_in_order_and_nothing_changes(self, school: School) -> None:
        course = await school.course(seats=3, access_days=2)
        await enroll(school, course, user=await school.world.user(school.account, "b@acme.test"))
        told = await rehearsed(school, course)
        assert [(verdict.rule, verdict.refusal) for verdict in told.verdicts] == [
            ("published", None),
            ("prerequisites", None),
            ("window", None),
            ("seats", None),
            ("payment_method", None),
        ]
        assert (told.user, told.course, told.outcome, told.existing) == (school.user, course, "enrolled", None)
        assert (told.way, told.seats_left, told.expires_at) == ("charge", 2, school.world.now + 2 * DAY)
        assert len(school.gateway.asked) == 1

    async def test_who_is_there_already_hears_of_their_place_and_of_no_rule_about_newcomers(
        self, school: School
    ) -> None:
        course = await school.course(seats=1, access_days=2)
        place = (await enroll(school, course)).enrollment
        school.world.clock.advance(5)
        told = await rehearsed(school, course, method=None)
        assert [verdict.rule for verdict in told.verdicts] == ["published"]
        assert (told.outcome, told.existing, told.seats_left) == ("already_enrolled", place, 0)
        assert told.expires_at == place.expires_at

    async def test_a_place_that_is_over_is_no_place_and_its_seat_is_free(self, school: School) -> None:
        course = await school.course(seats=1, access_days=1)
        await enroll(school, course)
        school.world.clock.advance(86_400)
        for user in (school.user, await school.world.user(school.account, "b@acme.test")):
            told = await rehearsed(school, course, user=user)
            assert (told.outcome, told.existing, told.seats_left) == ("enrolled", None, 1)

    async def test_each_refusal_is_told_with_all_the_others(self, school: School) -> None:
        first = await school.course()
        course = await school.course(seats=0, prerequisites=(first.id,), enrolls_until="2020-01-01T00:00:00Z")
        told = await rehearsed(school, course, method=None)
        refused = {verdict.rule: verdict.refusal.code for verdict in told.verdicts if verdict.refusal}
        assert refused == {
            "prerequisites": Code.PREREQUISITE_NOT_MET,
            "window": Code.ENROLLMENT_CLOSED,
            "seats": Code.ENROLLMENT_CLOSED,
            "payment_method": Code.MISSING_PARAMETER,
        }
        assert (told.outcome, told.seats_left, told.expires_at) == ("refused", 0, None)

    async def test_where_a_licence_stands_in_for_money_it_is_asked_for(self, licensed: School) -> None:
        people = [await licensed.world.user(licensed.account, f"{n}@acme.test") for n in range(3)]
        course = await licensed.course()
        for user in people[:2]:
            told = await rehearsed(licensed, course, user=user)
            assert (told.outcome, told.way, told.seats_left) == ("enrolled", "license", None)
            assert told.verdicts[-1].rule == "license"
            await enroll(licensed, course, user=user, method=None)
        told = await rehearsed(licensed, course, user=people[2])
        assert (told.outcome, told.verdicts[-1].refusal and told.verdicts[-1].refusal.code) == (
            "refused",
            Code.LICENSE_EXHAUSTED,
        )

    async def test_what_is_free_asks_for_no_means_of_payment(self, school: School) -> None:
        told = await rehearsed(school, await school.course(cents=0), method=None)
        assert [verdict.rule for verdict in told.verdicts] == ["published", "prerequisites", "window", "seats"]
        assert (told.outcome, told.way, told.seats_left, told.expires_at) == ("enrolled", "free", None, None)

    async def test_more_enrolments_than_seats_leave_none_and_not_fewer(self, school: School) -> None:
        course = await school.course(seats=2)
        for user in await school.crowd(2):
            await enroll(school, course, user=user)
        await school.change(course, seats=1)
        assert (await rehearsed(school, course)).seats_left == 0

    async def test_a_seat_that_is_over_in_the_other_mode_is_not_free_in_this_one(self, school: School) -> None:
        course = await school.course(seats=1, access_days=1)
        tester = await school.world.user(school.account, "test@acme.test", mode="test")
        actor = actor_for(school.account, mode="test", scopes={"*"}, key_id="key_1")
        services = school.world.services
        new = NewEnrollment(tester.id, course.id, PAYS)
        await enrollments.enroll(services.storage, services.gateways, actor, new, school.world.ctx)
        school.world.clock.advance(86_400)
        await enroll(school, course)
        other = await school.world.user(school.account, "b@acme.test")
        assert (await rehearsed(school, course, user=other)).seats_left == 0


class TestAPaymentThatWaits:
    @pytest.fixture
    async def place(self, school: School) -> Enrollment:
        """A place whose payment nobody knows anything of."""
        school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE)
        await refusal(enroll(school, await school.course(seats=1)))
        (found,) = await school.enrollments(status="pending")
        return await kept(school, found["id"])

    async def test_is_left_to_who_began_it_then_to_one_sweep_at_a_time_and_waits_for_forty_seconds_at_most(
        self, school: School, place: Enrollment
    ) -> None:
        payment = await payment_of(school, place)
        began = school.world.now
        assert (payment.status, payment.due_at, payment.tries) == ("charging", began + 10 * SECOND, 0)
        school.world.clock.advance(9.999_999)
        assert await finish(school) == 0
        for tries, waits_s in ((1, 20), (2, 40), (3, 40)):
            school.world.clock.advance(0.000_001)
            assert await finish(school) == 1
            payment = await payment_of(school, place)
            assert (payment.due_at, payment.tries) == (school.world.now + waits_s * SECOND, tries)
            school.world.clock.advance(waits_s - 0.000_001)
            assert await finish(school) == 0
        school.gateway.away = None
        school.world.clock.advance(0.000_001)
        assert await finish(school) == 1
        payment = await payment_of(school, place)
        assert (payment.status, payment.due_at, payment.tries) == ("charged", None, 0)
        assert (await kept(school, place.id)).status == "active"
        assert (len(set(school.gateway.asked)), len(school.gateway.paid)) == (1, 1)

    async def test_is_a_sweeps_alone_for_twenty_seconds(
        self, school: School, place: Enrollment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def die(_payment: Payment) -> Code | None:
            raise asyncio.CancelledError

        school.world.clock.advance(10)
        with monkeypatch.context() as patched:
            patched.setattr(school.gateway, "charge", die)
            assert await finish(school) == 1
        payment = await payment_of(school, place)
        assert (payment.due_at, payment.tries) == (school.world.now + 20 * SECOND, 0)

    async def test_that_fails_otherwise_keeps_no_other_from_being_carried_on(
        self, school: School, place: Enrollment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = await school.world.user(school.account, "b@acme.test")
        await refusal(enroll(school, await school.course(), user=other))
        charge = school.gateway.charge

        async def fail_for_one(payment: Payment) -> Code | None:
            if payment.enrollment_id == place.id:
                raise OSError("no route")
            return await charge(payment)

        monkeypatch.setattr(school.gateway, "charge", fail_for_one)
        school.gateway.away = None
        school.world.clock.advance(10)
        with pytest.raises(ExceptionGroup) as failed:
            await finish(school)
        assert [str(error) for error in failed.value.exceptions] == ["no route"]
        assert sorted([one["status"] for one in await school.enrollments()]) == ["active", "pending"]
        assert (await payment_of(school, place)).tries == 1

    async def test_for_a_place_that_was_left_goes_back_and_frees_the_seat(
        self, school: School, place: Enrollment
    ) -> None:
        services, owner, ctx = school.world.services, school.world.owner(school.account), school.world.ctx
        school.gateway.away = None
        left = await enrollments.leave(services.storage, services.gateways, owner, place.id, DAY, ctx)
        assert (left.status, (await payment_of(school, place)).status) == ("refunded", "refunded")
        again = await enrollments.leave(services.storage, services.gateways, owner, place.id, DAY, ctx)
        assert (again, len(school.gateway.refunds)) == (left, 1)


async def test_a_refund_that_waits_is_given_by_a_sweep_which_does_not_ask_for_the_charge_again(school: School) -> None:
    place = (await enroll(school, await school.course())).enrollment
    services, owner = school.world.services, school.world.owner(school.account)
    school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE)
    await enrollments.leave(services.storage, services.gateways, owner, place.id, DAY, school.world.ctx)
    assert (await payment_of(school, place)).status == "refunding"
    school.gateway.away = None
    school.world.clock.advance(10)
    assert await finish(school) == 1
    assert (await payment_of(school, place)).status == "refunded"
    assert (len(school.gateway.asked), len(school.gateway.refunds)) == (1, 1)


async def test_a_charge_that_is_found_to_be_paid_after_it_was_given_up_goes_back(
    school: School, monkeypatch: pytest.MonkeyPatch
) -> None:
    await refusal(enroll(school, await school.course(), method="pm_visa_0002"))
    (found,) = await school.enrollments()
    place = await kept(school, found["id"])
    payment, services = await payment_of(school, place), school.world.services

    async def pay(_payment: Payment) -> Code | None:
        return None

    monkeypatch.setattr(school.gateway, "charge", pay)
    settled = await payments.charge(services.storage, school.gateway, payment, school.world.ctx)
    assert (settled.enrollment.status, settled.refusal) == ("cancelled", None)
    assert (await payment_of(school, place)).status == "refunded"
    assert school.gateway.refunds == [payment.id]


async def finish(school: School) -> int:
    services = school.world.services
    return await payments.finish_unresolved(services.storage, services.gateways, school.world.ctx)


async def kept(school: School, enrollment_id: str) -> Enrollment:
    found = await school.world.services.storage.read(lambda tx: tx.enrollments.get(enrollment_id))
    assert found is not None
    return found
