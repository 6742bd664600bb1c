"""Backup and restore by the lines of the document, on both databases, while people enrol."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path

from learnflow_core.ports import Storage
from storage_backends import open_storage
from storage_backends.conformance.samples import account, course, enrollment, keep, user
from tests.conftest import missing
from tests.postgres import Postgres
from tests.test_docs import ROOT

OPERATIONS = (ROOT / "docs/operations.md").read_text("utf-8")
[BACKUPS] = re.findall(r"^## Backup and restore\n(.*?)^## ", OPERATIONS, re.MULTILINE | re.DOTALL)


def lines(beginning: str) -> list[str]:
    """What is typed in the block of the section that begins like this."""
    [block] = re.findall(rf"^```(?:sh|console)\n((?:\$ )?{beginning}.*?)^```", BACKUPS, re.MULTILINE | re.DOTALL)
    return [line.removeprefix("$ ") for line in block.splitlines()]


def typed(commands: Sequence[str], folder: Path, **variables: str) -> None:
    """Run lines in a shell, with the project's programs on its path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LEARNFLOW_")}
    environment |= {"PATH": path} | variables
    command = ["sh", "-e", "-c", "\n".join(commands)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@asynccontextmanager
async def enrolling(storage: Storage) -> AsyncIterator[list[str]]:
    """Somebody enrols again and again meanwhile; those who have."""
    enrolled: list[str] = []

    async def enrol() -> None:
        for number in count():
            person = user(f"usr_{number}")
            await keep(storage, person, enrollment(f"enr_{number}", user_id=person.id))
            enrolled.append(f"enr_{number}")

    await keep(storage, account(), course(seats=1_000_000))
    task = asyncio.ensure_future(enrol())
    while len(enrolled) < 20:  # noqa: ASYNC110 - a few looks, in a test
        await asyncio.sleep(0.01)
    yield enrolled
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def whole(url: str, promised: list[str]) -> None:
    """The books of that database agree, and everything is there that was acknowledged before the backup."""
    storage = await open_storage(url)
    assert await storage.check() == []
    for one in promised:
        assert await storage.read(lambda tx, at=one: tx.enrollments.get(at)) is not None  # type: ignore[misc]
    await storage.close()


async def test_a_backup_of_sqlite_is_a_whole_database_that_can_take_the_place_of_the_old(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/learnflow.db"
    storage = await open_storage(url)
    async with enrolling(storage) as enrolled:
        promised = enrolled.copy()
        await asyncio.to_thread(typed, lines("umask"), tmp_path)
    await storage.close()
    *restore, serve = lines("rm -f")
    assert serve == "learnflow serve"
    typed(restore, tmp_path)
    await whole(url, promised)


async def test_a_dump_of_postgresql_is_restored_into_a_new_database(postgres: Postgres, tmp_path: Path) -> None:
    if not (postgres.programs / "pg_dump").exists():
        missing("pg_dump")
    path = f"{postgres.programs}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    at = {"PGHOST": str(postgres.folder), "PGUSER": "postgres", "PATH": path}
    school = await postgres.make()
    dump, *restore = [re.sub(r"\bschool$", school, line) for line in lines("pg_dump")]
    storage = await open_storage(postgres.url(school))
    async with enrolling(storage) as enrolled:
        promised = enrolled.copy()
        await asyncio.to_thread(typed, [dump], tmp_path, **at)
    await storage.close()
    typed(restore, tmp_path, **at)
    await whole(postgres.url("restored"), promised)
    await postgres.drop("restored")
    await postgres.drop(school)
