"""Two servers on one database, of either kind, and all that can happen to an enrolment at the same time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from learnflow_core.errors import Code, LearnFlowError
from tests.postgres import Postgres
from tests.school import School, school_on
from tests.world import open_world

SECRET = "x" * 32


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest) -> Postgres | None:
    """The PostgreSQL that is to be used, if it is to be one."""
    found: Postgres | None = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    return found


@pytest.fixture
async def schools(server: Postgres | None, tmp_path: Path) -> AsyncIterator[tuple[School, School]]:
    """One school as two servers see it; its books agree at the end."""
    async with AsyncExitStack() as stack:
        url = f"sqlite:///{tmp_path}/school.db"
        if server is not None:
            url = await stack.enter_async_context(server.database())
        worlds = [await stack.enter_async_context(open_world(database=url, jwt_secret=SECRET)) for _ in range(2)]
        first = await school_on(worlds[0], "professional")
        yield first, School(worlds[1], first.account, first.key, first.user)
        assert list(await worlds[0].services.storage.check()) == []


async def enrolled(school: School) -> str:
    return str((await school.enrol(await school.course())).json()["id"])


async def test_completing_at_once_issues_one_certificate_however_often_it_is_asked(
    schools: tuple[School, School],
) -> None:
    made = await enrolled(schools[0])
    replies = await asyncio.gather(*[school.progress(made, 100) for school in schools for _ in range(15)])
    assert Counter(reply.status_code for reply in replies) == {200: 30}
    assert len({reply.json()["certificate_id"] for reply in replies}) == 1
    listed = await schools[1].world.ask("GET", "/v1/certificates", schools[0].key)
    assert len(listed.json()["data"]) == 1


async def test_progress_of_any_kind_at_once_never_goes_back_past_completion(schools: tuple[School, School]) -> None:
    for _ in range(3):
        made = await enrolled(schools[0])
        await asyncio.gather(*[school.progress(made, progress) for progress in (10, 100, 50, 0) for school in schools])
        (found,) = [one for one in await schools[1].enrollments() if one["id"] == made]
        assert (found["status"], found["progress"]) == ("completed", 100)


async def test_completing_leaving_and_being_deleted_at_once_end_in_one_of_them(schools: tuple[School, School]) -> None:
    first, second = schools
    made = await enrolled(first)

    async def delete(school: School) -> Any:
        return await school.world.ask("DELETE", f"/v1/users/{school.user.id}", school.key)

    await asyncio.gather(
        *[school.progress(made, 100) for school in schools for _ in range(3)],
        *[school.cancel(made) for school in schools for _ in range(3)],
        delete(first),
        delete(second),
    )
    for school in schools:
        school.world.clock.advance(11)
        await school.world.sweep()
    (found,) = await first.enrollments()
    refunds = {*first.gateway.refunds, *second.gateway.refunds}
    assert (found["status"], len(refunds)) in {("completed", 0), ("refunded", 1)}
    certificates = (await first.world.ask("GET", "/v1/certificates", first.key)).json()["data"]
    assert len(certificates) == (found["status"] == "completed")


async def test_sweeps_of_two_servers_never_ask_about_the_same_payment(schools: tuple[School, School]) -> None:
    first, second = schools
    first.gateway.away, first.gateway.away_when = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE), "before"
    for _ in range(40):
        assert (await first.enrol(await first.course())).status_code == 503
    first.gateway.away = None
    first.gateway.asked.clear()
    for school in schools:
        school.world.clock.advance(11)
    await asyncio.gather(*[school.world.sweep() for school in schools for _ in range(3)])
    asked = first.gateway.asked + second.gateway.asked
    assert len(asked) == len(set(asked)) == 40
    assert {one["status"] for one in await second.enrollments()} == {"active"}
