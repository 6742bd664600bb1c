"""The command line: what it prints and where, with which status it ends, and what an operator can do with it."""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from learnflow_core.ids import api_key_digest, api_key_mode
from learnflow_http.cli import learnflow
from learnflow_http.settings import SETTINGS
from tests.terminal import Operator


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


@pytest.fixture
def school(operator: Operator) -> Operator:
    """An operator with one account."""
    operator.told("accounts", "create", "--name", "Acme", "--plan", "professional")
    return operator


# --- Every command


def commands(command: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, *path, name)


EVERY = list(commands(learnflow))


def test_the_commands_are_those_of_the_contract() -> None:
    assert {" ".join(path) for path in EVERY} == {
        "", "serve", "migrate", "import", "import courses", "openapi", "doctor",
        "accounts", "accounts create", "accounts list", "accounts set-plan", "accounts suspend", "accounts resume",
        "users", "users create", "users list", "users export", "users delete",
        "keys", "keys create", "keys list", "keys revoke",
        "ledger", "ledger balances", "ledger entries", "audit", "audit list", "audit purge",
    }  # fmt: skip


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_every_command_explains_itself_and_names_the_variable_of_every_option(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(learnflow, [*path, "--help"], terminal_width=200)
    assert result.exit_code == 0
    for option in set(re.findall(r"--[a-z-]+(?= |$)", result.stdout)) - {"--help", "--version"}:
        variable = "LEARNFLOW_" + option.removeprefix("--").replace("-", "_").upper()
        assert variable in result.stdout


def test_serve_has_an_option_for_every_setting() -> None:
    options = {parameter.opts[0] for parameter in learnflow.commands["serve"].params}
    assert options == {setting.option for setting in SETTINGS.values()} | {"--demo"}


@pytest.mark.parametrize(
    "arguments",
    [
        *("nope", "keys", "keys create --scope nope", "accounts create", "serve --port x", "keys list --x"),
        *("users create --email nobody", "keys create --expires soon", "serve --demo --host 0.0.0.0"),
        *("accounts create --plan starter --name=", "keys list --database nonsense"),
        "keys list --database oracle://u:hunter2@h/x",
    ],
)
def test_bad_usage_ends_with_2_and_says_what_was_wrong_on_standard_error(school: Operator, arguments: str) -> None:
    result = school.run(*arguments.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.strip()
    assert "Traceback" not in result.stderr
    assert "hunter2" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        *("keys revoke key_1", "users delete usr_1", "users export a@b.example", "accounts suspend acct_1"),
        *("accounts create --name A --plan starter --licenses 5", "keys create --expires 2020-01-01"),
        *("doctor --database sqlite:///nowhere.db", "keys list --database sqlite:////nowhere/at/all.db"),
        "users list --account acct_1",
    ],
)
def test_a_failure_ends_with_1_and_says_what_failed_on_standard_error(school: Operator, arguments: str) -> None:
    result = school.run(*arguments.split())
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr


def test_a_wrong_setting_in_the_environment_is_bad_usage_by_its_name(school: Operator) -> None:
    result = school.run("keys", "list", LEARNFLOW_DATABAS="x")
    assert (result.exit_code, "LEARNFLOW_DATABASE?" in result.stderr) == (2, True)


def test_every_option_can_come_from_the_environment(school: Operator) -> None:
    assert school.run("keys", "list", LEARNFLOW_JSON="1").stdout.startswith("{")
    made = school.run("keys", "create", LEARNFLOW_SCOPE="users:read users:write", LEARNFLOW_NAME="by environment")
    assert api_key_mode(made.stdout.strip()) == "live"
    assert school.json("keys", "list")["data"][0]["scopes"] == ["users:read", "users:write"]


def test_an_argument_that_is_no_utf8_is_bad_usage(school: Operator) -> None:
    for arguments in (["keys", "revoke", "\udcff"], ["accounts", "create", "--name", "\udcff", "--plan", "starter"]):
        assert school.run(*arguments).exit_code == 2


# --- Accounts


def test_an_account_is_made_listed_moved_suspended_and_resumed(operator: Operator) -> None:
    agreed = ("--plan", "enterprise", "--per-minute", "900", "--licenses", "7")
    made = operator.told("accounts", "create", "--name", "Acme", *agreed)
    (account,) = operator.json("accounts", "list")["data"]
    assert made == f"{account['id']}\n"
    assert account.items() >= {"name": "Acme", "plan": "enterprise", "per_minute": 900, "licenses": 7}.items()
    assert account["quotas"] == [{"name": "minute", "limit": 900, "period_seconds": 60}]
    moved = operator.json("accounts", "set-plan", account["id"], "--plan", "starter")
    assert (moved["plan"], moved["per_minute"], moved["licenses"]) == ("starter", None, None)
    assert operator.json("accounts", "suspend", account["id"])["suspended_at"].endswith("Z")
    assert operator.json("accounts", "resume", account["id"])["suspended_at"] is None


def test_a_list_is_a_table_for_people_and_whole_however_long(operator: Operator) -> None:
    for number in range(55):
        operator.told("accounts", "create", "--name", f"Account {number}", "--plan", "starter")
    lines = operator.told("accounts", "list").splitlines()
    assert lines[0].split() == ["ID", "NAME", "PLAN", "PER_MINUTE", "LICENSES", "SUSPENDED_AT", "CREATED_AT"]
    assert len(lines) == 56
    assert operator.json("accounts", "list")["meta"] == {"next_cursor": None}


