"""Whatever Stripe does, or says: nobody pays twice, nobody pays without a place, nobody has a place without paying.

Each fault is met by many enrolments, a few of them at a time, with good cards and bad ones, whose clients ask again or
do not. `make soak` has 500 for each.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import httpx2 as httpx
import pytest
from hypothesis import settings

from learnflow_core.audit import PAYMENT_SERVICE, SWEEP
from learnflow_core.model import Course, Payment, User
from tests.paying import IMPATIENT_S, PayingSchool, open_paying_school
from tests.stripe_service import FAULTS, Fault

AT_ONCE = 20
CARDS = ("pm_card_visa",) * 5 + ("pm_card_chargeCustomerFail", "pm_card_poorLater", "pm_card_actionLater")


def rounds() -> int:
    """How many times AT_ONCE enrolments meet each fault: once, and 25 times in the soak."""
    return 25 if settings().max_examples >= 1_000 else 1


@pytest.fixture
async def school() -> AsyncIterator[PayingSchool]:
    async with open_paying_school(timeout_s=IMPATIENT_S) as school:
        yield school


@pytest.mark.parametrize("name", FAULTS)
async def test_faults_of_charging_cost_nobody_money_or_a_place(school: PayingSchool, name: str) -> None:
    chance = random.Random(name)
    for number in range(rounds()):
        people = await crowd(school, number)
        course = await school.course(seats=AT_ONCE)
        school.service.fail(FAULTS[name], times=chance.randint(1, 3))
        await asyncio.gather(*(insist(school, course, user, chance) for user in people))
        await school.settle()
        school.world.clock.advance(86_400)  # for the next round, quotas are full


@pytest.mark.parametrize("name", FAULTS)
async def test_faults_of_refunding_give_the_money_back_once(school: PayingSchool, name: str) -> None:
    people = await crowd(school, 0)
    course = await school.course()
    with school.patience():
        replies = [await school.enrol(course, await school.method(user=user), user=user) for user in people[:5]]
    school.service.fail(FAULTS[name], path="/v1/refunds", times=2)
    left = [school.cancel(reply.json()["id"]) for reply in replies for _ in range(2)]
    assert {reply.json()["status"] for reply in await asyncio.gather(*left)} == {"refunded"}
    await school.settle()
    assert school.service.ledger.count("refunded") == {reply.json()["id"]: 1 for reply in replies}


@pytest.mark.parametrize("name", FAULTS)
async def test_faults_of_cancelling_leave_nothing_at_stripe_that_could_still_be_paid(
    school: PayingSchool, name: str
) -> None:
    people = await crowd(school, 0)
    course = await school.course(seats=5)
    methods = [(user, await school.method("pm_card_actionLater", user)) for user in people[:5]]
    school.service.fail(FAULTS[name], path="/cancel", times=2)
    await asyncio.gather(*(school.enrol(course, method, user=user) for user, method in methods))
    await school.settle()
    intents = [each for each in school.service.account.objects.values() if each["object"] == "payment_intent"]
    assert {each["status"] for each in intents} == {"canceled"}
    assert len(await school.all_enrollments("cancelled")) == 5


LOST = [name for name, fault in FAULTS.items() if fault.done == "before" and fault.how != "slow"]


@pytest.mark.parametrize("name", LOST)
@pytest.mark.parametrize("manner", ["at once", "three times", "out of order", "when all is over"])
async def test_webhooks_may_come_as_they_like(school: PayingSchool, name: str, manner: str) -> None:
    chance = random.Random(name + manner)
    people = (await crowd(school, 0))[:8]
    course = await school.course()
    school.service.fail(FAULTS[name], times=1)
    methods = [(user, await school.method(user=user)) for user in people[:6]]
    await asyncio.gather(*(school.enrol(course, method, user=user) for user, method in methods))
    for user in people[6:]:
        await school.enrol(course, await school.method("pm_card_chargeCustomerFail", user), user=user)
    if manner == "when all is over":
        await school.settle()
    paid = set(school.service.ledger.kept())  # six, unless the machine was too slow for those who asked
    events = school.service.events * (3 if manner == "three times" else 1)
    if manner == "out of order":
        chance.shuffle(events)
    school.service.fail(None)
    with school.patience():
        await school.service.deliver(school.hear, events)
    assert set(await school.all_enrollments("active")) == paid
    await school.settle()
    assert school.charges == 6


async def test_webhooks_that_come_before_the_reply_change_nothing(school: PayingSchool) -> None:
    course, method = await school.course(), await school.method()
    school.service.fail(FAULTS["a slow answer"])

    async def hear_early() -> None:
        await school.service.emitted.wait()
        await school.service.deliver(school.hear)

    with school.patience():
        reply, _ = await asyncio.gather(school.enrol(course, method), hear_early())
    assert reply.status_code == 201
    await school.settle()


async def test_what_takes_stripe_too_long_altogether_is_asked_again_later(
    school: PayingSchool, monkeypatch: pytest.MonkeyPatch
) -> None:
    course, method = await school.course(), await school.method()
    school.service.fail(FAULTS["times out after charging"])
    with school.patience(), monkeypatch.context() as hurry:
        hurry.setattr("payment_gateways.stripe.gateway._DEADLINE_S", 0.05)
        assert (await school.enrol(course, method)).status_code == 503
    await school.settle()
    assert school.charges == school.kept == 1


async def test_two_servers_that_ask_at_once_charge_once(school: PayingSchool) -> None:
    people = await crowd(school, 0)
    course = await school.course()
    for name in ("503 after charging", "a slow answer", "reset before charging"):
        school.service.fail(FAULTS[name])
        user = people.pop()
        method = await school.method(user=user)
        await asyncio.gather(*(school.enrol(course, method, user=user) for _ in range(5)))
    await school.settle()


async def test_money_that_comes_in_for_what_was_given_up_goes_back(school: PayingSchool) -> None:
    """Stripe may find out later that a request at which it failed had been carried out after all."""
    given_up = await paid_late(school)
    await school.service.deliver(school.hear)
    assert (school.charges, school.kept) == (1, 0)
    moved, told_of = await school.books(given_up.id)
    assert moved == ["charged", "refunding", "refunded"]
    assert {event for event, actor in told_of if actor == PAYMENT_SERVICE} == set(moved)
    assert ("declined", SWEEP) in told_of
    await school.settle()


async def test_money_that_came_in_late_goes_back_by_the_sweep_when_stripe_does_not_answer_again(
    school: PayingSchool,
) -> None:
    given_up = await paid_late(school)
    school.service.fail(FAULTS["reset before charging"], path="/v1/refunds", times=9)
    await school.service.deliver(school.hear)
    assert school.kept == 1
    assert (await school.books(given_up.id))[0] == ["charged", "refunding"]
    await school.settle()
    assert (school.charges, school.kept) == (1, 0)
    assert ("refunded", SWEEP) in (await school.books(given_up.id))[1]


async def paid_late(school: PayingSchool) -> Payment:
    """The payment of an enrolment that was given up, for which Stripe has charged after all."""
    course, method = await school.course(), await school.method()
    school.service.fail(FAULTS["500 before charging, for good"], times=9)
    assert (await school.enrol(course, method)).status_code == 503
    asked = [each for each in school.service.asked if each.path == "/v1/payment_intents" and each.method == "POST"]
    await school.settle()
    school.service.account.create_intent(asked[0].form)
    assert school.kept == 1
    (enrollment,) = await school.enrollments()
    return await school.payment(enrollment["id"])


async def insist(school: PayingSchool, course: Course, user: User, chance: random.Random) -> None:
    """Ask for a place until it is there or refused, or until a client has had enough."""
    method = await school.method(chance.choice(CARDS), user)
    for _ in range(chance.randint(1, 3)):
        asked = [school.enrol(course, method, user=user) for _ in range(chance.randint(1, 2))]
        replies: list[httpx.Response] = await asyncio.gather(*asked)
        assert {reply.status_code for reply in replies} <= {200, 201, 403, 503}
        if {reply.status_code for reply in replies} != {503}:
            return


async def crowd(school: PayingSchool, number: int) -> list[User]:
    """People who have not been there before."""
    return [await school.world.user(school.account, f"{number}-{n}@crowd.test") for n in range(AT_ONCE)]


def test_every_kind_of_fault_is_tried() -> None:
    assert {(fault.how, fault.done) for fault in FAULTS.values()} >= {
        ("silent", "before"),
        ("silent", "never"),
        ("silent", "later"),
        ("reset", "before"),
        ("status", "never"),
        ("garbage", "before"),
    }
    assert Fault("status", "before", 500, stored=True) in FAULTS.values()
    assert len(FAULTS) >= 12
