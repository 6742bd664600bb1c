"""The store is killed, stopped, slowed, emptied, filled or turned read-only while it is in use: nobody waits for long,
nothing raises, the policy decides meanwhile, and the store decides again soon after it is back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from learnflow_core.limiter import Quota
from storage_backends.valkey import StoreUnavailableError
from tests.servers import Proxy, Valkey, eventually
from tests.valkey import CLIENTS, PATIENT_NS, Client, open_client

PLAN = (Quota.per_minute(10_000_000), Quota.per_day(1_000_000_000))
BACK_S = 5.0
"""How soon the store decides again."""
OUTAGE_S = 0.3
"""Longer than the breaker waits before it opens."""
PATIENCE_S = 1.0
"""Far more than the budget of 25 ms, for machines that are busy, and far less than the outages last."""


@pytest.fixture
def server() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server


class Seen(NamedTuple):
    """One decision under load: how long it took, and who made it."""

    waited_s: float
    fallback: str | None


@contextmanager
def load(client: Client, callers: int = 4) -> Iterator[list[Seen]]:
    """Callers who ask as fast as they are answered, and what they see; an exception is one of the test's."""
    seen: list[Seen] = []
    failures: list[Exception] = []
    stop = threading.Event()

    def call(number: int) -> None:
        try:
            while not stop.is_set():
                started = time.monotonic()
                decision = client.hit(f"caller {number}", PLAN)
                seen.append(Seen(time.monotonic() - started, decision.fallback))
                time.sleep(0.001)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the test fails
            failures.append(failure)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures


def decides(seen: list[Seen], fallback: str | None) -> bool:
    """Whether the latest decisions, and there are some more by now, were all made like this."""
    before = len(seen)
    eventually(lambda: len(seen) >= before + 20)
    return {one.fallback for one in seen[before:]} == {fallback}


OUTAGES: dict[str, tuple[Callable[[Valkey], Any], Callable[[Valkey], Any]]] = {
    "killed": (Valkey.kill, Valkey.start),
    "stopped": (Valkey.pause, Valkey.resume),
    "turned into a replica": (
        lambda server: server.call("REPLICAOF", "127.0.0.1", "1"),
        lambda server: server.call("REPLICAOF", "NO", "ONE"),
    ),
    "full": (
        lambda server: server.call("CONFIG", "SET", "maxmemory", "1"),
        lambda server: server.call("CONFIG", "SET", "maxmemory", "0"),
    ),
    "closed to us": (
        lambda server: server.call("ACL", "SETUSER", "default", "-evalsha", "-eval"),
        lambda server: server.call("ACL", "SETUSER", "default", "+@all"),
    ),
}


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("outage", OUTAGES)
def test_under_load_an_outage_is_decided_by_the_policy_and_then_the_store_decides_again(
    kind: str, outage: str, server: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="storage_backends.valkey")
    hurt, heal = OUTAGES[outage]
    with open_client(kind, server.url, fallback="closed") as client, load(client) as seen:
        eventually(lambda: decides(seen, None))
        hurt(server)
        eventually(lambda: decides(seen, "closed"))
        time.sleep(OUTAGE_S)
        heal(server)
        eventually(lambda: decides(seen, None), BACK_S)
        eventually(lambda: len(caplog.messages) > 1)
    assert max(one.waited_s for one in seen) < PATIENCE_S
    assert {one.fallback for one in seen} == {None, "closed"}
    assert client.counts.by_store == sum(one.fallback is None for one in seen)
    assert client.counts.by_fallback == sum(one.fallback is not None for one in seen)
    assert sum(client.counts.failures.values()) < client.counts.by_fallback
    assert len(caplog.messages) == 2, caplog.messages
    assert "does not answer as it should" in caplog.messages[0]
    assert "answers again" in caplog.messages[1]


