"""Every error has the envelope, the limit and its request id, wherever it comes from."""

from __future__ import annotations

import re
from typing import Any

import httpx2 as httpx
import pytest

from learnflow_core.errors import Code, LearnFlowError
from tests.scene import RATE_LIMIT_FIELDS
from tests.world import World, open_world

ID = r"_[0-9a-z]{12,}"


class TestErrors:
    async def test_a_bad_token_is_answered_with_the_published_envelope(self, world: World) -> None:
        reply = await world.ask("GET", "/v1/courses", "a.b.c")
        assert reply.status_code == 401
        assert reply.json() == {
            "error": {
                "code": "invalid_token",
                "message": "The access token provided is expired or invalid.",
                "request_id": reply.headers["X-Request-Id"],
            }
        }

    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (400, "invalid_parameter"),
            (401, "missing_token"),
            (403, "insufficient_scope"),
            (404, "not_found"),
            (404, "course_not_found"),
            (405, "method_not_allowed"),
            (413, "payload_too_large"),
            (415, "unsupported_media_type"),
            (429, "rate_limit_exceeded"),
            (500, "internal_error"),
            (503, "service_unavailable"),
        ],
    )
    async def test_every_error_has_the_envelope_the_limit_and_its_request_id(
        self, world: World, monkeypatch: pytest.MonkeyPatch, status: int, code: str
    ) -> None:
        reply = await provoke(world, monkeypatch, code)
        error = reply.json()["error"]
        assert (reply.status_code, error["code"]) == (status, code)
        assert list(error)[:3] == ["code", "message", "request_id"]
        assert reply.headers["Content-Type"] == "application/json"
        assert error["request_id"] == reply.headers["X-Request-Id"]
        assert re.fullmatch(f"req{ID}", error["request_id"])
        assert all(name in reply.headers for name in RATE_LIMIT_FIELDS)
        assert int(reply.headers["X-RateLimit-Reset"]) >= world.clock.now_ns // 1_000_000_000
        assert ("Retry-After" in reply.headers) == (status in (429, 503))
        assert ("WWW-Authenticate" in reply.headers) == (status == 401 or code == "insufficient_scope")
        assert ("Allow" in reply.headers) == (status == 405)
        assert reply.headers["Vary"] == "Authorization"

    async def test_an_internal_error_says_nothing_of_what_went_wrong(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reply = await provoke(world, monkeypatch, "internal_error")
        assert "secret" not in reply.text

    async def test_outside_the_api_errors_have_the_envelope_too(self, world: World) -> None:
        for method, path, status in (
            ("GET", "/nothing", 404),
            ("GET", "/v1x", 404),
            ("GET", "/docs/nothing.js", 404),
            ("POST", "/healthz", 405),
        ):
            reply = await world.ask(method, path)
            assert reply.status_code == status
            assert reply.json()["error"]["request_id"] == reply.headers["X-Request-Id"]
            assert not any(name in reply.headers for name in RATE_LIMIT_FIELDS)

    async def test_a_configured_public_address_is_where_the_errors_are_explained(self) -> None:
        async with open_world(public_url="https://api.example.test/") as world:
            error = (await world.ask("GET", "/v1/nothing")).json()["error"]
            assert error["doc_url"].startswith("https://api.example.test/")
            assert error["doc_url"].endswith("#not_found")
            page = error["doc_url"].removeprefix("https://api.example.test").partition("#")[0]
            shown = await world.ask("GET", page)
            assert (shown.status_code, 'id="not_found"' in shown.text) == (200, True)

    async def test_the_challenge_says_what_was_wrong_as_rfc_6750_does(self, world: World) -> None:
        account = await world.account()
        await world.user(account, "ada@acme.test")
        narrow = await world.key(account, ["users:read"])
        wrong = {"email": "ada@acme.test", "password": "wrong"}
        nothing, invalid = 'Bearer realm="learnflow"', 'Bearer realm="learnflow", error="invalid_token"'
        for reply, challenge in (
            (await world.ask("GET", "/v1/account"), nothing),
            (await world.ask("POST", "/v1/auth/token", json=wrong), nothing),
            (await world.ask("GET", "/v1/account", "a.b.c"), invalid),
            (await world.ask("GET", "/v1/courses", "a.b.c"), invalid),
            (await world.ask("GET", "/v1/courses", f"sk_live_{'0' * 36}"), invalid),
            (await world.ask("POST", "/v1/auth/refresh", json={"refresh_token": "x"}), invalid),
            (
                await world.ask("GET", "/v1/account", narrow),
                'Bearer realm="learnflow", error="insufficient_scope", scope="*"',
            ),
        ):
            assert reply.headers["WWW-Authenticate"] == challenge


PLAIN = {
    "invalid_parameter": ("GET", "/v1/courses?limit=51"),
    "missing_token": ("GET", "/v1/account"),
    "not_found": ("GET", "/v1/nothing"),
    "course_not_found": ("GET", "/v1/courses/crs_x"),
    "method_not_allowed": ("DELETE", "/v1/courses"),
}


async def provoke(world: World, monkeypatch: pytest.MonkeyPatch, code: str) -> httpx.Response:
    """A reply with this code."""
    account = await world.account()
    if code in PLAIN:
        return await world.ask(*PLAIN[code])
    if code == "insufficient_scope":
        return await world.ask("GET", "/v1/account", await world.key(account, ["users:read"]))
    if code == "rate_limit_exceeded":
        return [await world.ask("GET", "/v1/courses") for _ in range(31)][-1]
    if code in {"payload_too_large", "unsupported_media_type"}:
        headers = {"Authorization": f"Bearer {await world.key(account)}", "Content-Type": "application/json"}
        if code == "unsupported_media_type":
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        return await world.client.post("/v1/courses", content=b" " * (2**20 + 1), headers=headers)

    async def fail(_work: Any) -> Any:
        if code == "service_unavailable":
            raise LearnFlowError(Code.SERVICE_UNAVAILABLE, retry_after_s=3)
        raise RuntimeError("a secret of the database")

    monkeypatch.setattr(world.services.storage, "read", fail)
    return await world.ask("GET", "/v1/courses")
