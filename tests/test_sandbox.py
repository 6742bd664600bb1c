"""The sandbox: what it was asked stands in its ledger, and whatever becomes of its answers, books and ledger agree."""

from __future__ import annotations

import asyncio
import random
from typing import Any, cast

import msgspec
import pytest
from hypothesis import settings

from learnflow_core.errors import Code
from learnflow_core.model import Course, Mode, Payment, User
from learnflow_core.money import Money
from learnflow_core.ports import PaymentGateway
from payment_gateways.sandbox import SandboxGateway
from storage_backends.conformance.samples import payment
from tests import scene
from tests.school import School, school_on
from tests.scripted import ScriptedGateway
from tests.stripe_service import FAULTS
from tests.world import World

AT_ONCE = 20
CARDS = ("pm_visa_4242",) * 4 + ("pm_visa_0002", "pm_visa_9995", "pm_visa_3220")
replace = msgspec.structs.replace


class TestItsLedger:
    async def test_the_first_answer_stands_whatever_is_asked_later(self, world: World) -> None:
        sandbox = SandboxGateway(world.services.storage)
        asked = payment(token="tok_visa_4242")
        assert await sandbox.charge(asked) is None
        assert await sandbox.charge(replace(asked, token="tok_visa_0002", updated_at=9)) is None
        (row,) = (await scene.books(world))["sandbox_charges"]
        assert row == ("pay_1", "paid", asked.amount.amount_minor, asked.amount.currency, asked.updated_at)

    @pytest.mark.parametrize("other", [Money(1, "USD"), Money(4_999, "JPY")])
    async def test_another_amount_under_a_used_key_is_refused(self, world: World, other: Money) -> None:
        sandbox = SandboxGateway(world.services.storage)
        asked = payment(token="tok_visa_4242", amount=Money(4_999, "USD"))
        await sandbox.charge(asked)
        await sandbox.refund(asked)
        for call in (sandbox.charge, sandbox.refund):
            with pytest.raises(ValueError, match="pay_1 was asked for before"):
                await cast("Any", call)(replace(asked, amount=other))
        assert len((await scene.books(world))["sandbox_charges"]) == 2

    @pytest.mark.parametrize(
        ("token", "answer"),
        [
            ("tok_visa_4242", None),
            ("tok_visa_0002", Code.CARD_DECLINED),
            ("tok_visa_9995", Code.INSUFFICIENT_FUNDS),
            ("tok_visa_3220", Code.AUTHENTICATION_REQUIRED),
            ("tok_else", Code.INVALID_PAYMENT_METHOD),
        ],
    )
    async def test_each_token_has_its_answer(self, world: World, token: str, answer: Code | None) -> None:
        assert await SandboxGateway(world.services.storage).charge(payment(token=token)) is answer


@pytest.mark.parametrize("name", FAULTS)
async def test_faults_cost_nobody_money_or_a_place(world: World, name: str) -> None:
    chance = random.Random(name)
    school = await school_on(world, "professional")
    gateway = ScriptedGateway(world.services.gateways["live"])
    cast("dict[Mode, PaymentGateway]", world.services.gateways)["live"] = gateway
    for number in range(25 if settings().max_examples >= 1_000 else 1):
        people = [await world.user(school.account, f"{number}-{n}@crowd.test") for n in range(AT_ONCE)]
        course = await school.course(seats=AT_ONCE)
        gateway.fail(FAULTS[name], times=chance.randint(1, 3))
        await asyncio.gather(*(insist(school, course, user, chance) for user in people))
        await leave_some(school, chance)
        gateway.fail(None)
        await settle(school, gateway)
        world.clock.advance(86_400)  # for the next round, quotas are full


async def insist(school: School, course: Course, user: User, chance: random.Random) -> None:
    """Ask for a place until it is there or refused, or until a client has had enough."""
    method = chance.choice(CARDS)
    for _ in range(chance.randint(1, 3)):
        replies = await asyncio.gather(*[school.enrol(course, method, user=user) for _ in range(chance.randint(1, 2))])
        assert {reply.status_code for reply in replies} <= {200, 201, 403, 503}
        if {reply.status_code for reply in replies} != {503}:
            return


async def leave_some(school: School, chance: random.Random) -> None:
    """Some who have a place leave it again, and want their money back."""
    for one in await school.enrollments(status="active"):
        if chance.random() < 0.3:
            assert (await school.cancel(one["id"])).json()["status"] == "refunded"


async def settle(school: School, gateway: ScriptedGateway) -> None:
    """Sweep, have the service catch up with what it put off, and sweep again; then ledger and places agree."""
    for _ in range(2):
        school.world.clock.advance(11)
        await school.world.sweep()
        await gateway.catch_up()
    assert list(await school.world.services.storage.check()) == []
    kept = {key: outcome for key, outcome, *_ in (await scene.books(school.world))["sandbox_charges"]}
    owed = {key for key, outcome in kept.items() if outcome == "paid" and f"refund:{key}" not in kept}
    found = await payments(school)
    assert {each.id for each in found if each.status == "charged"} == owed
    assert {each.status for each in found} <= {"charged", "declined", "refunded"}
    assert len({each.enrollment_id for each in found if each.id in owed}) == len(owed)


async def payments(school: School) -> list[Payment]:
    """Every payment in the books."""

    ids = [row[0] for row in (await scene.books(school.world))["payments"]]

    async def work(tx: Any) -> list[Payment]:
        return [await tx.payments.get(each) for each in ids]

    return await school.world.services.storage.read(work)
