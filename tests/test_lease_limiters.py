"""Both limiters that lease, on a real server: the promise under every schedule of several, what is told, what comes
back, closing, forks, event loops and outages."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_core.limiter import Decision, Decisions, Limiter, Quota
from learnflow_core.limiter.leases import TERM_NS, USABLE_NS, LeasedDecision
from storage_backends.valkey import AsyncLeasedValkeyLimiter, LeasedValkeyLimiter, ValkeyLimiter
from storage_backends.valkey.calls import TICK_NS
from storage_backends.valkey.hands import LOOK_NS, MAX_HANDS, QUIET_LOOKS, WAKE_S
from tests.limiting import MINUTE_AND_DAY, ROOT, SECOND, Clock, Implementation, within_the_promise
from tests.servers import Proxy, Valkey, ValkeyCluster, eventually
from tests.test_valkey_outages import BACK_S, OUTAGES, PATIENCE_S, decides, load
from tests.valkey import LEASED_CLIENTS, PATIENT_NS, Client, HeldLimiter, open_client

DAY = (Quota.per_day(10_000),)
LARGE = (Quota.per_minute(10_000_000), Quota.per_day(1_000_000_000))
keys = map("key {}".format, count())


@pytest.fixture
def server() -> Iterator[Valkey]:
    with Valkey() as started:
        yield started


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    with ValkeyCluster() as started:
        yield started


@pytest.fixture
def plain(valkey: Valkey) -> Iterator[ValkeyLimiter]:
    """A limiter without leases, which sees what the others leave."""
    with ValkeyLimiter(valkey.url, budget_ns=PATIENT_NS) as limiter:
        yield limiter


@pytest.fixture(scope="module", params=["valkey_leased", "valkey_leased_asyncio"])
def held(request: pytest.FixtureRequest) -> Implementation:
    made: Implementation = request.getfixturevalue(f"{request.param}_limiters")
    return made


def warm(client: Any, key: str, plan: tuple[Quota, ...] = DAY) -> int:
    """Ask until it is decided from memory; how often that took."""
    for asked in count(1):
        if isinstance(client.hit(key, plan), LeasedDecision):
            return asked
    raise AssertionError


@pytest.mark.parametrize("kind", LEASED_CLIENTS)
def test_whoever_asks_often_is_decided_from_memory(kind: str, valkey: Valkey) -> None:
    with open_client(kind, valkey.url, budget_ns=PATIENT_NS) as client:
        before = time.time_ns()
        made = [client.hit(next(keys) if number == 500 else "hot", LARGE) for number in range(1_000)]
        leased = sum(isinstance(decision, LeasedDecision) for decision in made)
        assert leased > 900
        assert client.counts.by_lease == leased
        assert client.counts.by_store < 100
        assert all(decision.allowed and decision.fallback is None for decision in made)
        assert client.limiter.implementation == "valkey-leased"
        last = client.hit("hot", LARGE)
        assert before - 1_000_000 <= made[-1].now_ns <= last.now_ns <= time.time_ns(), "it is the store's clock"
        assert last.now_ns % TICK_NS == 0


async def test_it_fulfils_the_port_and_a_decision_from_memory_needs_no_turn_of_the_loop(valkey: Valkey) -> None:
    async with AsyncLeasedValkeyLimiter(valkey.url, budget_ns=PATIENT_NS, prefix="port:") as limiter:
        port: Limiter = limiter
        while not isinstance(await port.hit("key", MINUTE_AND_DAY), LeasedDecision):
            pass
        decision = limiter.hit("key", MINUTE_AND_DAY)
        assert isinstance(decision, Decision)
        assert isinstance(await port.hit_many(["a", "b"], MINUTE_AND_DAY), Decisions)
        assert [bool(await port.refund(decision)) for _ in range(2)] == [True, False]
        await port.reset("key", MINUTE_AND_DAY)
        assert (await port.peek("key", MINUTE_AND_DAY)).remaining == 300


steps = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["hits", "hit", "refund", "look", "peek", "crash", "hit_many"]),
        st.sampled_from([0, 0, TICK_NS, TERM_NS // 16, TERM_NS // 4, TERM_NS * 7 // 8, TERM_NS])
        | st.integers(0, 500_000).map(TICK_NS.__mul__),
        st.integers(1, 60),
    ),
    max_size=40,
)


class Several:
    """Limiters of one caller's buckets, at one time of a held clock; what they answered, and which was taken back."""

    def __init__(self, held: Implementation, quota: Quota) -> None:
        self.clock = Clock(TERM_NS)
        self.plan = (quota,)
        self.made: list[tuple[int, Decision]] = []
        self.refunded: set[int] = set()
        self._held = held
        self.limiters: list[HeldLimiter] = [held.make(clock=self.clock) for _ in range(3)]
        for limiter in self.limiters[1:]:
            limiter.use(self.limiters[0].prefix)

    def hits(self, who: int, number: int) -> None:
        self.made += [(self.clock.now, self.limiters[who].hit("key", self.plan)) for _ in range(4 * number)]

    def hit(self, who: int, number: int) -> None:
        self.made.append((self.clock.now, self.limiters[who].hit("key", self.plan, number)))

    def hit_many(self, who: int, number: int) -> None:
        decisions = self.limiters[who].hit_many(["key"] * number, self.plan)
        self.made += [(self.clock.now, decision) for decision in decisions]

    def refund(self, who: int, number: int) -> None:
        index = len(self.made) - number
        if index >= 0 and self.limiters[who].refund(self.made[index][1]):
            self.refunded.add(index)

    def look(self, who: int, number: int) -> None:
        self.limiters[who].look()

    def peek(self, who: int, number: int) -> None:
        assert self.limiters[who].peek("key", self.plan, number).cost == number

    def crash(self, who: int, number: int) -> None:
        prefix = self.limiters[who].prefix
        self.limiters[who] = self._held.make(clock=self.clock)
        self.limiters[who].use(prefix)

    def passed(self) -> list[tuple[int, int]]:
        made = enumerate(self.made)
        return [(at, one.cost) for index, (at, one) in made if one.allowed and index not in self.refunded]


