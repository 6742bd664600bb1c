"""People of an account: who makes and changes whom, and what is told of it."""

from __future__ import annotations

from typing import Any

import pytest

from learnflow_core.access import Actor, actor_for
from learnflow_core.errors import Code
from learnflow_core.model import Account, User
from learnflow_core.usecases import users
from learnflow_core.usecases.users import NewUser, UserChanges
from tests.scene import reason
from tests.world import World


class Staff:
    """Who sees to the people of an account."""

    def __init__(self, world: World, account: Account) -> None:
        self.world = world
        self.account = account

    def person(self, user: User) -> Actor:
        return actor_for(self.account, mode=user.mode, scopes={"*"}, user_id=user.id, role=user.role)

    def key(self, *scopes: str) -> Actor:
        return actor_for(self.account, mode="live", scopes=scopes or {"*"}, key_id="key_1")

    async def make(self, email: str, *, by: Actor | None = None, password_hash: str | None = None, **more: Any) -> User:
        actor, ctx, new = by or self.key(), self.world.ctx, NewUser(email=email, name="Ada", **more)
        return await self.world.services.storage.write(lambda tx: users.create_user(tx, actor, new, password_hash, ctx))

    async def change(
        self, user: User, *, by: Actor | None = None, password_hash: str | None = None, **changes: Any
    ) -> User:
        actor, ctx, asked = by or self.key(), self.world.ctx, UserChanges(**changes)
        return await self.world.services.storage.write(
            lambda tx: users.change_user(tx, actor, user.id, asked, password_hash, ctx)
        )

    async def delete(self, user: User, *, by: Actor | None = None) -> User:
        actor, ctx = by or self.key(), self.world.ctx
        return await self.world.services.storage.write(lambda tx: users.delete_user(tx, actor, user.id, 0, ctx))

    async def kept(self, user: User) -> User:
        found = await self.world.services.storage.read(lambda tx: tx.users.get(user.id))
        assert found is not None
        return found


@pytest.fixture
async def staff(world: World) -> Staff:
    return Staff(world, await world.account())


async def test_a_person_begins_as_a_learner_without_a_password(staff: Staff) -> None:
    ada = await staff.make("ada@acme.test", external_id="7")
    assert ada == await staff.kept(ada)
    assert ada == User(
        id=ada.id,
        account_id=staff.account.id,
        mode="live",
        email="ada@acme.test",
        name="Ada",
        role="learner",
        password_hash=None,
        external_id="7",
        created_at=staff.world.now,
        updated_at=staff.world.now,
        deleted_at=None,
    )


async def test_an_email_and_an_external_id_are_one_persons_each_and_the_refusal_says_which(staff: Staff) -> None:
    await staff.make("ada@acme.test", external_id="7")
    bob = await staff.make("bob@acme.test", external_id="8")
    assert await reason(staff.make("ADA@acme.test")) == (Code.EMAIL_TAKEN, "email")
    assert await reason(staff.make("eve@acme.test", external_id="7")) == (Code.INVALID_PARAMETER, "external_id")
    assert await reason(staff.change(bob, email="Ada@Acme.test")) == (Code.EMAIL_TAKEN, "email")
    assert await reason(staff.change(bob, external_id="7")) == (Code.INVALID_PARAMETER, "external_id")
    assert (await staff.change(bob, email="BOB@acme.test", external_id=None)).email == "BOB@acme.test"
    assert await staff.kept(bob) == await staff.change(bob)


async def test_a_change_that_is_none_leaves_the_person_as_they_were(staff: Staff) -> None:
    ada = await staff.make("ada@acme.test")
    staff.world.clock.advance(1)
    assert await staff.change(ada, name="Ada") == ada
    changed = await staff.change(ada, name="Ada L.")
    assert (changed.name, changed.updated_at) == ("Ada L.", staff.world.now)
    assert await staff.kept(ada) == changed


@pytest.mark.parametrize("field", ["email", "role", "external_id"])
async def test_people_change_their_own_name_and_password_and_nothing_else(staff: Staff, field: str) -> None:
    ada = await staff.make("ada@acme.test", password_hash="old")
    self_ = staff.person(ada)
    assert (await staff.change(ada, by=self_, name="A. L.")).name == "A. L."
    changed = await staff.change(ada, by=self_, password="a new password", password_hash="new")
    assert changed.password_hash == "new"
    asked = staff.change(ada, by=self_, **{field: "learner"})
    assert await reason(asked) == (Code.FORBIDDEN, None)
    admin = staff.person(await staff.make("root@acme.test", role="admin"))
    assert getattr(await staff.change(ada, by=admin, **{field: "instructor"}), field) == "instructor"


async def test_a_role_is_given_changed_and_taken_by_those_who_hold_as_much(staff: Staff) -> None:
    admin, teacher = (
        await staff.make("root@acme.test", role="admin"),
        await staff.make("t@acme.test", role="instructor"),
    )
    learner = await staff.make("l@acme.test")
    narrow = staff.key("users:write", "users:read")
    for asked in (
        staff.make("x@acme.test", by=narrow, role="instructor"),
        staff.make("x@acme.test", by=narrow, role="admin"),
        staff.make("x@acme.test", by=narrow, password_hash="digest"),
        staff.change(learner, by=narrow, role="instructor"),
        staff.change(teacher, by=narrow, role="learner"),
        staff.change(teacher, by=narrow, email="mine@acme.test"),
        staff.change(admin, by=narrow, password="a new password", password_hash="digest"),
        staff.change(learner, by=narrow, password="a new password", password_hash="digest"),
        staff.delete(teacher, by=narrow),
    ):
        assert await reason(asked) == (Code.FORBIDDEN, None)
    assert (await staff.change(teacher, by=narrow, name="T.")).name == "T."
    assert (await staff.change(learner, by=narrow, email="l2@acme.test")).email == "l2@acme.test"
    assert (await staff.delete(learner, by=narrow)).deleted_at == staff.world.now
    assert (await staff.delete(teacher, by=staff.person(admin))).deleted_at == staff.world.now


async def test_whoever_was_deleted_leaves_an_id_and_nothing_else(staff: Staff) -> None:
    ada = await staff.make("ada@acme.test", external_id="7", password_hash="digest", role="instructor")
    staff.world.clock.advance(1)
    erased = await staff.delete(ada)
    assert erased == await staff.kept(ada)
    assert (erased.email, erased.name, erased.password_hash, erased.external_id) == ("", "", None, None)
    assert (erased.updated_at, erased.deleted_at, erased.email_key) == (staff.world.now, staff.world.now, None)
    assert await reason(staff.change(ada, name="Ghost")) == (Code.USER_NOT_FOUND, None)
    assert (await staff.make("ada@acme.test", external_id="7")).id != ada.id
