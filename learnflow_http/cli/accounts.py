"""`learnflow accounts`: developers and companies, their plans, their suspension."""

from __future__ import annotations

from typing import get_args

import click
import msgspec

from learnflow_core.instants import timestamp
from learnflow_core.model import Account, Plan
from learnflow_core.usecases import accounts as usecases
from learnflow_http import wire
from learnflow_http.cli.common import (
    ID,
    TITLE,
    context,
    everything,
    json_option,
    operator,
    option,
    print_list,
    print_made,
    read,
    with_database,
    write,
)
from learnflow_http.settings import Settings

_COLUMNS = ("id", "name", "plan", "per_minute", "licenses", "suspended_at", "created_at")

_plan = option("--plan", type=click.Choice(get_args(Plan)), required=True, help="The plan.")
_per_minute = option(
    "--per-minute", type=click.IntRange(1, usecases.MOST_AGREED), help="Enterprise: requests a minute, as agreed."
)
_licenses = option(
    "--licenses",
    type=click.IntRange(0, usecases.MOST_AGREED),
    help="Enterprise: enrolments held at once without paying.",
)


class AccountForOperator(wire.Account, frozen=True):
    """An account as the API shows it, and what only its operator is told."""

    per_minute: int | None
    suspended_at: str | None


@click.group()
def accounts() -> None:
    """Developers and companies that use the API."""


@accounts.command()
@option("--name", type=TITLE, required=True, help="What people call it.")
@_plan
@_per_minute
@_licenses
@json_option
@with_database
def create(
    settings: Settings, name: str, plan: Plan, per_minute: int | None, licenses: int | None, *, as_json: bool
) -> None:
    """Make an account, and print its id."""
    ctx = context()
    account = write(
        settings,
        lambda tx: usecases.create_account(tx, name=name, plan=plan, per_minute=per_minute, licenses=licenses, ctx=ctx),
    )
    print_made(_shown(account), f"Made the account {account.name}, {account.plan}.", as_json=as_json)


@accounts.command("list")
@json_option
@with_database
def list_accounts(settings: Settings, *, as_json: bool) -> None:
    """Show every account, the oldest first."""
    found = read(settings, lambda tx: everything(tx.accounts.list))
    print_list([_shown(account) for account in found], _COLUMNS, as_json=as_json)


@accounts.command()
@click.argument("account_id", metavar="ACCOUNT", type=ID)
@_plan
@_per_minute
@_licenses
@json_option
@with_database
def set_plan(
    settings: Settings, account_id: str, plan: Plan, per_minute: int | None, licenses: int | None, *, as_json: bool
) -> None:
    """Move an account to a plan, with the numbers agreed for it."""
    ctx = context()
    account = write(
        settings,
        lambda tx: usecases.set_plan(tx, account_id, plan=plan, per_minute=per_minute, licenses=licenses, ctx=ctx),
    )
    print_made(_shown(account), f"{account.name} is on the plan {account.plan}.", as_json=as_json)


@accounts.command()
@click.argument("account_id", metavar="ACCOUNT", type=ID)
@json_option
@with_database
def suspend(settings: Settings, account_id: str, *, as_json: bool) -> None:
    """Refuse every request of an account, until it is resumed."""
    _set_suspended(settings, account_id, suspended=True, as_json=as_json)


@accounts.command()
@click.argument("account_id", metavar="ACCOUNT", type=ID)
@json_option
@with_database
def resume(settings: Settings, account_id: str, *, as_json: bool) -> None:
    """Let a suspended account work again."""
    _set_suspended(settings, account_id, suspended=False, as_json=as_json)


def _set_suspended(settings: Settings, account_id: str, *, suspended: bool, as_json: bool) -> None:
    ctx = context()
    account = write(settings, lambda tx: usecases.set_suspended(tx, account_id, suspended=suspended, ctx=ctx))
    state = "suspended" if suspended else "working"
    print_made(_shown(account), f"{account.name} is {state}.", as_json=as_json)


def _shown(account: Account) -> AccountForOperator:
    shown = wire.account(operator(account, "live"), account)
    return AccountForOperator(
        **msgspec.structs.asdict(shown),
        per_minute=account.per_minute,
        suspended_at=None if account.suspended_at is None else timestamp(account.suspended_at),
    )
