"""The limits as a client meets them: who pays for what, what is free, and that waiting as long as told is enough."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from typing import Any

import httpx2 as httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.limiter import Quota
from learnflow_core.model import Account
from learnflow_core.usecases import accounts
from tests import scene
from tests.world import NOW_NS, World, open_world

NOW = NOW_NS // 1_000_000_000
COURSES = "/v1/courses"
FIELDS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit-Policy", "RateLimit")


def left(reply: httpx.Response) -> int:
    return int(reply.headers["X-RateLimit-Remaining"])


def code(reply: httpx.Response) -> str:
    return str(reply.json()["error"]["code"])


async def starter(world: World) -> tuple[Account, str]:
    account = await world.account("Small", "starter")
    return account, await world.key(account)


async def spend(world: World, credential: str | None, times: int = 30, **headers: str) -> None:
    for _ in range(times):
        assert (await world.ask("GET", COURSES, credential, **headers)).status_code == 200


async def test_callers_who_cannot_be_looked_up_are_charged_nothing_and_their_address_neither(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, key = await starter(world)

    async def away(_work: Any) -> Any:
        raise LearnFlowError(Code.SERVICE_UNAVAILABLE)

    with monkeypatch.context() as patch:
        patch.setattr(world.services.storage, "read", away)
        replies = [await world.ask("GET", COURSES, key) for _ in range(40)]
    assert {(reply.status_code, left(reply)) for reply in replies} == {(503, 30)}
    assert left(await world.ask("GET", COURSES, key)) == 29


class TestABurst:
    async def test_the_31st_request_is_refused_with_every_header(self, world: World) -> None:
        _, key = await starter(world)
        told = [left(await world.ask("GET", COURSES, key)) for _ in range(30)]
        assert told == list(range(29, -1, -1))
        refused = await world.ask("GET", COURSES, key)
        assert (refused.status_code, code(refused)) == (429, "rate_limit_exceeded")
        assert refused.headers["Retry-After"] == "2"
        assert refused.headers["X-RateLimit-Limit"] == "30"
        assert refused.headers["X-RateLimit-Remaining"] == "0"
        assert refused.headers["X-RateLimit-Reset"] == str(NOW + 60)
        assert refused.headers["RateLimit-Policy"] == '"minute";q=30;w=60, "day";q=1000;w=86400'
        assert refused.headers["RateLimit"].startswith('"minute";r=0;t=2, "day";r=970;t=')
        assert refused.headers["X-Request-Id"] == refused.json()["error"]["request_id"]

    async def test_the_next_passes_when_retry_after_says_and_not_a_second_earlier(self, world: World) -> None:
        _, key = await starter(world)
        await spend(world, key)
        wait = int((await world.ask("GET", COURSES, key)).headers["Retry-After"])
        world.clock.advance(wait - 1)
        assert (await world.ask("GET", COURSES, key)).status_code == 429
        world.clock.advance(1)
        assert (await world.ask("GET", COURSES, key)).status_code == 200
        assert (await world.ask("GET", COURSES, key)).status_code == 429

    async def test_a_refused_request_costs_nothing(self, world: World) -> None:
        _, key = await starter(world)
        await spend(world, key)
        for _ in range(100):
            assert (await world.ask("GET", COURSES, key)).status_code == 429
        world.clock.advance(60)
        await spend(world, key)
        assert (await world.ask("GET", COURSES, key)).status_code == 429

    async def test_an_idle_minute_brings_the_whole_burst_back_as_reset_promised(self, world: World) -> None:
        _, key = await starter(world)
        await spend(world, key, 17)
        reset = int((await world.ask("GET", COURSES, key)).headers["X-RateLimit-Reset"])
        world.clock.advance(reset - NOW)
        assert left(await world.ask("GET", COURSES, key)) == 29

    @settings(max_examples=5)
    @given(st.lists(st.floats(0, 10), min_size=40, max_size=60))
    async def test_whatever_the_pauses_waiting_as_told_is_always_enough(self, pauses: list[float]) -> None:
        async with open_world() as world:
            _, key = await starter(world)
            for pause in pauses:
                world.clock.advance(pause / 4)
                reply = await world.ask("GET", COURSES, key)
                if reply.status_code == 429:
                    world.clock.advance(int(reply.headers["Retry-After"]))
                    assert (await world.ask("GET", COURSES, key)).status_code == 200


class TestTheDay:
    async def test_a_spent_day_refuses_what_the_minute_would_let_pass_and_the_minute_pays_nothing(
        self, world: World
    ) -> None:
        account, key = await starter(world)
        await world.services.limiter.hit(account.id, (Quota.per_day(1_000, name="day"),), 999)
        passed = await world.ask("GET", COURSES, key)
        assert (passed.status_code, passed.headers["X-RateLimit-Limit"], left(passed)) == (200, "1000", 0)
        for _ in range(40):
            assert (await world.ask("GET", COURSES, key)).status_code == 429
        refused = await world.ask("GET", COURSES, key)
        assert refused.headers["X-RateLimit-Limit"] == "1000"
        assert refused.headers["Retry-After"] == str(math.ceil(86_400 / 1_000))
        assert refused.headers["X-RateLimit-Reset"] == str(NOW + 86_400)
        assert '"minute";r=29' in refused.headers["RateLimit"]
        world.clock.advance(int(refused.headers["Retry-After"]))
        assert (await world.ask("GET", COURSES, key)).status_code == 200

    async def test_the_quota_with_the_fewest_left_is_told(self, world: World) -> None:
        account, key = await starter(world)
        await world.services.limiter.hit(account.id, (Quota.per_day(1_000, name="day"),), 980)
        assert (await world.ask("GET", COURSES, key)).headers["X-RateLimit-Limit"] == "1000"
        await spend(world, key, 5)
        world.clock.advance(3_600)
        assert (await world.ask("GET", COURSES, key)).headers["X-RateLimit-Limit"] == "30"


class TestWhoPays:
    async def test_all_keys_and_people_of_an_account_draw_on_one_quota(self, world: World) -> None:
        account, key = await starter(world)
        person = await world.user(account, "ada@acme.test")
        callers = [key, await world.key(account, ["users:read"]), await world.key(account, mode="test")]
        callers.append(await world.token(person))
        told = [left(await world.ask("GET", COURSES, callers[n % 4])) for n in range(30)]
        assert told == list(range(29, -1, -1))
        for caller in callers:
            assert (await world.ask("GET", COURSES, caller)).status_code == 429

    async def test_accounts_and_addresses_do_not_pay_for_each_other(self, world: World) -> None:
        _, first = await starter(world)
        _, second = await starter(world)
        await spend(world, first)
        assert (await world.ask("GET", COURSES, first)).status_code == 429
        assert left(await world.ask("GET", COURSES, second)) == 29
        assert left(await world.ask("GET", COURSES)) == 29

    async def test_without_a_credential_the_address_has_the_numbers_of_starter(self, world: World) -> None:
        await spend(world, None)
        refused = await world.ask("GET", COURSES)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "2")
        assert refused.headers["RateLimit-Policy"] == '"minute";q=30;w=60, "day";q=1000;w=86400'

    @pytest.mark.parametrize(
        ("plan", "per_minute", "policy"),
        [
            ("starter", None, '"minute";q=30;w=60, "day";q=1000;w=86400'),
            ("professional", None, '"minute";q=300;w=60, "day";q=25000;w=86400'),
            ("enterprise", None, '"minute";q=3000;w=60'),
            ("enterprise", 77, '"minute";q=77;w=60'),
        ],
    )
    async def test_each_plan_has_its_published_numbers_and_unlimited_ones_are_left_out(
        self, world: World, plan: str, per_minute: int | None, policy: str
    ) -> None:
        account = await world.account(plan=plan, per_minute=per_minute)  # type: ignore[arg-type]
        key = await world.key(account)
        reply = await world.ask("GET", "/v1/rate-limit", key)
        assert reply.headers["RateLimit-Policy"] == policy
        told = [f'"{quota["name"]}";q={quota["limit"]}' for quota in reply.json()["data"]]
        assert told == [member.rpartition(";w=")[0] for member in policy.split(", ")]
        quotas = (await world.ask("GET", "/v1/account", key)).json()["quotas"]
        assert [f'"{q["name"]}";q={q["limit"]};w={q["period_seconds"]}' for q in quotas] == policy.split(", ")

    async def test_a_change_of_plan_is_seen_within_a_second_and_keeps_what_was_spent(self, world: World) -> None:
        account, key = await starter(world)
        await spend(world, key)
        assert (await world.ask("GET", COURSES, key)).status_code == 429
        ctx = world.ctx
        await world.services.storage.write(
            lambda tx: accounts.set_plan(tx, account.id, plan="professional", per_minute=None, licenses=None, ctx=ctx)
        )
        world.clock.advance(1)
        reply = await world.ask("GET", COURSES, key)
        assert (reply.status_code, reply.headers["X-RateLimit-Limit"]) == (200, "300")
        assert left(reply) < 299


class TestWhatCosts:
    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/v1/courses", 200),
            ("HEAD", "/v1/courses", 200),
            ("GET", "/v1/courses?limit=51", 400),
            ("GET", "/v1/courses/crs_nobody", 404),
            ("GET", "/v1/users/me", 404),
            ("GET", "/v1/nothing", 404),
            ("GET", "/v1", 404),
            ("PUT", "/v1/courses", 405),
            ("POST", "/v1/courses", 400),
        ],
    )
    async def test_a_request_costs_one_whatever_its_answer(
        self, world: World, method: str, path: str, status: int
    ) -> None:
        _, key = await starter(world)
        reply = await world.ask(method, path, key)
        assert (reply.status_code, left(reply)) == (status, 29)
        assert left(await world.ask("GET", "/v1/rate-limit", key)) == 29

    async def test_a_forbidden_one_an_unchanged_one_and_one_of_a_wrong_type_cost_one_too(self, world: World) -> None:
        account, key = await starter(world)
        narrow = await world.key(account, ["users:read"])
        tag = (await world.ask("GET", COURSES, key)).headers["ETag"]
        for reply, status in (
            (await world.ask("GET", COURSES, key, If_None_Match=tag), 304),
            (await world.ask("GET", "/v1/account", narrow), 403),
            (await world.client.post(COURSES, content=b"x", headers=bearer(key) | {"Content-Type": "text/csv"}), 415),
            (await world.client.post(COURSES, content=b" " * (1024 * 1024 + 1), headers=bearer(key)), 413),
        ):
            assert reply.status_code == status
        assert left(await world.ask("GET", "/v1/rate-limit", key)) == 30 - 5

    async def test_a_replay_costs_one(self, world: World) -> None:
        _, key = await starter(world)
        body = {"email": "ada@acme.test", "name": "Ada"}
        for remaining in (29, 28):
            reply = await world.ask("POST", "/v1/users", key, body, Idempotency_Key="1")
            assert (reply.status_code, left(reply)) == (201, remaining)

    async def test_options_are_free_even_when_nothing_is_left_and_even_where_there_is_nothing(
        self, world: World
    ) -> None:
        for path in (COURSES, "/v1/users/me", "/v1/nothing"):
            assert left(await world.ask("OPTIONS", path)) == 30
        await spend(world, None)
        reply = await world.ask("OPTIONS", COURSES)
        assert (reply.status_code, left(reply)) == (200, 0)
        assert "Retry-After" not in reply.headers

    async def test_asking_for_the_rate_limit_is_free_and_answered_even_when_nothing_is_left(self, world: World) -> None:
        _, key = await starter(world)
        for _ in range(3):
            assert left(await world.ask("GET", "/v1/rate-limit", key)) == 30
        await spend(world, key)
        reply = await world.ask("GET", "/v1/rate-limit", key)
        assert reply.status_code == 200
        minute, day = reply.json()["data"]
        assert minute == {"name": "minute", "limit": 30, "remaining": 0, "reset": NOW + 60}
        assert (day["name"], day["limit"], day["remaining"]) == ("day", 1_000, 970)
        assert [str(minute[field]) for field in ("limit", "remaining", "reset")] == [
            reply.headers[name] for name in FIELDS[:3]
        ]
        assert "Retry-After" not in reply.headers
        world.clock.advance(2)
        assert (await world.ask("GET", COURSES, key)).status_code == 200

    async def test_what_does_not_exist_is_told_so_even_when_nothing_is_left(self, world: World) -> None:
        await spend(world, None)
        for method, path, status in (("GET", "/v1/nothing", 404), ("PUT", COURSES, 405)):
            reply = await world.ask(method, path)
            assert (reply.status_code, left(reply)) == (status, 0)

    async def test_everything_outside_the_api_is_free_and_tells_of_no_limit(self, world: World) -> None:
        await spend(world, None)
        for path in ("/healthz", "/readyz", "/openapi.json", "/docs", "/nothing"):
            reply = await world.ask("GET", path)
            assert reply.status_code == (404 if path == "/nothing" else 200)
            assert not any(name in reply.headers for name in FIELDS)


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


PASSWORD = "correct horse battery"


async def sign_in(world: World, password: str, **headers: str) -> httpx.Response:
    body = {"email": "ada@acme.test", "password": password}
    return await world.ask("POST", "/v1/auth/token", json=body, **headers)


class TestFailedCredentials:
    @pytest.mark.parametrize(
        ("path", "credential"),
        [(COURSES, "garbage"), (COURSES, f"sk_live_{'0' * 36}"), ("/v1/users/me", None), ("/v1/account", "a.b.c")],
    )
    async def test_a_401_is_charged_to_the_failures_of_the_address_and_shows_them(
        self, world: World, path: str, credential: str | None
    ) -> None:
        reply = await world.ask("GET", path, credential)
        assert (reply.status_code, left(reply)) == (401, 29)
        assert reply.headers["RateLimit-Policy"] == '"failed-credentials";q=30;w=60'
        assert left(await world.ask("GET", "/v1/rate-limit")) == 30

    async def test_after_thirty_failures_the_next_is_429_and_good_credentials_still_work(self, world: World) -> None:
        _, key = await starter(world)
        for _ in range(30):
            assert (await world.ask("GET", COURSES, "garbage")).status_code == 401
        refused = await world.ask("GET", COURSES, "garbage")
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "2")
        assert left(await world.ask("GET", COURSES, key)) == 29
        assert left(await world.ask("GET", COURSES)) == 29
        world.clock.advance(2)
        assert (await world.ask("GET", COURSES, "garbage")).status_code == 401

    async def test_a_right_sign_in_is_charged_to_the_account_and_not_to_the_failures(self, world: World) -> None:
        account, key = await starter(world)
        await world.user(account, "ada@acme.test", password=PASSWORD)
        reply = await sign_in(world, PASSWORD)
        assert (reply.status_code, left(reply)) == (200, 29)
        assert left(await world.ask("GET", "/v1/rate-limit", key)) == 29
        assert left(await world.ask("GET", COURSES, "garbage")) == 29

    async def test_a_wrong_password_is_charged_to_the_failures_and_not_to_the_account(self, world: World) -> None:
        account, key = await starter(world)
        await world.user(account, "ada@acme.test", password=PASSWORD)
        reply = await sign_in(world, "wrong")
        assert (reply.status_code, left(reply)) == (401, 29)
        assert left(await world.ask("GET", "/v1/rate-limit", key)) == 30

    async def test_of_31_wrong_passwords_at_once_30_are_looked_at(self, world: World) -> None:
        account, _ = await starter(world)
        await world.user(account, "ada@acme.test", password=PASSWORD)
        replies = await asyncio.gather(*[sign_in(world, f"wrong {n}") for n in range(31)])
        assert Counter(reply.status_code for reply in replies) == {401: 30, 429: 1}
        assert (await sign_in(world, PASSWORD)).status_code == 429
        world.clock.advance(2)
        assert (await sign_in(world, PASSWORD)).status_code == 200

    async def test_a_refresh_is_charged_to_the_users_account_and_a_bad_one_to_the_failures(self, world: World) -> None:
        account, key = await starter(world)
        user = await world.user(account, "ada@acme.test")
        tokens = (await world.ask("POST", "/v1/auth/token", key, {"user_id": user.id})).json()
        good = await world.ask("POST", "/v1/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
        assert (good.status_code, left(good)) == (200, 28)
        bad = await world.ask("POST", "/v1/auth/refresh", json={"refresh_token": "x"})
        assert (bad.status_code, left(bad)) == (401, 29)
        assert bad.headers["RateLimit-Policy"] == '"failed-credentials";q=30;w=60'

    async def test_a_sign_in_that_cannot_be_read_is_charged_to_the_address(self, world: World) -> None:
        replies = [await world.ask("POST", "/v1/auth/token", json={}) for _ in range(31)]
        assert Counter(reply.status_code for reply in replies) == {400: 30, 429: 1}
        assert left(await world.ask("GET", COURSES, "garbage")) == 29

    async def test_a_suspended_accounts_requests_are_charged_to_the_address(self, world: World) -> None:
        account, key = await starter(world)
        ctx = world.ctx
        await world.services.storage.write(lambda tx: accounts.set_suspended(tx, account.id, suspended=True, ctx=ctx))
        replies = [await world.ask("GET", COURSES, key) for _ in range(31)]
        assert Counter(reply.status_code for reply in replies) == {403: 30, 429: 1}


class TestAddresses:
    async def test_without_trusted_proxies_nobody_is_believed_about_addresses(self, world: World) -> None:
        for n in range(5):
            reply = await world.ask("GET", COURSES, X_Forwarded_For=f"198.51.100.{n}")
            assert left(reply) == 29 - n

    async def test_a_trusted_proxy_says_for_whom_it_speaks(self) -> None:
        async with open_world(trusted_proxies="192.0.2.0/24") as world:
            for client in ("198.51.100.1", "198.51.100.2", "2001:db8::1"):
                assert left(await world.ask("GET", COURSES, X_Forwarded_For=client)) == 29
            assert left(await world.ask("GET", COURSES)) == 29

    @pytest.mark.parametrize(
        ("forwarded", "counted"),
        [
            ("203.0.113.9, 198.51.100.1", "198.51.100.1"),
            ("198.51.100.1, 10.1.2.3", "198.51.100.1"),
            ("198.51.100.1,10.1.2.3 , 192.0.2.7", "198.51.100.1"),
            ("198.51.100.1, 203.0.113.9, 10.1.2.3", "203.0.113.9"),
            ("::ffff:198.51.100.1", "198.51.100.1"),
            ("198.51.100.1, nonsense", "192.0.2.1"),
            ("nonsense", "192.0.2.1"),
            ("", "192.0.2.1"),
            ("198.51.100.1, 127.0.0.1é", "192.0.2.1"),
        ],
    )
    async def test_forwarded_addresses_are_believed_from_the_right_as_far_as_their_speaker_is_trusted(
        self, forwarded: str, counted: str
    ) -> None:
        async with open_world(trusted_proxies="192.0.2.0/24,10.0.0.0/8") as world:
            first = await world.client.get(COURSES, headers=[(b"X-Forwarded-For", forwarded.encode())])
            headers = {} if counted == "192.0.2.1" else {"X_Forwarded_For": counted}
            assert left(first) - left(await world.ask("GET", COURSES, **headers)) == 1

    async def test_several_fields_of_that_name_are_one_list(self) -> None:
        async with open_world(trusted_proxies="192.0.2.1") as world:
            fields = [("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-For", "198.51.100.1")]
            await world.client.get(COURSES, headers=fields)
            assert left(await world.ask("GET", COURSES, X_Forwarded_For="198.51.100.1")) == 28

    async def test_an_ipv6_client_is_its_64(self) -> None:
        async with open_world(trusted_proxies="192.0.2.1") as world:
            told = [
                left(await world.ask("GET", COURSES, X_Forwarded_For=address))
                for address in ("2001:db8:1:2::1", "2001:DB8:1:2:ffff::", "2001:db8:1:2:3:4:5:6", "2001:db8:1:3::1")
            ]
            assert told == [29, 28, 27, 29]

    async def test_the_failures_of_an_address_follow_the_same_rules(self) -> None:
        async with open_world(trusted_proxies="192.0.2.1") as world:
            for address, expected in (("2001:db8::1", 29), ("2001:db8::2", 28), ("198.51.100.1", 29)):
                assert left(await world.ask("GET", COURSES, "garbage", X_Forwarded_For=address)) == expected


async def test_fifty_requests_at_once_take_exactly_what_there_is(world: World) -> None:
    _, key = await starter(world)
    replies = await asyncio.gather(*[world.ask("GET", COURSES, key) for _ in range(50)])
    assert Counter(reply.status_code for reply in replies) == {200: 30, 429: 20}
    assert sorted(left(reply) for reply in replies if reply.status_code == 200) == list(range(30))


async def test_an_enrolment_that_is_refused_for_the_limit_changes_nothing(world: World) -> None:
    account, key = await starter(world)
    user = await world.user(account, "ada@acme.test")
    course = await scene.course(world, account)
    await spend(world, key)
    before = await scene.books(world)
    body = {"user_id": user.id, "course_id": course.id, "payment_method_id": scene.PAYS}
    assert (await world.ask("POST", "/v1/enrollments", key, body)).status_code == 429
    assert await scene.books(world) == before