# --- Keys


def test_a_key_is_its_secret_alone_on_standard_output_and_kept_as_a_digest(school: Operator) -> None:
    options = ("--mode", "test", "--scope", "users:read", "--expires", "2099-01-31")
    result = school.run("keys", "create", "--name", "ci", *options)
    secret = result.stdout.removesuffix("\n")
    assert api_key_mode(secret) == "test"
    assert secret not in result.stderr
    (key,) = school.json("keys", "list")["data"]
    told = {"name": "ci", "prefix": secret[:12], "scopes": ["users:read"], "expires_at": "2099-01-31T00:00:00Z"}
    assert key.items() >= told.items()
    kept = school.kept()
    assert secret.encode() not in kept
    assert api_key_digest(secret).encode() in kept


def test_a_key_as_json_is_what_the_api_answers(school: Operator) -> None:
    key = school.json("keys", "create")
    assert key["secret"].startswith(key["prefix"])
    assert (key["name"], key["scopes"], key["mode"]) == ("command line", ["*"], "live")


def test_a_revoked_key_is_shown_as_revoked(school: Operator) -> None:
    key = school.json("keys", "create")
    assert school.told("keys", "revoke", key["id"]) == f"{key['id']}\n"
    (listed,) = school.json("keys", "list")["data"]
    assert listed["revoked_at"] is not None


# --- Users


def test_a_user_is_made_with_a_password_from_standard_input_that_is_kept_as_a_hash(school: Operator) -> None:
    options = ("--email", "ann@b.example", "--name", "Ann", "--password-stdin")
    user_id = school.told("users", "create", *options, typed="correct horse\n")
    (user,) = school.json("users", "list")["data"]
    assert user.items() >= {"id": user_id.strip(), "email": "ann@b.example", "name": "Ann", "role": "learner"}.items()
    kept = school.kept()
    assert b"correct horse" not in kept
    assert b"$argon2id$v=19$m=19456,t=2,p=1$" in kept


def test_a_password_that_is_too_short_is_refused_and_not_shown(school: Operator) -> None:
    result = school.run("users", "create", "--email", "ann@b.example", "--password-stdin", typed="hunter2\n")
    assert (result.exit_code, "10 to 256" in result.stderr) == (2, True)
    assert "hunter2" not in result.output


def test_an_email_is_taken_once(school: Operator) -> None:
    school.told("users", "create", "--email", "ann@b.example")
    result = school.run("users", "create", "--email", "ANN@b.example")
    assert (result.exit_code, "email" in result.stderr) == (1, True)


def test_modes_do_not_see_each_other(school: Operator) -> None:
    school.told("users", "create", "--email", "ann@b.example", "--mode", "test")
    assert school.json("users", "list")["data"] == []
    assert len(school.json("users", "list", "--mode", "test")["data"]) == 1


def test_a_deleted_person_is_gone_and_cannot_be_found(school: Operator) -> None:
    school.told("users", "create", "--email", "ann@b.example", "--name", "Ann Other")
    erased = school.json("users", "delete", "ann@b.example")
    assert (erased["email"], erased["name"], erased["deleted_at"] is not None) == (None, None, True)
    assert school.run("users", "export", "ann@b.example").exit_code == 1
    assert school.run("users", "delete", erased["id"]).exit_code == 1
    assert school.json("users", "list")["data"] == []


def test_what_a_person_is_called_cannot_command_the_terminal(school: Operator) -> None:
    result = school.run("users", "create", "--email", "ann@b.example", "--name", "\x1b[2JAnn\nroot")
    assert "\x1b" not in result.output + school.told("users", "list")
    assert len(school.told("users", "list").splitlines()) == 2


# --- Databases


def test_a_database_is_made_once(operator: Operator) -> None:
    assert operator.told("migrate") != ""
    assert operator.told("migrate") == ""


def test_the_doctor_is_content_with_sound_books_and_tells_what_does_not_agree(school: Operator) -> None:
    school.told("users", "create", "--email", "ann@b.example")
    assert school.told("doctor") == ""
    assert school.json("doctor") == {"findings": []}
    with closing(sqlite3.connect(school.folder / "school.db")) as database, database:
        database.execute("UPDATE accounts SET live_licenses = 3")
    result = school.run("doctor")
    assert result.exit_code == 1
    assert re.search(r"acct_\w+.*3 live licences", result.stdout)


@pytest.mark.parametrize(
    "arguments",
    ["doctor", "ledger balances", "ledger entries pay_1", "audit list", "audit purge --before 2024-01-01", "keys list"],
)
def test_who_only_looks_makes_no_database_where_there_is_none(operator: Operator, arguments: str) -> None:
    result = operator.run(*arguments.split())
    assert result.exit_code == 1
    assert "There is no database" in result.stderr
    assert list(operator.folder.iterdir()) == []


def test_openapi_prints_the_document_with_the_public_address(operator: Operator) -> None:
    document = json.loads(operator.told("openapi", "--public-url", "https://api.example.com"))
    assert document["openapi"].startswith("3.1")
    assert document["servers"][0]["url"].startswith("https://api.example.com")
    assert "/v1/courses" in document["paths"]
