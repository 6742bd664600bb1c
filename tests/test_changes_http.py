"""`updated_since`: what has changed, in the order of the changes, from every list whose items know when they did."""

from __future__ import annotations

from typing import Any

import pytest

from learnflow_http.operations import OPERATIONS
from learnflow_http.operations.changes import Changes
from tests.school import School, school_on
from tests.world import World

SINCE = "2024-01-15T10:30:00Z"
"""An hour after every test begins."""
LISTS = sorted(row.path for row in OPERATIONS if row.query is not None and issubclass(row.query, Changes))


@pytest.fixture
async def school(world: World) -> School:
    return await school_on(world, "professional")


async def changed(school: School, path: str, **params: str) -> list[dict[str, Any]]:
    headers = {"Authorization": f"Bearer {school.key}"}
    reply = await school.world.client.get(path, params={"updated_since": SINCE, **params}, headers=headers)
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.json()["data"]
    return found


def test_every_list_but_those_of_categories_and_of_one_persons_methods_knows_what_changed() -> None:
    others = {row.path for row in OPERATIONS if row.paged} - set(LISTS)
    assert others == {"/v1/categories", "/v1/users/{id}/payment-methods"}


async def test_what_changed_is_told_with_what_was_ended_and_nothing_else(school: School) -> None:
    course, other = await school.course(), await school.course()
    made = (await school.enrol(course)).json()["id"]
    left = (await school.enrol(other)).json()["id"]
    person = (await school.crowd(2))[0]
    school.world.clock.advance(3_600)
    for path in LISTS:
        assert await changed(school, path) == []
    certificate = (await school.progress(made, 100)).json()["certificate_id"]
    school.world.clock.advance(1)
    await school.cancel(left)
    await school.world.ask("DELETE", f"/v1/users/{person.id}", school.key)
    await school.change(other, title="Renamed")
    rotated = (await school.world.ask("GET", "/v1/api-keys", school.key)).json()["data"][0]["id"]
    await school.world.ask("POST", f"/v1/api-keys/{rotated}/rotate", school.key, {})
    assert [one["id"] for one in await changed(school, "/v1/enrollments")] == [made, left]
    assert [one["id"] for one in await changed(school, "/v1/certificates")] == [certificate]
    assert [one["id"] for one in await changed(school, "/v1/courses")] == [other.id]
    (deleted,) = await changed(school, "/v1/users")
    assert (deleted["id"], deleted["email"], deleted["deleted_at"]) == (person.id, None, "2024-01-15T10:30:01Z")
    assert rotated in [one["id"] for one in await changed(school, "/v1/api-keys")]
    school.world.clock.advance(60)
    await school.world.ask("DELETE", f"/v1/certificates/{certificate}", school.key)
    (revoked,) = await changed(school, "/v1/certificates", updated_since="2024-01-15T10:31:00Z")
    assert revoked["updated_at"] == revoked["revoked_at"] == "2024-01-15T10:31:01Z"


@pytest.mark.parametrize("path", LISTS)
async def test_a_cursor_belongs_to_its_instant(school: School, path: str) -> None:
    await school.crowd(3)
    for _ in range(3):
        course = await school.course()
        await school.progress((await school.enrol(course)).json()["id"], 100)
        await school.world.key(school.account)
    headers = {"Authorization": f"Bearer {school.key}"}
    early = "2024-01-15T00:00:00Z"
    first = await school.world.client.get(
        path, params={"updated_since": early, "cursor": "", "limit": "1"}, headers=headers
    )
    cursor = first.json()["meta"]["next_cursor"]
    for since, status in ((early, 200), (SINCE, 400), ("", 400), (None, 400)):
        params = {"cursor": cursor} if since is None else {"cursor": cursor, "updated_since": since}
        reply = await school.world.client.get(path, params=params, headers=headers)
        assert reply.status_code == status, (since, reply.text)


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("text", ["yesterday", "2024-01-15", "2024-01-15T10:30:00", "1705312800"])
async def test_an_instant_that_is_none_is_named(school: School, path: str, text: str) -> None:
    headers = {"Authorization": f"Bearer {school.key}"}
    reply = await school.world.client.get(path, params={"updated_since": text}, headers=headers)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "updated_since")


@pytest.mark.parametrize("other", [{"sort": "popular"}, {"search": "rust"}])
async def test_changes_of_courses_have_an_order_of_their_own(school: School, other: dict[str, str]) -> None:
    reply = await school.world.client.get("/v1/courses", params={"updated_since": SINCE, **other})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "updated_since")
