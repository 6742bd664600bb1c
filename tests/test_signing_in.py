"""Tokens over HTTP: what they say, how long they live, what ends them, and that they never do more than they should."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx
import pytest

from learnflow_core.model import Account, Mode, Role, User
from learnflow_core.usecases import accounts
from learnflow_http.app import create_app
from learnflow_http.auth import Authenticator, TokenSigner
from tests import scene
from tests.world import World, open_world

PASSWORD = "correct horse battery"
DAY_S = 86_400
OLD, NEW = "o" * 32, "n" * 32


async def somebody(
    world: World, account: Account, email: str = "ada@acme.test", role: Role = "learner", mode: Mode = "live"
) -> User:
    return await world.user(account, email, role=role, mode=mode, password=PASSWORD)


async def sign_in(world: World, email: str = "ada@acme.test", **more: str) -> dict[str, Any]:
    body = {"email": email, "password": PASSWORD, **more}
    reply = await world.ask("POST", "/v1/auth/token", json=body)
    assert reply.status_code == 200, reply.text
    tokens: dict[str, Any] = reply.json()
    return tokens


async def signed_in(world: World) -> dict[str, Any]:
    """The tokens of a learner who has just signed in."""
    await somebody(world, await world.account())
    return await sign_in(world)


async def mint(world: World, key: str, user: User) -> dict[str, Any]:
    reply = await world.ask("POST", "/v1/auth/token", key, {"user_id": user.id})
    assert reply.status_code == 200, reply.text
    tokens: dict[str, Any] = reply.json()
    return tokens


async def refresh(world: World, token: str) -> httpx.Response:
    return await world.ask("POST", "/v1/auth/refresh", json={"refresh_token": token})


async def revoke(world: World, token: str) -> httpx.Response:
    return await world.ask("POST", "/v1/auth/revoke", json={"token": token})


async def works(world: World, token: str) -> bool:
    """Whether an access token is let in; if not, because it is invalid."""
    reply = await world.ask("GET", "/v1/users/me", token)
    assert reply.status_code == 200 or told(reply) == (401, "invalid_token"), reply.text
    return reply.status_code == 200


async def carries_on(world: World, refresh_token: str) -> bool:
    """Whether a refresh token is taken; if not, because it is invalid."""
    reply = await refresh(world, refresh_token)
    assert reply.status_code == 200 or told(reply) == (401, "invalid_token"), reply.text
    return reply.status_code == 200


def told(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


def claims(token: str) -> dict[str, Any]:
    """What a token says, unverified."""
    payload: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    return payload


def with_one_changed(text: str, at: int) -> str:
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]


HEADER = {"alg": "HS256", "typ": "JWT"}


def signed(
    world: World, payload: dict[str, Any] | bytes, header: dict[str, Any] = HEADER, secret: str | None = None
) -> str:
    """A token of this header and payload, truly signed: with the world's own secret, unless another is given."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    text = b".".join(map(segment, (json.dumps(header).encode(), body)))
    key = world.services.signer._secrets[0] if secret is None else secret.encode()
    digest = {"HS384": hashlib.sha384, "HS512": hashlib.sha512}.get(str(header.get("alg")), hashlib.sha256)
    return (text + b"." + segment(hmac.digest(key, text, digest))).decode()


def segment(part: bytes) -> bytes:
    return base64.urlsafe_b64encode(part).rstrip(b"=")