@pytest.mark.parametrize("kind", CLIENTS)
def test_flushing_data_and_scripts_under_load_fails_nobody(kind: str, server: Valkey) -> None:
    with open_client(kind, server.url, budget_ns=PATIENT_NS) as client, load(client) as seen:
        for _ in range(30):
            eventually(lambda: decides(seen, None))
            server.call("FLUSHALL")
            server.call("SCRIPT", "FLUSH")
    assert {one.fallback for one in seen} == {None}
    assert client.counts.failures == {}


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_pipeline_that_meets_a_lost_script_in_its_middle_is_answered_in_order(kind: str, server: Valkey) -> None:
    keys = [f"key {number}" for number in range(600)]
    plan = (Quota.per_day(1_000),)
    with open_client(kind, server.url, budget_ns=PATIENT_NS) as client:
        for number, key in enumerate(keys):
            client.hit(key, plan, number + 1)
        server.call("SCRIPT", "FLUSH")
        decisions = client.hit_many(keys, plan)
    assert [decision.key for decision in decisions] == keys
    assert [decision.remaining for decision in decisions] == [1_000 - number - 2 for number in range(600)]


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_server_that_takes_a_second_for_everything_is_not_waited_for(kind: str, server: Valkey) -> None:
    with Proxy(server) as slow, open_client(kind, slow.url, fallback="open") as client, load(client) as seen:
        eventually(lambda: decides(seen, None))
        slow.delay_s = 1.0
        eventually(lambda: decides(seen, "open"))
        time.sleep(1.5)  # its late answers come in
        assert decides(seen, "open")
        slow.delay_s = 0.0
        eventually(lambda: decides(seen, None), BACK_S)
    assert max(one.waited_s for one in seen) < PATIENCE_S


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_connection_that_has_gone_silent_for_ever_is_replaced(kind: str, server: Valkey) -> None:
    with Proxy(server) as proxy, open_client(kind, proxy.url, fallback="open") as client, load(client) as seen:
        eventually(lambda: decides(seen, None))
        proxy.freeze()
        eventually(lambda: "open" in {one.fallback for one in seen})
        eventually(lambda: decides(seen, None), BACK_S)


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_failover_behind_a_name_is_followed_though_the_old_server_still_answers(kind: str, server: Valkey) -> None:
    with Valkey() as promoted, Proxy(server) as name, open_client(kind, name.url, fallback="open") as client:
        with load(client) as seen:
            eventually(lambda: decides(seen, None))
            name.server = promoted
            server.call("REPLICAOF", "127.0.0.1", "1")
            eventually(lambda: decides(seen, None), BACK_S)
        assert "READONLY" in client.counts.failures
        assert b"cmdstat_eval" in promoted.call("INFO", "commandstats")


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_server_that_never_learns_the_script_is_asked_a_few_times(kind: str, server: Valkey) -> None:
    with Proxy(server) as proxy, open_client(kind, proxy.url, fallback="open", budget_ns=PATIENT_NS) as client:
        client.hit("key", PLAN)
        asked = []

        def forgetful(data: bytes) -> bytes:
            asked.append(data)
            return b"-NOSCRIPT No matching script.\r\n"

        proxy.replies = forgetful
        assert client.hit("key", PLAN).fallback == "open"
        assert len(asked) <= 6


@pytest.mark.parametrize("kind", CLIENTS)
def test_an_answer_that_comes_late_is_taken_for_no_other_call(kind: str, server: Valkey) -> None:
    plan = (Quota.per_day(1_000),)
    keys = [f"key {number}" for number in range(20)]
    with Proxy(server) as proxy, open_client(kind, proxy.url, fallback="open") as client:
        with open_client(kind, server.url, budget_ns=PATIENT_NS) as patient:
            assert all(patient.hit(key, plan, number + 1).allowed for number, key in enumerate(keys))

        def late() -> bool:
            for number, key in enumerate(keys):
                proxy.delay_s = 0.0 if number % 4 else 0.04
                seen = client.peek(key, plan)
                assert seen.fallback == "open" or seen.remaining == 1_000 - number - 1
            return client.counts.failures.get("timeout", 0) >= 3

        eventually(late)


@pytest.mark.parametrize("kind", CLIENTS)
def test_an_answer_that_nobody_asked_for_is_taken_for_no_other_call(kind: str, server: Valkey) -> None:
    plan = (Quota.per_day(1_000),)
    with Proxy(server) as proxy, open_client(kind, proxy.url, fallback="open") as client:
        for number in range(20):
            client.hit(f"key {number}", plan, number + 1)
        proxy.replies = lambda data: data * 2
        for number in range(20):
            seen = client.peek(f"key {number}", plan)
            assert seen.fallback == "open" or seen.remaining == 1_000 - number - 1
        assert client.counts.failures["protocol"] >= 1


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(
    "url",
    [
        "unix:///nowhere/valkey.sock",
        "valkey://127.0.0.1:1",
        "valkey+cluster://127.0.0.1:1,127.0.0.1:2",
        "valkey://" + "a" * 64 + ".invalid",
    ],
)
def test_a_store_that_was_never_there_is_decided_without(kind: str, url: str) -> None:
    with open_client(kind, url, fallback="local") as client:
        plan = (Quota.per_minute(3),)
        assert [client.hit("key", plan).allowed for _ in range(4)] == [True, True, True, False]
        assert [decision.allowed for decision in client.hit_many(["a", "b", "a"], plan, 2)] == [True, True, False]
        assert client.peek("key", plan).fallback == "local"
        assert client.counts.by_fallback == 8
        assert client.counts.by_store == 0


