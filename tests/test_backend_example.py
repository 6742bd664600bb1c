"""The example of a storage backend, installed from its own package by the lines of the document that tells of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx2 as httpx
import pytest

from learnflow_http.settings import SETTINGS
from storage_backends.upgrade import known
from tests.fleet import running
from tests.test_docs import ROOT, blocks

[COMMANDS] = [block.text for block in blocks(ROOT / "docs/embedding.md") if "examples/backend" in block.text]
INSTALL, TRY, _SECRET, SERVE = re.findall(r"^\$ (.*)$", COMMANDS, re.MULTILINE)


def here(line: str, folder: Path) -> str:
    """A line of the document, with our interpreter's programs and a database in the test's folder."""
    return line.replace(".venv/bin", str(Path(sys.executable).parent)).replace("plain:///", f"plain:///{folder}/")


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that it is installed into, in place of the environment that other tests share."""
    folder = tmp_path_factory.mktemp("plugins")
    told(here(INSTALL, folder), PIP_TARGET=str(folder), PIP_NO_INDEX="1", PIP_DISABLE_PIP_VERSION_CHECK="1")
    return folder


def told(line: str, **variables: str) -> str:
    """What a line of the document prints, when it ends well."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LEARNFLOW_", "PYTEST_"))}
    command = ["sh", "-c", f"exec {line}"]
    done = subprocess.run(
        command, cwd=ROOT, env=clean | variables, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_backend_in_a_package_of_its_own_passes_the_whole_suite(plugins: Path, tmp_path: Path) -> None:
    quick = " -q -p no:cacheprovider -p no:valkey"
    printed = told(here(TRY, tmp_path) + quick, PYTHONPATH=str(plugins), PYTHONDONTWRITEBYTECODE="1")
    passed = re.search(r"^(\d+) passed in", printed, re.MULTILINE)
    assert passed, printed
    assert int(passed[1]) >= 100


def test_the_program_serves_on_it_and_every_command_finds_it(plugins: Path, tmp_path: Path) -> None:
    database = {SETTINGS["database"].variable: f"plain:///{tmp_path}/school.db"}
    serve = here(SERVE, tmp_path)
    learnflow = serve.partition(" ")[0]

    def ran(words: str) -> str:
        return told(f"{learnflow} {words}", PYTHONPATH=str(plugins), **database).strip()

    assert ran("migrate").split() == [migration.name for migration in known("plain")]
    account = ran("accounts create --name School --plan starter")
    (tmp_path / "courses.csv").write_text("id,title,subject,price\n1,Knots and Splices,Sailing,5\n2,Tides,Sailing,7\n")
    ran(f"import courses {tmp_path}/courses.csv --account {account}")
    key = ran(f"keys create --account {account} --name website")
    environment = [f"PYTHONPATH={plugins}", f"{SETTINGS['jwt_secret'].variable}={'x' * 32}"]
    command = f"exec {serve} --port 0 --workers 2 --log-format json"
    with running("env", *environment, "sh", "-c", command) as fleet:
        reply = httpx.get(f"{fleet.address}/v1/courses?search=spl", headers={"Authorization": f"Bearer {key}"})
        assert [course["title"] for course in reply.json()["data"]] == ["Knots and Splices"]
        fleet.process.terminate()
        assert fleet.status() == 0
    assert ran("doctor") == ""
