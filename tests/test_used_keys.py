"""Under a key that was used, another body has no effect, and somebody else's key is another key."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from learnflow_core.model import Course
from tests.amount import amount
from tests.scene import books
from tests.school import School, school_on
from tests.world import World

KEYS = 20


@pytest.fixture
async def schools(world: World) -> list[School]:
    return [await school_on(world, "professional"), await school_on(world, "professional")]


async def test_whatever_comes_under_used_keys_has_one_effect_for_each_account_and_nobody_meets_anothers_reply(
    world: World, schools: list[School]
) -> None:
    random = Random("used keys")
    people = {school.account.id: await school.crowd(KEYS) for school in schools}
    courses = [await school.course(title=f"Course {n}", cents=4_999) for school in schools for n in range(3)]
    first: dict[tuple[str, str], tuple[dict[str, str], Any]] = {}
    seen: Counter[str] = Counter()
    for _ in range(amount(400, soak=10_000)):
        world.clock.advance(1)
        school = random.choice(schools)
        key, body = f"key-{random.randrange(KEYS)}", a_body(random, people[school.account.id], courses)
        reply = await world.ask("POST", "/v1/enrollments", school.key, body, idempotency_key=key)
        mine = (school.account.id, key)
        if mine not in first:
            assert "idempotency_key_reused" not in reply.text  # though somebody else has used it
            if reply.status_code in (200, 201, 403):
                first[mine] = body, reply.json() if reply.status_code < 300 else reply.json()["error"]["code"]
            continue
        used, told = first[mine]
        if used == body:
            again = reply.json() if reply.status_code < 300 else reply.json()["error"]["code"]
            assert again == told
            assert reply.headers["Idempotent-Replayed"] == "true"
            seen["replayed"] += 1
        else:
            assert reply.json()["error"]["code"] == "idempotency_key_reused"
            seen["refused"] += 1
    enrolled = {told["id"] for _, told in first.values() if isinstance(told, dict)}
    assert {place[0] for place in (await books(world))["enrollments"] if "active" in place} == enrolled
    assert len(schools[1].gateway.paid) == len(enrolled)
    assert min(seen["refused"], seen["replayed"]) > 0
    assert list(await world.services.storage.check()) == []


def a_body(random: Random, people: list[Any], courses: list[Course]) -> dict[str, str]:
    """Something that could be asked for, often what was asked for before."""
    return {
        "user_id": random.choice(people[:3]).id,
        "course_id": random.choice(courses[:4]).id,
        "payment_method_id": random.choice(("pm_visa_4242", "pm_visa_4242", "pm_visa_0002")),
    }
