"""On a real server by its own clock: several processes together admit exactly what a token bucket would, keys are kept
apart whatever they are, and what is full again is forgotten."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_core.limiter import Quota
from storage_backends.valkey import ValkeyLimiter
from storage_backends.valkey.calls import MAX_QUOTAS
from tests.limiting import MINUTE_AND_DAY, ROOT, SECOND, ClassicBucket
from tests.servers import Valkey, eventually
from tests.valkey import CLIENTS, PATIENT_NS, open_client

WINDOW_NS = 20_000_000
WINDOWS = 100
SHORT = Quota("short", 9, WINDOW_NS, burst=7)  # its interval is no whole number of microseconds
LONG = Quota("long", 700, 100 * WINDOW_NS)

BLOCKING = """
import json, sys, time
from learnflow_core.limiter import Quota
from storage_backends.valkey import ValkeyLimiter

url, plan, end = sys.argv[1], eval(sys.argv[2]), time.monotonic() + float(sys.argv[3])
with ValkeyLimiter(url, budget_ns=20_000_000_000, fallback="closed") as limiter:
    made = []
    while time.monotonic() < end:
        made += limiter.hit_many(["key"] * 5, plan)
        made += [limiter.hit("key", plan, 2)]
assert not any(decision.fallback for decision in made)
print(json.dumps([(decision.now_ns, decision.cost, decision.allowed, decision.retry_after_ns) for decision in made]))
"""
ASYNCIO = """
import asyncio, json, sys, time
from learnflow_core.limiter import Quota
from storage_backends.valkey import AsyncValkeyLimiter

url, plan, end = sys.argv[1], eval(sys.argv[2]), time.monotonic() + float(sys.argv[3])

async def main():
    made = []
    async def ask(cost):
        while time.monotonic() < end:
            made.append(await limiter.hit("key", plan, cost))
    async with AsyncValkeyLimiter(url, budget_ns=20_000_000_000, fallback="closed") as limiter:
        await asyncio.gather(*(ask(1 + number % 3) for number in range(10)))
    return made

