"""The documents: their examples run and print what they say, their links lead somewhere, their facts have one source.

A `python` block is run as a program; the `sh` blocks of a document are run one after the other, as a reader would, in
the folder of a demo server. A `text` block behind either is what it prints: `…` stands for anything there, and ids,
times and counters need not agree. A line such as `KEY=sk_live_…`, which readers fill in from what `make serve` printed,
is filled in from what it printed. `console` blocks show what is typed where it cannot be run here.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from learnflow_http.cli import learnflow
from learnflow_http.operations import OPERATIONS
from learnflow_http.settings import SETTINGS, Setting
from tests.conftest import missing

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DECISIONS = ROOT / "docs/decisions"  # they name what was not taken as well
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

VARYING = (
    (r"\b(crs|usr|enr|crt|key|acct|pm|req)_[0-9a-z]{12,20}\b", r"\1_ID"),
    (r"\bsk_(live|test)_[0-9A-Za-z]{4}", r"sk_\1_ABCD"),
    (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
    (r"\b[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", "DATE"),
    (r"\b[12]\d{9}\b", "SECONDS"),
    (r'"[0-9a-f]{24}"', '"TAG"'),
    (r"(?i)(\"remaining\":|x-ratelimit-remaining: )\d+", r"\1N"),
    (r";r=\d+;t=\d+", ";r=N;t=N"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
)
"""What differs from run to run, and what stands for it when two texts are compared."""


class Block(NamedTuple):
    """A fenced block of a document: the line it begins in, its language, its text, and what it is said to print."""

    document: Path
    line: int
    language: str
    text: str
    output: str | None


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(document: Path) -> list[Block]:
    text = document.read_text("utf-8")
    fences = list(BLOCK.finditer(text))
    found = []
    for fence, following in itertools.zip_longest(fences, fences[1:]):
        output = following[2] if following and following[1] == "text" else None
        found.append(Block(document, text.count("\n", 0, fence.start()) + 1, fence[1], fence[2], output))
    return found


def prose(document: Path) -> str:
    return BLOCK.sub("", document.read_text("utf-8"))


def masked(text: str) -> str:
    for pattern, word in VARYING:
        text = re.sub(pattern, word, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def assert_prints(block: Block, printed: str) -> None:
    if block.output is not None:
        expected = ".*?".join(map(re.escape, masked(block.output).split("…")))
        where = f"{name(block.document)}:{block.line}"
        assert re.fullmatch(expected, masked(printed), re.DOTALL), f"{where} prints\n{printed}\nand not\n{block.output}"


def environment() -> dict[str, str]:
    """That of a reader who has no settings yet, and the project's programs on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEARNFLOW_")}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program there to its end; what it printed, errors too, is in `stdout`."""
    return subprocess.run(
        command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder, env=environment()
    )


EXAMPLES = [block for document in DOCUMENTS for block in blocks(document) if block.language == "python"]
SESSIONS = [document for document in DOCUMENTS if any(block.language == "sh" for block in blocks(document))]


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: f"{name(block.document)}:{block.line}")
def test_an_example_in_python_runs_and_prints_what_is_said(block: Block, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(block.text, "utf-8")
    program = run(tmp_path, sys.executable, "-W", "error", "example.py")
    assert program.returncode == 0, program.stdout
    assert_prints(block, program.stdout)


class Demo(NamedTuple):
    """A demo server: the folder it runs in, and what it printed for the person who started it."""

    folder: Path
    printed: str

    @property
    def filled_in(self) -> dict[str, str]:
        """The variables that documents ask readers to fill in."""
        base = re.search(r"http://\S+?(?=/v1)", self.printed)
        keys = dict(re.findall(r"(starter|professional|enterprise) +(sk_live_\w+)", self.printed))
        login = re.search(r"Sign in as (\S+) with the password (\S+)", self.printed)
        assert base
        assert login
        return {
            "BASE": base[0],
            "KEY": keys["professional"],
            "STARTER_KEY": keys["starter"],
            "EMAIL": login[1],
            "PASSWORD": login[2],
        }


@contextmanager
def demo(folder: Path) -> Iterator[Demo]:
    command = ["learnflow", "serve", "--demo", "--port", "0"]
    with (
        (folder / "server.log").open("w") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder, env=environment()
        ) as server,
    ):
        assert server.stdout
        try:
            printed = ""
            while "/v1/enrollments" not in printed:  # that is in the last line
                line = server.stdout.readline()
                assert line, f"the server ended: {(folder / 'server.log').read_text()}"
                printed += line
            yield Demo(folder, printed)
        finally:
            server.terminate()
            server.wait(timeout=30)


def run_session(session: list[Block], demo: Demo) -> list[str]:
    """What each block printed."""
    script = "".join(f"{block.text}\necho; echo '--- next ---'\n" for block in session)
    for variable, value in demo.filled_in.items():
        script = re.sub(rf"^{variable}=.*$", f"{variable}='{value}'", script, flags=re.MULTILINE)
    shell = run(demo.folder, "bash", "-e", "-c", script)
    *printed, rest = shell.stdout.split("\n--- next ---\n")
    assert shell.returncode == 0, f"line {session[len(printed)].line} ends with {shell.returncode}:\n{rest}"
    return printed


