"""A cluster: each caller's key is asked for where it is, while slots move, servers fail, and maps are wrong."""

from __future__ import annotations

import threading
import time
from binascii import crc_hqx
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_core.limiter import Quota
from storage_backends.valkey.address import Address
from storage_backends.valkey.cluster import REFRESH_NS, SLOTS, Redirection, SlotMap, slot_of
from storage_backends.valkey.resp import ErrorReply, ProtocolError
from tests.servers import Valkey, ValkeyCluster, eventually
from tests.valkey import CLIENTS, PATIENT_NS, Client, open_client

PLAN = (Quota.per_day(1_000),)
ASKED = Address("10.0.0.1", 7_000)


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    with ValkeyCluster() as cluster:
        yield cluster


@pytest.mark.parametrize(
    ("name", "slot"),
    [
        (b"123456789", 0x31C3),
        (b"foo", 12_182),
        (b"{foo}bar", 12_182),
        (b"a{foo}{bar}", 12_182),
        (b"{}foo", crc_hqx(b"{}foo", 0) % SLOTS),
        (b"{foo", crc_hqx(b"{foo", 0) % SLOTS),
        (b"}{foo}", 12_182),
        (b"", 0),
    ],
)
def test_slots_are_those_of_the_specification(name: bytes, slot: int) -> None:
    assert slot_of(name) == slot


@given(st.text())
def test_the_server_agrees_about_the_slot_of_any_key(cluster: ValkeyCluster, key: str) -> None:
    assert cluster.nodes[0].call("CLUSTER", "KEYSLOT", key) == slot_of(key.encode())


@pytest.mark.parametrize(
    ("line", "slot", "address", "once"),
    [
        (b"MOVED 3999 127.0.0.1:6381", 3_999, Address("127.0.0.1", 6_381), False),
        (b"ASK 0 ::1:6381", 0, Address("::1", 6_381), True),
        (b"MOVED 16383 :6381", 16_383, Address("10.0.0.1", 6_381), False),
        (b"MOVED 1 node.example.com:1", 1, Address("node.example.com", 1), False),
    ],
)
def test_a_redirection_names_a_place(line: bytes, slot: int, address: Address, once: bool) -> None:
    found = Redirection(ErrorReply(line), ASKED)
    assert (found.slot, found.address, found.once) == (slot, address, once)


