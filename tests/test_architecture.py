"""The arrows between the layers, and what no tracked file may hold."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ["learnflow_core", "learnflow_http", "storage_backends", "payment_gateways"]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def test_the_layers_import_each_other_only_as_their_contracts_allow() -> None:
    # In a process of its own: the linter configures logging for itself, and silences every logger there is.
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"]
    linted = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout


ACCELERATOR = "_learnflow_limiter"  # our own, compiled


def test_the_core_stands_on_the_standard_library_and_msgspec() -> None:
    graph = grimp.build_graph("learnflow_core", include_external_packages=True, cache_dir=None)
    outside = {name for name in graph.modules if name.partition(".")[0] != "learnflow_core"}
    assert outside - sys.stdlib_module_names <= {"msgspec", ACCELERATOR}


def loaded_by(module: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after importing `module`, beyond those it starts with."""
    code = f"import sys; before = set(sys.modules); import {module}; print(*(set(sys.modules) - before))"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    return set(output.split())


@pytest.mark.parametrize("module", ["limiter", "pagination", "errors"])
def test_the_limiter_the_pagination_and_the_errors_load_the_standard_library_alone(module: str) -> None:
    names = loaded_by(f"learnflow_core.{module}")
    assert f"learnflow_core.{module}" in names
    assert {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {ACCELERATOR} == {"learnflow_core"}


def test_importing_the_core_loads_nothing_else() -> None:
    assert loaded_by("learnflow_core") == {"learnflow_core"}


def tracked(*under: str) -> list[Path]:
    command = ["git", "ls-files", "-z", "--", *under]
    listing = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


# Alternatives in groups, so that the patterns do not match themselves.
FORBIDDEN = {
    "the address of a registry": r"\b(?:pypi|pythonhosted|npmjs|yarnpkg|(?:deb|security)\.debian)\.(?:org|com)\b",
    "a path of one machine": r"(?<![\w.])/(?:work|root|home|Users)/[\w.]",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_tracked_file_holds(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked()
        for match in pattern.finditer(path.read_text("utf-8", errors="replace"))
    ]
    assert not found


def test_a_wheel_carries_every_file_of_the_packages(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, check=True, capture_output=True, cwd=ROOT)
    [wheel] = tmp_path.glob("*.whl")
    names = {str(path.relative_to(ROOT)) for path in tracked(*PACKAGES)}
    assert names
    assert names <= set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_has_a_hash_for_every_requirement_and_no_index(lock: Path) -> None:
    requirements = re.split(r"\n(?=\S)", lock.read_text().strip())
    assert requirements
    for requirement in requirements:
        assert re.match(r"[a-z0-9-]+==\S+.*(\\\n +--hash=sha256:[0-9a-f]{64})+", requirement), requirement
        assert "://" not in requirement


def test_what_serves_is_what_was_tested() -> None:
    serve, test = (
        dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))
        for name in ("serve.txt", "test.txt")
    )
    assert serve.items() <= test.items()
