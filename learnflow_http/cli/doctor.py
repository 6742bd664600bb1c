"""`learnflow doctor`: do the books agree, and what helps where they do not."""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec

from learnflow_core.audit import DOCTOR
from learnflow_core.ports import Finding, Storage
from learnflow_http.cli.common import (
    context,
    json_option,
    option,
    print_json,
    printable,
    require_database,
    run,
    with_database,
)
from learnflow_http.settings import Settings

_CHECKED = (
    "Checked the database itself, seats, licences, payments, the ledger, the audit, certificates, counts and the "
    "search index"
)


class _Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wrong, after what was repaired."""

    findings: Sequence[Finding]
    repaired: Sequence[Finding] | msgspec.UnsetType = msgspec.UNSET


@click.command()
@option("--repair", is_flag=True, help="Put right what needs no person, each by itself, and have the audit tell of it.")
@json_option
@with_database
@click.pass_context
def doctor(ctx: click.Context, settings: Settings, *, repair: bool, as_json: bool) -> None:
    """Check that the database is sound and its books agree; the server may be running.

    Prints what is wrong, with what helps: what --repair does, or what has to be done by hand. Exits with 1 when
    anything is wrong, and still is after --repair.
    """
    require_database(settings)
    report = run(settings, lambda storage: _examined(storage, repair=repair))
    if as_json:
        print_json(report)
    else:
        _print(report)
    found = len(report.findings)
    click.echo(f"{_CHECKED}: {found or 'no'} finding{'' if found == 1 else 's'}.", err=True)
    ctx.exit(1 if found else 0)


async def _examined(storage: Storage, *, repair: bool) -> _Report:
    if not repair:
        return _Report(await storage.check())
    repaired = await storage.repair(msgspec.structs.replace(context(), actor=DOCTOR))
    return _Report(await storage.check(), repaired)


def _print(report: _Report) -> None:
    for finding in report.repaired or ():
        click.echo(f"repaired: {printable(finding.says)}: {finding.remedy}")
    for finding in report.findings:
        helps = "--repair would" if finding.repairable else "by hand"
        click.echo(f"{printable(finding.says)}\n    {helps}: {finding.remedy}")
