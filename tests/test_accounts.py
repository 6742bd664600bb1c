from typing import Any

import pytest

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import Plan
from tests.world import World


@pytest.mark.parametrize(
    ("plan", "numbers", "param"),
    [
        ("enterprise", {"per_minute": 0}, "per_minute"),
        ("enterprise", {"per_minute": 10**12}, "per_minute"),
        ("enterprise", {"licenses": -1}, "licenses"),
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
