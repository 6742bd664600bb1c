"""The server on PostgreSQL, as its clients and its operator use it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from click.testing import CliRunner

from learnflow_http import metrics_page
from learnflow_http.cli import learnflow
from tests import scene
from tests.postgres import Postgres
from tests.scene import PAYS
from tests.school import DAY_S, School, school_on
from tests.world import World, open_world

SECRET = "x" * 32


@pytest.fixture
async def world(postgres: Postgres) -> AsyncIterator[World]:
    async with postgres.database() as url, open_world(database=url, jwt_secret=SECRET) as world:
        yield world
        assert await world.services.storage.check() == []


@pytest.fixture
async def school(world: World) -> School:
    return await school_on(world, "professional")


async def test_the_metrics_tell_how_the_connections_are_used(world: World) -> None:
    services = world.services

    async def told_inside(_tx: object) -> str:
        services.metrics.refresh()
        return metrics_page.page(services.metrics).decode()

    assert 'learnflow_database_connections{state="in_use"} 1.0' in await services.storage.read(told_inside)
    after = await told_inside(None)
    assert 'learnflow_database_connections{state="in_use"} 0.0' in after
    assert "learnflow_database_waiting 0.0" in after


async def test_a_place_is_paid_for_once_and_given_back(school: School) -> None:
    course = await school.course(seats=1)
    first = await school.enrol(course, PAYS)
    assert first.status_code == 201, first.text
    again = await school.enrol(course, PAYS)
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    other = await school.world.user(school.account, "ben@acme.test")
    assert scene.told(await school.enrol(course, PAYS, user=other))[:2] == (403, "course_full")
    assert await school.students(course) == 1
    assert (await school.cancel(first.json()["id"])).status_code == 200
    assert len(school.gateway.paid) == len(school.gateway.refunds) == 1
    assert (await school.enrol(course, PAYS, user=other)).status_code == 201


async def test_a_course_is_completed_and_its_certificate_verified(school: School) -> None:
    course = await school.course()
    enrollment = (await school.enrol(course)).json()
    done = await school.progress(enrollment["id"], 100)
    assert done.json()["status"] == "completed"
    certificate = done.json()["certificate_id"]
    assert (await school.world.ask("GET", f"/v1/certificates/{certificate}/verify")).json()["valid"] is True


async def test_signing_in_refreshing_and_signing_out(school: School) -> None:
    world = school.world
    await world.user(school.account, "eve@acme.test", password="correct horse battery")
    tokens = await world.ask(
        "POST", "/v1/auth/token", json={"email": "EVE@acme.test", "password": "correct horse battery"}
    )
    assert tokens.status_code == 200, tokens.text
    access, refresh = tokens.json()["access_token"], tokens.json()["refresh_token"]
    assert (await world.ask("GET", "/v1/enrollments", access)).status_code == 200
    renewed = await world.ask("POST", "/v1/auth/refresh", json={"refresh_token": refresh})
    assert renewed.status_code == 200, renewed.text


async def test_a_reply_is_kept_under_its_idempotency_key(school: School) -> None:
    body = {"email": "new@acme.test", "name": "New"}
    replies = [await school.world.ask("POST", "/v1/users", school.key, body, Idempotency_Key="one") for _ in range(2)]
    assert [reply.status_code for reply in replies] == [201, 201]
    assert replies[0].json() == replies[1].json()


async def test_lists_are_read_by_page_by_cursor_and_by_search(school: School) -> None:
    for number in range(7):
        await school.course(title=f"Python {('Été', 'Basics')[number % 2]} {number}")
    found = await listed(school, "/v1/courses?limit=3&page=3")
    assert (len(found["data"]), found["meta"]["total_items"]) == (1, 7)
    seen: list[str] = []
    path: str | None = "/v1/courses?limit=3&sort=newest&cursor="
    while path:
        reply = await school.world.ask("GET", path, school.key)
        seen += [course["id"] for course in reply.json()["data"]]
        path = scene.links(reply).get("next") if "Link" in reply.headers else None
    assert len(seen) == len(set(seen)) == 7
    for text, number in (("ete", 4), ("pyth", 7), ("basics python", 3), ("et é", 0)):
        assert (await listed(school, f"/v1/courses?search={text}"))["meta"]["total_items"] == number, text


async def listed(school: School, path: str) -> dict[str, Any]:
    reply = await school.world.ask("GET", path, school.key)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


async def test_what_an_operator_does_with_a_new_database(postgres: Postgres) -> None:
    async with postgres.database(template=False) as url:

        def command(*words: str, status: int = 0) -> str:
            result = CliRunner().invoke(learnflow, [*words, "--database", url])
            assert result.exit_code == status, result.output
            return result.stdout if status == 0 else result.output

        def all_of_it() -> None:
            assert "not up to date: `learnflow migrate`" in command("accounts", "list", status=1)
            assert command("migrate").split() == ["0001_foundation"]
            made = command("accounts", "create", "--name", "School", "--plan", "starter").strip()
            assert made in command("accounts", "list")
            command("users", "create", "--account", made, "--email", "ada@example.com", "--role", "admin")
            assert command("keys", "create", "--account", made, "--name", "website").startswith("sk_live_")
            assert command("doctor") == ""
            assert "LEARNFLOW_JWT_SECRET: this database needs one" in command("serve", "--port", "0", status=2)

        await asyncio.to_thread(all_of_it)


async def test_two_who_look_for_a_seat_at_once_end_each_overdue_enrolment_once(school: School) -> None:
    """The world looks at the books at its end: a seat that came free twice would be found there."""
    course = await school.course(seats=4, access_days=1)
    elsewhere = await school.course()
    people = await school.crowd(6)
    for user in people[:4]:
        assert (await school.enrol(course, user=user)).status_code == 201
        school.world.clock.advance(DAY_S / 3)
    storage: Any = school.world.services.storage
    waiting = storage._driver._together
    connection = await storage._driver._pool.take()
    async with connection.transaction():
        await connection.execute("LOCK TABLE gate IN SHARE UPDATE EXCLUSIVE MODE")
        # The first holds a transaction up until the others have come, who are then in the next one together.
        replies = [asyncio.ensure_future(school.enrol(elsewhere))]
        while waiting._serving is None or waiting._waiting:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)
        replies += [asyncio.ensure_future(school.enrol(course, user=user)) for user in people[4:]]
        while len(waiting._waiting) < 2:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)
    storage._driver._pool.give(connection)
    assert [(await reply).status_code for reply in replies] == [201, 201, 201]