@pytest.mark.parametrize("document", SESSIONS, ids=name)
def test_the_commands_of_a_document_run_and_print_what_is_said(document: Path, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        missing("curl")
    session = [block for block in blocks(document) if block.language == "sh"]
    with demo(tmp_path) as server:
        for block, printed in zip(session, run_session(session, server), strict=True):
            assert_prints(block, printed)


def test_the_readme_shows_what_make_serve_prints(tmp_path: Path) -> None:
    [shown] = [block for block in blocks(README) if "make serve" in block.text]
    with demo(tmp_path) as server:
        assert_prints(shown, server.printed)


def settings_table() -> str:
    """The reference of settings, as README has it."""
    rows = [("option", "default", "meaning"), ("---", "---", "---"), *map(settings_row, SETTINGS.values())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def settings_row(setting: Setting) -> tuple[str, str, str]:
    option = f"{setting.option} {setting.metavar}".replace("|", "\\|")
    default = "" if setting.default in (None, ()) else f"`{setting.default}`"
    return f"`{option}`", default, setting.description


def test_the_readme_has_every_setting_as_the_program_has_it() -> None:
    assert settings_table() in README.read_text("utf-8"), f"README.md needs this table:\n{settings_table()}"


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with the words that call it, groups too."""

    def below(words: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield words, command
        if isinstance(command, click.Group):
            for word, inner in command.commands.items():
                yield from below(f"{words} {word}", inner)

    return below("learnflow", learnflow)


COMMANDS = dict(commands())
OPTIONS = {words: {name for option in command.params for name in option.opts} for words, command in COMMANDS.items()}
VARIABLES = {setting.variable for setting in SETTINGS.values()} | {
    option.envvar for command in COMMANDS.values() for option in command.params if isinstance(option.envvar, str)
}
OF_THE_TESTS = {"LEARNFLOW_REQUIRE_ALL", "LEARNFLOW_TEST_POSTGRES", "LEARNFLOW_TEST_VALKEY"}


def code(document: Path) -> list[str]:
    """The lines of the blocks that are typed, and the code within the prose."""
    typed = [block.text for block in blocks(document) if block.language in ("sh", "console")]
    lines = "".join(typed).replace("\\\n", " ").splitlines()
    return lines + re.findall(r"`([^`\n]+)`", prose(document))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_command_and_option_that_a_document_names_exists(document: Path) -> None:
    for line in code(document):
        for call in re.findall(r"\blearnflow(?: +[^\s|;&<>()]+)+", line):
            words = call.split()
            known = next(" ".join(words[:n]) for n in range(len(words), 0, -1) if " ".join(words[:n]) in COMMANDS)
            rest = call.removeprefix(known).split()
            options = {word.partition("=")[0] for word in rest if word.startswith("--")}
            assert options <= OPTIONS[known] | {"--help", "--version"}, f"{call}: no such option"
            assert options.issuperset(rest) or not isinstance(COMMANDS[known], click.Group), f"{call}: no such command"
        if line.startswith("--") and document.parent != DECISIONS:
            assert line.split()[0] in {"--help"}.union(*OPTIONS.values()), f"{line}: no such option"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_variable_that_a_document_names_is_read(document: Path) -> None:
    assert set(re.findall(r"\bLEARNFLOW_[A-Z_]+", document.read_text("utf-8"))) <= VARIABLES | OF_THE_TESTS


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_operation_that_a_document_names_is_served(document: Path) -> None:
    served = {f"{operation.method} {operation.path}" for operation in OPERATIONS}
    named = {line.partition("?")[0] for line in code(document) if re.match(r"(GET|POST|PATCH|DELETE) /v1/", line)}
    assert named <= served


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, made as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(document: Path) -> list[tuple[Path, str]]:
    """Where a document's relative links lead: the file, and the anchor in it."""
    targets = re.findall(r"\]\((?!https?:|mailto:)([^)\s]*)\)", prose(document))
    split = [target.partition("#") for target in targets]
    return [((document.parent / path).resolve() if path else document, anchor) for path, _, anchor in split]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target, anchor in links(document):
        assert target.exists(), f"there is no {target}"
        assert not anchor or anchor in anchors(target), f"{name(target)} has no #{anchor}"


def test_every_document_is_found_from_the_readme() -> None:
    found: set[Path] = set()
    waiting = {README}
    while waiting:
        document = waiting.pop()
        found.add(document)
        waiting |= {target / "README.md" if target.is_dir() else target for target, _ in links(document)}
        waiting = {target for target in waiting if target in DOCUMENTS} - found
    assert found == set(DOCUMENTS)


def test_every_decision_is_in_the_index_under_its_title() -> None:
    index = (DECISIONS / "README.md").read_text("utf-8")
    for record in DECISIONS.glob("[0-9]*.md"):
        number, _, title = record.read_text("utf-8").partition("\n")[0].removeprefix("# ").partition(": ")
        assert f"- [{number}]({record.name}) {title}\n" in index
