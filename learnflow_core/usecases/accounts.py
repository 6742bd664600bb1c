"""Accounts, as their operator makes and changes them: there is no public operation that does."""

from __future__ import annotations

import msgspec

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import Account, Plan
from learnflow_core.ports import Context, Transaction


async def create_account(
    tx: Transaction, *, name: str, plan: Plan, per_minute: int | None, licenses: int | None, ctx: Context
) -> Account:
    """Make an account. A rate of its own and a number of licences are for the Enterprise plan (`invalid_parameter`)."""
    account = Account(
        id=ctx.new_id("acct"),
        name=name,
        plan=plan,
        per_minute=per_minute,
        licenses=licenses,
        suspended_at=None,
        created_at=ctx.now,
    )
    await tx.accounts.add(_checked(account))
    return account


async def set_plan(
    tx: Transaction, account_id: str, *, plan: Plan, per_minute: int | None, licenses: int | None
) -> Account:
    """Move an account to another plan, with the numbers agreed for it."""
    account = await get_account(tx, account_id)
    changed = _checked(msgspec.structs.replace(account, plan=plan, per_minute=per_minute, licenses=licenses))
    await tx.accounts.put(changed)
    return changed


async def set_suspended(tx: Transaction, account_id: str, *, suspended: bool, ctx: Context) -> Account:
    """Suspend an account, so that every request of it is refused, or let it work again."""
    account = await get_account(tx, account_id)
    if (account.suspended_at is not None) == suspended:
        return account
    changed = msgspec.structs.replace(account, suspended_at=ctx.now if suspended else None)
    await tx.accounts.put(changed)
    return changed


async def get_account(tx: Transaction, account_id: str) -> Account:
    """The account with this id, else `not_found`."""
    account = await tx.accounts.get(account_id)
    if account is None:
        raise LearnFlowError(Code.NOT_FOUND, f"No such account: {account_id}.")
    return account


def _checked(account: Account) -> Account:
    for param, value in (("per_minute", account.per_minute), ("licenses", account.licenses)):
        if value is not None and account.plan != "enterprise":
            raise LearnFlowError(
                Code.INVALID_PARAMETER, f"{param} is agreed with Enterprise accounts only.", param=param
            )
    return account
