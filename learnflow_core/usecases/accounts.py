"""Accounts, as their operator makes and changes them: there is no public operation that does."""

from __future__ import annotations

import msgspec

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import Account, Plan
from learnflow_core.ports import Context, Transaction

MOST_AGREED = 1_000_000_000
"""The highest rate a minute, and the most licences, that an account can have."""


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
    await tx.audit.add(ctx.event("account.created", account.id, account.id, plan))
    return account


async def set_plan(
    tx: Transaction, account_id: str, *, plan: Plan, per_minute: int | None, licenses: int | None, ctx: Context
) -> Account:
    """Move an account to another plan, with the numbers agreed for it."""
    account = await get_account(tx, account_id)
    changed = _checked(msgspec.structs.replace(account, plan=plan, per_minute=per_minute, licenses=licenses))
    await tx.accounts.put(changed)
    await tx.audit.add(ctx.event("plan.set", account.id, account.id, plan))
    return changed


async def set_suspended(tx: Transaction, account_id: str, *, suspended: bool, ctx: Context) -> Account:
    """Suspend an account, so that every request of it is refused, or let it work again."""
    account = await get_account(tx, account_id)
    if (account.suspended_at is not None) == suspended:
        return account
    changed = msgspec.structs.replace(account, suspended_at=ctx.now if suspended else None)
    await tx.accounts.put(changed)
    await tx.audit.add(ctx.event("account.suspended" if suspended else "account.resumed", account.id, account.id))
    return changed


async def get_account(tx: Transaction, account_id: str) -> Account:
    """The account with this id, else `not_found`."""
    account = await tx.accounts.get(account_id)
    if account is None:
        raise LearnFlowError(Code.NOT_FOUND, f"No such account: {account_id}.")
    return account


def _checked(account: Account) -> Account:
    agreed = (("per_minute", account.per_minute, 1), ("licenses", account.licenses, 0))
    for param, value, least in agreed:
        if value is None:
            continue
        if account.plan != "enterprise":
            raise _not_allowed(param, "is agreed with Enterprise accounts only")
        if not least <= value <= MOST_AGREED:
            raise _not_allowed(param, f"must be from {least} to {MOST_AGREED}")
    return account


def _not_allowed(param: str, why: str) -> LearnFlowError:
    return LearnFlowError(Code.INVALID_PARAMETER, f"{param} {why}.", param=param)