@given(steps, st.sampled_from([SECOND, 10 * SECOND, 3_600 * SECOND]))
def test_what_several_limiters_let_pass_together_stays_within_the_promise(
    held: Implementation, schedule: list[tuple[int, str, int, int]], period_ns: int
) -> None:
    quota = Quota("quota", 400, period_ns, burst=300).in_ticks_of(TICK_NS)
    several = Several(held, quota)
    for who, what, wait, number in schedule:
        several.clock.now += wait
        getattr(several, what)(who, number)
    assert within_the_promise(quota, several.passed())


@given(st.lists(st.tuples(st.integers(0, 400_000).map(TICK_NS.__mul__), st.integers(1, 250)), min_size=1, max_size=25))
def test_refused_until_exactly_the_told_instant_where_no_other_process_has_leases(
    held: Implementation, asked: list[tuple[int, int]]
) -> None:
    plan = (Quota.per_second(400, burst=250), Quota("hour", 4_000, 3_600 * SECOND))
    clock = Clock(TERM_NS)
    limiter = held.make(clock=clock)
    for wait, cost in asked:
        clock.now += wait
        for _ in range(20):
            limiter.hit("key", plan)
        decision = limiter.hit("key", plan, cost)
        if not decision.allowed:
            clock.now += decision.retry_after_ns - TICK_NS
            assert not limiter.hit("key", plan, cost).allowed
            clock.now += TICK_NS
            assert limiter.hit("key", plan, cost).allowed


@given(st.lists(st.tuples(st.integers(0, 400_000).map(TICK_NS.__mul__), st.integers(0, 60)), min_size=1, max_size=15))
def test_figures_from_memory_are_those_that_everybody_would_see_if_all_gave_back(
    held: Implementation, asked: list[tuple[int, int]]
) -> None:
    plan = (Quota.per_second(400, burst=250), Quota("hour", 4_000, 3_600 * SECOND))
    clock = Clock(TERM_NS)
    limiter = held.make(clock=clock)
    for wait, hits in asked:
        clock.now += wait
        for _ in range(hits):
            limiter.hit("key", plan)
        limiter.wait_for_renewals()
        told = limiter.peek("key", plan)
        limiter.give_back("key")
        assert [state.remaining for state in limiter.peek("key", plan).states] == [
            state.remaining for state in told.states
        ]


