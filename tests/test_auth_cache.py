"""What a process remembers of credentials: never too much, and never for too long."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_core.access import Actor
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.ids import api_key_digest, new_api_key
from learnflow_core.model import Instant
from learnflow_core.ports import Storage, Transaction
from learnflow_core.usecases import accounts, api_keys, users
from learnflow_http.auth import FRESH_FOR, REMEMBERED, Authenticator, _Remembered
from tests.world import World

T = TypeVar("T")


class CountingStorage:
    """A storage that counts its reads, and can hold back what the next one found."""

    def __init__(self, storage: Storage) -> None:
        self.reads = 0
        self.found = asyncio.Event()
        self.held: asyncio.Event | None = None
        self._storage = storage

    async def read(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        self.reads += 1
        value = await self._storage.read(work)
        self.found.set()
        if self.held is not None:
            await self.held.wait()
        return value


class Process:
    """The authenticator of one process, of several over the world's storage."""

    def __init__(self, world: World) -> None:
        self.storage = CountingStorage(world.services.storage)
        self.authenticator = Authenticator(cast(Storage, self.storage), world.services.signer)

    async def refusal(self, credential: str, now: Instant) -> Code | None:
        try:
            await self.authenticator.actor(credential, now)
        except LearnFlowError as error:
            return error.code
        return None


class Credentials:
    """A company with a key of its own, another key, and a user with a token; and how each of them ends."""

    def __init__(self, world: World, owner: Actor, key_id: str, user_id: str, family_id: str) -> None:
        self.world = world
        self.owner = owner
        self.key_id = key_id
        self.user_id = user_id
        self.family_id = family_id

    async def write(self, work: Callable[[Transaction], Awaitable[Any]]) -> None:
        await self.world.services.storage.write(work)

    async def key_revoked(self) -> None:
        await self.write(lambda tx: api_keys.revoke_key(tx, self.owner, self.key_id, self.world.ctx))

    async def account_suspended(self) -> None:
        account_id = self.owner.account_id
        await self.write(lambda tx: accounts.set_suspended(tx, account_id, suspended=True, ctx=self.world.ctx))

    async def user_deleted(self) -> None:
        await self.write(lambda tx: users.delete_user(tx, self.owner, self.user_id, 0, self.world.ctx))

    async def password_changed(self) -> None:
        changes = users.UserChanges(password="a new password")
        await self.write(
            lambda tx: users.change_user(tx, self.owner, self.user_id, changes, "a new hash", self.world.ctx)
        )

    async def session_revoked(self) -> None:
        await self.write(lambda tx: tx.tokens.revoke_family(self.family_id, self.world.now))


ENDS_OF_KEYS = {"key_revoked": Code.INVALID_API_KEY, "account_suspended": Code.ACCOUNT_SUSPENDED}
ENDS_OF_TOKENS = {
    "user_deleted": Code.INVALID_TOKEN,
    "password_changed": Code.INVALID_TOKEN,
    "session_revoked": Code.INVALID_TOKEN,
    "account_suspended": Code.ACCOUNT_SUSPENDED,
}
ENDS = [("key", end, code) for end, code in ENDS_OF_KEYS.items()] + [
    ("token", end, code) for end, code in ENDS_OF_TOKENS.items()
]


@pytest.fixture
async def given_out(world: World) -> tuple[Credentials, dict[str, str]]:
    account = await world.account()
    secret = await world.key(account)
    user = await world.user(account, "ann@example.com")
    token = await world.token(user)
    claims = world.services.signer.read(token, "access", world.now)
    found = await world.services.storage.read(lambda tx: tx.api_keys.by_digest(api_key_digest(secret)))
    assert found is not None
    made = Credentials(world, world.owner(account), found[0].id, user.id, claims.family_id)
    return made, {"key": secret, "token": token}


@pytest.mark.parametrize(("kind", "end", "code"), ENDS)
async def test_another_process_sees_the_end_of_a_credential_half_a_second_later(
    world: World, given_out: tuple[Credentials, dict[str, str]], kind: str, end: str, code: Code
) -> None:
    credentials, texts = given_out
    elsewhere = Process(world)
    assert await elsewhere.refusal(texts[kind], world.now) is None
    await getattr(credentials, end)()
    assert await elsewhere.refusal(texts[kind], world.now + FRESH_FOR) is code


async def test_what_a_key_is_remembered_by_is_no_credential(
    world: World, given_out: tuple[Credentials, dict[str, str]]
) -> None:
    """Who reads a backup has the digests, and nothing that lets anybody in."""
    key = given_out[1]["key"]
    here = Process(world)
    assert await here.refusal(key, world.now) is None
    assert here.authenticator.known(key, world.now) is not None
    for remembered in here.authenticator._actors._entries:
        for guess in (remembered, remembered.removeprefix("sk_"), api_key_digest(key)):
            assert here.authenticator.known(guess, world.now) is None
            assert await here.refusal(guess, world.now) in {Code.INVALID_TOKEN, Code.INVALID_API_KEY}


@pytest.mark.parametrize(("kind", "end", "code"), ENDS)
async def test_the_process_that_ended_a_credential_knows_it_at_once(
    world: World, given_out: tuple[Credentials, dict[str, str]], kind: str, end: str, code: Code
) -> None:
    credentials, texts = given_out
    here = Process(world)
    assert await here.refusal(texts[kind], world.now) is None
    await getattr(credentials, end)()
    here.authenticator.forget()
    assert await here.refusal(texts[kind], world.now) is code


