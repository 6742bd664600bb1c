"""The circuit breaker, and what is counted and logged of an outage; time is told, never waited for."""

from __future__ import annotations

import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_backends.valkey.breaker import FIRST_PAUSE_NS, PATIENCE, PAUSE_NS, Breaker
from storage_backends.valkey.health import Counts, Health

BUDGET = 25_000_000
PATIENCE_NS = PATIENCE * BUDGET
START = 10**12


def opened() -> Breaker:
    breaker = Breaker(BUDGET)
    breaker.failed(START)
    return breaker


def test_as_long_as_nothing_fails_everyone_may_ask() -> None:
    breaker = Breaker(BUDGET)
    assert all(breaker.may_ask(START + n) for n in range(3))


def test_it_opens_at_a_failure_when_nothing_has_succeeded_for_three_budgets() -> None:
    breaker = Breaker(BUDGET)
    breaker.succeeded(START)
    breaker.failed(START + PATIENCE_NS - 1)
    assert not breaker.is_open
    breaker.failed(START + PATIENCE_NS)
    assert breaker.is_open


def test_it_opens_at_the_first_failure_when_nothing_has_ever_succeeded() -> None:
    assert opened().is_open


def test_open_it_lets_one_caller_ask_after_rests_that_double_up_to_a_second() -> None:
    breaker = opened()
    asked = [now for now in range(START, START + 5 * PAUSE_NS, FIRST_PAUSE_NS) if breaker.may_ask(now)]
    rests = [later - earlier for earlier, later in pairwise([START, *asked])]
    assert rests == [FIRST_PAUSE_NS * 2**n for n in range(5)] + [PAUSE_NS] * 3


def test_a_probe_that_fails_after_its_budget_is_followed_by_the_next_one_a_rest_later() -> None:
    breaker, probe = opened(), START
    for rest in (FIRST_PAUSE_NS, 2 * FIRST_PAUSE_NS, 4 * FIRST_PAUSE_NS):
        assert not breaker.may_ask(probe + rest - 1)
        assert breaker.may_ask(probe + rest)
        probe += rest + BUDGET
        breaker.failed(probe)


def test_callers_who_fail_together_do_not_lengthen_the_rest() -> None:
    breaker = opened()
    for _ in range(100):
        breaker.failed(START + 1)
    assert breaker.rest(START + 1) == FIRST_PAUSE_NS


def test_one_late_answer_of_a_store_that_is_rarely_asked_is_decided_without_for_the_shortest_rest_only() -> None:
    breaker = Breaker(BUDGET)
    for now in range(START, START + 20 * PAUSE_NS, PAUSE_NS // 10):
        assert breaker.may_ask(now)
        (breaker.failed if now % PAUSE_NS == 0 else breaker.succeeded)(now + BUDGET)


def test_whatever_succeeds_closes_it() -> None:
    breaker = opened()
    breaker.succeeded(START + 1)
    assert breaker.may_ask(START + 2)
    assert breaker.may_ask(START + 2)


@given(st.lists(st.tuples(st.integers(0, 2 * PAUSE_NS), st.sampled_from(["ask", "succeed", "fail"])), max_size=60))
def test_whatever_happens_the_next_probe_is_told_and_at_most_a_second_away(events: list[tuple[int, str]]) -> None:
    breaker, now, probes = Breaker(BUDGET), START, []
    for wait, event in events:
        now += wait
        if event == "ask":
            was_open = breaker.is_open
            rest = breaker.rest(now)
            assert 1 <= rest <= PAUSE_NS
            asked = breaker.may_ask(now)
            assert asked is (not was_open or rest == 1)
            if was_open and asked:
                probes.append(now)
        elif event == "succeed":
            breaker.succeeded(now)
            probes.clear()
        else:
            breaker.failed(now)
    waits = [later - earlier for earlier, later in pairwise(probes)]
    assert all(wait >= min(FIRST_PAUSE_NS * 2**number, PAUSE_NS) for number, wait in enumerate(waits, 1))


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger="storage_backends.valkey")
    return caplog


def test_an_outage_has_two_lines_in_the_log_however_many_calls_it_fails(lines: pytest.LogCaptureFixture) -> None:
    counts = Counts()
    health = Health("the store at h:1", "open", counts, BUDGET)
    health.succeeded(START)
    for n in range(1_000):
        health.failed("timeout" if n % 2 else "connect", START + n)
    for n in range(100):
        health.succeeded(START + 3 * PAUSE_NS + n)
    assert lines.messages == [
        "the store at h:1 does not answer as it should (connect): the policy 'open' decides",
        "the store at h:1 answers again, after 3.0 s",
    ]
    assert counts.failures == {"timeout": 500, "connect": 500}


def test_a_store_that_answers_some_and_fails_others_has_one_outage(lines: pytest.LogCaptureFixture) -> None:
    health = Health("s", "open", Counts(), BUDGET)
    for n in range(100):
        health.succeeded(START + n * PAUSE_NS // 3)
        health.failed("OOM", START + n * PAUSE_NS // 3 + 1)
    assert len(lines.messages) == 1
    health.succeeded(START + 40 * PAUSE_NS)
    assert len(lines.messages) == 2


def test_of_many_threads_that_see_an_outage_begin_and_end_one_says_so(lines: pytest.LogCaptureFixture) -> None:
    health = Health("s", "open", Counts(), BUDGET)
    meet = threading.Barrier(8)
    switches = sys.getswitchinterval()

    def see(at: int) -> None:
        meet.wait()
        health.failed("lost", at)
        meet.wait()
        health.succeeded(at + 2 * PAUSE_NS)

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            for n in range(1, 51):
                list(threads.map(see, [10 * n * PAUSE_NS] * 8))
    finally:
        sys.setswitchinterval(switches)
    assert len(lines.messages) == 100


def test_the_next_outage_is_told_again(lines: pytest.LogCaptureFixture) -> None:
    health = Health("s", "open", Counts(), BUDGET)
    for n in range(3):
        health.failed("lost", START + 10 * n * PAUSE_NS)
        health.succeeded(START + (10 * n + 5) * PAUSE_NS)
    assert len(lines.messages) == 6


def test_the_counts_can_be_read_in_a_log() -> None:
    counts = Counts()
    Health("s", "open", counts, BUDGET).failed("LOADING", START, times=3)
    assert repr(counts) == "Counts(by_store=0, by_lease=0, by_fallback=0, failures={'LOADING': 3})"