made = asyncio.run(main())
assert not any(decision.fallback for decision in made)
print(json.dumps([(decision.now_ns, decision.cost, decision.allowed, decision.retry_after_ns) for decision in made]))
"""


def test_processes_together_admit_exactly_what_one_token_bucket_does(
    valkey: Valkey, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = (SHORT, LONG)
    arguments = [valkey.url, repr(plan), str(WINDOWS * WINDOW_NS / SECOND + 0.2)]
    programs = [BLOCKING, ASYNCIO, BLOCKING, ASYNCIO]
    running = [
        subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for program in programs
    ]
    made = sorted(tuple(decision) for process in running for decision in json.loads(process.communicate()[0]))
    assert [process.returncode for process in running] == [0] * len(programs)

    buckets = [ClassicBucket(quota.in_ticks_of(1_000)) for quota in plan]
    over = under = 0
    for now, cost, allowed, told in made:
        for bucket in buckets:
            bucket.refill(now)
        expected = all(bucket.tokens >= cost for bucket in buckets)
        over += allowed and not expected
        under += expected and not allowed
        if not expected:
            assert told == max(bucket.missing_ns(cost) for bucket in buckets)
        for bucket in buckets:
            bucket.tokens -= cost if expected else 0
    asked, admitted = (sum(cost for _, cost, allowed, _ in made if allowed or everyone) for everyone in (True, False))
    windows = (made[-1][0] - made[0][0]) / WINDOW_NS
    told_of = f"{len(programs)} processes, {windows:.0f} windows: asked {asked}, admitted {admitted}, {over=}, {under=}"
    record_property("exactness", told_of)
    with capsys.disabled():
        print(f"\n{told_of}")  # noqa: T201 - the figures are the point
    assert (over, under) == (0, 0)
    assert windows >= WINDOWS
    assert asked > 10 * admitted


def test_threads_together_are_admitted_exactly_the_limit(valkey: Valkey) -> None:
    plan = (Quota.per_day(500, name="threads"),)
    with ValkeyLimiter(valkey.url, budget_ns=PATIENT_NS) as limiter, ThreadPoolExecutor(8) as threads:
        decisions = list(threads.map(lambda _: limiter.hit("threads", plan), range(2_000)))
        assert sum(decision.allowed for decision in decisions) == 500
        assert limiter.counts.by_store == 2_000
        one = limiter.hit("refunded", plan, 90)
        assert sum(map(bool, threads.map(limiter.refund, [one] * 32))) == 1
        assert limiter.peek("refunded", plan).remaining == 500


ANY_KEY = st.text(st.characters(min_codepoint=0, max_codepoint=0x10FFFF, categories=None)) | st.sampled_from(
    ["", "{", "}", "{}", "{a}b", "{a}c", "}{", "\0", "\udc80", "\ud83d\ude00", "a\r\n$3\r\nb", "%s", "x" * 100_000]
)


@given(st.lists(ANY_KEY, unique=True, max_size=12))
def test_every_key_has_buckets_of_its_own_whatever_it_is(valkey: Valkey, keys: list[str]) -> None:
    plan = (Quota.per_day(1_000),)
    with ValkeyLimiter(valkey.url, budget_ns=PATIENT_NS, prefix="any:") as limiter:
        for key in keys:
            limiter.reset(key, plan)
        for cost, key in enumerate(keys, start=1):
            assert limiter.hit(key, plan, cost).key == key
        left = [decision.remaining for decision in map(limiter.peek, keys, [plan] * len(keys))]
        assert left == [1_000 - cost for cost in range(1, len(keys) + 1)]


@pytest.mark.parametrize("kind", CLIENTS)
def test_prefixes_keep_limiters_apart(kind: str, valkey: Valkey) -> None:
    plan = (Quota.per_day(10),)
    with (
        open_client(kind, valkey.url, prefix="one:", budget_ns=PATIENT_NS) as one,
        open_client(kind, valkey.url, prefix="other:", budget_ns=PATIENT_NS) as other,
    ):
        taken = one.hit(kind, plan, 10)
        assert other.hit(kind, plan, 10).allowed
        assert not one.hit(kind, plan).allowed
        assert not other.refund(taken)
        assert one.refund(taken)


def test_a_caller_who_owes_nothing_is_forgotten_in_the_next_millisecond() -> None:
    plan = (Quota("short", 100, SECOND // 2), Quota("longer", 100, SECOND))
    with Valkey() as server, ValkeyLimiter(server.url, budget_ns=PATIENT_NS) as limiter:
        decision = limiter.hit("key", plan, 50)
        left_ms = server.call("PTTL", "limiter:key")
        assert 0 < left_ms <= 501
        assert server.call("DBSIZE") == 1
        eventually(lambda: server.call("DBSIZE") == 0)
        assert time.time_ns() >= max(decision.full_at_ns)


def test_a_reset_caller_is_remembered_for_as_long_as_a_refund_could_have_returned_anything(valkey: Valkey) -> None:
    with ValkeyLimiter(valkey.url, budget_ns=PATIENT_NS, prefix="reset:") as limiter:
        decision = limiter.hit("key", MINUTE_AND_DAY, 100)
        limiter.reset("key", MINUTE_AND_DAY)
        assert valkey.call("STRLEN", "reset:key") == 8
        assert valkey.call("PTTL", "reset:key") > 100 * 3_456 - 10_000
        assert limiter.hit("key", MINUTE_AND_DAY, 300).allowed
        assert not limiter.refund(decision)


def test_a_shorter_quota_asked_for_alone_does_not_shorten_the_life_of_the_longer(valkey: Valkey) -> None:
    short, day = Quota("short", 10, SECOND // 100), Quota.per_day(10)
    with ValkeyLimiter(valkey.url, budget_ns=PATIENT_NS) as limiter:
        assert limiter.hit("short and day", (short, day), 10).allowed
        eventually(lambda: limiter.hit("short and day", (short,)).allowed)
        time.sleep(0.02)
        assert not limiter.hit("short and day", (day,)).allowed


def test_what_is_kept_of_a_caller_is_what_it_owes() -> None:
    with Valkey() as server, ValkeyLimiter(server.url, budget_ns=PATIENT_NS) as limiter:
        for number in range(50):
            limiter.hit("key", (Quota(f"route {number}", 10, SECOND // 1_000), Quota.per_day(100)))
            time.sleep(0.002)
        assert server.call("STRLEN", "limiter:key") < 300
        limiter.peek("another", MINUTE_AND_DAY)
        limiter.reset("another", MINUTE_AND_DAY)
        assert server.call("DBSIZE") == 1


def test_the_instants_of_decisions_are_those_of_the_store_in_whole_microseconds(valkey: Valkey) -> None:
    with ValkeyLimiter(valkey.url, budget_ns=PATIENT_NS) as limiter:
        before = time.time_ns()
        decision = limiter.hit("instants", MINUTE_AND_DAY)
        assert before - 1_000 <= decision.now_ns <= time.time_ns()
        assert decision.now_ns % 1_000 == 0
        assert all(full_at % 1_000 == 0 for full_at in decision.full_at_ns)
        assert [quota.tick_ns for quota in decision.quotas] == [1_000, 1_000]


def test_the_largest_quotas_are_exact(valkey: Valkey) -> None:
    ten_years = 3_653 * 86_400 * SECOND
    largest = Quota("largest", ten_years // 1_000, ten_years)
    longest = Quota("longest", 1, ten_years)
    uneven = Quota("uneven", ten_years // 1_001, ten_years)
    with ValkeyLimiter(valkey.url, budget_ns=PATIENT_NS) as limiter:
        for quota in (largest, longest, uneven):
            decision = limiter.hit("large", (quota,), quota.limit)
            assert decision.allowed
            assert decision.reset_after_ns == quota.in_ticks_of(1_000).longest_ns
            denied = limiter.hit("large", (quota,), quota.limit)
            assert denied.retry_after_ns == decision.reset_after_ns - (denied.now_ns - decision.now_ns)
            assert limiter.refund(decision)
            assert limiter.hit("large", (quota,), 1).allowed


def test_a_quota_of_more_than_one_token_a_microsecond_is_refused(valkey: Valkey) -> None:
    with ValkeyLimiter(valkey.url) as limiter, pytest.raises(ValueError, match="more than one in each tick"):
        limiter.hit("key", (Quota.per_second(1_000_001),))


def test_as_many_quotas_as_are_promised_are_one_decision(valkey: Valkey) -> None:
    plan = tuple(Quota.per_day(10 + number, name=f"quota {number}") for number in range(MAX_QUOTAS + 1))
    with ValkeyLimiter(valkey.url, budget_ns=PATIENT_NS) as limiter:
        assert limiter.hit("many quotas", plan[:-1], 10).remaining == 0
        denied = limiter.hit("many quotas", plan[:-1])
        assert [state.remaining for state in denied.states] == list(range(MAX_QUOTAS))
        with pytest.raises(ValueError, match="at most 1000 in one decision"):
            limiter.hit("many quotas", plan)