@pytest.mark.parametrize("kind", LEASED_CLIENTS)
def test_one_process_admits_exactly_the_limit_whatever_it_leases(kind: str, valkey: Valkey) -> None:
    plan = (Quota.per_day(500, name=kind),)
    with open_client(kind, valkey.url, budget_ns=PATIENT_NS) as client, ThreadPoolExecutor(8) as threads:
        decisions = list(threads.map(lambda _: client.hit("threads", plan), range(2_000)))
        assert sum(decision.allowed for decision in decisions) == 500
        assert client.counts.by_lease > 100
        one = client.hit("refunded", plan, 90)
        assert sum(map(bool, threads.map(client.refund, [one] * 32))) == 1
        assert client.peek("refunded", plan).remaining == 500


@pytest.mark.parametrize("kind", LEASED_CLIENTS)
def test_many_keys_at_once_are_answered_in_their_order(kind: str, valkey: Valkey) -> None:
    with open_client(kind, valkey.url, budget_ns=PATIENT_NS, prefix=f"many {kind}:") as client:
        asked = [f"key {number % 400}" for number in range(1_000)]
        for _ in range(3):
            made = client.hit_many(asked, DAY)
            assert [decision.key for decision in made] == asked
        assert client.hit_many(["key 399"] * 40, DAY)[-1].remaining == 10_000 - 6 - 40


@pytest.mark.parametrize("kind", LEASED_CLIENTS)
def test_a_peek_sees_what_is_in_hand_and_takes_nothing(kind: str, valkey: Valkey) -> None:
    key = next(keys)
    with open_client(kind, valkey.url, budget_ns=PATIENT_NS) as client:
        asked = warm(client, key)
        assert isinstance(client.peek(key, DAY), LeasedDecision)
        seen = client.peek(key, DAY, 9_000)
        assert not isinstance(seen, LeasedDecision)
        assert seen.remaining == client.peek(key, DAY).remaining == 10_000 - asked


@pytest.mark.parametrize("kind", LEASED_CLIENTS)
def test_a_refund_is_made_in_memory_or_in_the_store_and_once(kind: str, valkey: Valkey, plain: ValkeyLimiter) -> None:
    key = next(keys)
    with open_client(kind, valkey.url, budget_ns=PATIENT_NS) as client:
        first = client.hit(key, DAY)
        asked = warm(client, key)
        leased = client.hit(key, DAY)
        assert isinstance(leased, LeasedDecision)
        assert not plain.refund(leased)
        assert [bool(client.refund(decision)) for decision in (leased, leased, first, first)] == [True, False] * 2
        assert client.peek(key, DAY).remaining == 10_000 - asked
        warm(client, key)
        leased = client.hit(key, DAY)
        before = client.peek(key, DAY, 9_000).states[0].remaining
        assert client.refund(leased), "though its lease is closed"
        assert client.peek(key, DAY).states[0].remaining == before + 1


@pytest.mark.parametrize("kind", LEASED_CLIENTS)
def test_a_reset_fills_what_is_in_hand_too_and_ends_the_refunds(kind: str, valkey: Valkey) -> None:
    key = next(keys)
    with open_client(kind, valkey.url, budget_ns=PATIENT_NS) as client:
        warm(client, key)
        decision = client.hit(key, DAY)
        client.reset(key, DAY)
        assert client.peek(key, DAY).remaining == 10_000
        assert not client.refund(decision)


@pytest.mark.parametrize("kind", LEASED_CLIENTS)
def test_closing_gives_back_what_is_in_hand(kind: str, valkey: Valkey, plain: ValkeyLimiter) -> None:
    key = next(keys)
    with open_client(kind, valkey.url, budget_ns=PATIENT_NS) as client:
        asked = warm(client, key)
        assert plain.peek(key, DAY, 1).states[0].remaining < 10_000 - asked
    assert plain.peek(key, DAY).remaining == 10_000 - asked


