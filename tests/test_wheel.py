"""The wheel, installed alone: the limiter works, and is typed, where nothing else is installed."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from collections.abc import Sequence
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


def test_its_types_are_seen_by_those_who_use_it(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        f"{FIRST_PROGRAM}\nreveal_type(decision.remaining)\nlimiter.hit(7, plan)\n", "utf-8"
    )
    checker: Sequence[str | Path] = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-executable"]
    done = subprocess.run(
        [*checker, installed, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    found = re.findall(r"(?:error|note): (.*)", done.stdout)
    assert found == [
        'Revealed type is "int | None"',
        'Argument 1 to "hit" of "MemoryLimiter" has incompatible type "int"; expected "str"  [arg-type]',
    ]
