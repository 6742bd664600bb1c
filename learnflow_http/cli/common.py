"""What commands share: options that are settings, the database while they run, accounts they are told of, output."""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click
import msgspec

from learnflow_core.access import EVERY_SCOPE, Actor, quotas
from learnflow_core.audit import OPERATOR
from learnflow_core.fields import Email, IdText, Price, Title
from learnflow_core.model import Account, Instant, Mode
from learnflow_core.pagination import MAX_LIMIT, Cursor, Slice, cursor_meta
from learnflow_core.ports import Context, Paging, Storage, Transaction, Work
from learnflow_core.usecases.accounts import get_account
from learnflow_http.redaction import redact
from learnflow_http.setting_values import sqlite_file
from learnflow_http.settings import PREFIX, SETTINGS, Settings, load

T = TypeVar("T")
Command = Callable[..., Any]


def option(*names: str, **attributes: Any) -> Callable[[Command], Command]:
    """A click option that is an environment variable as well: `--dry-run` is `LEARNFLOW_DRY_RUN`."""
    long = next(name for name in names if name.startswith("--"))
    variable = PREFIX + long.removeprefix("--").replace("-", "_").upper()
    return click.option(*names, envvar=variable, show_envvar=True, **attributes)


class Text(click.ParamType[str]):
    """Text of one of the kinds in `learnflow_core.fields`; `allowed` says in words what that kind is."""

    def __init__(self, kind: object, name: str, allowed: str) -> None:
        self.name = name
        self._kind = kind
        self._allowed = allowed

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            value.encode()  # an argument that is not UTF-8 holds what no database keeps
            return msgspec.convert(value, self._kind)
        except (UnicodeEncodeError, msgspec.ValidationError):
            self.fail(f"must {self._allowed}.", param, ctx)


TITLE = Text(Title, "name", "have 1 to 200 characters")
EMAIL = Text(Email, "email", "be an email address")
ID = Text(IdText, "id", "be an id, of 1 to 80 characters")

account_option = option("--account", type=ID, metavar="ID", help="The account; needed unless there is exactly one.")
mode_option = option("--mode", type=click.Choice(["live", "test"]), default="live", help="Live or test data.")
json_option = option("--json", "as_json", is_flag=True, help="Print what the API would.")


def with_settings(*names: str) -> Callable[[Command], Command]:
    """Give a command the options of these settings, and in their place one argument: the `settings` themselves."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def loaded(**given: Any) -> Any:
            options = {name: given.pop(name) for name in names}
            settings = load(options, os.environ, names=names, other_variables=_other_variables())
            return command(settings=settings, **given)

        command_with_options: Command = loaded
        for name in reversed(names):
            command_with_options = _setting_option(name)(command_with_options)
        return command_with_options

    return decorate


def with_database(command: Command) -> Command:
    """Give a command the `settings` that name the database."""
    return with_settings("database")(command)


def run(settings: Settings, work: Callable[[Storage], Awaitable[T]]) -> T:
    """Do some work with the database the settings name, opened for it alone."""
    from learnflow_http.app import open_storage  # noqa: PLC0415 - so that help does not wait for a server's imports

    async def with_storage() -> T:
        with explained_database():
            storage = await open_storage(settings.database)
        try:
            return await work(storage)
        finally:
            await storage.close()

    return asyncio.run(with_storage())


def require_database(settings: Settings) -> None:
    """Refuse a file that is not there: opened, it would be made, and answer, empty, for the one that was meant."""
    if settings.database.startswith("sqlite:"):
        file = sqlite_file(settings.database)
        if file is None or not file.exists():
            raise click.ClickException(f"There is no database {file or 'in memory, where nothing is kept'}.")


@contextmanager
def explained_database() -> Iterator[None]:
    """Tell a person why a database cannot be opened, without the password that its URL may have."""
    from learnflow_http.app import UnusableDatabaseError  # noqa: PLC0415 - as above

    try:
        yield
    except ValueError as error:  # a URL that names no database
        raise click.UsageError(redact(str(error))) from error
    except UnusableDatabaseError as error:
        raise click.ClickException(redact(str(error))) from error


def read(settings: Settings, work: Work[T]) -> T:
    """Run one piece of work that reads, where there is anything to read."""
    require_database(settings)
    return run(settings, lambda storage: storage.read(work))


def write(settings: Settings, work: Work[T]) -> T:
    """Run one piece of work that changes something, in one transaction."""
    return run(settings, lambda storage: storage.write(work))


def now() -> Instant:
    """The present instant, in microseconds."""
    return time.time_ns() // 1_000


def context() -> Context:
    """The present instant, the system's randomness, and who is at the command line."""
    return Context(now(), os.urandom, OPERATOR)


async def chosen_account(tx: Transaction, account_id: str | None) -> Account:
    """The account with this id (`not_found`); without one the only account there is, else a usage error."""
    if account_id is not None:
        return await get_account(tx, account_id)
    found = (await tx.accounts.list(Cursor(None, 2))).items
    if len(found) == 1:
        return found[0]
    if not found:
        raise click.ClickException("There is no account yet; `learnflow accounts create` makes one.")
    raise click.UsageError("There are several accounts: --account says which (`learnflow accounts list` shows them).")


def operator(account: Account, mode: Mode) -> Actor:
    """Who acts at the command line: with every scope, for an account that may be suspended."""
    return Actor(
        account_id=account.id,
        account_name=account.name,
        plan=account.plan,
        mode=mode,
        scopes=frozenset({EVERY_SCOPE}),
        quotas=quotas(account.plan, account.per_minute),
    )


async def everything(list_part: Callable[[Paging], Awaitable[Slice[T]]]) -> list[T]:
    """All items of a list, walked by cursor."""
    found: list[T] = []
    after, more = None, True
    while more:
        part = await list_part(Cursor(after, MAX_LIMIT))
        found += part.items
        after, more = part.next_after, part.next_after is not None
    return found


def printable(text: str) -> str:
    """The text in one line, without anything that would command a terminal."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def print_json(data: object) -> None:
    """Print data as indented JSON on standard output."""
    click.echo(msgspec.json.format(msgspec.json.encode(data), indent=2))


def print_list(items: Sequence[msgspec.Struct], columns: Iterable[str], *, as_json: bool) -> None:
    """Print resources: as JSON the list the API would answer, else a table of these fields."""
    if as_json:
        print_json({"data": items, "meta": cursor_meta(None)})
        return
    rows = [[_cell(getattr(item, column)) for column in columns] for item in items]
    table = [[column.upper() for column in columns], *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_made(resource: Any, sentence: str, *, as_json: bool) -> None:
    """Print a resource that was made or changed: as JSON, else its id, with a sentence on standard error."""
    click.echo(printable(sentence), err=True)
    if as_json:
        print_json(resource)
    else:
        click.echo(resource.id)


def _setting_option(name: str) -> Callable[[Command], Command]:
    setting = SETTINGS[name]
    default = f"; default: {setting.default}" if setting.default not in (None, ()) else ""
    text = f"{setting.description}  [env var: {setting.variable}{default}]"
    return click.option(setting.option, name, metavar=setting.metavar, help=text)


def _other_variables() -> set[str]:
    """The environment variables of every option of every command."""
    return {variable for command in _commands(click.get_current_context().find_root().command) for variable in command}


def _commands(command: click.Command) -> Iterable[list[str]]:
    yield [parameter.envvar for parameter in command.params if isinstance(parameter.envvar, str)]
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            yield from _commands(inner)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, Price):
        return f"{bytes(value.amount).decode()} {value.currency}"
    return printable(" ".join(value) if isinstance(value, tuple) else str(value))
