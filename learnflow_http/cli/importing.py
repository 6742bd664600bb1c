"""`learnflow import courses`: taking over a catalogue that another program exported, as often as one likes."""

from __future__ import annotations

import asyncio
import functools
import os
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO, Any, Final

import click
import msgspec
from msgspec import UNSET

from learnflow_core.ports import Storage
from learnflow_core.usecases.catalogue import ImportedCourse, import_courses
from learnflow_http.cli import columns, readers
from learnflow_http.cli.common import (
    account_option,
    chosen_account,
    context,
    json_option,
    now,
    option,
    print_json,
    printable,
    run,
    with_database,
)
from learnflow_http.cli.tables import BadRow, Row, Table, TableError, open_text, read_table
from learnflow_http.settings import Settings
from learnflow_http.sweep import lead

BATCH: Final = 500
"""Rows of one transaction, at most."""
BATCH_LETTERS: Final = 250_000
"""Letters of its texts, at most: some 50,000 words, each of which a database may have to look for on the disk."""

_SURVEY_FROM: Final = 1_000
"""So many rows are few enough to be found in any way."""

_UNCOUNTED: Final = 4_000
"""With so many notes of changes that are not counted, an import waits: they make every list slower."""
_WAITS: Final = 100
_WAIT_S: Final = 0.1

_FACTS: Final = ", ".join(columns.SYNONYMS)
_CLEAR_LINE: Final = "\r\x1b[K"  # of the progress bar, which is drawn again


class ImportSummary(msgspec.Struct):
    """How an import went, in rows: `skipped` ones were not taken and are reported; `dry_run`: nothing was changed."""

    file: str
    account_id: str
    dry_run: bool
    read: int = 0
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0


class _Value(click.ParamType[str]):
    """An option's value that one of the readers reads."""

    def __init__(self, name: str, read: Any) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return str(self._read(value))
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


@click.group("import")
def import_() -> None:
    """Take over what other programs exported."""


