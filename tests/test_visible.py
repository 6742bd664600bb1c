"""What exists for whom: courses, people, places and certificates, as every use case asks for them."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from learnflow_core.access import Actor, actor_for
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import Account, Course, Enrollment, Mode, User
from learnflow_core.ports import Transaction
from learnflow_core.usecases import courses, visible
from tests import scene
from tests.world import World


class Scene:
    """Two accounts; one has a course by an instructor of its own, who has colleagues and learners."""

    def __init__(self, world: World, ours: Account, others: Account, people: dict[str, User]) -> None:
        self.world = world
        self.ours = ours
        self.others = others
        self.people = people

    def actor(self, name: str) -> Actor:
        """By name: a person, `key`, `test key`, or the key of `others`."""
        if name in self.people:
            user = self.people[name]
            account = self.ours if user.account_id == self.ours.id else self.others
            return actor_for(account, mode=user.mode, scopes={"*"}, user_id=user.id, role=user.role)
        mode: Mode = "test" if name == "test key" else "live"
        return actor_for(self.others if name == "others" else self.ours, mode=mode, scopes={"*"}, key_id="key_1")

    async def seen(self, get: Any, thing: str) -> set[str]:
        """Who sees a thing."""
        names = set[str]()
        for name in (*self.people, "key", "test key", "others"):
            if await self.world.services.storage.read(partial(self._asked, get=get, name=name, thing=thing)):
                names.add(name)
        return names

    async def _asked(self, tx: Transaction, get: Any, name: str, thing: str) -> bool:
        try:
            return bool((await get(tx, self.actor(name), thing)).id == thing)
        except LearnFlowError as refusal:
            if refusal.code.value != f"{get.__name__.removeprefix('get_')}_not_found":
                raise
            return False

    async def course(self, **fields: Any) -> Course:
        return await scene.course(self.world, self.ours, by=self.people["author"], cents=0, **fields)


@pytest.fixture
async def stage(world: World) -> Scene:
    ours, others = await world.account("Ours"), await world.account("Others")
    people = {
        "author": await world.user(ours, "author@ours.test", role="instructor"),
        "colleague": await world.user(ours, "colleague@ours.test", role="instructor"),
        "admin": await world.user(ours, "admin@ours.test", role="admin"),
        "learner": await world.user(ours, "learner@ours.test"),
        "fellow": await world.user(ours, "fellow@ours.test"),
        "stranger": await world.user(others, "stranger@others.test"),
    }
    return Scene(world, ours, others, people)


EVERYBODY = {"author", "colleague", "admin", "learner", "fellow", "stranger", "key", "test key", "others"}
OURS = EVERYBODY - {"stranger", "others"}


async def test_a_published_course_is_everybodys_a_draft_its_accounts_and_an_archived_one_of_those_in_it_too(
    stage: Scene,
) -> None:
    world, course = stage.world, await stage.course()
    draft = await stage.course(status="draft")
    assert await stage.seen(visible.get_course, course.id) == EVERYBODY
    assert await stage.seen(visible.get_course, draft.id) == OURS
    assert await stage.seen(visible.get_course, "crs_none") == set()
    await scene.enrolled(world, stage.others, stage.people["stranger"], course)
    owner, ctx = world.owner(stage.ours), world.ctx
    await world.services.storage.write(lambda tx: courses.archive_course(tx, owner, course.id, ctx))
    assert await stage.seen(visible.get_course, course.id) == OURS | {"stranger"}


async def test_nobody_who_is_not_signed_in_sees_more_than_what_is_published(stage: Scene) -> None:
    read = stage.world.services.storage.read
    published, draft = await stage.course(), await stage.course(status="draft")
    assert await read(lambda tx: visible.get_course(tx, None, published.id)) == published
    with pytest.raises(LearnFlowError) as refused:
        await read(lambda tx: visible.get_course(tx, None, draft.id))
    assert refused.value.code is Code.COURSE_NOT_FOUND
    assert not visible.owns(None, draft)


async def test_people_see_themselves_and_an_account_all_of_its_own(stage: Scene) -> None:
    assert await stage.seen(visible.get_user, stage.people["learner"].id) == {"learner", "admin", "key"}
    assert await stage.seen(visible.get_user, stage.people["stranger"].id) == {"stranger", "others"}
    assert await stage.seen(visible.get_user, "usr_none") == set()


@pytest.mark.parametrize("get", [visible.get_enrollment, visible.get_certificate])
async def test_a_place_and_a_certificate_are_the_learners_the_accounts_and_the_instructors_who_made_the_course(
    stage: Scene, get: Any
) -> None:
    world, course = stage.world, await stage.course()

    async def made(account: Account, user: User) -> str:
        if get is visible.get_certificate:
            return (await scene.completed(world, account, user, course)).id
        place: Enrollment = await scene.enrolled(world, account, user, course)
        return place.id

    ours, theirs = await made(stage.ours, stage.people["learner"]), await made(stage.others, stage.people["stranger"])
    assert await stage.seen(get, ours) == {"learner", "author", "admin", "key"}
    assert await stage.seen(get, theirs) == {"stranger", "author", "others"}
    assert await stage.seen(get, "none") == set()


async def test_what_is_of_test_mode_is_there_in_test_mode_alone(stage: Scene) -> None:
    course = await stage.course()
    tester = await stage.world.user(stage.ours, "t@ours.test", mode="test")
    place = await scene.enrolled(stage.world, stage.ours, tester, course)
    assert await stage.seen(visible.get_enrollment, place.id) == {"test key"}
    assert await stage.seen(visible.get_user, tester.id) == {"test key"}


async def test_a_list_that_is_asked_for_by_a_learner_shows_what_is_theirs(stage: Scene) -> None:
    learner, fellow = stage.actor("learner"), stage.people["fellow"].id
    for asked, shown in ((None, learner.user_id), (learner.user_id, learner.user_id), (fellow, visible.NOBODY)):
        assert visible.narrowed(learner, asked) == shown
        for name in ("author", "admin", "key"):
            assert visible.narrowed(stage.actor(name), asked) == asked
    assert await stage.world.services.storage.read(lambda tx: tx.users.get(visible.NOBODY)) is None
