"""`learnflow keys`: API keys, whose secrets are shown once."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Any

import click

from learnflow_core.access import EVERY_SCOPE, SCOPES
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.instants import instant
from learnflow_core.model import SECOND, ApiKey, Instant, Mode
from learnflow_core.ports import Transaction
from learnflow_core.usecases import api_keys as usecases
from learnflow_core.usecases.api_keys import MadeKey
from learnflow_http import wire
from learnflow_http.cli.common import (
    ID,
    TITLE,
    account_option,
    chosen_account,
    context,
    everything,
    json_option,
    mode_option,
    operator,
    option,
    print_json,
    print_list,
    print_made,
    read,
    with_database,
    write,
)
from learnflow_http.settings import Settings

_COLUMNS = ("id", "name", "prefix", "mode", "scopes", "created_at", "expires_at", "revoked_at", "last_used_at")


class Moment(click.ParamType[Instant]):
    """A day or a time, as an option of a command."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Instant:
        """A day, which is its beginning in UTC, or an instant."""
        try:
            day = datetime.combine(date.fromisoformat(value), time(), UTC)
            return int(day.timestamp()) * SECOND
        except ValueError:
            pass
        try:
            return instant(value, param="")
        except LearnFlowError:
            self.fail("must be a day or a time, such as 2030-01-31 or 2030-01-31T09:30:00Z.", param, ctx)


@click.group()
def keys() -> None:
    """Secret API keys."""


@keys.command()
@account_option
@option("--name", type=TITLE, default="command line", help="What people call it.")
@option(
    "--scope", "scopes", type=click.Choice(list(SCOPES)), multiple=True, default=[EVERY_SCOPE], help="What it may do."
)
@mode_option
@option("--expires", type=Moment(), help="When it stops working: a day or a time.")
@json_option
@with_database
def create(
    settings: Settings,
    account: str | None,
    name: str,
    scopes: tuple[str, ...],
    mode: Mode,
    expires: Instant | None,
    *,
    as_json: bool,
) -> None:
    """Make a key, and print its secret: it is kept nowhere and never shown again."""
    ctx = context()

    async def work(tx: Transaction) -> MadeKey:
        owner = operator(await chosen_account(tx, account), mode)
        return await usecases.create_key(tx, owner, name=name, scopes=scopes, mode=mode, expires_at=expires, ctx=ctx)

    made = write(settings, work)
    click.echo(f"Made the key {made.key.id} ({mode}: {' '.join(made.key.scopes)}). This is its secret:", err=True)
    if as_json:
        print_json(wire.api_key_secret(made))
    else:
        click.echo(made.secret)


@keys.command("list")
@account_option
@json_option
@with_database
def list_keys(settings: Settings, account: str | None, *, as_json: bool) -> None:
    """Show an account's keys, the newest first, without their secrets."""

    async def work(tx: Transaction) -> list[ApiKey]:
        owner = await chosen_account(tx, account)
        return await everything(lambda paging: tx.api_keys.list(owner.id, None, paging))

    print_list([wire.api_key(key) for key in read(settings, work)], _COLUMNS, as_json=as_json)


@keys.command()
@click.argument("key_id", metavar="KEY", type=ID)
@json_option
@with_database
def revoke(settings: Settings, key_id: str, *, as_json: bool) -> None:
    """End a key at once, and every token it minted."""
    ctx = context()

    async def work(tx: Transaction) -> ApiKey:
        key = await tx.api_keys.get(key_id)
        if key is None:
            raise LearnFlowError(Code.API_KEY_NOT_FOUND, f"No such API key: {key_id}.")
        return await usecases.end_key(tx, key, ctx)

    key = write(settings, work)
    print_made(wire.api_key(key), f"The key {key.name} ({key.prefix}…) is revoked.", as_json=as_json)
