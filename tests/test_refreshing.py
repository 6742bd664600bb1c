"""Sessions as the use cases have them: what ends them, and what the use of a refresh token comes to."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
import pytest

from learnflow_core.audit import AuditRow
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import DAY, SECOND, RefreshToken, TokenFamily, User
from learnflow_core.pagination import Page
from learnflow_core.ports import AuditQuery, Session
from learnflow_core.usecases import api_keys, tokens
from learnflow_core.usecases.tokens import Rotation
from tests.world import World

ANOTHER_KEY = "key_of_nobody"


class SignedIn:
    """A person with a session."""

    def __init__(self, world: World, user: User, family: TokenFamily) -> None:
        self.world = world
        self.user = user
        self.family = family

    async def session(self, token_id: str = "tok_1") -> Session:
        found = await self.world.services.storage.read(lambda tx: tx.tokens.session(self.family.id, token_id))
        assert found is not None
        return found

    async def use(self, token_id: str, rotation: Rotation) -> RefreshToken | None:
        session, ctx = await self.session(), self.world.ctx
        return await self.world.services.storage.write(lambda tx: tokens.rotate(tx, session, token_id, rotation, ctx))

    async def known(self, token_id: str) -> RefreshToken | None:
        return await self.world.services.storage.read(lambda tx: tx.tokens.refresh_token(token_id))

    async def events(self, object_id: str) -> list[AuditRow]:
        query = AuditQuery(object_id=object_id)
        return (await self.world.services.storage.read(lambda tx: tx.audit.list(query, Page(1, 50)))).items


@pytest.fixture
async def signed_in(world: World) -> SignedIn:
    user, ctx = await world.user(await world.account(), "ada@acme.test"), world.ctx
    family = await world.services.storage.write(
        lambda tx: tokens.open_family(tx, user, scopes=frozenset({"b", "a"}), key_id=None, ctx=ctx)
    )
    return SignedIn(world, user, family)


async def test_a_session_begins_with_its_scopes_and_thirty_days(signed_in: SignedIn) -> None:
    now = signed_in.world.now
    assert signed_in.family == TokenFamily(
        signed_in.family.id, signed_in.user.id, None, ("a", "b"), now, now + 30 * DAY, None
    )
    assert [row.event for row in await signed_in.events(signed_in.family.id)] == ["token.minted"]


async def test_a_session_is_good_until_one_of_its_ends(signed_in: SignedIn) -> None:
    session, replace = await signed_in.session(), msgspec.structs.replace
    now = session.family.expires_at
    assert tokens.check_session(session, now - 1) is session
    for bad, at in (
        (None, 0),
        (session, now),
        (replace(session, token_revoked=True), 0),
        (replace(session, family=replace(session.family, revoked_at=1)), 0),
        (replace(session, user=replace(session.user, deleted_at=1)), 0),
    ):
        with pytest.raises(LearnFlowError) as refused:
            tokens.check_session(bad, at)
        assert refused.value.code is Code.INVALID_TOKEN


async def test_without_rotation_nothing_is_remembered(signed_in: SignedIn) -> None:
    assert await signed_in.use("tok_1", "off") is None
    assert await signed_in.known("tok_1") is None


@pytest.mark.parametrize("rotation", ["compatible", "strict"])
async def test_the_first_use_makes_a_successor_and_lengthens_the_session(
    signed_in: SignedIn, rotation: Rotation
) -> None:
    began = signed_in.world.now
    signed_in.world.clock.advance(5)
    now = signed_in.world.now
    successor = await signed_in.use("tok_1", rotation)
    assert successor is not None
    assert successor == RefreshToken(successor.id, signed_in.family.id, "tok_1", None, now, None, None)
    assert await signed_in.known(successor.id) == successor
    retired_at = now if rotation == "strict" else None
    first = RefreshToken("tok_1", signed_in.family.id, None, successor.id, began, now, retired_at)
    assert await signed_in.known("tok_1") == first
    assert (await signed_in.session()).family.expires_at == now + 30 * DAY


async def test_a_parent_is_retired_by_the_first_use_of_its_successor_and_not_again(signed_in: SignedIn) -> None:
    second = await signed_in.use("tok_1", "compatible")
    assert second is not None
    for _ in range(2):
        signed_in.world.clock.advance(5)
        await signed_in.use(second.id, "compatible")
    parent = await signed_in.known("tok_1")
    assert parent is not None
    assert parent.retired_at == signed_in.world.now - 5 * SECOND


@pytest.mark.parametrize("rotation", ["compatible", "strict"])
async def test_a_theft_that_two_requests_see_ends_the_session_and_is_told_once(
    signed_in: SignedIn, rotation: Rotation
) -> None:
    second = await signed_in.use("tok_1", rotation)
    assert second is not None
    await signed_in.use(second.id, rotation)
    signed_in.world.clock.advance(31)
    for _ in range(2):
        assert await signed_in.use("tok_1", rotation) is None
    assert (await signed_in.session()).family.revoked_at == signed_in.world.now
    rows = await signed_in.events(signed_in.family.id)
    assert [(row.event, row.account_id) for row in rows] == [
        ("token.reused", signed_in.user.account_id),
        ("token.minted", signed_in.user.account_id),
    ]


@pytest.mark.parametrize("what", ["family", "token"])
async def test_what_somebody_ends_is_told_once_and_as_their_own_doing(signed_in: SignedIn, what: str) -> None:
    world, family = signed_in.world, signed_in.family

    async def end(tx: Any) -> None:
        if what == "family":
            await tokens.end_family(tx, signed_in.user.id, family.id, world.ctx)
        else:
            await tokens.end_token(tx, signed_in.user.id, "tok_1", family.expires_at, world.ctx)

    for _ in range(2):
        await world.services.storage.write(end)
    rows = await signed_in.events(family.id if what == "family" else "tok_1")
    told = [(row.event, row.actor, row.account_id) for row in rows if row.event == "token.revoked"]
    assert told == [("token.revoked", signed_in.user.id, signed_in.user.account_id)]
    assert (await signed_in.session()).token_revoked == (what == "token")


async def test_nobody_signs_in_where_several_have_the_email(world: World) -> None:
    one, other = await world.account(), await world.account("Others")
    ada, namesake = await world.user(one, "ada@acme.test"), await world.user(other, "ADA@acme.test")

    async def found(account_id: str | None) -> User | None:
        return await world.services.storage.read(lambda tx: tokens.find_login(tx, "Ada@acme.test", "live", account_id))

    assert [await found(one.id), await found(other.id), await found(None)] == [ada, namesake, None]
    await world.user(one, "bob@acme.test")
    assert await world.services.storage.read(lambda tx: tokens.find_login(tx, "bob@acme.test", "live", None))


async def test_no_session_begins_with_a_password_that_was_changed_meanwhile(world: World) -> None:
    user = await world.user(await world.account(), "ada@acme.test", password="a long password")
    ctx = world.ctx
    begun = await world.services.storage.write(lambda tx: tokens.begin(tx, user, ctx))
    assert (begun.user_id, begun.scopes, begun.key_id) == (user.id, ("*",), None)
    for login in (msgspec.structs.replace(user, password_hash="old"), msgspec.structs.replace(user, id="usr_none")):
        with pytest.raises(LearnFlowError) as refused:
            await world.services.storage.write(partial(tokens.begin, login=login, ctx=ctx))
        assert refused.value.code is Code.INVALID_CREDENTIALS


async def test_a_key_mints_a_session_that_ends_with_it_and_none_once_it_is_revoked(world: World) -> None:
    account = await world.account()
    user = await world.user(account, "ada@acme.test")
    owner, ctx = world.owner(account), world.ctx
    storage = world.services.storage
    end = world.now + DAY
    made = await storage.write(
        lambda tx: api_keys.create_key(tx, owner, name="k", scopes=None, mode=None, expires_at=end, ctx=ctx)
    )
    actor = msgspec.structs.replace(owner, key_id=made.key.id, scopes=frozenset({"users:read"}))
    family = await storage.write(lambda tx: tokens.mint(tx, actor, user.id, ctx))
    assert (family.key_id, family.scopes, family.expires_at) == (made.key.id, ("users:read",), end)
    await storage.write(lambda tx: api_keys.end_key(tx, made.key, ctx))
    for key_id in (made.key.id, ANOTHER_KEY, None):
        by = msgspec.structs.replace(actor, key_id=key_id)
        with pytest.raises(LearnFlowError) as refused:
            await storage.write(partial(tokens.mint, actor=by, user_id=user.id, ctx=ctx))
        assert refused.value.code is Code.INVALID_API_KEY