@import_.command("courses")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path))
@account_option
@option(
    "--map",
    "mapping",
    metavar="FACT=COLUMN,…",
    help=f"Which columns hold {_FACTS}, where the guess is wrong; an empty one is not read.",
)
@option(
    "--currency",
    type=_Value("code", readers.currency),
    default="USD",
    show_default=True,
    help="Of prices that name none.",
)
@option("--language", type=_Value("tag", readers.language), help="Of courses that name none; en for new ones.")
@option(
    "--report",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="File for what is reported of rows, instead of standard error.",
)
@option("--dry-run", is_flag=True, help="Tell what would happen, and change nothing.")
@json_option
@with_database
def import_command(  # noqa: PLR0913 - an argument for each option
    settings: Settings,
    file: Path,
    account: str | None,
    mapping: str | None,
    currency: str,
    language: str | None,
    report: Path | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Import the courses in FILE, CSV with a header or JSON Lines.

    Courses are known by their external id: what is new is added, what differs is changed, and what the file does not
    mention stays. A row that cannot be taken is skipped and reported with its line; the others are imported. An import
    that was interrupted can be repeated.
    """
    with ExitStack() as stack:
        try:
            text = stack.enter_context(open_text(file))
            table = read_table(file, text, columns.recognised)
            chosen = columns.choose(table.columns, _parsed(mapping))
        except TableError as error:
            raise click.ClickException(printable(f"{file}: {error}")) from error
        except columns.MappingError as error:
            raise click.UsageError(printable(f"--map: {error}")) from error
        _tell_columns(table.columns, chosen)
        report_file = stack.enter_context(report.open("w", encoding="utf-8")) if report else None
        source = _Source(table, chosen, currency, language, report_file)
        summary = run(settings, lambda storage: _import(storage, source, account, file, dry_run=dry_run))
    _tell_summary(summary)
    if as_json:
        print_json(summary)


class _Source:
    """The courses of a table; what is not one is reported."""

    def __init__(
        self, table: Table, chosen: dict[str, str], currency: str, language: str | None, report: IO[str] | None
    ) -> None:
        self.position = table.position
        self.counts: Counter[str] = Counter()
        self._table = table
        self._chosen = chosen
        self._defaults = (currency, language)
        self._report = report

    def courses(self) -> Iterator[ImportedCourse]:
        """Each course once, in the order of the file."""
        # Which ids were seen is more than memory should hold: SQLite keeps an unnamed database in a temporary file.
        with closing(sqlite3.connect("")) as seen:
            seen.execute("CREATE TABLE seen (id TEXT PRIMARY KEY, line INTEGER NOT NULL) WITHOUT ROWID")
            for row in self._table.rows:
                self.counts["read"] += 1
                course = self._course(row)
                if course is not None and self._is_first(seen, row.line, course.external_id):
                    yield course

    def _course(self, row: Row | BadRow) -> ImportedCourse | None:
        if isinstance(row, BadRow):
            self._skip(row.line, row.reason)
            return None
        for fact in columns.several_lines(row.cells, self._chosen):
            self._tell(row.line, f"{fact}: has several lines, of which the first was taken")
        try:
            return columns.read_course(row.cells, self._chosen, *self._defaults)
        except columns.RowError as error:
            self._skip(row.line, str(error))
            return None

    def _is_first(self, seen: sqlite3.Connection, line: int, external_id: str) -> bool:
        known = seen.execute("SELECT line FROM seen WHERE id = ?", (external_id,)).fetchone()
        if known is not None:
            self._skip(line, f"external_id: {external_id!r} is a duplicate of line {known[0]}")
            return False
        seen.execute("INSERT INTO seen VALUES (?, ?)", (external_id, line))
        return True

    def _skip(self, line: int, reason: str) -> None:
        self.counts["skipped"] += 1
        self._tell(line, f"skipped: {reason}")

    def _tell(self, line: int, what: str) -> None:
        sentence = printable(f"line {line}: {what}")
        if self._report is not None:
            self._report.write(f"{sentence}\n")
        else:
            click.echo(f"{_CLEAR_LINE if sys.stderr.isatty() else ''}{sentence}", err=True)


async def _import(
    storage: Storage, source: _Source, account_id: str | None, file: Path, *, dry_run: bool
) -> ImportSummary:
    account = await storage.read(lambda tx: chosen_account(tx, account_id))
    perform = storage.read if dry_run else storage.write
    ctx, surveyed, name = context(), 0, os.urandom(16).hex()
    with _progress(file) as bar:
        for batch in _batches(source.courses()):
            work = functools.partial(import_courses, account=account, rows=batch, ctx=ctx, dry_run=dry_run)
            source.counts.update(await perform(work))
            if not dry_run:
                if source.counts["added"] >= max(_SURVEY_FROM, 2 * surveyed):
                    await storage.write(lambda tx: tx.courses.survey())
                    surveyed = source.counts["added"]
                await _wait_for_counts(storage, name)
            bar.update(source.position() - bar.pos)
    if source.counts["added"] > surveyed >= _SURVEY_FROM and not dry_run:
        await storage.write(lambda tx: tx.courses.survey())
    return ImportSummary(file=str(file), account_id=account.id, dry_run=dry_run, **source.counts)


def _batches(courses: Iterable[ImportedCourse]) -> Iterator[list[ImportedCourse]]:
    """As many as one transaction takes, and always one."""
    batch: list[ImportedCourse] = []
    letters = 0
    for course in courses:
        has = sum(len(text) for text in (course.title, course.instructor, course.description) if text is not UNSET)
        if batch and (len(batch) == BATCH or letters + has > BATCH_LETTERS):
            yield batch
            batch, letters = [], 0
        batch.append(course)
        letters += has
    if batch:
        yield batch


async def _wait_for_counts(storage: Storage, name: str) -> None:
    """Wait a while, until little of what was imported is uncounted; a server counts it, and where none runs, this."""
    for _ in range(_WAITS):
        if await storage.read(lambda tx: tx.courses.uncounted(_UNCOUNTED)) < _UNCOUNTED:
            break
        if not (await lead(storage, name, now()) and await storage.tally()):
            await asyncio.sleep(_WAIT_S)


def _progress(file: Path) -> Any:
    """A bar at a terminal, and nothing anywhere else."""
    return click.progressbar(
        length=file.stat().st_size, label="Importing", file=sys.stderr, hidden=not sys.stderr.isatty()
    )


def _parsed(mapping: str | None) -> dict[str, str]:
    """What `title=course_title,price=cost` says."""
    pairs = [pair.partition("=") for pair in (mapping or "").split(",") if pair.strip()]
    if any(not mark for _, mark, _ in pairs):
        raise columns.MappingError("must be FACT=COLUMN, several of them separated by commas.")
    return {fact.strip(): column.strip() for fact, _, column in pairs}


def _tell_columns(names: Any, chosen: dict[str, str]) -> None:
    taken = ", ".join(f"{fact}={column}" for fact, column in chosen.items())
    ignored = ", ".join(name for name in names if name and name not in chosen.values())
    click.echo(printable(f"Columns: {taken}"), err=True)
    click.echo(printable(f"Ignored: {ignored or 'none'}"), err=True)


def _tell_summary(summary: ImportSummary) -> None:
    counts = ", ".join(
        f"{getattr(summary, name)} {name}" for name in ("read", "added", "updated", "unchanged", "skipped")
    )
    click.echo(f"{'Nothing was changed. It would be: ' if summary.dry_run else ''}{counts}", err=True)
