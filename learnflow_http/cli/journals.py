"""`learnflow ledger` and `learnflow audit`: what money moved, and what happened to money, keys, tokens and plans."""

from __future__ import annotations

from itertools import groupby

import click
import msgspec

from learnflow_core.audit import AuditRow
from learnflow_core.fields import Price
from learnflow_core.instants import timestamp
from learnflow_core.ledger import Balance, Entry
from learnflow_core.model import Instant, Mode
from learnflow_core.money import Money, format_amount
from learnflow_core.pagination import MAX_LIMIT, Cursor
from learnflow_core.ports import AuditQuery, Transaction
from learnflow_core.usecases import audit as usecases
from learnflow_http.cli.common import (
    ID,
    context,
    json_option,
    mode_option,
    option,
    print_list,
    read,
    require_database,
    run,
    with_database,
)
from learnflow_http.cli.keys import Moment
from learnflow_http.settings import Settings

_one_account = option("--account", type=ID, metavar="ID", help="One account alone; else all of them.")


class LedgerBalance(msgspec.Struct, frozen=True):
    """What an account of the ledger was debited and credited, and on which side of it the more is."""

    account_id: str
    ledger_account: str
    debits: Price
    credits: Price
    balance: Price
    side: str


class LedgerEntry(msgspec.Struct, frozen=True):
    """One movement of money, from the account credited to the account debited."""

    at: str
    payment_id: str
    mode: str
    account_id: str
    debit: str
    credit: str
    amount: Price


class AuditEvent(msgspec.Struct, frozen=True):
    """What happened to which record, and who did it."""

    at: str
    event: str
    object_id: str
    detail: str | None
    actor: str
    account_id: str | None
    request_id: str | None


@click.group()
def ledger() -> None:
    """The double-entry ledger of payments."""


@ledger.command()
@_one_account
@mode_option
@json_option
@with_database
def balances(settings: Settings, account: str | None, mode: Mode, *, as_json: bool) -> None:
    """Show what each account of the ledger was debited and credited, by publisher and currency."""
    found = read(settings, lambda tx: tx.ledger.balances(mode, account))
    print_list([_balance(each) for each in found], LedgerBalance.__struct_fields__, as_json=as_json)
    by_currency = sorted(found, key=lambda each: each.currency)
    for currency, some in groupby(by_currency, key=lambda each: each.currency):
        click.echo(_trial(currency, list(some)), err=True)


@ledger.command()
@click.argument("record_id", metavar="PAYMENT|ENROLMENT", type=ID)
@json_option
@with_database
def entries(settings: Settings, record_id: str, *, as_json: bool) -> None:
    """Show the entries of a payment, or of an enrolment, in their order."""
    found = read(settings, lambda tx: tx.ledger.of(record_id))
    print_list([_entry(each) for each in found], LedgerEntry.__struct_fields__, as_json=as_json)


@click.group()
def audit() -> None:
    """What happened to money, keys, tokens, roles, plans and licences, and who did it."""


@audit.command("list")
@option("--object", "object_id", type=ID, metavar="ID", help="What happened to this payment, key, user, … alone.")
@_one_account
@option("--since", type=Moment(), help="What happened from then on: a day or a time.")
@option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many rows at most.")
@json_option
@with_database
def list_audit(
    settings: Settings, object_id: str | None, account: str | None, since: Instant | None, limit: int, *, as_json: bool
) -> None:
    """Show what happened, the latest first."""
    query = AuditQuery(object_id, account, since)
    found = [_event(row) for row in read(settings, lambda tx: _latest(tx, query, limit))]
    print_list(found, AuditEvent.__struct_fields__, as_json=as_json)


@audit.command()
@option("--before", type=Moment(), required=True, help="The day or the time from before which rows are let go.")
@with_database
def purge(settings: Settings, before: Instant) -> None:
    """Let go of the oldest rows, and print how many. Nothing else ever does."""
    require_database(settings)
    click.echo(run(settings, lambda storage: usecases.purge(storage, before, context())))


async def _latest(tx: Transaction, query: AuditQuery, limit: int) -> list[AuditRow]:
    found: list[AuditRow] = []
    after, more = None, True
    while more and len(found) < limit:
        part = await tx.audit.list(query, Cursor(after, min(MAX_LIMIT, limit - len(found))))
        found += part.items
        after, more = part.next_after, part.next_after is not None
    return found


def _balance(balance: Balance) -> LedgerBalance:
    more = balance.debits - balance.credits
    debits, credits_, difference = (
        Price.of(Money(minor, balance.currency)) for minor in (balance.debits, balance.credits, abs(more))
    )
    side = "debit" if more >= 0 else "credit"
    return LedgerBalance(balance.account_id, balance.ledger_account, debits, credits_, difference, side)


def _trial(currency: str, balances: list[Balance]) -> str:
    debits = format_amount(sum(each.debits for each in balances), currency)
    credits_ = format_amount(sum(each.credits for each in balances), currency)
    return f"{currency}: debits {debits}, credits {credits_}."


def _entry(entry: Entry) -> LedgerEntry:
    return LedgerEntry(
        timestamp(entry.at),
        entry.payment_id,
        entry.mode,
        entry.account_id,
        entry.debit,
        entry.credit,
        Price.of(entry.amount),
    )


def _event(row: AuditRow) -> AuditEvent:
    return AuditEvent(
        timestamp(row.at), row.event, row.object_id, row.detail, row.actor, row.account_id, row.request_id
    )
