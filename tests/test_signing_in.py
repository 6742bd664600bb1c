"""Tokens over HTTP: what they say, how long they live, and that they never do more than they should."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests import scene
from tests.sessions import (
    DAY_S,
    PASSWORD,
    carries_on,
    claims,
    mint,
    refresh,
    sign_in,
    signed_in,
    somebody,
    suspend,
    told,
    works,
)
from tests.world import World


class TestWhatATokenIs:
    async def test_signing_in_answers_four_fields_and_nobody_may_store_them(self, world: World) -> None:
        await somebody(world, await world.account())
        reply = await world.ask("POST", "/v1/auth/token", json={"email": "ada@acme.test", "password": PASSWORD})
        assert reply.json().keys() == {"access_token", "refresh_token", "token_type", "expires_in"}
        assert (reply.json()["token_type"], reply.json()["expires_in"]) == ("Bearer", 3_600)
        assert reply.headers["Cache-Control"] == "no-store"

    async def test_the_header_of_every_token_is_exactly_the_two_fields(self, world: World) -> None:
        tokens = await signed_in(world)
        for token in (tokens["access_token"], tokens["refresh_token"]):
            header = token.split(".")[0]
            assert base64.urlsafe_b64decode(header + "==") == b'{"alg":"HS256","typ":"JWT"}'

    async def test_a_token_says_whose_it_is_for_whom_what_for_and_until_when(self, world: World) -> None:
        user = await somebody(world, await world.account())
        tokens = await sign_in(world)
        access, refreshing = claims(tokens["access_token"]), claims(tokens["refresh_token"])
        now = world.clock.now_ns // 1_000_000_000
        for payload in (access, refreshing):
            assert (payload["iss"], payload["aud"], payload["sub"]) == ("learnflow", "learnflow", user.id)
            assert payload["iat"] == now
        assert (access["token_use"], access["exp"]) == ("access", now + 3_600)
        assert (refreshing["token_use"], refreshing["exp"]) == ("refresh", now + 30 * DAY_S)
        assert access["jti"] != refreshing["jti"]

    async def test_an_access_token_works_for_one_hour_and_not_a_moment_longer(self, world: World) -> None:
        tokens = await signed_in(world)
        world.clock.advance(3_599.999)
        assert await works(world, tokens["access_token"])
        world.clock.advance(0.001)
        assert not await works(world, tokens["access_token"])

    async def test_a_refresh_token_works_for_thirty_days(self, world: World) -> None:
        tokens = await signed_in(world)
        world.clock.advance(30 * DAY_S - 1)
        assert await carries_on(world, tokens["refresh_token"])
        world.clock.advance(1)
        assert not await carries_on(world, tokens["refresh_token"])

    async def test_neither_kind_of_token_stands_in_for_the_other(self, world: World) -> None:
        tokens = await signed_in(world)
        assert not await works(world, tokens["refresh_token"])
        assert not await carries_on(world, tokens["access_token"])


class TestPasswords:
    async def test_whatever_was_wrong_about_the_pair_the_answer_is_the_same(self, world: World) -> None:
        account = await world.account()
        await somebody(world, account)
        await world.user(account, "nopassword@acme.test")
        answers = set()
        for email, password in (
            ("ada@acme.test", "wrong"),
            ("ada@acme.test", ""),
            ("ada@acme.test", PASSWORD.upper()),
            ("nobody@acme.test", PASSWORD),
            ("nopassword@acme.test", PASSWORD),
            ("", PASSWORD),
            ("no address", PASSWORD),
        ):
            reply = await world.ask("POST", "/v1/auth/token", json={"email": email, "password": password})
            assert told(reply) == (401, "invalid_credentials")
            assert reply.headers["WWW-Authenticate"].startswith("Bearer ")
            answers.add(json.dumps({**reply.json()["error"], "request_id": ""}))
        assert len(answers) == 1

    async def test_the_case_of_an_email_makes_no_difference(self, world: World) -> None:
        await signed_in(world)
        assert await sign_in(world, email="ADA@Acme.Test")

    async def test_an_email_of_two_accounts_is_refused_until_the_account_is_named(self, world: World) -> None:
        first, second = await world.account(), await world.account("Second")
        people = {account.id: await somebody(world, account) for account in (first, second)}
        body = {"email": "ada@acme.test", "password": PASSWORD}
        assert told(await world.ask("POST", "/v1/auth/token", json=body)) == (401, "invalid_credentials")
        for account_id, user in people.items():
            tokens = await sign_in(world, account=account_id)
            assert claims(tokens["access_token"])["sub"] == user.id
        wrong = await world.ask("POST", "/v1/auth/token", json=body | {"account": "acct_of_nobody"})
        assert told(wrong) == (401, "invalid_credentials")

    async def test_a_person_of_one_mode_does_not_sign_in_to_the_other(self, world: World) -> None:
        account = await world.account()
        live = await somebody(world, account)
        test = await somebody(world, account, mode="test")
        assert claims((await sign_in(world))["access_token"])["sub"] == live.id
        tokens = await sign_in(world, mode="test")
        assert claims(tokens["access_token"])["sub"] == test.id
        me = await world.ask("GET", "/v1/users/me", tokens["access_token"])
        assert me.json()["mode"] == "test"
        assert (await world.ask("GET", f"/v1/users/{live.id}", tokens["access_token"])).status_code == 404

    @pytest.mark.parametrize(
        ("body", "param", "code"),
        [
            ({}, "email", "missing_parameter"),
            ({"email": "ada@acme.test"}, "password", "missing_parameter"),
            ({"password": PASSWORD}, "email", "missing_parameter"),
            ({"email": 1, "password": PASSWORD}, "email", "invalid_parameter"),
            ({"email": "ada@acme.test", "password": ["x"]}, "password", "invalid_parameter"),
            ({"email": "a\0da@acme.test", "password": PASSWORD}, "email", "invalid_parameter"),
            ({"email": "x" * 255, "password": PASSWORD}, "email", "invalid_parameter"),
            ({"email": "ada@acme.test", "password": "x" * 1_025}, "password", "invalid_parameter"),
            ({"email": "ada@acme.test", "password": PASSWORD, "mode": "both"}, "mode", "invalid_parameter"),
            ({"email": "ada@acme.test", "password": PASSWORD, "otp": "1"}, "otp", "unknown_parameter"),
        ],
        ids=str,
    )
    async def test_a_shape_error_names_the_parameter(
        self, world: World, body: dict[str, Any], param: str, code: str
    ) -> None:
        reply = await world.ask("POST", "/v1/auth/token", json=body)
        assert told(reply) == (400, code)
        assert reply.json()["error"]["param"] == param

    async def test_only_the_right_password_learns_that_the_account_is_suspended(self, world: World) -> None:
        account = await world.account()
        await somebody(world, account)
        await suspend(world, account)
        body = {"email": "ada@acme.test", "password": PASSWORD}
        assert told(await world.ask("POST", "/v1/auth/token", json=body)) == (403, "account_suspended")
        wrong = await world.ask("POST", "/v1/auth/token", json=body | {"password": "wrong"})
        assert told(wrong) == (401, "invalid_credentials")


class TestRefreshing:
    async def test_the_reply_has_the_three_published_fields_and_the_refresh_token_stays_good(
        self, world: World
    ) -> None:
        tokens = await signed_in(world)
        for _ in range(3):
            reply = await refresh(world, tokens["refresh_token"])
            assert reply.json().keys() == {"access_token", "token_type", "expires_in"}
            assert (reply.json()["token_type"], reply.json()["expires_in"]) == ("Bearer", 3_600)
            assert reply.headers["Cache-Control"] == "no-store"
            assert await works(world, reply.json()["access_token"])
            world.clock.advance(9 * DAY_S)

    async def test_no_other_credential_is_needed_and_an_expired_one_does_not_matter(self, world: World) -> None:
        tokens = await signed_in(world)
        world.clock.advance(3_600)
        reply = await world.ask(
            "POST", "/v1/auth/refresh", tokens["access_token"], {"refresh_token": tokens["refresh_token"]}
        )
        assert reply.status_code == 200

    @pytest.mark.parametrize("token", ["x", "a.b.c", "sk_live_x", "\ud7ff", "x" * 4_096])
    async def test_what_is_no_refresh_token_is_an_invalid_token(self, world: World, token: str) -> None:
        reply = await refresh(world, token)
        assert told(reply) == (401, "invalid_token")
        assert 'error="invalid_token"' in reply.headers["WWW-Authenticate"]


class TestMintedTokens:
    async def test_they_do_what_the_key_may_within_the_users_role_and_no_more(self, world: World) -> None:
        account = await world.account()
        admin = await somebody(world, account, role="admin")
        key = await world.key(account, ["tokens:write", "users:read"])
        token = (await mint(world, key, admin))["access_token"]
        assert (await world.ask("GET", "/v1/users", token)).status_code == 200
        for method, path, body in (
            ("POST", "/v1/users", {"email": "new@acme.test", "name": "New"}),
            ("PATCH", f"/v1/users/{admin.id}", {"password": "another long password"}),
            ("GET", "/v1/enrollments", None),
            ("GET", "/v1/api-keys", None),
            ("POST", "/v1/api-keys", {"name": "mine"}),
            ("GET", "/v1/account", None),
        ):
            assert told(await world.ask(method, path, token, body)) == (403, "insufficient_scope"), path

    async def test_refreshing_keeps_them_within_the_key(self, world: World) -> None:
        account = await world.account()
        admin = await somebody(world, account, role="admin")
        key = await world.key(account, ["tokens:write"])
        tokens = await mint(world, key, admin)
        again = (await refresh(world, tokens["refresh_token"])).json()["access_token"]
        assert told(await world.ask("GET", "/v1/users", again)) == (403, "insufficient_scope")

    async def test_revoking_the_key_ends_every_token_it_minted(self, world: World) -> None:
        account = await world.account()
        user, owner = await somebody(world, account), await world.key(account)
        key = await world.key(account, ["tokens:write"])
        minted, own = await mint(world, key, user), await sign_in(world)
        found = await scene.key_of(world, key)
        await world.ask("DELETE", f"/v1/api-keys/{found.id}", owner)
        assert not await works(world, minted["access_token"])
        assert not await carries_on(world, minted["refresh_token"])
        assert await works(world, own["access_token"])

    async def test_a_key_mints_for_the_people_of_its_account_and_mode_alone(self, world: World) -> None:
        account = await world.account()
        key = await world.key(account)
        stranger = await somebody(world, await world.account("Other"))
        pretender = await world.user(account, "test@acme.test", mode="test")
        for user_id in (stranger.id, pretender.id, "usr_of_nobody"):
            reply = await world.ask("POST", "/v1/auth/token", key, {"user_id": user_id})
            assert told(reply) == (404, "user_not_found")

    async def test_minting_needs_a_key_and_a_user(self, world: World) -> None:
        account = await world.account()
        user = await somebody(world, account)
        assert told(await world.ask("POST", "/v1/auth/token", json={"user_id": user.id})) == (401, "missing_token")
        for body in ({}, {"email": "ada@acme.test", "password": PASSWORD}):
            reply = await world.ask("POST", "/v1/auth/token", await world.key(account), body)
            assert told(reply) == (400, "missing_parameter")
            assert reply.json()["error"]["param"] == "user_id"

    @pytest.mark.parametrize("password", [None, "wrong", PASSWORD])
    async def test_an_access_token_is_no_credential_to_begin_another_session_with(
        self, world: World, password: str | None
    ) -> None:
        account = await world.account()
        user = await somebody(world, account)
        key = await world.key(account, ["tokens:write"])
        minted = (await mint(world, key, user))["access_token"]
        body = {"email": "ada@acme.test"} if password is None else {"email": "ada@acme.test", "password": password}
        for token in (minted, (await sign_in(world))["access_token"]):
            reply = await world.ask("POST", "/v1/auth/token", token, body)
            assert reply.status_code == 403, reply.text