@pytest.mark.parametrize("kind", CLIENTS)
def test_without_the_store_a_refund_is_refused_and_a_reset_is_not_pretended(kind: str, server: Valkey) -> None:
    plan = (Quota.per_minute(3),)
    with open_client(kind, server.url, fallback="open") as client:
        before = client.hit("key", plan)
        server.kill()
        assert not client.refund(before)
        with pytest.raises(StoreUnavailableError):
            client.reset("key", plan)
        during = client.hit("key", plan)
        assert during.fallback == "open"
        assert not client.refund(during)


@pytest.mark.parametrize("kind", CLIENTS)
def test_what_was_taken_before_the_store_lost_it_cannot_be_refunded_afterwards(kind: str, server: Valkey) -> None:
    plan = (Quota.per_minute(3),)
    with open_client(kind, server.url, budget_ns=PATIENT_NS) as client:
        before = client.hit("key", plan, 3)
        server.call("FLUSHALL")
        client.hit("key", plan, 3)
        assert not client.refund(before)
        assert not client.hit("key", plan).allowed


@pytest.mark.parametrize("kind", CLIENTS)
def test_what_the_share_took_is_refunded_to_the_share(kind: str) -> None:
    with open_client(kind, "unix:///nowhere/valkey.sock", fallback="local", processes=2) as client:
        plan = (Quota.per_minute(20),)
        decision = client.hit("key", plan, 10)
        assert not client.hit("key", plan).allowed
        assert client.refund(decision)
        assert not client.refund(decision)
        assert client.hit("key", plan, 10).allowed


GARBAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "HTTP": lambda data: b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    "noise": lambda data: bytes(byte ^ 0x55 for byte in data),
    "half an answer": lambda data: data[: len(data) // 2],
    "half an answer and an end": lambda data: None,
    "an empty answer": lambda data: b"$0\r\n\r\n",
    "a decision of another plan": lambda data: b"$24\r\n" + bytes(24) + b"\r\n",
    "neither yes nor no": lambda data: b"$40\r\n" + b"\x07" * 40 + b"\r\n",
    "a number": lambda data: b":1\r\n",
    "nothing": lambda data: b"$-1\r\n",
    "an answer of great length": lambda data: b"$9999999999\r\n",
    "a list of lists": lambda data: b"*1\r\n" * 10_000,
    "READONLY": lambda data: b"-READONLY You can't write against a read only replica.\r\n",
    "LOADING": lambda data: b"-LOADING Valkey is loading the dataset in memory\r\n",
    "MISCONF": lambda data: b"-MISCONF Valkey is configured to save RDB snapshots\r\n",
    "MASTERDOWN": lambda data: b"-MASTERDOWN Link with MASTER is down\r\n",
    "BUSY": lambda data: b"-BUSY Valkey is busy running a script.\r\n",
    "NOSCRIPT": lambda data: b"-NOSCRIPT No matching script.\r\n",
    "CLUSTERDOWN": lambda data: b"-CLUSTERDOWN The cluster is down\r\n",
    "MOVED": lambda data: b"-MOVED 1 127.0.0.1:1\r\n",
    "ASK": lambda data: b"-ASK 1 127.0.0.1:1\r\n",
    "TRYAGAIN": lambda data: b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
    "NOAUTH": lambda data: b"-NOAUTH Authentication required.\r\n",
    "WRONGPASS": lambda data: b"-WRONGPASS invalid username-password pair\r\n",
    "ERR": lambda data: b"-ERR max number of clients reached\r\n",
}


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("greeted", [True, False], ids=["greeted", "ungreeted"])
def test_whatever_is_answered_instead_is_no_decision(kind: str, garbage: str, greeted: bool, valkey: Valkey) -> None:
    with Proxy(valkey) as proxy, open_client(kind, proxy.url, fallback="open", prefix=f"{garbage}:") as client:
        if greeted:
            eventually(lambda: client.hit("key", PLAN).fallback is None)
        proxy.replies = GARBAGE[garbage]
        started = time.monotonic()
        assert client.hit("key", PLAN).fallback == "open"
        assert [decision.fallback for decision in client.hit_many(["a", "b"], PLAN)] == ["open"] * 2
        assert client.peek("key", PLAN).fallback == "open"
        with pytest.raises(StoreUnavailableError):
            client.reset("key", PLAN)
        assert time.monotonic() - started < PATIENCE_S
        assert client.counts.failures
