"""The store's own script against the adversary, and leases beside calls that know nothing of them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis.stateful import run_state_machine_as_test

from learnflow_core.limiter import Quota
from learnflow_core.limiter.leases import TERM_NS, Reply, Request, Settlement
from storage_backends.valkey.calls import TICK_NS, Call, Calls
from storage_backends.valkey.lease_calls import LeaseCall
from storage_backends.valkey.resp import ErrorReply, command, parse
from tests.lease_model import Buckets
from tests.servers import PATIENCE_S, Valkey
from tests.test_lease_machine import Adversary
from tests.valkey import HELD

numbers = count()


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    with Valkey() as started:
        yield started


@pytest.fixture(scope="module")
def line(server: Valkey) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE_S)
        connection.connect(str(server.path))
        yield connection


class RealBuckets:
    """The buckets of a caller whom no other test has, on a real server whose clock is held."""

    def __init__(self, line: socket.socket, plan: Sequence[Quota]) -> None:
        self.plan = [quota.in_ticks_of(TICK_NS) for quota in plan]
        self.calls = Calls(f"{next(numbers):08}:")
        self.calls.scripts = HELD
        self.prefix = self.calls.peek("", self.plan, 1).stored_key("").decode()
        self._line = line

    def flush(self) -> None:
        self._exchange(command("DEL", f"{self.prefix}key"), parse)

    def run(self, request: Request, now: int) -> Reply:
        reply = self.ask(LeaseCall(self.prefix.encode(), HELD.lease, self.plan, request), now)
        assert isinstance(reply, Reply)
        return reply._replace(era=0.0)

    def ask(self, call: Call, now: int) -> Any:
        self._exchange(command("SET", f"clock {self.prefix}", str(now // TICK_NS)), parse)
        return self._exchange(call.request_with_script("key"), lambda data: call.read(data, 0, "key"))

    def _exchange(self, request: bytes, read: Callable[[bytes], tuple[object, int] | None]) -> object:
        self._line.sendall(request)
        data = b""
        while (found := read(data) if data else None) is None:
            data += self._line.recv(65_536)
        assert not isinstance(found[0], ErrorReply), found[0].rest
        return found[0]


def test_the_script_does_under_every_schedule_what_the_model_does(line: socket.socket) -> None:
    class RealAdversary(Adversary):
        def new_store(self, plan: Sequence[Quota]) -> Buckets:
            return RealBuckets(line, plan)

    run_state_machine_as_test(RealAdversary)


TEN = (Quota.per_second(10),)
FIVE = Request("id.1", (), (), 5, 0, share=1)


@pytest.fixture
def buckets(line: socket.socket) -> RealBuckets:
    return RealBuckets(line, TEN)


def test_a_plain_decision_sees_what_is_leased_at_the_floor(buckets: RealBuckets) -> None:
    buckets.run(FIVE, TERM_NS)
    for later in (0, TERM_NS // 2, TERM_NS - TICK_NS):
        decision = buckets.ask(buckets.calls.peek("key", TEN, 1), TERM_NS + later)
        assert decision.remaining == 5


def test_a_plain_decision_keeps_the_leases(buckets: RealBuckets) -> None:
    buckets.run(FIVE, TERM_NS)
    buckets.ask(buckets.calls.hit("key", TEN, 2), TERM_NS)
    back = buckets.run(Request("id.2", (Settlement("id.1", 5, final=True),), (), 0, 0), TERM_NS)
    assert back.known == [True]
    assert buckets.ask(buckets.calls.peek("key", TEN, 1), TERM_NS).remaining == 8


def test_a_refund_stays_above_the_floor(buckets: RealBuckets) -> None:
    taken = buckets.ask(buckets.calls.hit("key", TEN, 5), TERM_NS)
    buckets.run(FIVE, TERM_NS)
    later = TERM_NS + TERM_NS // 5
    buckets.ask(buckets.calls.refund(taken), later)
    assert buckets.ask(buckets.calls.peek("key", TEN, 1), later).remaining == 5
    assert buckets.ask(buckets.calls.peek("key", TEN, 1), later + TERM_NS // 2).remaining == 5


def test_a_reset_fills_the_bucket_to_what_the_leases_leave(buckets: RealBuckets) -> None:
    buckets.run(FIVE, TERM_NS)
    buckets.ask(buckets.calls.hit("key", TEN, 5), TERM_NS)
    buckets.ask(buckets.calls.reset("key", TEN), TERM_NS)
    assert buckets.ask(buckets.calls.peek("key", TEN, 1), TERM_NS).remaining == 5


def test_a_lease_is_of_every_quota_and_as_large_as_the_least_of_them_allows(line: socket.socket) -> None:
    plan = (Quota.per_second(100), Quota.per_day(50))
    buckets = RealBuckets(line, plan)
    assert buckets.run(FIVE._replace(block=100), TERM_NS).block == 50
    states = buckets.ask(buckets.calls.peek("key", plan, 1), TERM_NS).states
    assert [state.remaining for state in states] == [50, 0]
