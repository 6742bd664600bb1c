from typing import Any

import pytest

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import Account, Plan
from learnflow_core.pagination import Page
from learnflow_core.ports import AuditQuery
from learnflow_core.usecases import accounts
from tests.world import World


@pytest.mark.parametrize(
    ("plan", "numbers", "param"),
    [
        ("enterprise", {"per_minute": 0}, "per_minute"),
        ("enterprise", {"per_minute": 10**9 + 1}, "per_minute"),
        ("enterprise", {"licenses": -1}, "licenses"),
        ("enterprise", {"licenses": 10**9 + 1}, "licenses"),
        ("starter", {"per_minute": 100}, "per_minute"),
        ("professional", {"licenses": 5}, "licenses"),
    ],
)
async def test_numbers_that_no_contract_can_agree_on_are_refused_by_name(
    world: World, plan: Plan, numbers: dict[str, Any], param: str
) -> None:
    with pytest.raises(LearnFlowError) as refusal:
        await world.account(plan=plan, **numbers)
    assert (refusal.value.code, refusal.value.param) == (Code.INVALID_PARAMETER, param)


async def test_an_enterprise_account_may_agree_on_one_request_a_minute_and_on_no_licence(world: World) -> None:
    account = await world.account(per_minute=1, licenses=0)
    assert (account.per_minute, account.licenses) == (1, 0)


async def test_the_most_that_can_be_agreed_is_a_thousand_million(world: World) -> None:
    account = await world.account(per_minute=10**9, licenses=10**9)
    assert (account.per_minute, account.licenses) == (10**9, 10**9)


async def told(world: World, account: Account) -> list[tuple[str, str | None]]:
    """What the audit has of an account, the latest first."""
    query = AuditQuery(object_id=account.id)
    rows = (await world.services.storage.read(lambda tx: tx.audit.list(query, Page(1, 50)))).items
    assert {row.account_id for row in rows} == {account.id}
    return [(row.event, row.detail) for row in rows]


async def kept(world: World, account: Account) -> Account | None:
    return await world.services.storage.read(lambda tx: tx.accounts.get(account.id))


async def test_an_account_has_what_was_agreed_from_the_instant_on_at_which_it_is_made(world: World) -> None:
    made = await world.account("Acme", "professional")
    assert made == Account(made.id, "Acme", "professional", None, None, None, world.now) == await kept(world, made)
    assert await told(world, made) == [("account.created", "professional")]


async def test_another_plan_comes_with_its_own_numbers_and_is_told_of(world: World) -> None:
    account = await world.account("Acme", "starter")
    world.clock.advance(1)
    ctx = world.ctx

    async def move(plan: Plan, per_minute: int | None, licenses: int | None) -> Account:
        return await world.services.storage.write(
            lambda tx: accounts.set_plan(tx, account.id, plan=plan, per_minute=per_minute, licenses=licenses, ctx=ctx)
        )

    moved = await move("enterprise", 500, 7)
    assert (moved.plan, moved.per_minute, moved.licenses) == ("enterprise", 500, 7)
    assert await kept(world, account) == moved
    with pytest.raises(LearnFlowError) as refused:
        await move("starter", None, 7)
    assert (refused.value.code, refused.value.param) == (Code.INVALID_PARAMETER, "licenses")
    assert await kept(world, account) == moved
    assert await told(world, account) == [("plan.set", "enterprise"), ("account.created", "starter")]


async def test_an_account_is_suspended_from_the_first_time_on_and_works_again_when_it_is_resumed(world: World) -> None:
    account = await world.account()

    async def suspend(suspended: bool) -> Account:
        ctx = world.ctx
        return await world.services.storage.write(
            lambda tx: accounts.set_suspended(tx, account.id, suspended=suspended, ctx=ctx)
        )

    assert await suspend(False) == account
    world.clock.advance(1)
    since = world.now
    for _ in range(2):
        assert (await suspend(True)).suspended_at == since
        assert (await kept(world, account)) == await suspend(True)
        world.clock.advance(1)
    assert await suspend(False) == account == await kept(world, account)
    assert [event for event, _ in await told(world, account)] == [
        *("account.resumed", "account.suspended", "account.created"),
    ]


async def test_an_account_that_is_none_is_not_found(world: World) -> None:
    with pytest.raises(LearnFlowError, match="No such account: acct_none") as refused:
        await world.services.storage.read(lambda tx: accounts.get_account(tx, "acct_none"))
    assert refused.value.code is Code.NOT_FOUND
