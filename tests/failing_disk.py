"""A server whose disk takes so many writes and then no more: `python -m tests.failing_disk KIND N…`.

It is a process of its own, since a limit on files is a process's.

`io`: the log of the database cannot grow beyond so many pages, nor is the last of them written whole (RLIMIT_FSIZE, to
SQLite an I/O error). `full`: the database cannot have so many pages more.
"""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from learnflow_core.errors import Code
from learnflow_core.model import Payment, User
from learnflow_core.ports import Storage
from payment_gateways.sandbox import SandboxGateway
from tests.school import School, school_on
from tests.world import open_world

PAGE = 4_096
FRAME = PAGE + 24  # https://sqlite.org/fileformat.html#the_write_ahead_log
HEAD = 32
DAY_S = 86_400
MOST = 400
"""So many writers are tried in a round; long before, the disk fails."""


class Gateway(SandboxGateway):
    """A payment service that is not on this disk."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self.charged: set[str] = set()

    async def charge(self, payment: Payment) -> Code | None:
        self.charged.add(payment.id)
        return None

    async def refund(self, payment: Payment) -> None:
        self.charged.remove(payment.id)


class Disk:
    """The disk under a database file, which can be made to fail."""

    def __init__(self, path: Path, storage: Any) -> None:
        self._path = path
        self._writer: sqlite3.Connection = storage._driver._connections[-1]
        self._hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    def fail_after(self, kind: str, writes: int) -> None:
        """Let it take so many writes more."""
        with sqlite3.connect(self._path) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        other.close()
        if kind == "io":
            limit = HEAD + writes * FRAME + writes * 997 % FRAME
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, self._hard))
        else:
            (pages,) = self._writer.execute("PRAGMA page_count").fetchone()
            self._writer.execute(f"PRAGMA max_page_count = {pages + writes // 10}")

    def mend(self) -> None:
        """All is well again."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._hard, self._hard))
        self._writer.execute("PRAGMA max_page_count = 1000000000")


async def main(kind: str, counts: list[int]) -> None:
    """A round for each of the counts, all on one database, which is looked at after each."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "school.db"
        async with open_world(database=f"sqlite:///{path}", jwt_secret="s" * 32) as world:
            school = await school_on(world, "professional")
            gateway = Gateway(world.services.storage)
            cast("dict[str, Any]", world.services.gateways)["live"] = gateway
            people = await school.crowd(MOST)
            disk = Disk(path, world.services.storage)
            for writes in counts:
                await one_round(school, people, gateway, disk, kind, writes)
                print(f"{kind} {writes}", flush=True)


async def one_round(school: School, people: list[User], gateway: Gateway, disk: Disk, kind: str, writes: int) -> None:
    """Learners enrol until the disk fails; what was answered is there, and the rest leaves nothing behind."""
    world = school.world
    course = await school.course(title=f"{kind} {writes}")
    disk.fail_after(kind, writes)
    statuses: list[int] = []
    answered: list[str] = []
    for user in people:
        world.clock.advance(1)  # nobody is slowed down by the limiter
        reply = await school.enrol(course, user=user)
        statuses.append(reply.status_code)
        if reply.status_code == 201:
            answered.append(reply.json()["id"])
        elif statuses[-3:] == [503, 503, 503]:
            break
    assert set(statuses) <= {201, 503}, statuses
    assert 503 in statuses, f"{len(statuses)} learners wrote less than that"
    seen = await world.ask("GET", f"/v1/enrollments?course_id={course.id}&limit=1", school.key)
    assert seen.status_code == 200, seen.text
    disk.mend()
    world.clock.advance(DAY_S)  # and each round has the quota of a day
    await world.sweep()
    assert list(await world.services.storage.check()) == []
    found = await world.services.storage.read(lambda tx: _of_course(tx, course.id))
    assert {place for place, status, _ in found if status == "active"} >= set(answered)
    assert {status for _, status, _ in found} <= {"active"}
    assert {payment for _, _, payment in found} <= gateway.charged


async def _of_course(tx: Any, course_id: str) -> list[tuple[str, str, str]]:
    rows = await tx._tx.rows("SELECT id, status, payment_id FROM enrollments WHERE course_id = $1", course_id)
    return [tuple(row) for row in rows]


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], [int(text) for text in sys.argv[2:]]))
