"""Courses: what they are made of, who changes them, and what has to be done first."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from learnflow_core.access import Actor, actor_for
from learnflow_core.errors import Code
from learnflow_core.fields import Price
from learnflow_core.model import Account, Course, Role, User
from learnflow_core.money import Money
from learnflow_core.usecases import courses
from learnflow_core.usecases.courses import CourseChanges, NewCourse
from tests.scene import reason
from tests.world import World

FREE = Price.of(Money(0, "USD"))


class Desk:
    """An account that publishes courses, by its key unless another actor does."""

    def __init__(self, world: World, account: Account) -> None:
        self.world = world
        self.account = account

    def person(self, user: User) -> Actor:
        return actor_for(self.account, mode=user.mode, scopes={"*"}, user_id=user.id, role=user.role)

    async def instructor(self, email: str, role: Role = "instructor") -> Actor:
        return self.person(await self.world.user(self.account, email, role=role))

    async def make(self, *, by: Actor | None = None, **fields: Any) -> Course:
        actor, ctx = by or self.world.owner(self.account), self.world.ctx
        new = NewCourse(**{"title": "Rust", "category": "programming", "price": FREE, **fields})
        return await self.world.services.storage.write(lambda tx: courses.create_course(tx, actor, new, ctx))

    async def change(self, course: Course, *, by: Actor | None = None, **changes: Any) -> Course:
        actor, ctx = by or self.world.owner(self.account), self.world.ctx
        return await self.world.services.storage.write(
            lambda tx: courses.change_course(tx, actor, course.id, CourseChanges(**changes), ctx)
        )

    async def archive(self, course: Course, *, by: Actor | None = None) -> Course:
        actor, ctx = by or self.world.owner(self.account), self.world.ctx
        return await self.world.services.storage.write(lambda tx: courses.archive_course(tx, actor, course.id, ctx))

    async def kept(self, course: Course) -> Course:
        found = await self.world.services.storage.read(lambda tx: tx.courses.get(course.id))
        assert found is not None
        return found


@pytest.fixture
async def desk(world: World) -> Desk:
    return Desk(world, await world.account())


async def test_a_course_begins_with_what_was_said_and_else_is_open_to_everybody(desk: Desk) -> None:
    course = await desk.make(external_id="rust-1")
    assert course == await desk.kept(course)
    assert msgspec.structs.asdict(course) == {
        "id": course.id,
        "account_id": desk.account.id,
        "created_by": None,
        "title": "Rust",
        "instructor": "Acme",
        "category": "programming",
        "level": "all",
        "price": Money(0, "USD"),
        "rating": None,
        "total_students": 0,
        "students_base": 0,
        "description": "",
        "language": "en",
        "curriculum": (),
        "status": "published",
        "seats": None,
        "prerequisites": (),
        "external_id": "rust-1",
        "created_at": desk.world.now,
        "updated_at": desk.world.now,
        "enrolls_from": None,
        "enrolls_until": None,
        "access_days": None,
        "version": 1,
    }


async def test_an_external_id_names_one_course_of_an_account(desk: Desk) -> None:
    first, second = await desk.make(external_id="rust-1"), await desk.make(external_id="rust-2")
    assert await reason(desk.make(external_id="rust-1")) == (Code.INVALID_PARAMETER, "external_id")
    assert await reason(desk.change(second, external_id="rust-1")) == (Code.INVALID_PARAMETER, "external_id")
    assert (await desk.change(first, external_id=None)).external_id is None
    assert (await desk.change(second, external_id="rust-1")).external_id == "rust-1"


@pytest.mark.parametrize(
    ("opens", "closes", "good"),
    [
        ("2030-01-01T00:00:00Z", "2030-01-01T00:00:01Z", True),
        ("2030-01-01T00:00:00Z", "2030-01-01T00:00:00Z", False),
        ("2030-01-01T00:00:01Z", "2030-01-01T00:00:00Z", False),
        ("2030-01-01T00:00:00.9Z", "2030-01-01T00:00:00.1Z", False),
        ("2030-01-01T00:00:00Z", None, True),
        (None, "2030-01-01T00:00:00Z", True),
    ],
)
async def test_enrolling_ends_after_it_has_begun(desk: Desk, opens: str | None, closes: str | None, good: bool) -> None:
    window: dict[str, Any] = {"enrolls_from": opens, "enrolls_until": closes}
    course = await desk.make()
    if good:
        made = await desk.make(**window)
        changed = await desk.change(course, **window)
        assert (made.enrolls_from, made.enrolls_until) == (changed.enrolls_from, changed.enrolls_until)
        assert (made.enrolls_from is None, made.enrolls_until is None) == (opens is None, closes is None)
    else:
        assert await reason(desk.make(**window)) == (Code.INVALID_PARAMETER, "enrolls_until")
        assert await reason(desk.change(course, **window)) == (Code.INVALID_PARAMETER, "enrolls_until")


async def test_an_instant_that_is_none_is_refused_by_its_name(desk: Desk) -> None:
    for name in ("enrolls_from", "enrolls_until"):
        soon: dict[str, Any] = {name: "soon"}
        assert await reason(desk.make(**soon)) == (Code.INVALID_PARAMETER, name)
        assert await reason(desk.change(await desk.make(), **soon)) == (Code.INVALID_PARAMETER, name)


async def test_only_another_price_or_access_is_another_version(desk: Desk) -> None:
    course = await desk.make()
    desk.world.clock.advance(1)
    assert await desk.change(course, title="Rust", price=FREE) == course
    for version, changes in ((1, {"title": "Go"}), (2, {"price": Price.of(Money(1, "USD"))}), (3, {"access_days": 3})):
        changed = await desk.change(course, **changes)
        assert (changed.version, changed.updated_at) == (version, desk.world.now)
        assert await desk.kept(course) == changed


async def test_an_archived_course_stays_archived_from_the_first_time_on(desk: Desk) -> None:
    course = await desk.make()
    desk.world.clock.advance(1)
    archived = await desk.archive(course)
    assert (archived.status, archived.updated_at, archived.version) == ("archived", desk.world.now, 1)
    desk.world.clock.advance(1)
    assert await desk.archive(course) == archived == await desk.kept(course)


async def test_a_course_is_changed_by_who_made_it_and_by_those_who_see_the_whole_account(desk: Desk) -> None:
    author, admin = await desk.instructor("author@acme.test"), await desk.instructor("root@acme.test", "admin")
    course = await desk.make(by=author)
    assert course.created_by == author.user_id
    for actor in (author, admin, None):
        assert (await desk.change(course, by=actor, title=f"By {actor and actor.role}")).created_by == author.user_id
    for stranger in (await desk.instructor("other@acme.test"), desk.world.owner(await desk.world.account("Others"))):
        assert await reason(desk.change(course, by=stranger, title="Mine")) == (Code.FORBIDDEN, None)
        assert await reason(desk.archive(course, by=stranger)) == (Code.FORBIDDEN, None)


async def test_what_has_to_be_done_first_may_be_told_by_two_courses_at_once(desk: Desk) -> None:
    basics = await desk.make()
    left, right = await desk.make(prerequisites=(basics.id,)), await desk.make(prerequisites=(basics.id,))
    top = await desk.make(prerequisites=(left.id, right.id, basics.id))
    assert (await desk.kept(top)).prerequisites == (left.id, right.id, basics.id)
    for course in (basics, left):
        circle = desk.change(course, prerequisites=(top.id,))
        assert await reason(circle) == (Code.INVALID_PARAMETER, "prerequisites")
    assert await reason(desk.change(top, prerequisites=(top.id,))) == (Code.INVALID_PARAMETER, "prerequisites")
    assert await reason(desk.make(prerequisites=("crs_none",))) == (Code.INVALID_PARAMETER, "prerequisites")


async def test_what_was_hidden_since_stays_a_prerequisite_until_they_are_changed(desk: Desk) -> None:
    other = Desk(desk.world, await desk.world.account("Others"))
    foreign = await other.make()
    course = await desk.make(prerequisites=(foreign.id,))
    await other.change(foreign, status="draft")
    assert (await desk.change(course, title="Go")).prerequisites == (foreign.id,)
    further = await desk.make(prerequisites=(course.id,))
    assert further.prerequisites == (course.id,)
    refused = desk.change(course, prerequisites=(foreign.id, further.id))
    assert await reason(refused) == (Code.INVALID_PARAMETER, "prerequisites")
