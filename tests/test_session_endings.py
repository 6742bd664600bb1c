"""What ends a session ends it everywhere, and soon."""

from __future__ import annotations

import asyncio

import pytest

from learnflow_core.ports import Work
from storage_backends.driver import UncertainError
from tests import scene
from tests.sessions import (
    PASSWORD,
    another_process,
    carries_on,
    claims,
    mint,
    refresh,
    revoke,
    sign_in,
    signed,
    signed_in,
    somebody,
    suspend,
    told,
    works,
)
from tests.world import World


class TestEnding:
    async def test_revoking_a_refresh_token_ends_the_session_and_no_other(self, world: World) -> None:
        await somebody(world, await world.account())
        one, other = await sign_in(world), await sign_in(world)
        later = (await refresh(world, one["refresh_token"])).json()["access_token"]
        reply = await revoke(world, one["refresh_token"])
        assert (reply.status_code, reply.json()) == (200, {})
        assert not await carries_on(world, one["refresh_token"])
        assert not await works(world, one["access_token"])
        assert not await works(world, later)
        assert await works(world, other["access_token"])

    async def test_revoking_an_access_token_ends_it_alone(self, world: World) -> None:
        tokens = await signed_in(world)
        await revoke(world, tokens["access_token"])
        await world.sweep()
        assert not await works(world, tokens["access_token"])
        assert await works(world, (await refresh(world, tokens["refresh_token"])).json()["access_token"])

    async def test_revoking_answers_the_same_whatever_the_token_was(self, world: World) -> None:
        tokens = await signed_in(world)
        key = await world.key(await world.account())
        expired = signed(world, claims(tokens["access_token"]) | {"iat": 1, "exp": 2})
        foreign = signed(world, claims(tokens["access_token"]), secret="f" * 32)
        for token in ("x", "a.b.c", "\ud7ff", key, expired, foreign, *[tokens["access_token"]] * 2):
            reply = await revoke(world, token)
            assert (reply.status_code, reply.json()) == (200, {})
        assert (await world.ask("GET", "/v1/account", key)).status_code == 200
        assert await carries_on(world, tokens["refresh_token"])

    async def test_a_new_password_ends_every_session(self, world: World) -> None:
        user = await somebody(world, await world.account())
        one, other = await sign_in(world), await sign_in(world)
        path = f"/v1/users/{user.id}"
        changed = await world.ask("PATCH", path, one["access_token"], {"password": "another long password"})
        assert changed.status_code == 200
        for tokens in (one, other):
            assert not await works(world, tokens["access_token"])
            assert not await carries_on(world, tokens["refresh_token"])
        body = {"email": "ada@acme.test", "password": PASSWORD}
        assert told(await world.ask("POST", "/v1/auth/token", json=body)) == (401, "invalid_credentials")
        body["password"] = "another long password"
        assert (await world.ask("POST", "/v1/auth/token", json=body)).status_code == 200

    async def test_a_deleted_user_is_out_and_a_namesake_does_not_inherit_the_session(self, world: World) -> None:
        account = await world.account()
        user = await somebody(world, account)
        tokens, key = await sign_in(world), await world.key(account)
        assert (await world.ask("DELETE", f"/v1/users/{user.id}", key)).status_code == 200
        await somebody(world, account)
        assert not await works(world, tokens["access_token"])
        assert not await carries_on(world, tokens["refresh_token"])

    async def test_a_suspended_account_is_refused_and_works_again_when_it_may(self, world: World) -> None:
        account = await world.account()
        await somebody(world, account)
        tokens = await sign_in(world)
        await suspend(world, account)
        world.clock.advance(1)
        assert told(await world.ask("GET", "/v1/users/me", tokens["access_token"])) == (403, "account_suspended")
        assert told(await refresh(world, tokens["refresh_token"])) == (403, "account_suspended")
        await suspend(world, account, suspended=False)
        world.clock.advance(1)
        assert await works(world, tokens["access_token"])

    async def test_a_token_follows_the_role_its_user_has_now(self, world: World) -> None:
        account = await world.account()
        user, key = await somebody(world, account, role="admin"), await world.key(account)
        token = (await sign_in(world))["access_token"]
        assert (await world.ask("GET", "/v1/account", token)).status_code == 200
        await world.ask("PATCH", f"/v1/users/{user.id}", key, {"role": "learner"})
        assert told(await world.ask("GET", "/v1/account", token)) == (403, "forbidden")

    @pytest.mark.parametrize(
        "ending", ["revoked session", "revoked token", "new password", "deletion", "revoked key", "suspension"]
    )
    async def test_every_ending_reaches_another_process_within_a_second(self, world: World, ending: str) -> None:
        account = await world.account()
        user, owner = await somebody(world, account), await world.key(account)
        minting = await world.key(account, ["tokens:write"])
        tokens = await mint(world, minting, user)
        path = f"/v1/users/{user.id}"
        async with another_process(world) as elsewhere:

            async def there(credential: str) -> int:
                headers = {"Authorization": f"Bearer {credential}"}
                return (await elsewhere.get("/v1/users/me", headers=headers)).status_code

            assert await there(tokens["access_token"]) == 200
            match ending:
                case "revoked session":
                    await revoke(world, tokens["refresh_token"])
                case "revoked token":
                    await revoke(world, tokens["access_token"])
                case "new password":
                    await world.ask("PATCH", path, owner, {"password": "another long password"})
                case "deletion":
                    await world.ask("DELETE", path, owner)
                case "revoked key":
                    assert await there(minting) == 404
                    key = await scene.key_of(world, minting)
                    await world.ask("DELETE", f"/v1/api-keys/{key.id}", owner)
                case _:
                    await suspend(world, account)
            world.clock.advance(1)
            assert await there(tokens["access_token"]) == (403 if ending == "suspension" else 401)
            if ending == "revoked key":
                assert await there(minting) == 401


