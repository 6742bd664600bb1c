"""The command line: `learnflow`, also `python -m learnflow_http`.

Results go to standard output, everything for a person to standard error. The exit status is 0, 1 for a failure, and 2
for bad usage, which a wrong setting is too.
"""

from __future__ import annotations

from typing import Any

import click

from learnflow_core.errors import Code, LearnFlowError
from learnflow_http import logs
from learnflow_http.cli.accounts import accounts
from learnflow_http.cli.doctor import doctor
from learnflow_http.cli.importing import import_
from learnflow_http.cli.journals import audit, ledger
from learnflow_http.cli.keys import keys
from learnflow_http.cli.serving import migrate, print_openapi, serve
from learnflow_http.cli.users import users
from learnflow_http.redaction import redact
from learnflow_http.settings import SettingsError


class _Commands(click.Group):
    """Commands whose failures are a sentence for a person."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            raise click.UsageError(str(error)) from error
        except LearnFlowError as error:
            busy = error.code is Code.SERVICE_UNAVAILABLE
            message = "The database cannot be used right now; try again." if busy else error.message
            raise click.ClickException(redact(message)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="learnflow")
def learnflow() -> None:
    """LearnFlow: a learning platform's API, and what its operator needs."""


for _command in (serve, migrate, import_, accounts, users, keys, ledger, audit, print_openapi, doctor):
    learnflow.add_command(_command)


def main() -> None:
    """Run the command that the process's arguments name."""
    logs.configure("plain", "warning")
    learnflow(prog_name="learnflow")
