"""The server whose limits are counted in a Valkey: what clients see of it, and of its absence."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from learnflow_http.app import limiter_for
from learnflow_http.settings import SettingsError, load
from tests.servers import Valkey
from tests.world import open_world

STARTER = 30


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A server that a test may stop."""
    with Valkey() as server:
        yield server


@pytest.mark.parametrize("leases", ["off", "on"])
async def test_two_servers_admit_together_what_one_would_alone(own_valkey: Valkey, leases: str) -> None:
    told = {"limiter": own_valkey.url, "limiter_leases": leases, "limiter_budget_ms": "1000"}
    async with open_world(**told) as one, open_world(**told) as other:
        replies = await asyncio.gather(*(world.ask("GET", "/v1/courses") for world in (one, other) for _ in range(40)))
    statuses = [reply.status_code for reply in replies]
    assert statuses.count(200) in (STARTER, STARTER + 1)  # one more flows in every two seconds
    assert statuses.count(200) + statuses.count(429) == len(statuses)
    assert min(int(reply.headers["X-RateLimit-Remaining"]) for reply in replies) == 0
    refused = next(reply for reply in replies if reply.status_code == 429)
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.headers["Retry-After"] in {"1", "2"}
    assert refused.headers["RateLimit-Policy"] == '"minute";q=30;w=60, "day";q=1000;w=86400'


@pytest.mark.parametrize(
    ("fallback", "statuses"),
    [("local", [200] * (STARTER // 2) + [429] * 5), ("open", [200] * 20), ("closed", [429] * 20)],
)
async def test_without_its_store_the_server_answers_by_the_policy_and_never_with_an_error(
    own_valkey: Valkey, fallback: str, statuses: list[int]
) -> None:
    async with open_world(limiter=own_valkey.url, limiter_fallback=fallback, limiter_processes="2") as world:
        assert (await world.ask("GET", "/v1/courses")).status_code == 200
        own_valkey.kill()
        replies = [await world.ask("GET", "/v1/courses") for _ in range(20)]
    assert [reply.status_code for reply in replies] == statuses
    for reply in replies:
        assert reply.headers["X-RateLimit-Limit"] == ("15" if fallback == "local" else "30")
        assert (reply.status_code == 429) == ("Retry-After" in reply.headers)


async def test_without_its_store_each_worker_has_its_share(tmp_path: Path) -> None:
    away = {"limiter": f"unix://{tmp_path}/nobody.sock", "database": f"sqlite:///{tmp_path}/own.db"}
    for workers, processes, limit in (("3", "1", "10"), ("2", "6", "5")):
        async with open_world(workers=workers, limiter_processes=processes, **away) as world:
            assert (await world.ask("GET", "/v1/courses")).headers["X-RateLimit-Limit"] == limit


@pytest.mark.parametrize("path", ["/v1/courses", "/v1/users", "/v1/nothing", "/v1/auth/token"])
@pytest.mark.parametrize("credential", [None, "sk_live_wrong"])
async def test_no_address_depends_on_the_store(own_valkey: Valkey, path: str, credential: str | None) -> None:
    async with open_world(limiter=own_valkey.url) as world:
        own_valkey.kill()
        method = "POST" if "token" in path else "GET"
        reply = await world.ask(method, path, credential, json={"email": "a@b.example", "password": "wrong password"})
    assert 200 <= reply.status_code < 500
    assert "X-RateLimit-Limit" in reply.headers


@pytest.mark.parametrize("url", ["valkey://host:99999", "valkey://a,b", "valkeys://host?ca_file=/there/is/none.pem"])
def test_an_address_that_names_no_store_is_said_before_serving(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^--limiter: "):
        limiter_for(load({"limiter": url, "jwt_secret": "x" * 32}, {}))


async def test_a_store_that_does_not_answer_is_said_when_the_server_starts(
    own_valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    own_valkey.kill()
    async with open_world(limiter=own_valkey.url):
        assert [record.name for record in caplog.records] == ["storage_backends.valkey"]


@pytest.mark.parametrize(("leases", "implementation"), [("off", "valkey"), ("on", "valkey-leased")])
def test_the_server_decides_from_memory_where_it_is_told_to(leases: str, implementation: str) -> None:
    settings = load({"limiter": "unix:///nowhere", "limiter_leases": leases, "jwt_secret": "x" * 32}, {})
    assert limiter_for(settings).implementation == implementation
