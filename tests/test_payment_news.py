"""What a payment service tells by itself: a reason to look, and believed only where it cannot become otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import Enrollment, Payment
from learnflow_core.ports import PaymentNews
from learnflow_core.usecases.payment_news import Heard, hear
from learnflow_core.usecases.payments import paid_late
from tests.school import School, school_on
from tests.world import World

DECLINES = "pm_visa_0002"


@pytest.fixture
async def school(world: World) -> AsyncIterator[School]:
    """A school whose books agree at the end of the test."""
    yield await school_on(world, "professional")
    assert list(await world.services.storage.check()) == []


async def place(school: School, **filters: str) -> tuple[Enrollment, Payment]:
    """The one place that somebody asked for, and its payment."""
    (found,) = await school.enrollments(**filters)
    storage = school.world.services.storage
    enrollment = await storage.read(lambda tx: tx.enrollments.get(found["id"]))
    assert enrollment is not None
    payment = await storage.read(lambda tx: tx.payments.get(enrollment.payment_id or ""))
    assert payment is not None
    return enrollment, payment


async def statuses(school: School) -> tuple[str, str]:
    enrollment, payment = await place(school)
    return enrollment.status, payment.status


async def told(school: School, kind: str, payment_id: str | None = None) -> Heard:
    services = school.world.services
    news = PaymentNews(payment_id or (await place(school))[1].id, kind)  # type: ignore[arg-type]
    return await hear(services.storage, services.gateways, news, school.world.ctx)


async def go_away(school: School) -> None:
    school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE)


@pytest.mark.parametrize("kind", ["disputed", "not_returned"])
async def test_a_dispute_and_a_refund_that_failed_are_for_a_person_and_nothing_is_asked(
    school: School, kind: str
) -> None:
    await school.enrol(await school.course())
    assert await told(school, kind) == "for_the_operator"
    assert (await statuses(school), len(school.gateway.asked)) == (("active", "charged"), 1)


@pytest.mark.parametrize("kind", ["changed", "paid"])
async def test_news_of_a_payment_that_waits_have_it_asked_for_and_carried_on(school: School, kind: str) -> None:
    await go_away(school)
    await school.enrol(await school.course())
    assert await told(school, kind) == "done"
    assert await statuses(school) == ("pending", "charging")
    school.gateway.away = None
    assert await told(school, kind) == "done"
    assert await statuses(school) == ("active", "charged")


async def test_what_fails_otherwise_than_by_silence_is_raised(school: School) -> None:
    await go_away(school)
    await school.enrol(await school.course())
    school.gateway.away = lambda: LearnFlowError(Code.INVALID_PAYMENT_METHOD)
    with pytest.raises(LearnFlowError) as failed:
        await told(school, "changed")
    assert failed.value.code is Code.INVALID_PAYMENT_METHOD


async def test_news_of_what_is_settled_have_nobody_asked(school: School) -> None:
    await school.enrol(await school.course())
    for kind in ("changed", "paid"):
        assert await told(school, kind) == "done"
    assert (await statuses(school), len(school.gateway.asked)) == (("active", "charged"), 1)


async def test_money_that_came_in_for_what_was_given_up_goes_back_and_a_person_hears_of_it(school: School) -> None:
    await school.enrol(await school.course(), DECLINES)
    assert await statuses(school) == ("cancelled", "declined")
    assert await told(school, "changed") == "done"
    assert await statuses(school) == ("cancelled", "declined")
    assert await told(school, "paid") == "for_the_operator"
    assert await statuses(school) == ("cancelled", "refunded")
    assert school.gateway.refunds == [(await place(school))[1].id]
    assert await told(school, "paid") == "done"


async def test_of_two_who_hear_of_such_money_at_once_one_gives_it_back(school: School) -> None:
    await school.enrol(await school.course(), DECLINES)
    payment = (await place(school))[1]
    storage, ctx = school.world.services.storage, school.world.ctx
    for _ in range(2):
        await storage.write(lambda tx: paid_late(tx, payment.id, ctx))
    assert await statuses(school) == ("cancelled", "refunding")


async def test_when_the_service_is_away_then_the_sweep_gives_it_back(school: School) -> None:
    await school.enrol(await school.course(), DECLINES)
    await go_away(school)
    assert await told(school, "paid") == "for_the_operator"
    assert await statuses(school) == ("cancelled", "refunding")
    school.gateway.away = None
    school.world.clock.advance(11)
    await school.world.sweep()
    assert await statuses(school) == ("cancelled", "refunded")


async def test_money_that_went_back_ends_the_place_and_frees_its_seat(school: School) -> None:
    course = await school.course(seats=1)
    await school.enrol(course)
    for _ in range(2):
        assert await told(school, "returned") == "done"
        assert await statuses(school) == ("refunded", "refunded")
    assert school.gateway.refunds == []
    other = await school.world.user(school.account, "other@acme.test")
    assert (await school.enrol(course, user=other)).status_code == 201


async def test_a_refund_that_was_under_way_is_done_when_the_money_is_told_to_be_back(school: School) -> None:
    enrolled = (await school.enrol(await school.course())).json()
    await go_away(school)
    await school.cancel(enrolled["id"])
    assert await statuses(school) == ("refunded", "refunding")
    assert await told(school, "returned") == "done"
    assert await statuses(school) == ("refunded", "refunded")


async def test_money_that_went_back_for_a_course_that_was_completed_or_never_paid_is_for_a_person(
    school: School,
) -> None:
    enrolled = (await school.enrol(await school.course())).json()
    await school.progress(enrolled["id"], 100)
    assert await told(school, "returned") == "for_the_operator"
    assert await statuses(school) == ("completed", "charged")
    await school.enrol(await school.course(), DECLINES)
    _, declined = await place(school, status="cancelled")
    assert await told(school, "returned", declined.id) == "for_the_operator"
    assert (await place(school, status="cancelled"))[1] == declined


@pytest.mark.parametrize(("kind", "heard"), [("changed", "done"), ("paid", "done"), ("returned", "for_the_operator")])
async def test_a_payment_that_is_nobodys_changes_nothing(school: School, kind: str, heard: Heard) -> None:
    assert await told(school, kind, "pay_nobody") == heard
    assert (school.gateway.asked, school.gateway.refunds) == ([], [])