@pytest.mark.parametrize(("kind", "end", "code"), ENDS)
async def test_a_look_up_that_a_revocation_overtakes_is_not_remembered(
    world: World, given_out: tuple[Credentials, dict[str, str]], kind: str, end: str, code: Code
) -> None:
    credentials, texts = given_out
    here = Process(world)
    here.storage.held = asyncio.Event()
    overtaken = asyncio.create_task(here.refusal(texts[kind], world.now))
    await here.storage.found.wait()
    await getattr(credentials, end)()
    here.authenticator.forget()
    here.storage.held.set()
    assert await overtaken is None
    assert await here.refusal(texts[kind], world.now) is code


@pytest.mark.parametrize("kind", ["key", "token"])
async def test_within_half_a_second_a_credential_is_looked_up_once(
    world: World, given_out: tuple[Credentials, dict[str, str]], kind: str
) -> None:
    _, texts = given_out
    process = Process(world)
    for now in (world.now, world.now + 1, world.now + FRESH_FOR - 1):
        assert await process.refusal(texts[kind], now) is None
    assert process.storage.reads == 1
    await process.refusal(texts[kind], world.now + FRESH_FOR)
    assert process.storage.reads == 2


@pytest.mark.parametrize("kind", ["key", "token"])
async def test_what_was_looked_up_in_the_future_is_not_believed_by_a_clock_that_stepped_back(
    world: World, given_out: tuple[Credentials, dict[str, str]], kind: str
) -> None:
    _, texts = given_out
    process = Process(world)
    await process.refusal(texts[kind], world.now)
    await process.refusal(texts[kind], world.now - 1)
    assert process.storage.reads == 2


async def test_a_key_is_good_until_the_microsecond_it_expires_though_it_was_just_looked_up(world: World) -> None:
    expires_at = world.now + 10
    secret = await world.key(await world.account(), expires_at=expires_at)
    process = Process(world)
    assert await process.refusal(secret, expires_at - 1) is None
    assert await process.refusal(secret, expires_at) is Code.INVALID_API_KEY
    assert process.storage.reads == 1


async def test_a_text_that_cannot_be_a_key_or_a_token_costs_no_look_up(world: World) -> None:
    process = Process(world)
    secret = new_api_key("live", os.urandom)
    typo = secret[:-1] + ("0" if secret[-1] != "0" else "1")
    for text in ("sk_", "sk_live_", typo, secret.upper(), "", "x", "a.b.c", "\xff" * 30_000):
        assert await process.refusal(text, world.now) in {Code.INVALID_API_KEY, Code.INVALID_TOKEN}
    assert process.storage.reads == 0


async def test_a_key_that_nobody_has_is_looked_up_once_in_half_a_second(world: World) -> None:
    process = Process(world)
    secret = new_api_key("live", os.urandom)
    for _ in range(3):
        assert await process.refusal(secret, world.now) is Code.INVALID_API_KEY
    assert process.storage.reads == 1


async def test_of_keys_that_nobody_has_no_more_are_remembered_than_fit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("learnflow_http.auth.REMEMBERED", 20)
    process = Process(world)
    for _ in range(100):
        await process.refusal(new_api_key("live", os.urandom), world.now)
    assert len(process.authenticator._keys._entries) == 20


def test_ten_thousand_are_remembered_and_not_one_more() -> None:
    table: _Remembered[int] = _Remembered()
    for number in range(REMEMBERED + 5_000):
        table.put(f"key {number}", number)
    assert len(table._entries) == REMEMBERED == 10_000
    assert table.get("key 4999") is None
    assert table.get("key 5000") == 5_000


@given(st.lists(st.integers(0, 12), max_size=60), st.integers(1, 10))
def test_the_entry_remembered_longest_makes_room(keys: list[int], room: int) -> None:
    table: _Remembered[int] = _Remembered()
    model: OrderedDict[str, int] = OrderedDict()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("learnflow_http.auth.REMEMBERED", room)
        for number, key in enumerate(map(str, keys)):
            table.put(key, number)
            model[key] = number
            model.move_to_end(key)
            if len(model) > room:
                model.popitem(last=False)
            assert {str(known): table.get(str(known)) for known in range(13)} == {
                str(known): model.get(str(known)) for known in range(13)
            }


async def test_verified_tokens_are_remembered_by_their_whole_text_and_never_past_their_end(
    world: World, given_out: tuple[Credentials, dict[str, str]]
) -> None:
    _, texts = given_out
    signer, token = world.services.signer, texts["token"]
    claims = signer.read(token, "access", world.now)
    assert signer.read(token, "access", claims.expires_at - 1) is claims
    for text, now in ((token, claims.expires_at), (token[:-2], world.now)):
        with pytest.raises(LearnFlowError) as caught:
            signer.read(text, "access", now)
        assert caught.value.code is Code.INVALID_TOKEN


async def test_when_a_key_was_last_used_is_handed_over_once(
    world: World, given_out: tuple[Credentials, dict[str, str]]
) -> None:
    credentials, texts = given_out
    process = Process(world)
    await process.refusal(texts["key"], world.now)
    await process.refusal(texts["key"], world.now + 7)
    await process.refusal(texts["token"], world.now + 8)
    assert process.authenticator.take_used() == [(credentials.key_id, world.now + 7)]
    assert process.authenticator.take_used() == []
