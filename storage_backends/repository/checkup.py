"""The doctor: every check of the books, what it finds, and putting right what needs no person.

Each question has a snapshot of its own, which keeps nobody from writing: what changes together is asked for together.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from learnflow_core.ports import Context, Finding
from storage_backends.driver import Driver, DriverTransaction, RefusedError, Row, Value
from storage_backends.repository import books, journal_checks, record_repairs
from storage_backends.repository.books import MOST
from storage_backends.repository.catalogue_repairs import REINDEX, recount, reindex
from storage_backends.repository.checks import Check, Remedy
from storage_backends.repository.journals import Journals

CHECKS: Final = (
    journal_checks.WITNESSES,
    *(
        Check(name, sentence, question, remedy)
        for sentence, question in books.QUESTIONS.items()
        for name, remedy in (record_repairs.remedy_for(sentence),)
    ),
    *journal_checks.CHECKS,
)
"""In an order in which a repair may rely on those before it."""

_AT_ONCE: Final = 500
_ROUNDS: Final = 10  # far more than repairs wait for each other


async def findings(driver: Driver) -> list[Finding]:
    """What is wrong; at most MOST of a kind."""
    return [_finding(says, remedy) for says, remedy in await _found(driver, CHECKS)]


async def repaired(driver: Driver, ctx: Context) -> list[Finding]:
    """Put right what needs no person; what that was.

    What one repair brings to light another puts right, so all is asked again until a round finds nothing to do. What
    is made anew as a whole comes last.
    """
    done: list[Finding] = []
    for _ in range(_ROUNDS):
        before = len(done)
        for check in CHECKS:
            done += [
                _finding(check.sentence.format(*row), check.remedy_of(row))
                async for row in _repairable(driver, check)
                if await _put_right(driver, check, row, ctx)
            ]
        if len(done) == before:
            break
    return done + await _rebuilt(driver, ctx)


async def _rebuilt(driver: Driver, ctx: Context) -> list[Finding]:
    """Make anew what finds and counts courses, if anything about it is wrong."""
    checks = [check for check in CHECKS if isinstance(check.remedy, Remedy) and check.remedy.rebuild]
    found = [(says, remedy) for says, remedy in await _found(driver, checks) if remedy.rebuild]
    if not found:
        return []
    rebuild = reindex if any(remedy is REINDEX for _, remedy in found) else recount

    async def work(tx: DriverTransaction) -> None:
        await rebuild(tx)
        journals = Journals(tx)
        await journals.audit.add(ctx.event("books.repaired", "catalogue", None, rebuild.__name__))
        await journals.flush()

    await driver.write(work)
    return [_finding(says, remedy) for says, remedy in found]


async def _found(driver: Driver, checks: Sequence[Check]) -> list[tuple[str, Remedy]]:
    """What is wrong, as the database itself, the search index and these checks say, with what helps."""
    found = await driver.read(books.findings, patient=True)
    for check in checks:
        rows = await _asked(driver, f"{check.question} LIMIT $1", MOST)
        found += [(check.sentence.format(*row), check.remedy_of(row)) for row in rows]
    return found


def _finding(says: str, remedy: Remedy) -> Finding:
    return Finding(says, remedy.says, remedy.needs_nobody)


async def _repairable(driver: Driver, check: Check) -> AsyncIterator[Row]:
    """The rows of a question that there is a repair for, in the order of their ids, some at a time."""
    if isinstance(check.remedy, Remedy) and check.remedy.repair is None:
        return
    part = f"SELECT * FROM ({check.question}) AS asked WHERE id > $1 ORDER BY id LIMIT $2"  # noqa: S608 - our own
    after = ""
    while rows := await _asked(driver, part, after, _AT_ONCE):
        for row in rows:
            after = row[0]
            if check.remedy_of(row).repair is not None:
                yield row


async def _asked(driver: Driver, sql: str, *args: Value) -> Sequence[Row]:
    return await driver.read(lambda tx: tx.rows(sql, *args), patient=True)


async def _put_right(driver: Driver, check: Check, found: Row, ctx: Context) -> bool:
    async def work(tx: DriverTransaction) -> bool:
        row = await tx.row(f"SELECT * FROM ({check.question}) AS asked WHERE id = $1", found[0])  # noqa: S608 - our own
        repair = None if row is None else check.remedy_of(row).repair
        if row is None or repair is None:
            return False
        journals = Journals(tx)
        if not await repair(tx, journals, row, ctx):
            return False
        await journals.audit.add(ctx.event("books.repaired", row[0], None, check.name))
        await journals.flush()
        return True

    try:
        return await driver.write(work)
    except RefusedError:  # the schema knows better
        return False
