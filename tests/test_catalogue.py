"""Taking over a catalogue as the use case has it: what a row says is so, and what it does not say stays."""

from __future__ import annotations

from typing import Any

import pytest

from learnflow_core.model import DAY, Account, Course
from learnflow_core.money import Money
from learnflow_core.pagination import Page
from learnflow_core.usecases.catalogue import ImportedCourse, Outcome, import_courses
from tests.world import World


class Shop:
    """An account that takes over a catalogue."""

    def __init__(self, world: World, account: Account) -> None:
        self.world = world
        self.account = account

    def row(self, external_id: str = "1", **said: Any) -> ImportedCourse:
        about = {"title": "Rust", "category": "programming", "category_name": "Programming", "price": Money(0, "USD")}
        return ImportedCourse(**{"external_id": external_id, **about, **said})

    async def take(self, *rows: ImportedCourse, dry_run: bool = False) -> list[Outcome]:
        ctx, storage = self.world.ctx, self.world.services.storage
        run = storage.read if dry_run else storage.write
        return await run(lambda tx: import_courses(tx, self.account, rows, ctx, dry_run=dry_run))

    async def kept(self, external_id: str = "1") -> Course | None:
        found = await self.world.services.storage.read(
            lambda tx: tx.courses.by_external_ids(self.account.id, [external_id])
        )
        return found.get(external_id)

    async def categories(self) -> dict[str, str]:
        found = await self.world.services.storage.read(lambda tx: tx.courses.categories(Page(1, 50)))
        return {category.slug: category.name for category in found.items}


@pytest.fixture
async def shop(world: World) -> Shop:
    return Shop(world, await world.account())


async def test_a_course_of_which_little_is_said_is_published_and_by_the_account(shop: Shop) -> None:
    assert await shop.take(shop.row()) == ["added"]
    course, now = await shop.kept(), shop.world.now
    assert course is not None
    assert course == Course(
        id=course.id,
        account_id=shop.account.id,
        created_by=None,
        title="Rust",
        instructor="Acme",
        category="programming",
        level="all",
        price=Money(0, "USD"),
        rating=None,
        total_students=0,
        students_base=0,
        description="",
        language="en",
        curriculum=(),
        status="published",
        seats=None,
        prerequisites=(),
        external_id="1",
        created_at=now,
        updated_at=now,
    )
    assert course.id.startswith("crs_")
    assert await shop.categories() == {"programming": "Programming"}


ALL = {
    "instructor": "Ada",
    "level": "beginner",
    "rating": 450,
    "description": "All of it.",
    "language": "de",
    "title": "Go",
    "price": Money(100, "EUR"),
}


async def test_all_that_a_row_says_is_so_of_a_new_course_and_of_one_there_is(shop: Shop) -> None:
    made = shop.world.now - DAY
    said = {**ALL, "students": 12, "created_at": made}
    assert await shop.take(shop.row("1", **said), shop.row("2")) == ["added", "added"]
    shop.world.clock.advance(5)
    assert await shop.take(shop.row("1"), shop.row("2", **said)) == ["updated", "updated"]
    assert await shop.take(shop.row("1", **said)) == ["updated"]
    for external_id, created_at in (("1", made), ("2", shop.world.now - 5_000_000)):
        course = await shop.kept(external_id)
        assert course is not None
        assert {name: getattr(course, name) for name in ALL} == ALL
        assert (course.students_base, course.created_at, course.updated_at) == (12, created_at, shop.world.now)
        assert course.version > 1, "another price is another version"


async def test_what_is_said_again_changes_nothing_and_keeps_nothing_behind_it_from_being_taken(shop: Shop) -> None:
    await shop.take(shop.row("1"), shop.row("3"))
    before = await shop.kept("1")
    shop.world.clock.advance(5)
    asked = shop.row("1"), shop.row("2"), shop.row("3", title="Go")
    assert await shop.take(*asked, dry_run=True) == ["unchanged", "added", "updated"]
    assert (await shop.kept("1"), await shop.kept("2")) == (before, None)
    assert await shop.take(*asked) == ["unchanged", "added", "updated"]
    assert await shop.kept("1") == before
    assert await shop.take(*asked) == ["unchanged", "unchanged", "unchanged"]
    changed = await shop.kept("3")
    assert changed is not None
    assert (changed.title, changed.version) == ("Go", 1)


async def test_a_category_keeps_its_first_name(shop: Shop) -> None:
    await shop.take(
        shop.row("1", category_name="Coding"),
        shop.row("2", category_name="Programming"),
        shop.row("3", category="arts", category_name="Arts"),
    )
    await shop.take(shop.row("1", category_name="Hacking", title="Go"))
    assert await shop.categories() == {"programming": "Coding", "arts": "Arts"}