@pytest.mark.parametrize("kind", LEASED_CLIENTS)
def test_after_closing_whoever_asks_is_told(kind: str, valkey: Valkey) -> None:
    key = next(keys)
    with open_client(kind, valkey.url, budget_ns=PATIENT_NS) as client:
        warm(client, key)
        for _ in range(2):
            client.close()
        for call in (client.hit, client.peek, client.reset):
            with pytest.raises(RuntimeError, match="the limiter is closed"):
                call(key, DAY)
        with pytest.raises(RuntimeError, match="the limiter is closed"):
            client.hit_many([key], DAY)
        assert len(client.limiter._hands) == 0


@pytest.mark.parametrize("kind", LEASED_CLIENTS)
def test_what_is_not_used_goes_back_by_itself(kind: str, valkey: Valkey, plain: ValkeyLimiter) -> None:
    key = next(keys)
    with open_client(kind, valkey.url, budget_ns=PATIENT_NS) as client:
        asked = warm(client, key)
        eventually(lambda: plain.peek(key, DAY).remaining == 10_000 - asked)
        eventually(lambda: len(client.limiter._hands) == 0)
        eventually(
            lambda: not getattr(client.limiter, "_watcher", None) and not getattr(client.limiter, "_timer", None)
        )
        warm(client, key)
        assert len(client.limiter._hands) == 1


@pytest.mark.parametrize("kind", LEASED_CLIENTS)
def test_two_plans_of_one_caller_see_each_others_tokens(kind: str, valkey: Valkey) -> None:
    key, other = next(keys), (Quota.per_day(10_000), Quota.per_hour(100, name="exports"))
    with open_client(kind, valkey.url, budget_ns=PATIENT_NS) as client:
        asked = warm(client, key)
        assert client.hit(key, other).states[0].remaining == 10_000 - asked - 1
        asked += warm(client, key)
        assert client.hit(key, other, 99).states[0].remaining == 10_000 - asked - 100


@pytest.mark.parametrize("kind", LEASED_CLIENTS)
def test_in_a_cluster_every_caller_leases_where_its_state_is(kind: str, cluster: ValkeyCluster) -> None:
    with open_client(kind, cluster.url, budget_ns=PATIENT_NS, prefix=f"{kind}:") as client:
        asked = sum(warm(client, f"key {number}") for number in range(30))
        assert all(
            decision.fallback is None for decision in client.hit_many([f"key {n % 40}" for n in range(200)], DAY)
        )
    with open_client("blocking", cluster.url, budget_ns=PATIENT_NS, prefix=f"{kind}:") as client:
        left = [decision.remaining for decision in client.hit_many([f"key {number}" for number in range(40)], DAY)]
    assert sum(10_000 - remaining for remaining in left) == asked + 200 + 40


async def test_closing_while_requests_are_made_leaves_nobody_waiting(server: Valkey) -> None:
    limiter = AsyncLeasedValkeyLimiter(server.url, fallback="open", budget_ns=PATIENT_NS)
    ended: list[str] = []

    async def ask(key: str) -> None:
        try:
            while True:
                await limiter.hit(key, (Quota.per_day(1_000 if key == "few" else 1_000_000),))
                await asyncio.sleep(0)
        except RuntimeError as error:
            ended.append(str(error))

    tasks = [asyncio.ensure_future(ask(key)) for key in ("few", "many") * 5]
    await asyncio.sleep(0.05)
    await limiter.aclose()
    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)
    assert ended == ["the limiter is closed"] * 10


def test_a_limiter_that_nobody_has_any_more_ends_its_thread(valkey: Valkey) -> None:
    limiter = LeasedValkeyLimiter(valkey.url, budget_ns=PATIENT_NS)
    warm(limiter, next(keys))
    watcher = limiter._watcher
    assert watcher
    limiter._servers.close()
    del limiter
    watcher.join(PATIENT_NS / SECOND)
    assert not watcher.is_alive()


