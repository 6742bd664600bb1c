"""The sweep: what nobody waits for is done, and nothing of it waits for another part."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import SECOND, Course, Instant
from learnflow_core.ports import Storage
from learnflow_http.app import create_app
from learnflow_http.sweep import LEADS_FOR, Sweeper, lead
from tests.school import school_on, told
from tests.world import World


async def refuse(*_arguments: Any) -> Any:
    raise LearnFlowError(Code.SERVICE_UNAVAILABLE)


async def test_money_does_not_wait_for_a_count_that_cannot_be_made(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    school = await school_on(world, "professional")
    school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE)
    course = await school.course()
    assert told(await school.enrol(course)) == (503, "service_unavailable")
    school.gateway.away = None
    world.clock.advance(11)
    monkeypatch.setattr("storage_backends.repository.courses.Courses.settle", refuse)
    with pytest.raises(ExceptionGroup) as failed:
        await world.sweep()
    assert [type(error) for error in failed.value.exceptions] == [LearnFlowError]
    reply = await school.enrol(course)
    assert (reply.status_code, reply.json()["status"]) == (200, "active")


async def test_who_does_not_lead_finishes_payments_and_leaves_counts_to_who_does(world: World) -> None:
    school = await school_on(world, "professional")
    storage, busy = world.services.storage, await school.course()
    before = await seen(world, busy)
    assert (await school.enrol(busy)).status_code == 201
    school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE)
    other = await world.user(school.account, "bob@acme.test")
    assert told(await school.enrol(busy, user=other)) == (503, "service_unavailable")
    school.gateway.away = None
    world.clock.advance(11)
    assert await lead(storage, "another", world.now)
    await world.sweep()
    assert await storage.read(lambda tx: tx.payments.unresolved(world.now, 10)) == 0
    assert await seen(world, busy) == before
    world.clock.advance(LEADS_FOR / SECOND)
    await world.sweep()
    assert await seen(world, busy) == before + 2


async def test_who_leads_seldom_says_so_and_never_too_late(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, said = world.services.storage, list[int]()

    async def listened(storage: Storage, name: str, now: Instant) -> bool:
        said.append(now)
        return await lead(storage, name, now)

    monkeypatch.setattr("learnflow_http.sweep.lead", listened)
    first, began = Sweeper(world.services, "first"), world.now
    for _ in range(3 * LEADS_FOR // SECOND):
        await first.sweep_common()
        world.clock.advance(1)
        assert not await lead(storage, "second", world.now)
    assert [(now - began) // SECOND for now in said] == [0, 5, 10, 15, 20, 25]


async def test_who_led_does_not_believe_so_when_its_time_has_passed(world: World) -> None:
    school, first = await school_on(world, "professional"), Sweeper(world.services, "first")
    course = await school.course()
    before = await seen(world, course)
    await first.sweep_common()
    world.clock.advance(LEADS_FOR / SECOND)
    assert await lead(world.services.storage, "another", world.now)
    assert (await school.enrol(course)).status_code == 201
    await first.sweep_common()
    assert await seen(world, course) == before


async def test_one_process_has_deleted_cards_forgotten_and_nothing_else_waits_for_that(world: World) -> None:
    school, forgotten = await school_on(world, "professional"), list[str]()
    sent = {"token": "tok_visa_4242"}
    added = await world.ask("POST", f"/v1/users/{school.user.id}/payment-methods", school.key, sent)
    await world.ask("DELETE", f"/v1/users/{school.user.id}/payment-methods/{added.json()['id']}", school.key)
    asked, answers = asyncio.Event(), asyncio.Event()

    async def forget(token: str) -> None:
        forgotten.append(token)
        asked.set()
        await answers.wait()

    school.gateway.forget = forget  # type: ignore[method-assign]
    first, second = (Sweeper(world.services, name) for name in ("first", "second"))
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(first.sweep_methods())
        await asked.wait()
        for sweep in (second.sweep_methods, first.sweep_money, first.sweep_own, first.sweep_common):
            await sweep()
        answers.set()
    await first.sweep_methods()
    assert forgotten == ["tok_visa_4242"]


async def seen(world: World, course: Course) -> int:
    """How many students a course shows."""
    return int((await world.ask("GET", f"/v1/courses/{course.id}")).json()["total_students"])


async def test_a_server_that_ends_keeps_when_its_keys_were_used(world: World) -> None:
    account = await world.account()
    key = await world.key(account)
    app: Any = create_app(world.services)
    async with app.lifespan_context(app):
        await world.ask("GET", "/v1/account", key)
    found = (await world.ask("GET", "/v1/api-keys", key)).json()["data"]
    assert found[0]["last_used_at"] is not None


async def test_a_sweep_settles_all_that_is_due_though_little_is_done_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage_backends.repository.courses.SETTLED_AT_ONCE", 1)
    school = await school_on(world, "professional")
    for _ in range(3):
        assert (await school.enrol(await school.course())).status_code in (200, 201)
    await world.sweep()
    assert await world.services.storage.write(lambda tx: tx.courses.settle(100)) == 0
