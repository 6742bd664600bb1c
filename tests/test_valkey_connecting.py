"""Connections: made anew where another server may stand behind the name, kept though making them took longer than
a budget, and looked up by a thread that nobody waits for."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from learnflow_core.limiter import Quota
from storage_backends.valkey import AsyncValkeyLimiter
from tests.servers import Proxy, Valkey, eventually
from tests.test_valkey_outages import BACK_S, PATIENCE_S, decides, load
from tests.valkey import CLIENTS, PATIENT_NS, Client, open_client

PLAN = (Quota.per_day(1_000_000),)
ONCE = (Quota.per_day(1),)


@pytest.fixture
def server() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server


def refusals(client: Client) -> Any:
    return client.hit("spent", ONCE)


def peeks(client: Client) -> Any:
    return client.peek("spent", ONCE)


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("others", [refusals, peeks])
def test_a_failover_is_followed_though_the_old_server_still_answers_what_takes_nothing(
    kind: str, others: Callable[[Client], Any], server: Valkey
) -> None:
    with Valkey() as promoted, Proxy(server) as name, open_client(kind, name.url, fallback="closed") as client:
        stop = threading.Event()

        def ask_for_what_takes_nothing() -> None:
            while not stop.wait(0.002):
                others(client)

        threads = [threading.Thread(target=ask_for_what_takes_nothing) for _ in range(3)]
        eventually(lambda: refusals(client).fallback is None)
        for thread in threads:
            thread.start()
        try:
            with load(client, 2) as seen:
                eventually(lambda: decides(seen, None))
                name.server = promoted
                server.call("REPLICAOF", "127.0.0.1", "1")
                eventually(lambda: decides(seen, None), BACK_S)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert "READONLY" in client.counts.failures
        assert name.connections < 30


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    with_answers = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", with_answers.look_up)
    yield with_answers
    with_answers.answers.set()


class Resolver:
    """A resolver that says nothing about names until it `answers`: that each is this machine."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.asked: list[str] = []
        self._real = socket.getaddrinfo

    def look_up(self, host: str, port: int, *args: Any, **options: Any) -> Any:
        if host[0].isdigit():
            return self._real(host, port, *args, **options)
        self.asked.append(host)
        self.answers.wait()
        return self._real("127.0.0.1", port, *args, **options)


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_resolver_that_hangs_is_asked_once_and_what_it_says_at_last_is_used(
    kind: str, server: Valkey, resolver: Resolver
) -> None:
    with Proxy(server) as proxy, open_client(kind, f"valkey://store.example:{proxy.port}", fallback="open") as client:
        with load(client) as seen:
            eventually(lambda: len(client.counts.failures) > 0)
            time.sleep(0.3)
            assert {one.fallback for one in seen} == {"open"}
            assert resolver.asked == ["store.example"]
            resolver.answers.set()
            eventually(lambda: decides(seen, None), BACK_S)
        assert resolver.asked == ["store.example"]
    assert max(one.waited_s for one in seen) < PATIENCE_S


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_resolver_that_hangs_holds_up_neither_the_loops_threads_nor_its_end(
    run: Callable[..., Any], resolver: Resolver
) -> None:
    unexpected: list[dict[str, Any]] = []

    async def ask() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unexpected.append(context))
        async with AsyncValkeyLimiter("valkey://store.example", fallback="open") as limiter:
            for _ in range(20):
                assert (await limiter.hit("key", PLAN)).fallback == "open"
                await asyncio.sleep(0.02)
            started = time.monotonic()
            await asyncio.to_thread(lambda: None)
            assert time.monotonic() - started < PATIENCE_S

    started = time.monotonic()
    run(ask())
    assert time.monotonic() - started < 5
    assert resolver.asked == ["store.example"]
    assert unexpected == []


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_every_loop_connects_by_name_and_has_silent_ends_noticed(run: Callable[..., Any], server: Valkey) -> None:
    async def ask(port: int) -> None:
        async with AsyncValkeyLimiter(f"valkey://localhost:{port}", budget_ns=PATIENT_NS) as limiter:
            assert (await limiter.hit("key", PLAN)).fallback is None
            assert limiter._nodes
            [number] = limiter._nodes.descriptors()
            with socket.socket(fileno=number) as opened:
                options = [opened.getsockopt(*option) for option in KEPT]
                opened.detach()
            assert all(options)

    with Proxy(server) as proxy:
        run(ask(proxy.port))


def test_threads_have_silent_ends_noticed(server: Valkey) -> None:
    with Proxy(server) as proxy, open_client("blocking", f"valkey://localhost:{proxy.port}") as client:
        eventually(lambda: client.hit("key", PLAN).fallback is None)
        [connection] = client.limiter._servers._only._idle
        assert all(connection._socket.getsockopt(*option) for option in KEPT)


KEPT = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE), (socket.IPPROTO_TCP, socket.TCP_NODELAY)]


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("share", [0.35, 0.6, 0.8])
def test_a_store_whose_answers_fit_the_budget_is_used_though_connecting_and_the_first_do_not(
    kind: str, share: float, server: Valkey
) -> None:
    budget_s = 0.2
    with Proxy(server) as proxy, open_client(kind, proxy.url, fallback="open", budget_ns=int(budget_s * 1e9)) as client:
        proxy.delay_s = share * budget_s
        eventually(lambda: client.hit("key", PLAN).fallback is None, BACK_S)
        assert [client.hit("key", PLAN).fallback for _ in range(5)].count(None) >= 3
        assert proxy.connections < 4


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_connection_that_takes_many_budgets_to_make_is_waited_for_by_nobody_and_used_by_those_after(
    kind: str, server: Valkey
) -> None:
    def slow_to_greet(data: bytes) -> bytes:
        time.sleep(0.5 if data.startswith(b"$40") and b"\0" not in data else 0.0)
        return data

    with Proxy(server) as proxy, open_client(kind, proxy.url, fallback="open") as client:
        proxy.replies = slow_to_greet
        with load(client) as seen:
            eventually(lambda: decides(seen, None), BACK_S)
            eventually(lambda: decides(seen, None))
        assert max(one.waited_s for one in seen) < PATIENCE_S / 2
        assert proxy.connections <= 4 + 1


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_connection_that_went_silent_while_nobody_asked_is_replaced(kind: str, server: Valkey) -> None:
    with Proxy(server) as proxy, open_client(kind, proxy.url, fallback="closed") as client:
        eventually(lambda: client.hit("key", PLAN).fallback is None)
        time.sleep(0.1)
        proxy.freeze()
        assert client.hit("key", PLAN).fallback == "closed"
        eventually(lambda: client.hit("key", PLAN).fallback is None, BACK_S)


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_connection_that_worked_and_is_late_is_replaced_since_the_name_may_stand_for_another_server(
    kind: str, server: Valkey
) -> None:
    with Proxy(server) as proxy, open_client(kind, proxy.url, fallback="open") as client:
        eventually(lambda: client.hit("key", PLAN).fallback is None)
        before = proxy.connections
        time.sleep(0.1)
        proxy.delay_s = 0.5
        assert client.hit("key", PLAN).fallback == "open"
        proxy.delay_s = 0.0
        time.sleep(0.1)
        eventually(lambda: client.hit("key", PLAN).fallback is None)
        assert proxy.connections > before
