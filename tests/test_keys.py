"""API keys: what is made of what, how long it works, and who sees it."""

from __future__ import annotations

from typing import Any

import pytest

from learnflow_core.access import Actor, actor_for
from learnflow_core.errors import Code
from learnflow_core.ids import api_key_digest
from learnflow_core.model import SECOND, Account, ApiKey, Instant, Mode
from learnflow_core.pagination import Page
from learnflow_core.usecases import api_keys
from learnflow_core.usecases.api_keys import KeyRotation, MadeKey
from tests.scene import reason
from tests.sessions import mint, works
from tests.world import World

HOUR: Instant = 3_600 * SECOND


class Keys:
    """The keys of one account, as one of them, or its owner, makes more."""

    def __init__(self, world: World, account: Account) -> None:
        self.world = world
        self.account = account

    def actor(self, key: ApiKey | None = None, mode: Mode = "live") -> Actor:
        if key is None:
            return self.world.owner(self.account, mode)
        return actor_for(self.account, mode=key.mode, scopes=key.scopes, key_id=key.id)

    async def make(self, by: Actor | None = None, **fields: Any) -> MadeKey:
        asked = {"name": "key", "scopes": None, "mode": None, "expires_at": None, **fields}
        actor, ctx = by or self.actor(), self.world.ctx
        return await self.world.services.storage.write(lambda tx: api_keys.create_key(tx, actor, **asked, ctx=ctx))

    async def rotate(self, key: ApiKey, by: Actor | None = None, **rotation: Any) -> MadeKey:
        actor, ctx = by or self.actor(), self.world.ctx
        return await self.world.services.storage.write(
            lambda tx: api_keys.rotate_key(tx, actor, key.id, KeyRotation(**rotation), ctx)
        )

    async def revoke(self, key: ApiKey, by: Actor | None = None) -> ApiKey:
        actor, ctx = by or self.actor(), self.world.ctx
        return await self.world.services.storage.write(lambda tx: api_keys.revoke_key(tx, actor, key.id, ctx))

    async def kept(self, key: ApiKey) -> ApiKey:
        found = await self.world.services.storage.read(lambda tx: tx.api_keys.get(key.id))
        assert found is not None
        return found

    async def listed(self, mode: Mode) -> list[ApiKey]:
        actor = self.actor(mode=mode)
        found = await self.world.services.storage.read(lambda tx: api_keys.list_keys(tx, actor, Page(1, 50)))
        return found.items


@pytest.fixture
async def keys(world: World) -> Keys:
    return Keys(world, await world.account())


async def test_a_key_has_what_its_maker_has_unless_less_is_asked_for(keys: Keys) -> None:
    maker = (
        await keys.make(scopes=("users:write", "courses:write"), mode="test", expires_at=keys.world.now + HOUR)
    ).key
    made = (await keys.make(keys.actor(maker))).key
    assert (made.scopes, made.mode, made.expires_at) == (maker.scopes, "test", maker.expires_at)
    less = (await keys.make(keys.actor(maker), scopes=("users:write",), expires_at=keys.world.now + 1)).key
    assert (less.scopes, less.mode, less.expires_at) == (("users:write",), "test", keys.world.now + 1)


async def test_a_key_is_kept_by_the_digest_of_its_secret_and_its_first_twelve_characters(keys: Keys) -> None:
    for mode in ("live", "test"):
        made = await keys.make(mode=mode)
        assert made.secret.startswith(f"sk_{mode}_")
        assert (made.key.prefix, made.key.digest) == (made.secret[:12], api_key_digest(made.secret))
        assert await keys.kept(made.key) == made.key
        assert (made.key.account_id, made.key.name) == (keys.account.id, "key")
        assert (made.key.created_at, made.key.updated_at) == (keys.world.now, keys.world.now)
        assert (made.key.revoked_at, made.key.last_used_at) == (None, None)


async def test_scopes_are_told_sorted_and_each_once(keys: Keys) -> None:
    made = await keys.make(scopes=("users:write", "courses:write", "users:write"))
    assert made.key.scopes == ("courses:write", "users:write")


async def test_an_unknown_scope_is_refused_by_name(keys: Keys) -> None:
    assert await reason(keys.make(scopes=("courses:write", "courses:read"))) == (Code.INVALID_PARAMETER, "scopes")


async def test_a_test_credential_makes_no_live_key_and_a_live_one_makes_both(keys: Keys) -> None:
    tester = keys.actor(mode="test")
    assert await reason(keys.make(tester, mode="live")) == (Code.FORBIDDEN, None)
    assert (await keys.make(tester, mode="test")).key.mode == "test"
    assert [(await keys.make(mode=mode)).key.mode for mode in ("live", "test")] == ["live", "test"]