def test_one_loop_after_the_other_is_served(valkey: Valkey) -> None:
    limiter = AsyncLeasedValkeyLimiter(valkey.url, budget_ns=PATIENT_NS)
    key = next(keys)

    async def ask() -> list[Decision]:
        return await asyncio.gather(*(limiter.hit(key, DAY) for _ in range(200)))

    async def leave_someone_waiting() -> None:
        warmed = [limiter.hit(key, DAY) for _ in range(200)]
        assert not all(isinstance(decision, Decision) for decision in warmed)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # each loop was closed before its connection
        asyncio.run(ask())
        asyncio.run(leave_someone_waiting())
        made = asyncio.run(asyncio.wait_for(ask(), PATIENT_NS / SECOND))
        asyncio.run(limiter.aclose())
        gc.collect()
    assert all(decision.allowed and decision.fallback is None for decision in made)


async def test_a_task_that_is_cancelled_while_it_waits_disturbs_no_other(valkey: Valkey) -> None:
    async with AsyncLeasedValkeyLimiter(valkey.url, budget_ns=PATIENT_NS) as limiter:
        key = next(keys)
        for _ in range(50):
            tasks = [asyncio.ensure_future(limiter.hit(key, DAY, number + 1)) for number in range(12)]
            await asyncio.sleep(0)
            for task in tasks[::3]:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            costs = [decision.cost for decision in done if isinstance(decision, Decision)]
            assert set(costs) >= {number + 1 for number in range(12) if number % 3}
            await limiter.reset(key, DAY)


def nothing_is_in_hand(client: Client) -> bool:
    """Whether nobody is decided from memory for a while."""
    by_lease = client.counts.by_lease
    time.sleep(0.1)
    return client.counts.by_lease == by_lease


@pytest.mark.parametrize("kind", LEASED_CLIENTS)
@pytest.mark.parametrize("outage", OUTAGES)
def test_in_an_outage_leases_go_on_to_their_end_then_the_policy_decides_and_then_the_store_again(
    kind: str, outage: str, server: Valkey
) -> None:
    hurt, heal = OUTAGES[outage]
    with open_client(kind, server.url, fallback="closed") as client, load(client) as seen:
        eventually(lambda: client.counts.by_lease > 100)
        hurt(server)
        by_lease = client.counts.by_lease
        eventually(lambda: decides(seen, "closed"))
        assert client.counts.by_lease > by_lease
        eventually(lambda: nothing_is_in_hand(client), 2 * TERM_NS / SECOND)
        by_lease = client.counts.by_lease
        heal(server)
        eventually(lambda: decides(seen, None), BACK_S)
        eventually(lambda: client.counts.by_lease > by_lease)
    assert max(one.waited_s for one in seen) < PATIENCE_S
    assert {one.fallback for one in seen} == {None, "closed"}
    assert client.counts.by_fallback == sum(one.fallback is not None for one in seen)


@pytest.mark.parametrize("kind", LEASED_CLIENTS)
def test_when_the_store_has_forgotten_a_lease_it_is_dropped_and_everybody_goes_on(kind: str, server: Valkey) -> None:
    with open_client(kind, server.url, fallback="closed", budget_ns=PATIENT_NS) as client, load(client) as seen:
        eventually(lambda: client.counts.by_lease > 100)
        for _ in range(5):
            server.call("FLUSHALL")
            server.call("SCRIPT", "FLUSH")
            time.sleep(0.05)
    assert {one.fallback for one in seen} == {None}


@pytest.mark.parametrize("kind", LEASED_CLIENTS)
def test_whoever_waits_behind_another_request_waits_no_longer_than_the_budget(kind: str, server: Valkey) -> None:
    plan, budget_ns = (Quota.per_day(10),), SECOND
    with (
        Proxy(server) as proxy,
        open_client(kind, proxy.url, fallback="open", budget_ns=budget_ns) as client,
        ThreadPoolExecutor(2) as threads,
    ):
        for _ in range(3):
            assert client.hit("key", plan).fallback is None
        proxy.delay_s = 0.8

        def wait(delay_s: float) -> tuple[float, str | None]:
            time.sleep(delay_s)
            started = time.monotonic()
            fallback: str | None = client.hit("key", plan).fallback
            return time.monotonic() - started, fallback

        first, behind = threads.map(wait, (0, 0.1))
        proxy.delay_s = 0.0
    assert first[1] is None
    assert behind[1] == "open"
    assert behind[0] < 1.25