@pytest.mark.parametrize(
    "line",
    [
        b"MOVED",
        b"MOVED 1",
        b"MOVED x h:1",
        b"MOVED 16384 h:1",
        b"MOVED 1 h:x",
        b"MOVED 1 h:0",
        b"MOVED 1 h:65536",
        b"ASK -1 h:1",
        b"MOVED " + b"1" * 5_000 + b" h:1",
        b"MOVED 1 h:" + b"1" * 5_000,
        b"MOVED 1 h\0:1",
    ],
)
def test_a_redirection_to_nowhere_is_garbage(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        Redirection(ErrorReply(line), ASKED)


def test_a_map_names_the_server_of_each_slot_and_nobody_for_the_rest() -> None:
    slots = SlotMap([ASKED])
    slots.learn([[0, 99, [b"a", 1, b"id", []]], [200, SLOTS - 1, [b"", 2], [b"replica", 3]]], ASKED)
    assert slots.owners[0] == slots.owners[99] == Address("a", 1)
    assert slots.owners[100] is slots.owners[199] is None
    assert slots.owners[200] == slots.owners[-1] == Address("10.0.0.1", 2)
    assert set(slots.known()) == {ASKED, Address("a", 1), Address("10.0.0.1", 2)}


@pytest.mark.parametrize("reply", [None, 1, b"x", [1], [[0]], [[0, 1]], [[b"0", 1, [b"a", 1]]]], ids=repr)
@pytest.mark.parametrize(
    "bad", [[], [b"a"], [b"\xff", 1], [1, 1], [b"a", b"x"], [b"a", 0], [b"a", 65_536], [b"a\0", 1]], ids=repr
)
@pytest.mark.parametrize("span", [(1, 0), (0, SLOTS), (-1, 1)], ids=repr)
def test_what_is_no_map_is_garbage_and_changes_nothing(reply: Any, bad: Any, span: tuple[int, int]) -> None:
    slots = SlotMap([ASKED])
    slots.owners[7] = ASKED
    for garbage in (reply, [[0, 1, bad]], [[0, 9, [b"a", 1]], [*span, [b"a", 1]]]):
        with pytest.raises(ProtocolError):
            slots.learn(garbage, ASKED)
    assert slots.owners[7] == ASKED


def test_the_map_is_asked_for_once_a_second_at_most() -> None:
    slots = SlotMap([ASKED])
    start = 10**12
    due = [now for now in range(start, start + 3 * REFRESH_NS, REFRESH_NS // 10) if slots.is_refresh_due(now)]
    assert due == [start, start + REFRESH_NS, start + 2 * REFRESH_NS]


@pytest.mark.parametrize("kind", CLIENTS)
def test_keys_of_all_slots_are_asked_for_where_they_are(kind: str, cluster: ValkeyCluster) -> None:
    keys = ["", "\0", "\udc80", "{z}\ud800", *(f"key {number}" for number in range(496))]
    with open_client(kind, cluster.url, budget_ns=PATIENT_NS, prefix=f"{kind}:") as client:
        for number, key in enumerate(keys):
            assert client.hit(key, PLAN, number + 1).fallback is None
        decisions = client.hit_many(keys, PLAN)
        assert [decision.remaining for decision in decisions] == [1_000 - number - 2 for number in range(500)]
        assert client.refund(decisions[0])
        client.reset(keys[0], PLAN)
        assert client.peek(keys[0], PLAN).remaining == 1_000
        assert client.counts.failures == {}
    held = [node.call("DBSIZE") for node in cluster.nodes]
    assert min(held) > 100


def test_a_thread_learns_the_map_before_it_asks_for_many_keys(cluster: ValkeyCluster) -> None:
    keys = [f"key {number}" for number in range(200)]
    for node in cluster.nodes:
        node.call("CONFIG", "RESETSTAT")
    with open_client("blocking", cluster.url, budget_ns=PATIENT_NS, prefix="learning:") as client:
        assert [decision.key for decision in client.hit_many(keys, PLAN)] == keys
        assert client.counts.by_fallback == 0
    assert [redirected(node) for node in cluster.nodes] == [0, 0, 0]


@pytest.mark.parametrize("kind", CLIENTS)
def test_servers_that_the_cluster_has_no_more_are_let_go(kind: str, cluster: ValkeyCluster) -> None:
    with open_client(kind, cluster.url, budget_ns=PATIENT_NS, prefix=f"gone {kind}:") as client:
        client.hit("key", PLAN)
        limiter = client.limiter
        servers = limiter._nodes if kind == "asyncio" else limiter._servers
        kept = servers._nodes if kind == "asyncio" else servers._servers
        learn = kept[servers._map.seeds[0]].address

        def restart(number: int) -> None:
            """All servers of the cluster have other addresses, and one of them is asked."""
            places = [[0, 8_191, [b"10.0.%d.1" % number, 1]], [8_192, SLOTS - 1, [b"10.0.%d.2" % number, 1]]]
            servers._map.learn(places, learn)
            for address in (servers._map.owners[0], servers._map.owners[-1]):
                (servers._node if kind == "asyncio" else servers._server)(address)

        async def restart_in_the_loop(number: int) -> None:
            restart(number)

        for number in range(20):
            client._call(restart_in_the_loop if kind == "asyncio" else restart, number)
        assert len(kept) <= len(servers._map.seeds) + 2
        assert set(servers._map.seeds) & set(kept)


@pytest.mark.parametrize("kind", CLIENTS)
def test_one_seed_that_answers_is_enough(kind: str, cluster: ValkeyCluster) -> None:
    url = f"valkey+cluster://127.0.0.1:1,127.0.0.1:{cluster.nodes[2].port}"
    with open_client(kind, url, fallback="closed", prefix=f"seed {kind}:") as client:
        eventually(lambda: all(client.hit(f"key {n}", PLAN).fallback is None for n in range(20)))


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_server_of_a_cluster_addressed_as_if_it_were_alone_is_decided_without(
    kind: str, cluster: ValkeyCluster
) -> None:
    with open_client(kind, cluster.nodes[0].url, fallback="open", prefix=f"alone {kind}:") as client:
        fallbacks = {client.hit(f"key {number}", PLAN).fallback for number in range(30)}
        assert "open" in fallbacks
        assert set(client.counts.failures) == {"MOVED"}


class Load:
    """Callers who take from many keys as fast as they are answered."""

    def __init__(self, client: Client, keys: list[str]) -> None:
        self.taken = dict.fromkeys(keys, 0)
        self.by_policy = 0
        self._client = client
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            for decision in self._client.hit_many(list(self.taken), PLAN):
                self.taken[decision.key] += decision.allowed
                self.by_policy += decision.fallback is not None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def node_id(node: Valkey) -> str:
    return str(node.call("CLUSTER", "MYID").decode())


def move(slot: int, source: Valkey, target: Valkey, others: list[Valkey]) -> None:
    """Move a slot as operators' tools do: key by key, while it is in use."""
    assert target.call("CLUSTER", "SETSLOT", str(slot), "IMPORTING", node_id(source)) == b"OK"
    assert source.call("CLUSTER", "SETSLOT", str(slot), "MIGRATING", node_id(target)) == b"OK"
    while names := source.call("CLUSTER", "GETKEYSINSLOT", str(slot), "100"):
        for name in names:
            reply = source.call("MIGRATE", "127.0.0.1", str(target.port), name.decode(), "0", "5000")
            assert reply in (b"OK", b"NOKEY")
    for node in (target, source, *others):
        assert node.call("CLUSTER", "SETSLOT", str(slot), "NODE", node_id(target)) == b"OK"


@pytest.mark.parametrize("kind", CLIENTS)
def test_while_slots_move_under_load_nothing_is_lost_and_nothing_counted_twice(
    kind: str, cluster: ValkeyCluster
) -> None:
    prefix = f"moving {kind}:"
    keys = [f"{{{tag}}} {number}" for tag in ("a", "b", "c", "d", "e") for number in range(6)]
    with open_client(kind, cluster.url, budget_ns=PATIENT_NS, prefix=prefix, fallback="closed") as client:
        client.hit_many(keys, PLAN)
        for key in keys:
            client.reset(key, PLAN)
        with Load(client, keys) as load:
            for tag in ("a", "b", "c", "d", "e"):
                slot = slot_of(f"{prefix}{{{tag}}}".encode())
                [source] = [node for node in cluster.nodes if owns(node, slot)]
                target, other = (node for node in cluster.nodes if node is not source)
                move(slot, source, target, [other])
                time.sleep(0.02)
        assert client.counts.failures == {}
        assert load.by_policy == 0
        left = {key: client.peek(key, PLAN).remaining for key in keys}
    assert left == {key: max(0, 1_000 - taken) for key, taken in load.taken.items()}
    assert min(load.taken.values()) > 0


def redirected(node: Valkey) -> int:
    """How many calls a server has sent elsewhere since its statistics were reset."""
    for line in node.call("INFO", "errorstats").decode().splitlines():
        if line.startswith("errorstat_MOVED:count="):
            return int(line.partition("=")[2])
    return 0


@pytest.mark.parametrize("kind", CLIENTS)
def test_whoever_was_redirected_goes_there_at_once_the_next_time(kind: str, cluster: ValkeyCluster) -> None:
    prefix = f"redirected {kind}:"
    slot = slot_of(f"{prefix}key".encode())
    with open_client(kind, cluster.url, budget_ns=PATIENT_NS, prefix=prefix) as client:
        client.hit_many([f"key {number}" for number in range(50)], PLAN)
        client.hit("key", PLAN)
        [source] = [node for node in cluster.nodes if owns(node, slot)]
        target, other = (node for node in cluster.nodes if node is not source)
        move(slot, source, target, [other])
        source.call("CONFIG", "RESETSTAT")
        slots = client.limiter._nodes._map if kind == "asyncio" else client.limiter._servers._map
        slots._next_refresh = float("inf")
        assert [client.hit("key", PLAN).remaining for _ in range(5)] == [998, 997, 996, 995, 994]
        assert redirected(source) == 1


@pytest.mark.parametrize("kind", CLIENTS)
def test_the_successor_of_a_server_that_is_gone_is_found_by_asking_another(kind: str) -> None:
    with ValkeyCluster() as cluster, open_client(kind, cluster.url, fallback="closed") as client:
        slot = slot_of(b"limiter:key")
        eventually(lambda: client.hit("key", PLAN).fallback is None)
        [gone] = [node for node in cluster.nodes if owns(node, slot)]
        successor, other = (node for node in cluster.nodes if node is not gone)
        gone.kill()
        eventually(lambda: client.hit("key", PLAN).fallback == "closed")
        for node in (successor, other):
            assert node.call("CLUSTER", "SETSLOT", str(slot), "NODE", node_id(successor)) == b"OK"
        eventually(lambda: client.hit("key", PLAN).fallback is None, patience_s=5.0)


def owns(node: Valkey, slot: int) -> bool:
    own = node_id(node).encode()
    for first, last, (_, _, name, *_), *_ in node.call("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            return bool(name == own)
    return False


def test_while_one_server_is_away_the_others_decide_and_it_decides_again_when_it_is_back() -> None:
    keys = [f"key {number}" for number in range(60)]
    with ExitStack() as stack:
        cluster = stack.enter_context(ValkeyCluster())
        clients = [stack.enter_context(open_client(kind, cluster.url, fallback="closed")) for kind in CLIENTS]

        def decide(client: Client, *fallbacks: str | None) -> bool:
            return {decision.fallback for decision in client.hit_many(keys, PLAN)} == set(fallbacks)

        for client in clients:
            eventually(partial(decide, client, None))
        cluster.nodes[1].kill()
        for client in clients:
            eventually(partial(decide, client, None, "closed"))
            lasting = [decision.key for decision in client.hit_many(keys, PLAN) if decision.fallback is None]
            assert 20 < len(lasting) < 60
        cluster.nodes[1].start()
        for client in clients:
            eventually(partial(decide, client, None))
