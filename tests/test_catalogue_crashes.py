"""A process that is killed while it writes courses leaves lists, counts and pages that agree with them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from learnflow_core.model import CourseSummary
from learnflow_core.pagination import Page
from learnflow_core.ports import CourseQuery, Storage
from storage_backends import open_storage
from storage_backends.conformance.lists import walk
from storage_backends.conformance.samples import account, count, keep, user
from storage_backends.repository import uncounted

WRITES = 60
CHILD = """
import asyncio, sys
from storage_backends import open_storage
from storage_backends.conformance.pages import Writer
from storage_backends.repository import blocks, uncounted

async def main():
    blocks.BLOCK, blocks.SPAN, uncounted.ENOUGH = 4, 3, 6
    uncounted.NOTES = 5
    storage = await open_storage(sys.argv[1])
    writer = Writer(sys.argv[2])
    await storage.write(lambda tx: tx.courses.add_all([writer.course() for _ in range(30)]))
    while True:
        await writer.write(storage)
        print("written", flush=True)

asyncio.run(main())
"""


def write_and_be_killed(url: str, name: str) -> None:
    """A process writes courses, and is killed somewhere in the middle."""
    command = [sys.executable, "-c", CHILD, url, name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as child:
        assert child.stdout is not None
        assert [child.stdout.readline() for _ in range(WRITES)] == ["written\n"] * WRITES
        child.kill()


async def test_after_a_kill_all_that_is_kept_of_the_lists_is_true(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uncounted, "ENOUGH", 1)
    storage = await open_storage(url)
    await keep(storage, account(), user())
    for round_ in range(2):
        await asyncio.to_thread(write_and_be_killed, url, f"round {round_}")
        for _ in range(2):  # as it was left, and when what was noted is counted
            assert await storage.check() == []
            for query in (CourseQuery("newest"), CourseQuery("price", category="dev")):
                assert await by_pages(storage, query) == await by_cursors(storage, query)
            await count(storage)
    await storage.close()


async def by_pages(storage: Storage, query: CourseQuery) -> list[CourseSummary]:
    """A list by its pages."""
    found: list[CourseSummary] = []
    for number in range(1, 100):
        found += (await storage.read(lambda tx, at=number: tx.courses.list(query, Page(at, 7)))).items  # type: ignore[misc]
    return found


async def by_cursors(storage: Storage, query: CourseQuery) -> list[CourseSummary]:
    """The same list by cursors, which know nothing of what is counted."""
    return await walk(storage, lambda tx, paging: tx.courses.list(query, paging), 50)
