"""The client for threads: connections are used again, an interruption leaves nothing behind, closing ends it."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from learnflow_core.limiter import Decision, Quota
from storage_backends.valkey import ValkeyLimiter
from storage_backends.valkey.address import locate
from storage_backends.valkey.connection import LOOKS, Connection
from storage_backends.valkey.opening import Opener
from storage_backends.valkey.servers import IDLE
from tests.servers import Proxy, Valkey, eventually
from tests.valkey import PATIENT_NS

PLAN = (Quota.per_day(1_000),)


@pytest.fixture
def server() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server


def connections(server: Valkey) -> int:
    """How many the server has, that of the question left out."""
    listed: bytes = server.call("CLIENT", "LIST")
    return len(listed.splitlines()) - 1


def test_one_thread_uses_one_connection_again_and_again(server: Valkey) -> None:
    with ValkeyLimiter(server.url, budget_ns=PATIENT_NS) as limiter:
        for _ in range(20):
            limiter.hit("key", PLAN)
        assert connections(server) == 1
    eventually(lambda: connections(server) == 0)


def test_threads_have_a_connection_each_and_few_are_kept(server: Valkey) -> None:
    with ValkeyLimiter(server.url, budget_ns=PATIENT_NS) as limiter:
        limiter.hit("key", PLAN)
        server.pause()
        with ThreadPoolExecutor(IDLE + 8) as threads:
            waiting = [threads.submit(limiter.hit, "key", PLAN) for _ in range(IDLE + 8)]
            time.sleep(0.1)
            server.resume()
            assert sum(future.result().allowed for future in waiting) == IDLE + 8
        eventually(lambda: connections(server) == IDLE)


def test_a_connection_that_the_server_closed_is_not_used_again(server: Valkey) -> None:
    with ValkeyLimiter(server.url, budget_ns=PATIENT_NS) as limiter:
        for _ in range(5):
            assert limiter.hit("key", PLAN).fallback is None
            server.call("CLIENT", "KILL", "TYPE", "normal")
        server.kill()
        server.start()
        assert limiter.hit("key", PLAN).fallback is None
        assert limiter.counts.failures == {}


def test_a_call_that_is_interrupted_leaves_no_answer_for_the_next(server: Valkey) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with ValkeyLimiter(server.url, budget_ns=PATIENT_NS) as limiter:
            limiter.hit("one", PLAN, 10)
            limiter.hit("other", PLAN, 20)
            server.pause()
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                limiter.peek("one", PLAN)
            with ThreadPoolExecutor(1) as threads:
                next_one = threads.submit(limiter.peek, "other", PLAN)
                time.sleep(0.05)
                server.resume()
                assert next_one.result().remaining == 980
            assert limiter.peek("one", PLAN).remaining == 990
    finally:
        signal.signal(signal.SIGALRM, before)


def test_after_closing_whoever_asks_is_told(server: Valkey) -> None:
    limiter = ValkeyLimiter(server.url)
    decision = limiter.hit("key", PLAN)
    limiter.close()
    calls: list[Any] = [limiter.hit, limiter.peek, limiter.reset]
    for call in calls:
        with pytest.raises(RuntimeError, match="the limiter is closed"):
            call("key", PLAN)
    with pytest.raises(RuntimeError, match="the limiter is closed"):
        limiter.hit_many(["key"], PLAN)
    with pytest.raises(RuntimeError, match="the limiter is closed"):
        limiter.refund(decision)
    limiter.close()


def test_a_call_that_is_under_way_when_the_limiter_is_closed_is_answered(server: Valkey) -> None:
    limiter = ValkeyLimiter(server.url, budget_ns=PATIENT_NS)
    limiter.hit("key", PLAN)
    server.pause()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(limiter.hit, "key", PLAN)
        time.sleep(0.05)
        limiter.close()
        server.resume()
        assert waiting.result().remaining == 998
    eventually(lambda: connections(server) == 0)


def test_a_connection_that_is_still_being_made_when_the_limiter_is_closed_is_closed_too(server: Valkey) -> None:
    limiters = [ValkeyLimiter(server.url, budget_ns=budget_ns) for budget_ns in (10_000_000, 200_000_000)]
    server.pause()
    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(limiter.hit, "key", PLAN) for limiter in limiters]
        eventually(asked[0].done)
        for limiter in limiters:
            limiter.close()
        assert [one.result().fallback for one in asked] == ["local"] * 2
    server.resume()
    eventually(lambda: connections(server) == 0)


def test_a_connection_in_use_when_all_are_to_be_made_anew_is_closed_when_it_has_served(server: Valkey) -> None:
    with ValkeyLimiter(server.url, budget_ns=PATIENT_NS) as limiter, ThreadPoolExecutor(1) as threads:
        limiter.hit("key", PLAN)
        server.pause()
        waiting = threads.submit(limiter.hit, "key", PLAN)
        time.sleep(0.05)
        only = limiter._servers._only
        assert only
        only.renew(time.monotonic_ns())
        server.resume()
        assert waiting.result().fallback is None
        eventually(lambda: connections(server) == 0)


def test_many_keys_are_sent_together_and_answered_in_their_order(server: Valkey) -> None:
    keys = [f"key {number}" for number in range(1_000)]
    with Proxy(server) as proxy, ValkeyLimiter(proxy.url, budget_ns=PATIENT_NS) as limiter:
        pieces: list[int] = []

        def counted(data: bytes) -> bytes:
            pieces.append(len(data))
            return data

        proxy.replies = counted
        for number, key in enumerate(keys[:300]):
            limiter.hit(key, PLAN, number + 1)
        pieces.clear()
        decisions = limiter.hit_many(keys, PLAN)
        assert len(pieces) < 50
    assert [decision.key for decision in decisions] == keys
    left = [1_000 - number - 2 if number < 300 else 999 for number in range(1_000)]
    assert [decision.remaining for decision in decisions] == left


def test_answers_may_come_byte_by_byte(server: Valkey) -> None:
    class Trickling(Proxy):
        def _back(self, far: socket.socket, near: socket.socket, number: int) -> None:
            while byte := far.recv(1):
                near.sendall(byte)

    with Trickling(server) as proxy, ValkeyLimiter(proxy.url, budget_ns=PATIENT_NS) as limiter:
        assert [limiter.hit("key", PLAN).remaining for _ in range(3)] == [999, 998, 997]
        assert [decision.remaining for decision in limiter.hit_many(["key"] * 3, PLAN)] == [996, 995, 994]
        assert limiter.counts.by_fallback == 0


def test_a_name_that_is_looked_up_for_longer_than_the_budget_is_waited_for_by_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, asked = threading.Event(), []

    def slow(host: str, port: int, **options: Any) -> Any:
        asked.append(host)
        found.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    location = locate("valkey://store.example:1")
    opener = Opener(location.addresses[0], location)
    for _ in range(3):
        with pytest.raises(TimeoutError, match="still being looked up"):
            opener.open(time.monotonic_ns() + 10_000_000)
    assert asked == ["store.example"]
    found.set()
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            opener.open(time.monotonic_ns() + PATIENT_NS)
    assert asked == ["store.example"] * 2


def test_a_name_that_is_not_found_is_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def failing(host: str, port: int, **options: Any) -> Any:
        asked.append(options)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", failing)
    location = locate("valkey://store.example")
    opener = Opener(location.addresses[0], location)
    for _ in range(3):
        with pytest.raises(socket.gaierror):
            opener.open(time.monotonic_ns() + PATIENT_NS)
    assert len(asked) == 3


def test_a_decision_of_another_limiter_is_refunded_by_none(server: Valkey) -> None:
    with ValkeyLimiter(server.url, budget_ns=PATIENT_NS) as one, ValkeyLimiter(server.url) as other:
        decision = one.hit("key", PLAN)
        made: list[Decision] = [decision, one.peek("key", PLAN), one.hit("key", ())]
        assert [bool(other.refund(one_made)) for one_made in made] == [False] * 3
        assert [bool(one.refund(one_made)) for one_made in made] == [True, False, True]


class Poll:
    """Says how often it is asked, and that there is nothing until so many looks later."""

    def __init__(self) -> None:
        self.asked = 0
        self.after = 0

    def poll(self, _: float) -> list[int]:
        self.asked += 1
        return [1] if self.asked > self.after else []


def test_a_thread_looks_for_its_answer_and_sleeps_for_a_server_that_is_far() -> None:
    connection: Any = object.__new__(Connection)
    connection._rests, connection._next_rests, connection._poll = 0, 1, Poll()

    def looks(after: int) -> int:
        poll = connection._poll = Poll()
        poll.after = after
        connection._look()
        return poll.asked

    assert [looks(3) for _ in range(3)] == [4, 4, 4]
    far = [looks(10**9) for _ in range(1_000)]
    missed = [number for number, asked in enumerate(far) if asked]
    assert missed[:5] == [0, 2, 5, 10, 19]
    assert {far[number] for number in missed} == {LOOKS}
    assert len(missed) < 20
    while not looks(3):
        pass
    assert looks(10**9) == LOOKS
    assert [looks(3) for _ in range(3)] == [0, 4, 4]
