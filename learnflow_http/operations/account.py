"""The caller's own account and quotas."""

from __future__ import annotations

from typing import Any

from learnflow_core.usecases import accounts
from learnflow_http import wire
from learnflow_http.call import Call
from learnflow_http.operations.row import ADMIN, Operation
from learnflow_http.services import Services


async def _own_account(tx: Any, call: Call) -> Any:
    return call.actor, await accounts.get_account(tx, call.actor.account_id)


async def _own_quotas(_services: Services, call: Call) -> wire.QuotaStatuses:
    return wire.quota_statuses(call.decision, call.ctx.now * 1_000)


ACCOUNT = (
    Operation(
        method="GET",
        path="/v1/account",
        name="getAccount",
        summary="Read the caller's account, plan and quotas",
        tag="Account",
        kind="read",
        run=_own_account,
        reply=wire.Account,
        show=lambda found: wire.account(*found),
        scope="*",
        roles=ADMIN,
    ),
    Operation(
        method="GET",
        path="/v1/rate-limit",
        name="getRateLimit",
        summary="Read every quota of the caller, at no cost",
        tag="Account",
        kind="saga",
        run=_own_quotas,
        reply=wire.QuotaStatuses,
        public=True,
        cost=0,
        secret=True,
    ),
)
