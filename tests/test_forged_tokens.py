"""Tokens that are none of ours, however well they are made."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest

from learnflow_http.auth import TokenSigner
from tests.sessions import (
    DAY_S,
    HEADER,
    claims,
    revoke,
    segment,
    signed,
    signed_in,
    told,
    works,
)
from tests.world import World, open_world

OLD, NEW = "o" * 32, "n" * 32


def with_one_changed(text: str, at: int) -> str:
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]


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


async def test_a_signer_takes_tokens_of_all_its_secrets_and_signs_with_the_first(world: World) -> None:
    old, both = TokenSigner((b"o" * 32,), "i", "a"), TokenSigner((b"n" * 32, b"o" * 32), "i", "a")
    token = old.sign("access", user_id="u", family_id="f", token_id="t", issued_at=world.now)
    assert both.read(token, "access", world.now).user_id == "u"
    assert both.sign("access", user_id="u", family_id="f", token_id="t", issued_at=world.now) != token
