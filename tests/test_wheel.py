"""The wheel, installed alone: the limiter works, and is typed, where nothing else is installed."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")

FIRST_PROGRAM, FIRST_OUTPUT = re.findall(
    r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", README, re.MULTILINE | re.DOTALL
)[0]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel and nothing else, not even pip."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    [wheel] = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv/bin/python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--quiet", "--no-index", wheel, cwd=folder)
    return python


def test_it_asks_for_no_other_package(installed: Path) -> None:
    program = "import importlib.metadata as m; print(*sorted(d.name for d in m.distributions()))"
    assert run(installed, "-I", "-c", program, cwd=installed.parent).split() == ["learnflow"]


def test_the_first_program_of_the_readme_runs(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(FIRST_PROGRAM, "utf-8")
    assert run(installed, "-I", "-W", "error", "program.py", cwd=tmp_path) == FIRST_OUTPUT
    where = run(
        installed, "-I", "-c", "import learnflow_core.limiter as limiter; print(limiter.__file__)", cwd=tmp_path
    )
    assert ROOT not in Path(where).parents


@pytest.mark.parametrize("module", ["decorator", "asgi", "wsgi", "plans"])
def test_all_ways_to_embed_the_limiter_are_there(installed: Path, module: str, tmp_path: Path) -> None:
    run(installed, "-I", "-W", "error", "-c", f"import learnflow_core.limiter.{module}", cwd=tmp_path)


TYPED = """
from collections.abc import Sequence
from learnflow_core.limiter import Decision, MemoryLimiter, Quota, limited

class Shared:
    async def hit(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Decision:
        raise NotImplementedError

plan = (Quota.per_minute(3),)
here, shared = MemoryLimiter(), Shared()

@limited(here, plan)
def plain(rows: int) -> str: ...

@limited(here, plan)
async def waiting(rows: int) -> str: ...

@limited(shared, plan)
async def waiting_for_it(rows: int) -> str: ...

reveal_type(here.hit("key", plan).remaining)
reveal_type(plain)
reveal_type(waiting)
reveal_type(waiting_for_it)
here.hit(7, plan)

@limited(shared, plan)
def too_plain(rows: int) -> str: ...
"""


def test_type_checkers_see_its_types_and_a_limiter_that_a_plain_function_cannot_ask(
    installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(TYPED, "utf-8")
    checker = [sys.executable, "-m", "mypy", "--strict", "--allow-empty-bodies", "--config-file="]
    command = [*checker, f"--python-executable={installed}", "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    told = re.findall(r"note: Revealed type is \"(.*)\"", done.stdout)
    waits = "def (rows: int) -> typing.Coroutine[Any, Any, str]"
    assert told == ["int | None", "def (rows: int) -> str", waits, waits]
    [number, nothing_to_await] = re.findall(r"error: (.*)", done.stdout)
    assert 'Argument 1 to "hit"' in number
    assert 'expected "Callable[[int], Coroutine[Any, Any, ' in nothing_to_await