@asynccontextmanager
async def another_process(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """A server beside the world's own, on the same database, with a memory of its own."""
    services = world.services
    beside = services._replace(authenticator=Authenticator(services.storage, services.signer))
    transport = httpx.ASGITransport(app=create_app(beside), client=("192.0.2.2", 50_000))
    async with httpx.AsyncClient(transport=transport, base_url="http://learnflow.test") as client:
        yield client


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


class TestForgedTokens:
    @pytest.mark.parametrize(
        "header",
        [
            {"kid": "1"},
            {"typ": "jwt"},
            {"typ": None},
            {"crit": ["exp"]},
            {"crit": "exp"},
            {"b64": False},
            {"zip": "DEF"},
            {"alg": "none"},
            {"alg": "None"},
            {"alg": "hs256"},
            {"alg": "HS384"},
            {"alg": "HS512"},
            {"alg": "RS256"},
            {"alg": None},
            {"alg": ["HS256"]},
        ],
        ids=json.dumps,
    )
    async def test_only_the_one_header_is_accepted(self, world: World, header: dict[str, Any]) -> None:
        payload = claims((await signed_in(world))["access_token"])
        assert await works(world, signed(world, payload))
        assert not await works(world, signed(world, payload, HEADER | header))

    @pytest.mark.parametrize("missing", ["alg", "typ"])
    async def test_both_fields_of_the_header_are_needed(self, world: World, missing: str) -> None:
        payload = claims((await signed_in(world))["access_token"])
        assert not await works(world, signed(world, payload, {k: v for k, v in HEADER.items() if k != missing}))

    async def test_an_unsigned_token_is_refused(self, world: World) -> None:
        payload = segment(json.dumps(claims((await signed_in(world))["access_token"])).encode())
        header = segment(b'{"alg":"none","typ":"JWT"}')
        for signature in (b"", segment(b"x"), segment(b"\0" * 32)):
            assert not await works(world, b".".join((header, payload, signature)).decode())

    async def test_a_token_cannot_be_altered_or_cut_anywhere(self, world: World) -> None:
        token = (await signed_in(world))["access_token"]
        parts = token.split(".")
        altered = [
            ".".join(with_one_changed(part, at) if n == place else part for n, part in enumerate(parts))
            for place in range(3)
            for at in (0, len(parts[place]) // 2, len(parts[place]) - 2)
        ]
        for forged in [*altered, ".".join(parts[:2]), f"{parts[0]}.{parts[1]}.", f"{token}.", f".{token}", token[:-2]]:
            # One address may get 30 wrong in a minute.
            world.clock.advance(3)
            assert not await works(world, forged), forged

    @pytest.mark.parametrize(
        "change",
        [
            {"iss": "somebody else"},
            {"aud": "somebody else"},
            {"aud": ["learnflow"]},
            {"token_use": "refresh"},
            {"token_use": "id"},
            {"exp": 10**400},
            {"exp": 2**63},
            {"exp": 1.5e9},
            {"exp": "1705314600"},
            {"exp": None},
            {"exp": -1},
            {"iat": 0},
            {"iat": None},
            {"iat": "now"},
            {"sub": 1},
            {"jti": None},
            {"jti": ["x"]},
            {"fam": None},
            {"fam": "fam_of_nobody"},
        ],
        ids=json.dumps,
    )
    async def test_a_well_signed_token_that_is_not_one_of_ours_is_refused(
        self, world: World, change: dict[str, Any]
    ) -> None:
        payload = claims((await signed_in(world))["access_token"]) | change
        assert not await works(world, signed(world, payload))
        missing = {name: value for name, value in payload.items() if name not in change}
        assert not await works(world, signed(world, missing))

    async def test_a_well_signed_token_lives_no_longer_than_ours_do_whenever_it_says_it_was_made(
        self, world: World
    ) -> None:
        payload = claims((await signed_in(world))["access_token"])
        longer = payload | {"exp": payload["exp"] + 1}
        later = payload | {"iat": 10**400, "exp": 10**400 + 3_600}
        tomorrow = payload | {"iat": payload["iat"] + DAY_S, "exp": payload["exp"] + DAY_S}
        for forged in (longer, later, tomorrow):
            assert not await works(world, signed(world, forged))
            assert (await revoke(world, signed(world, forged))).status_code == 200

    @pytest.mark.parametrize("payload", [b"[]", b"1", b"null", b"", b"\xff", b"[" * 5_000, b'{"iss":"\\ud800"}'])
    async def test_a_payload_that_is_no_object_or_no_text_is_refused(self, world: World, payload: bytes) -> None:
        assert not await works(world, signed(world, payload))

    @pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer a b", "Bearer é", "x" * 9_000])
    async def test_an_authorization_header_that_is_no_bearer_credential_is_an_invalid_token(
        self, world: World, value: str
    ) -> None:
        reply = await world.client.get("/v1/courses", headers=[(b"Authorization", value.encode())])
        assert told(reply) == (401, "invalid_token")

    async def test_the_scheme_is_read_in_any_case(self, world: World) -> None:
        token = (await signed_in(world))["access_token"]
        for scheme in ("bearer", "BEARER", "Bearer "):
            reply = await world.client.get("/v1/users/me", headers={"Authorization": f"{scheme} {token}"})
            assert reply.status_code == 200


class TestSecrets:
    async def test_while_the_secret_changes_tokens_of_the_old_one_are_taken_and_none_is_made_with_it(self) -> None:
        async with open_world(jwt_secret=NEW, jwt_secret_old=OLD) as world:
            tokens = await signed_in(world)
            payload = claims(tokens["access_token"])
            assert await works(world, signed(world, payload, secret=OLD))
            assert not await works(world, signed(world, payload, secret="t" * 32))
            text, _, signature = tokens["access_token"].rpartition(".")
            assert segment(hmac.digest(NEW.encode(), text.encode(), hashlib.sha256)).decode() == signature

    async def test_after_the_change_tokens_of_the_old_secret_are_refused(self) -> None:
        async with open_world(jwt_secret=NEW) as world:
            tokens = await signed_in(world)
            assert not await works(world, signed(world, claims(tokens["access_token"]), secret=OLD))

    async def test_issuer_and_audience_are_the_configured_ones(self) -> None:
        async with open_world(jwt_issuer="https://learn.test", jwt_audience="learners") as world:
            token = (await signed_in(world))["access_token"]
            assert (claims(token)["iss"], claims(token)["aud"]) == ("https://learn.test", "learners")
            assert await works(world, token)
            assert not await works(world, signed(world, claims(token) | {"iss": "learnflow"}))


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


@pytest.fixture(params=["compatible", "strict"])
async def rotating(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with open_world(refresh_rotation=request.param) as world:
        yield world


@pytest.fixture
async def compatible() -> AsyncIterator[World]:
    async with open_world(refresh_rotation="compatible") as world:
        yield world


@pytest.fixture
async def strict() -> AsyncIterator[World]:
    async with open_world(refresh_rotation="strict") as world:
        yield world


async def next_token(world: World, token: str) -> str:
    reply = await refresh(world, token)
    assert reply.status_code == 200, reply.text
    successor: str = reply.json()["refresh_token"]
    return successor


class TestRotation:
    async def test_the_reply_also_carries_a_refresh_token(self, rotating: World) -> None:
        tokens = await signed_in(rotating)
        reply = await refresh(rotating, tokens["refresh_token"])
        assert reply.json().keys() == {"access_token", "token_type", "expires_in", "refresh_token"}
        assert reply.json()["refresh_token"] != tokens["refresh_token"]

    async def test_parallel_and_retried_refreshes_get_the_same_successor(self, rotating: World) -> None:
        tokens = await signed_in(rotating)
        replies = [await refresh(rotating, tokens["refresh_token"]) for _ in range(2)]
        async with another_process(rotating) as client:
            body = {"refresh_token": tokens["refresh_token"]}
            replies.append(await client.post("/v1/auth/refresh", json=body))
        rotating.clock.advance(30)
        replies.append(await refresh(rotating, tokens["refresh_token"]))
        assert len({reply.json()["refresh_token"] for reply in replies}) == 1

    async def test_a_chain_can_go_on_beyond_thirty_days(self, rotating: World) -> None:
        token = (await signed_in(rotating))["refresh_token"]
        for _ in range(4):
            rotating.clock.advance(29 * DAY_S)
            token = await next_token(rotating, token)
            await rotating.sweep()
        assert await carries_on(rotating, token)

    async def test_revoking_any_token_of_the_chain_ends_all_of_it(self, rotating: World) -> None:
        tokens = await signed_in(rotating)
        second = await next_token(rotating, tokens["refresh_token"])
        third = await next_token(rotating, second)
        await revoke(rotating, second)
        assert not await carries_on(rotating, third)
        assert not await works(rotating, tokens["access_token"])

    async def test_compatible_a_client_that_knows_nothing_of_rotation_keeps_working(self, compatible: World) -> None:
        tokens = await signed_in(compatible)
        for _ in range(29):
            compatible.clock.advance(DAY_S)
            assert await carries_on(compatible, tokens["refresh_token"])

    async def test_compatible_the_first_use_of_the_successor_retires_its_parent(self, compatible: World) -> None:
        first = (await signed_in(compatible))["refresh_token"]
        second = await next_token(compatible, first)
        assert await next_token(compatible, first) == second
        third = await next_token(compatible, second)
        assert await next_token(compatible, second) == third

    async def test_compatible_the_use_of_a_retired_token_ends_the_family(self, compatible: World) -> None:
        tokens = await signed_in(compatible)
        second = await next_token(compatible, tokens["refresh_token"])
        third = await next_token(compatible, second)
        assert not await carries_on(compatible, tokens["refresh_token"])
        assert not await carries_on(compatible, third)
        assert not await carries_on(compatible, second)
        assert not await works(compatible, tokens["access_token"])

    async def test_theft_ends_its_family_and_no_other(self, compatible: World) -> None:
        await somebody(compatible, await compatible.account())
        stolen, other = await sign_in(compatible), await sign_in(compatible)
        await next_token(compatible, await next_token(compatible, stolen["refresh_token"]))
        assert not await carries_on(compatible, stolen["refresh_token"])
        assert await works(compatible, other["access_token"])
        assert await carries_on(compatible, other["refresh_token"])

    async def test_strict_a_parent_answers_with_the_same_successor_for_thirty_seconds(self, strict: World) -> None:
        first = (await signed_in(strict))["refresh_token"]
        second = await next_token(strict, first)
        strict.clock.advance(30)
        assert await next_token(strict, first) == second

    async def test_strict_after_thirty_seconds_its_use_ends_the_family(self, strict: World) -> None:
        tokens = await signed_in(strict)
        second = await next_token(strict, tokens["refresh_token"])
        strict.clock.advance(30.001)
        assert not await carries_on(strict, tokens["refresh_token"])
        assert not await carries_on(strict, second)
        assert not await works(strict, tokens["access_token"])


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


async def suspend(world: World, account: Account, *, suspended: bool = True) -> None:
    ctx = world.ctx
    await world.services.storage.write(lambda tx: accounts.set_suspended(tx, account.id, suspended=suspended, ctx=ctx))


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


class TestNobodyGrantsMoreThanTheyHave:
    """Each test is an attempt to climb."""

    async def refused(self, world: World, credential: str, *attempts: tuple[str, str, Any]) -> None:
        before = await scene.books(world)
        for method, path, body in attempts:
            reply = await world.ask(method, path, credential, body)
            assert reply.status_code in (400, 403, 404), f"{method} {path}: {reply.status_code} {reply.text}"
        assert await scene.books(world) == before

    async def test_a_key_that_minds_users_makes_no_one_mightier_than_itself(self, world: World) -> None:
        account = await world.account()
        people: dict[Role, User] = {
            "admin": await somebody(world, account, "admin@acme.test", "admin"),
            "instructor": await somebody(world, account, "teacher@acme.test", "instructor"),
            "learner": await somebody(world, account),
        }
        key = await world.key(account, ["users:write", "users:read", "tokens:write"])
        attempts: list[tuple[str, str, Any]] = [
            ("POST", "/v1/users", {"email": "x@acme.test", "name": "X", "role": role})
            for role in ("admin", "instructor")
        ]
        attempts += [("PATCH", f"/v1/users/{people['learner'].id}", {"role": role}) for role in ("admin", "instructor")]
        for role in ("admin", "instructor"):
            path = f"/v1/users/{people[role].id}"
            attempts += [
                ("PATCH", path, {"password": "taken over now"}),
                ("PATCH", path, {"email": "mine@acme.test"}),
                ("PATCH", path, {"role": "learner"}),
                ("DELETE", path, None),
            ]
        attempts += [
            ("POST", "/v1/api-keys", {"name": "mine"}),
            ("POST", "/v1/api-keys", {"name": "x", "scopes": ["*"]}),
        ]
        await self.refused(world, key, *attempts)

    async def test_a_minted_admin_is_no_admin_beyond_the_key(self, world: World) -> None:
        account = await world.account()
        admin = await somebody(world, account, "admin@acme.test", "admin")
        other = await somebody(world, account, "other@acme.test", "admin")
        key = await world.key(account, ["users:write", "tokens:write"])
        token = (await mint(world, key, admin))["access_token"]
        await self.refused(
            world,
            token,
            ("POST", "/v1/users", {"email": "x@acme.test", "name": "X", "role": "admin"}),
            ("PATCH", f"/v1/users/{admin.id}", {"password": "a way to sign in"}),
            ("PATCH", f"/v1/users/{admin.id}", {"email": "elsewhere@acme.test"}),
            ("PATCH", f"/v1/users/{other.id}", {"password": "a way to sign in"}),
            ("DELETE", f"/v1/users/{other.id}", None),
            ("POST", "/v1/api-keys", {"name": "mine"}),
            ("POST", "/v1/auth/token", {"user_id": other.id}),
            ("POST", "/v1/auth/token", {"email": "admin@acme.test"}),
        )

    async def test_a_person_makes_nothing_of_themselves_but_name_and_password(self, world: World) -> None:
        account = await world.account()
        roles: tuple[Role, ...] = ("learner", "instructor")
        for role in roles:
            user = await somebody(world, account, f"{role}@acme.test", role)
            token = await world.token(user)
            path = f"/v1/users/{user.id}"
            await self.refused(
                world,
                token,
                *[("PATCH", path, {"role": wanted}) for wanted in ("learner", "instructor", "admin")],
                ("PATCH", path, {"email": "other@acme.test"}),
                ("PATCH", path, {"external_id": "1"}),
                ("PATCH", path, {"name": "Me", "role": "admin"}),
                ("PATCH", path, {"account_id": "acct_x"}),
                ("DELETE", path, None),
                ("POST", "/v1/users", {"email": "x@acme.test", "name": "X"}),
                ("POST", "/v1/api-keys", {"name": "mine", "scopes": ["users:read"]}),
            )

    async def test_the_test_mode_opens_no_door_to_the_live_one(self, world: World) -> None:
        account = await world.account()
        live = await world.key(account)
        live_id = (await scene.key_of(world, live)).id
        person = await somebody(world, account, "admin@acme.test", "admin", "test")
        for credential in (await world.key(account, mode="test"), await world.token(person)):
            await self.refused(
                world,
                credential,
                ("POST", "/v1/api-keys", {"name": "mine", "mode": "live"}),
                ("POST", f"/v1/api-keys/{live_id}/rotate", {}),
                ("DELETE", f"/v1/api-keys/{live_id}", None),
            )
            assert live_id not in (await world.ask("GET", "/v1/api-keys", credential)).text
            made = await world.ask("POST", "/v1/api-keys", credential, {"name": "mine"})
            assert made.json()["mode"] == "test"

    async def test_a_key_of_another_account_reaches_nothing_of_this_one(self, world: World) -> None:
        account = await world.account()
        user = await somebody(world, account)
        key_id = (await scene.key_of(world, await world.key(account))).id
        await self.refused(
            world,
            await world.key(await world.account("Other")),
            ("POST", f"/v1/api-keys/{key_id}/rotate", {}),
            ("DELETE", f"/v1/api-keys/{key_id}", None),
            ("PATCH", f"/v1/users/{user.id}", {"password": "taken over now"}),
            ("POST", "/v1/auth/token", {"user_id": user.id}),
            ("POST", f"/v1/users/{user.id}/payment-methods", {"token": "tok_visa_4242"}),
        )

    async def test_a_new_key_has_its_creators_scopes_and_mode_unless_it_asks_for_less(self, world: World) -> None:
        account = await world.account()
        key = await world.key(account)
        same = (await world.ask("POST", "/v1/api-keys", key, {"name": "same"})).json()
        less = (await world.ask("POST", "/v1/api-keys", key, {"name": "less", "scopes": ["users:read"]})).json()
        assert (same["scopes"], same["mode"]) == (["*"], "live")
        assert less["scopes"] == ["users:read"]
        assert (await world.ask("GET", "/v1/users", less["secret"])).status_code == 200
        assert told(await world.ask("GET", "/v1/account", less["secret"])) == (403, "insufficient_scope")


async def test_a_signer_takes_tokens_of_all_its_secrets_and_signs_with_the_first(world: World) -> None:
    old, both = TokenSigner((b"o" * 32,), "i", "a"), TokenSigner((b"n" * 32, b"o" * 32), "i", "a")
    token = old.sign("access", user_id="u", family_id="f", token_id="t", issued_at=world.now)
    assert both.read(token, "access", world.now).user_id == "u"
    assert both.sign("access", user_id="u", family_id="f", token_id="t", issued_at=world.now) != token