class TestRaces:
    """What ends sessions also ends those that are just beginning."""

    async def test_a_key_that_is_revoked_mints_no_session_though_another_process_still_lets_it_in(
        self, world: World
    ) -> None:
        account = await world.account()
        user, owner = await somebody(world, account), await world.key(account)
        minting = await world.key(account, ["tokens:write"])
        key = await scene.key_of(world, minting)
        async with another_process(world) as elsewhere:
            headers = {"Authorization": f"Bearer {minting}"}
            await elsewhere.get("/v1/courses", headers=headers)
            assert (await world.ask("DELETE", f"/v1/api-keys/{key.id}", owner)).status_code == 200
            assert (await elsewhere.get("/v1/courses", headers=headers)).status_code == 200
            reply = await elsewhere.post("/v1/auth/token", headers=headers, json={"user_id": user.id})
            assert told(reply) == (401, "invalid_api_key")

    async def test_a_key_whose_revocation_was_done_and_not_answered_opens_nothing(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        account = await world.account()
        owner, leaked = await world.key(account), await world.key(account)
        key, storage = await scene.key_of(world, leaked), world.services.storage
        assert (await world.ask("GET", "/v1/account", leaked)).status_code == 200
        write = storage.write

        async def unanswered(work: Work[object]) -> object:
            await write(work)
            raise UncertainError

        with monkeypatch.context() as lost:
            lost.setattr(storage, "write", unanswered)
            reply = await world.ask("DELETE", f"/v1/api-keys/{key.id}", owner)
        assert told(reply) == (503, "service_unavailable")
        assert told(await world.ask("GET", "/v1/account", leaked)) == (401, "invalid_api_key")

    @pytest.mark.parametrize("change", ["a new password", "deletion"])
    async def test_a_password_that_is_changed_while_it_is_verified_begins_no_session(
        self, world: World, monkeypatch: pytest.MonkeyPatch, change: str
    ) -> None:
        account = await world.account()
        user, owner = await somebody(world, account), await world.key(account)
        verified, go_on = asyncio.Event(), asyncio.Event()
        verify = world.services.passwords.verify

        async def slowly(password: str, kept: str | None) -> bool:
            answer = await verify(password, kept)
            verified.set()
            await go_on.wait()
            return answer

        monkeypatch.setattr(world.services.passwords, "verify", slowly)
        body = {"email": "ada@acme.test", "password": PASSWORD}
        signing_in = asyncio.create_task(world.ask("POST", "/v1/auth/token", json=body))
        await verified.wait()
        path = f"/v1/users/{user.id}"
        if change == "deletion":
            assert (await world.ask("DELETE", path, owner)).status_code == 200
        else:
            assert (await world.ask("PATCH", path, owner, {"password": "another long password"})).status_code == 200
        go_on.set()
        assert told(await signing_in) == (401, "invalid_credentials")