async def test_an_expiry_lies_in_the_future(keys: Keys) -> None:
    for past in (keys.world.now - HOUR, keys.world.now):
        assert await reason(keys.make(expires_at=past)) == (Code.INVALID_PARAMETER, "expires_at")
    assert (await keys.make(expires_at=keys.world.now + 1)).key.expires_at == keys.world.now + 1


async def test_no_key_makes_another_that_outlives_it(keys: Keys) -> None:
    end = keys.world.now + HOUR
    mortal = keys.actor((await keys.make(expires_at=end)).key)
    assert await reason(keys.make(mortal, expires_at=end + 1)) == (Code.FORBIDDEN, None)
    assert [(await keys.make(mortal, expires_at=at)).key.expires_at for at in (end, None)] == [end, end]


async def test_an_account_lists_its_keys_of_both_modes_and_a_test_credential_the_test_ones(keys: Keys) -> None:
    live, test = (await keys.make()).key, (await keys.make(mode="test")).key
    assert {key.id for key in await keys.listed("live")} == {live.id, test.id}
    assert [key.id for key in await keys.listed("test")] == [test.id]


async def test_keys_of_others_and_live_keys_for_test_credentials_are_not_there(keys: Keys) -> None:
    others = Keys(keys.world, await keys.world.account("Others"))
    live, test = (await keys.make()).key, (await keys.make(mode="test")).key
    tester = keys.actor(mode="test")
    for stranger in (others.actor(), tester):
        for act in (keys.rotate, keys.revoke):
            assert await reason(act(live, stranger)) == (Code.API_KEY_NOT_FOUND, None)
    assert (await keys.rotate(test, tester)).key.mode == "test"
    assert (await keys.revoke(test, keys.actor())).revoked_at == keys.world.now


class TestRotation:
    @pytest.mark.parametrize(("rotation", "overlap_s"), [({}, 3_600), ({"overlap_seconds": 0}, 0)])
    async def test_the_successor_is_like_the_key_which_works_on_for_the_overlap(
        self, keys: Keys, rotation: dict[str, Any], overlap_s: int
    ) -> None:
        key = (await keys.make(name="mine", scopes=("users:read",), mode="test")).key
        keys.world.clock.advance(5)
        made = await keys.rotate(key, **rotation)
        new = made.key
        assert (new.name, new.scopes, new.mode, new.expires_at) == ("mine", ("users:read",), "test", None)
        assert new.id != key.id
        old = await keys.kept(key)
        assert old.expires_at == keys.world.now + overlap_s * SECOND
        assert (old.updated_at, old.revoked_at) == (keys.world.now, None)

    @pytest.mark.parametrize(("left_s", "overlap_s", "then_s"), [(60, 3_600, 60), (7_200, 3_600, 3_600)])
    async def test_a_key_that_expires_works_no_longer_for_it_and_its_successor_no_longer_than_it_would_have(
        self, keys: Keys, left_s: int, overlap_s: int, then_s: int
    ) -> None:
        key = (await keys.make(expires_at=keys.world.now + left_s * SECOND)).key
        made = await keys.rotate(key, overlap_seconds=overlap_s)
        assert made.key.expires_at == key.expires_at
        assert (await keys.kept(key)).expires_at == keys.world.now + then_s * SECOND

    async def test_what_is_expired_or_revoked_is_not_rotated(self, keys: Keys) -> None:
        expired, revoked = (await keys.make(expires_at=keys.world.now + HOUR)).key, (await keys.make()).key
        await keys.revoke(revoked)
        keys.world.clock.advance(3_599.999_999)
        await keys.rotate(expired)
        keys.world.clock.advance(0.000_001)
        for key in (expired, revoked):
            assert await reason(keys.rotate(key)) == (Code.API_KEY_NOT_FOUND, None)

    async def test_nobody_rotates_a_key_that_holds_more_than_they_do(self, keys: Keys) -> None:
        key = (await keys.make(scopes=("users:read", "users:write"))).key
        narrow = keys.actor((await keys.make(scopes=("users:read",))).key)
        assert await reason(keys.rotate(key, narrow)) == (Code.FORBIDDEN, None)


async def test_a_revoked_key_stays_revoked_from_the_first_time_on_and_ends_what_it_minted(keys: Keys) -> None:
    world = keys.world
    made = await keys.make()
    user = await world.user(keys.account, "ada@acme.test")
    minted = await mint(world, made.secret, user)
    assert await works(world, minted["access_token"])
    assert (await keys.revoke(made.key)).revoked_at == world.now
    first = await keys.kept(made.key)
    assert (first.revoked_at, first.updated_at) == (world.now, world.now)
    world.clock.advance(5)
    assert await keys.revoke(made.key) == first == await keys.kept(made.key)
    assert not await works(world, minted["access_token"])