def test_a_thread_that_has_waited_too_long_is_not_decided_for_any_more(valkey: Valkey) -> None:
    key = next(keys)
    with LeasedValkeyLimiter(valkey.url, fallback="closed", budget_ns=200_000_000) as limiter:
        for _ in range(2):
            limiter.hit(key, DAY)
        [hand] = limiter._hands.everyone()
        with hand.turn:  # as by a thread that asks
            assert limiter.hit(key, DAY).fallback == "closed"
        assert limiter.hit(key, DAY).remaining == 10_000 - 3


FORKING = """
import asyncio, os, signal, sys
from learnflow_core.limiter import Quota
from learnflow_core.limiter.leases import LeasedDecision
from storage_backends.valkey import AsyncLeasedValkeyLimiter, LeasedValkeyLimiter

plan, options = (Quota.per_day(10_000),), dict(budget_ns=20_000_000_000, fallback="closed", prefix=sys.argv[3])

async def passed(limiter, times):
    return sum([(await limiter.hit("key", plan)).allowed for _ in range(times)])

async def asynchronous():
    limiter = AsyncLeasedValkeyLimiter(sys.argv[1], **options)
    await passed(limiter, 300)
    mine = limiter.hit("key", plan)
    child = os.fork()
    signal.alarm(30)
    if child == 0:
        async def hit_and_close():
            refunded = bool(await limiter.refund(mine))
            first = limiter.hit("key", plan)
            ok = not refunded and not isinstance(first, LeasedDecision) and (await first).allowed
            ok = ok and await passed(limiter, 300) == 300
            await limiter.aclose()
            return ok
        import threading
        verdicts = []
        thread = threading.Thread(target=lambda: verdicts.append(asyncio.run(hit_and_close())))
        thread.start()
        thread.join()
        os._exit(0 if verdicts == [True] else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    await passed(limiter, 300)
    await limiter.aclose()
    return status

def blocking():
    limiter = LeasedValkeyLimiter(sys.argv[1], **options)
    for _ in range(300):
        limiter.hit("key", plan)
    mine = limiter.hit("key", plan)
    child = os.fork()
    signal.alarm(30)
    if child == 0:
        ok = not limiter.refund(mine) and not isinstance(limiter.hit("key", plan), LeasedDecision)
        ok = ok and all([limiter.hit("key", plan) for _ in range(300)])
        limiter.close()
        os._exit(0 if ok else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for _ in range(300):
        limiter.hit("key", plan)
    limiter.close()
    return status

print(asyncio.run(asynchronous()) if sys.argv[2].startswith("asyncio") else blocking(), flush=True)
"""


@pytest.mark.parametrize("kind", LEASED_CLIENTS)
def test_a_fork_has_no_lease_and_parent_and_child_go_on(kind: str, valkey: Valkey) -> None:
    prefix = f"forks {kind}:"
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, valkey.url, kind, prefix]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT)
    assert run.stdout.split() == ["0"], run.stderr
    with ValkeyLimiter(valkey.url, prefix=prefix, budget_ns=PATIENT_NS) as limiter:
        assert limiter.peek("key", DAY).remaining == 10_000 - 3 * 300 - 2


def test_a_lease_lies_idle_no_longer_than_the_document_says() -> None:
    assert (QUIET_LOOKS + 1) * LOOK_NS + WAKE_S * SECOND <= TERM_NS * 3 / 8
    assert USABLE_NS + LOOK_NS + WAKE_S * SECOND < TERM_NS
    text = " ".join((ROOT / "docs/leases.md").read_text("utf-8").split())
    assert "three eighths of a term" in text
    assert f"at most {MAX_HANDS:,} have hands" in text
