"""PostgreSQL goes away under load: whoever asks is told to come again, and nothing that was acknowledged is lost."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import httpx2 as httpx
import pytest

from learnflow_core.errors import Code, LearnFlowError
from storage_backends import open_storage, postgres_driver, postgres_pool, postgres_transaction
from storage_backends.conformance.samples import account, keep
from storage_backends.driver import UncertainError
from tests.postgres import Postgres
from tests.world import World, open_world

SECRET = "x" * 32
BUSY = 8
BACK_S = 10.0
"""Within so many seconds after the database is back, the server is."""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server that waits for the disk, and has few connections."""
    with Postgres("max_connections=14", "superuser_reserved_connections=0", "autovacuum=off", durable=True) as server:
        yield server


@pytest.fixture
async def world(server: Postgres) -> AsyncIterator[World]:
    async with server.database() as url, open_world(database=url, jwt_secret=SECRET) as world:
        yield world


class Load:
    """Some who make users, one after the other, and note what they are told."""

    def __init__(self, world: World, key: str) -> None:
        self.world = world
        self.acknowledged: list[str] = []
        self.refusals: list[httpx.Response] = []
        self.slowest_s = 0.0
        self._key = key
        self._tasks = [asyncio.ensure_future(self._work(number)) for number in range(BUSY)]

    async def _work(self, number: int) -> None:
        for turn in range(1_000_000):
            began = time.monotonic()
            body = {"email": f"{number}.{turn}@crowd.test", "name": "Ada"}
            reply = await self.world.ask("POST", "/v1/users", self._key, body)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            if reply.status_code == 201:
                self.acknowledged.append(reply.json()["id"])
            else:
                self.refusals.append(reply)
                await asyncio.sleep(0.02)

    async def more(self, number: int = 50) -> float:
        """Wait until so many more were acknowledged; how many seconds that took."""
        began, until = time.monotonic(), len(self.acknowledged) + number
        while len(self.acknowledged) < until:
            assert time.monotonic() < began + 2 * BACK_S, Counter(reply.text for reply in self.refusals)
            await asyncio.sleep(0.01)
        return time.monotonic() - began

    async def refused(self) -> None:
        """Wait until some were refused."""
        until = len(self.refusals) + 20
        while len(self.refusals) < until:  # noqa: ASYNC110 - a few looks, in a test
            await asyncio.sleep(0.01)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def lost(self) -> list[str]:
        """Those who were acknowledged and are not there."""
        storage = self.world.services.storage
        return [one for one in self.acknowledged if await storage.read(lambda tx, at=one: tx.users.get(at)) is None]  # type: ignore[misc]


@pytest.fixture
async def load(world: World) -> AsyncIterator[Load]:
    account = await world.account(per_minute=1_000_000)
    load = Load(world, await world.key(account))
    await load.more()
    yield load
    await load.end()


def told_to_come_again(reply: httpx.Response) -> bool:
    return reply.status_code == 503 and int(reply.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGQUIT, signal.SIGINT], ids=["crashed", "ended", "restarted"])
async def test_a_database_that_ends_is_503_meanwhile_and_loses_nothing_acknowledged(
    server: Postgres, load: Load, how: signal.Signals
) -> None:
    await asyncio.to_thread(server.stop, how)
    await load.refused()
    assert (await load.world.client.get("/readyz")).status_code == 503
    await asyncio.to_thread(server.start)
    assert await load.more() < BACK_S
    await load.end()
    assert all(map(told_to_come_again, load.refusals))
    assert await load.lost() == []
    assert await load.world.services.storage.check() == []


async def test_a_database_that_stops_for_three_seconds_is_waited_for(server: Postgres, load: Load) -> None:
    server.pause()
    await asyncio.sleep(3.0)
    server.resume()
    assert await load.more() < BACK_S
    await load.end()
    assert all(map(told_to_come_again, load.refusals))
    assert load.slowest_s < 3.0 + BACK_S
    assert await load.lost() == []


async def test_who_waits_for_a_database_that_never_answers_is_told_so_in_time(
    server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_transaction, "GRACE_S", 0.1)
    monkeypatch.setattr(postgres_driver, "STATEMENT_S", 0.3)
    monkeypatch.setattr(postgres_pool, "MEND_S", 0.2)
    async with server.database() as url:
        storage = await open_storage(f"{url}&pool_size=2", read_deadline_s=0.3)
        storage._driver._pool._patience_s = 0.5  # type: ignore[attr-defined]
        await asyncio.gather(*(keep(storage, account(f"acct_{number}")) for number in range(4)))
        server.pause()
        began = time.monotonic()
        reads = (storage.read(lambda tx: tx.accounts.get("acct_1")) for _ in range(6))
        writes = (keep(storage, account(f"acct_{number}")) for number in range(10, 16))
        results = await asyncio.gather(*reads, *writes, return_exceptions=True)
        took = time.monotonic() - began
        server.resume()
        assert {(type(one), getattr(one, "code", None)) for one in results} <= {
            (kind, Code.SERVICE_UNAVAILABLE) for kind in (LearnFlowError, UncertainError)
        }
        assert took < 5
        while True:  # what was sent before may still be done
            try:
                await keep(storage, account("acct_after"))
            except LearnFlowError:
                await asyncio.sleep(0.05)
            else:
                break
        await storage.close()


async def test_a_server_without_connections_left_is_served_by_those_there_are(server: Postgres, load: Load) -> None:
    others = await taken(server)
    assert others
    load.refusals.clear()
    await load.more(100)
    assert load.refusals == []
    await asyncio.gather(*(one.close() for one in others))


async def test_a_server_that_has_no_connection_for_us_is_503_until_it_has(server: Postgres) -> None:
    async with server.database() as url:
        storage = await open_storage(url)
        (ours, _), *_ = storage._driver._pool._idle  # type: ignore[attr-defined]
        await ours.close()
        others = await taken(server)
        for _ in range(3):
            with pytest.raises(LearnFlowError) as refused:
                await storage.read(lambda tx: tx.accounts.get("acct_1"))
            assert (refused.value.code, refused.value.retry_after_s) == (Code.SERVICE_UNAVAILABLE, 1)
        await asyncio.gather(*(one.close() for one in others))
        deadline = time.monotonic() + BACK_S
        while True:
            try:
                assert await storage.read(lambda tx: tx.accounts.get("acct_1")) is None
            except LearnFlowError:
                assert time.monotonic() < deadline
            else:
                break
        await storage.close()


async def taken(server: Postgres) -> list[Any]:
    """Every connection that the server has left."""
    found: list[Any] = []
    while True:
        try:
            found.append(await asyncpg.connect(server.url()))
        except asyncpg.TooManyConnectionsError:
            return found
