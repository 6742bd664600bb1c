"""A payment service that does not answer: one charge in the end, or none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.instants import timestamp
from learnflow_core.model import DAY, SECOND, Course, Payment
from learnflow_core.pagination import Cursor
from learnflow_core.ports import AuditQuery
from learnflow_core.usecases import payments
from tests.school import School, school_on, told
from tests.world import NOW_NS, World


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


class TestAPaymentServiceThatTakesItsTime:
    @pytest.fixture
    def slow(self, school: School, monkeypatch: pytest.MonkeyPatch) -> None:
        """It answers after 25 seconds."""
        for name in ("charge", "refund", "keep", "forget"):
            monkeypatch.setattr(school.gateway, name, after(25, school, getattr(school.gateway, name)))

    @pytest.mark.usefixtures("slow")
    async def test_money_is_in_the_books_and_access_begins_when_it_has_answered(self, school: School) -> None:
        began = school.world.now
        enrolled = await school.enrol(await school.course(access_days=1))
        assert enrolled.status_code == 201
        (found,) = await school.enrollments()
        assert found["enrolled_at"] == timestamp(began)
        assert found["updated_at"] == timestamp(began + 25 * SECOND)
        assert found["expires_at"] == timestamp(began + 25 * SECOND + DAY)
        assert await happened(school) == [("payment.charging", 0), ("payment.charged", 25)]
        school.world.clock.advance(5)
        assert (await school.cancel(found["id"])).status_code == 200
        assert (await happened(school))[2:] == [("payment.refunding", 30), ("payment.refunded", 55)]
        entries = await school.world.services.storage.read(lambda tx: tx.ledger.of(found["id"]))
        assert [(entry.at - began) // SECOND for entry in entries] == [25, 30, 55]

    @pytest.mark.usefixtures("slow")
    async def test_a_sweep_writes_down_what_it_hears_when_it_hears_it(self, school: School) -> None:
        school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE)
        assert (await school.enrol(await school.course())).status_code == 503
        school.gateway.away = None
        await school.world.sweep()
        assert await happened(school) == [("payment.charging", 0), ("payment.charged", 50)]

    @pytest.mark.usefixtures("slow")
    async def test_a_means_of_payment_is_there_from_when_it_is_kept(self, school: School) -> None:
        path = f"/v1/users/{school.user.id}/payment-methods"
        began = school.world.now
        added = await school.world.ask("POST", path, school.key, {"token": "tok_visa_4242"})
        assert added.json()["created_at"] == timestamp(began + 25 * SECOND)


def after(seconds: float, school: School, ask: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
    """The same question, whose answer takes so long."""

    async def asked(*what: Any) -> Any:
        school.world.clock.advance(seconds)
        return await ask(*what)

    return asked


async def happened(school: School) -> list[tuple[str, int]]:
    """What happened to payments, and how many seconds after the beginning, the first of it first."""
    rows = await school.world.services.storage.read(lambda tx: tx.audit.list(AuditQuery(), Cursor(None, 100)))
    return [
        (row.event, (row.at - NOW_NS // 1_000) // SECOND)
        for row in reversed(rows.items)
        if row.event.startswith("payment.")
    ]


class TestLeavingWhileItIsPending:
    @pytest.fixture
    async def pending(self, school: School) -> str:
        """An enrolment on the only seat, whose charge the payment service made without answering."""
        self.course = await school.course(seats=1)
        school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE)
        assert told(await school.enrol(self.course)) == (503, "service_unavailable")
        return str((await school.enrollments())[0]["id"])

    async def test_the_money_goes_back_when_the_service_says_that_it_came(self, school: School, pending: str) -> None:
        school.gateway.away = None
        for _ in range(3):
            left = await school.cancel(pending)
            assert (left.status_code, left.json()["status"]) == (200, "refunded")
        assert school.gateway.refunds == list(school.gateway.paid)
        assert len(school.gateway.refunds) == 1
        assert (await school.enrol(self.course)).status_code == 201

    async def test_while_it_is_silent_the_reply_is_503_and_the_sweep_undoes_it_later(
        self, school: School, pending: str
    ) -> None:
        assert told(await school.cancel(pending)) == (503, "service_unavailable")
        assert [one["status"] for one in await school.enrollments()] == ["pending"]
        school.gateway.away = None
        school.world.clock.advance(11)
        await school.world.sweep()
        assert [one["status"] for one in await school.enrollments()] == ["refunded"]
        assert len(school.gateway.refunds) == len(school.gateway.paid) == 1
        assert await school.students(self.course) == 0

    async def test_a_refusal_leaves_nothing_to_give_back(self, school: School) -> None:
        course = await school.course(seats=1)
        school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE)
        assert told(await school.enrol(course, "pm_visa_0002")) == (503, "service_unavailable")
        made = (await school.enrollments())[0]["id"]
        assert told(await school.cancel(made)) == (503, "service_unavailable")
        school.gateway.away = None
        assert (await school.cancel(made)).json()["status"] == "cancelled"
        assert school.gateway.refunds == []

    async def test_nobody_pays_a_second_time_before_the_first_is_known(self, school: School, pending: str) -> None:
        assert told(await school.cancel(pending)) == (503, "service_unavailable")
        assert told(await school.enrol(self.course)) == (503, "service_unavailable")
        assert len(set(school.gateway.asked)) == 1
        school.gateway.away = None
        again = await school.enrol(self.course)
        assert (again.status_code, again.json()["id"] != pending) == (201, True)
        assert len(school.gateway.paid) == 2
        assert len(school.gateway.refunds) == 1

    async def test_who_leaves_while_the_charge_is_on_its_way_is_not_enrolled_and_has_the_money(
        self, school: School
    ) -> None:
        course = await school.course()
        charge, asked, go_on = school.gateway.charge, asyncio.Event(), asyncio.Event()

        async def slow(payment: Any) -> Any:
            asked.set()
            await go_on.wait()
            return await charge(payment)

        school.gateway.charge = slow  # type: ignore[method-assign]
        enrolling = asyncio.create_task(school.enrol(course))
        await asked.wait()
        school.gateway.charge = charge  # type: ignore[method-assign]
        made = (await school.enrollments())[0]["id"]
        assert (await school.cancel(made)).json()["status"] == "refunded"
        go_on.set()
        refused = await enrolling
        assert told(refused) == (403, "enrollment_not_active")
        assert refused.json()["error"]["details"]["status"] == "refunded"
        assert len(school.gateway.paid) == len(school.gateway.refunds) == 1


class TestAnswersThatComeLate:
    async def test_they_move_nothing_that_has_been_moved(self, school: School) -> None:
        storage, gateways = school.world.services.storage, school.world.services.gateways

        async def kept() -> Payment:
            found = await storage.read(lambda tx: tx.payments.get(school.gateway.asked[0]))
            assert found is not None
            return found

        school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE)
        await school.enrol(await school.course())
        asked_early = await kept()
        school.gateway.away = None
        made = (await school.enrollments())[0]["id"]
        assert (await school.cancel(made)).json()["status"] == "refunded"
        settled = await kept()
        assert settled.status == "refunded"
        school.world.clock.advance(60)
        late = await payments.charge(storage, gateways["live"], asked_early, school.world.ctx)
        assert (late.enrollment.status, late.refusal) == ("refunded", None)
        await payments.refund(storage, gateways["live"], asked_early, school.world.ctx)
        assert await kept() == settled
        assert [one["status"] for one in await school.enrollments()] == ["refunded"]

    async def test_money_that_came_in_for_what_was_given_up_meanwhile_goes_back(self, school: School) -> None:
        course, charge = await school.course(seats=1), school.gateway.charge

        async def overtaken(payment: Payment) -> Code | None:
            """Another process, whose clock is ahead, asks first, and is told that nothing came and nothing will."""
            school.gateway.charge = gave_up  # type: ignore[method-assign, assignment]
            await payments.carry_on(services.storage, services.gateways, payment.id, school.world.ctx)
            school.gateway.charge = charge  # type: ignore[method-assign]
            return await charge(payment)

        async def gave_up(_payment: Payment) -> Code | None:
            return Code.SERVICE_UNAVAILABLE

        services = school.world.services
        school.gateway.charge = overtaken  # type: ignore[method-assign]
        assert told(await school.enrol(course)) == (403, "enrollment_not_active")
        assert school.gateway.refunds == list(school.gateway.paid)
        assert len(school.gateway.refunds) == 1
        assert [one["status"] for one in await school.enrollments()] == ["cancelled"]
        assert (await school.enrol(course)).status_code == 201


class TestManyThatAreStuck:
    async def test_a_hundred_that_cannot_be_resolved_keep_nobody_waiting(self, school: School) -> None:
        stuck = [await school.course() for _ in range(100)]
        school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE)
        for course in stuck:
            assert (await school.enrol(course)).status_code == 503
        broken = set(school.gateway.asked)
        course = await school.course()
        assert (await school.enrol(course)).status_code == 503
        charge, seen = school.gateway.charge, list[str]()

        async def selective(payment: Any) -> Any:
            seen.append(payment.id)
            if payment.id in broken:
                raise LearnFlowError(Code.SERVICE_UNAVAILABLE)
            return await charge(payment)

        school.gateway.away = None
        school.gateway.charge = selective  # type: ignore[method-assign]
        school.world.clock.advance(11)
        await school.world.sweep()
        assert len(await school.enrollments(status="active")) == 1
        assert len(seen) == 101
        for _ in range(9):
            school.world.clock.advance(1)
            await school.world.sweep()
        assert len(seen) == 101
        school.world.clock.advance(11)
        await school.world.sweep()
        assert sorted(seen[101:]) == sorted(broken)

    async def test_sweeps_of_several_processes_ask_about_each_payment_once(self, school: School) -> None:
        school.gateway.away, school.gateway.away_when = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE), "before"
        for _ in range(30):
            await school.enrol(await school.course())
        school.gateway.away = None
        school.gateway.asked.clear()
        school.world.clock.advance(11)
        await asyncio.gather(*[school.world.sweep() for _ in range(5)])
        assert len(school.gateway.asked) == len(set(school.gateway.asked)) == 30
        assert len(await school.enrollments(status="active")) == 30

    async def test_a_sweep_that_dies_over_a_payment_leaves_it_to_the_next_when_its_lease_is_over(
        self, school: School
    ) -> None:
        school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE)
        await school.enrol(await school.course())
        charge, asked = school.gateway.charge, asyncio.Event()

        async def hang(_payment: Any) -> Any:
            asked.set()
            await asyncio.Event().wait()

        school.gateway.charge = hang  # type: ignore[method-assign, assignment]
        school.world.clock.advance(11)
        doomed = asyncio.create_task(school.world.sweep())
        await asked.wait()
        doomed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await doomed
        school.gateway.away, school.gateway.charge = None, charge  # type: ignore[method-assign]
        for seconds, status in ((0, "pending"), (19, "pending"), (1, "active"), (60, "active")):
            school.world.clock.advance(seconds)
            await school.world.sweep()
            assert [one["status"] for one in await school.enrollments()] == [status]
        assert len(school.gateway.paid) == 1

    async def test_sweeps_that_die_again_and_again_make_no_payment_wait_longer(self, school: School) -> None:
        school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE)
        await school.enrol(await school.course())
        charge = school.gateway.charge

        async def hang(_payment: Any) -> Any:
            asked.set()
            await asyncio.Event().wait()

        school.gateway.charge = hang  # type: ignore[method-assign, assignment]
        school.world.clock.advance(11)
        for _ in range(5):
            asked = asyncio.Event()
            doomed = asyncio.create_task(school.world.sweep())
            await asked.wait()
            doomed.cancel()
            await asyncio.wait([doomed])
            school.world.clock.advance(20)
        school.gateway.away, school.gateway.charge = None, charge  # type: ignore[method-assign]
        await school.world.sweep()
        assert [one["status"] for one in await school.enrollments()] == ["active"]

    async def test_what_is_tried_in_vain_again_is_tried_more_seldom(self, school: School) -> None:
        school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE)
        await school.enrol(await school.course())
        asked = []
        for second in range(1, 120):
            school.world.clock.advance(1)
            before = len(school.gateway.asked)
            await school.world.sweep()
            asked += [second] * (len(school.gateway.asked) - before)
        assert asked == [10, 30, 70, 110]

    async def test_within_a_minute_of_the_end_of_a_long_outage_all_is_settled(self, school: School) -> None:
        school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE)
        for _ in range(40):
            assert (await school.enrol(await school.course())).status_code == 503
        for _ in range(100):
            school.world.clock.advance(37)
            await school.world.sweep()
        school.gateway.away = None
        for _ in range(60):
            school.world.clock.advance(1)
            await school.world.sweep()
        assert len(await school.enrollments(status="active")) == 40

    async def test_what_somebody_else_resolves_meanwhile_is_not_put_off(self, school: School) -> None:
        course = await school.course()
        school.gateway.away, school.gateway.away_when = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE), "before"
        assert (await school.enrol(course)).status_code == 503
        school.gateway.away, charge = None, school.gateway.charge

        async def overtaken(_payment: Any) -> Any:
            school.gateway.charge = charge  # type: ignore[method-assign]
            assert (await school.enrol(course)).status_code == 200
            raise LearnFlowError(Code.SERVICE_UNAVAILABLE)

        school.gateway.charge = overtaken  # type: ignore[method-assign, assignment]
        school.world.clock.advance(11)
        await school.world.sweep()
        assert [one["status"] for one in await school.enrollments()] == ["active"]
