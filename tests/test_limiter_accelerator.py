"""What concerns the limiter in C alone: that it is the one built from these sources, and keeps to CPython's rules."""

from __future__ import annotations

import gc
import importlib
import inspect
import random
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from pathlib import Path
from typing import Any

import pytest

import hatch_build
from learnflow_core.limiter import Decision, Decisions, MemoryLimiter, Quota, memory
from tests.limiting import MINUTE_AND_DAY, ROOT, SECOND, Clock

pytestmark = pytest.mark.usefixtures("c_limiters")


def test_the_module_that_is_installed_was_compiled_from_these_sources() -> None:
    built = importlib.import_module("_learnflow_limiter")
    assert hatch_build.digest(ROOT) == built.SOURCE_DIGEST, "install again: requirements/install test"
    assert ROOT not in Path(str(built.__file__)).parents or ".venv" in Path(str(built.__file__)).parts


def test_importing_it_loads_neither_its_twin_nor_anything_slow() -> None:
    program = "import sys; before = set(sys.modules); import learnflow_core.limiter; print(*set(sys.modules) - before)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(run.stdout.split())
    assert "_learnflow_limiter" in loaded
    assert not loaded & {"learnflow_core.limiter.memory", "asyncio", "dataclasses", "enum", "re", "threading", "typing"}


def test_it_has_the_methods_of_its_twin_with_the_same_parameters() -> None:
    for name, method in inspect.getmembers(memory.MemoryLimiter, inspect.isfunction):
        if not name.startswith("_"):
            parameters = inspect.signature(getattr(MemoryLimiter, name)).parameters
            twins = inspect.signature(method).parameters
            assert [(p.name, p.default) for p in parameters.values()] == [(p.name, p.default) for p in twins.values()]
    own, twins = (inspect.signature(kind).parameters for kind in (MemoryLimiter, memory.MemoryLimiter))
    assert [(p.name, p.kind) for p in own.values()] == [(p.name, p.kind) for p in twins.values()]
    assert (MemoryLimiter.implementation, memory.MemoryLimiter.implementation) == ("c", "python")
    assert MemoryLimiter.__qualname__ == "MemoryLimiter"
    assert MemoryLimiter.__module__ == "learnflow_core.limiter"


def test_without_a_clock_of_ones_own_the_instant_is_that_of_the_monotonic_clock() -> None:
    for limiter in (MemoryLimiter(), MemoryLimiter(clock=time.monotonic_ns)):
        before = time.monotonic_ns()
        decisions = [limiter.hit("key", MINUTE_AND_DAY), limiter.peek("key", MINUTE_AND_DAY)]
        assert before <= decisions[0].now_ns <= decisions[1].now_ns <= time.monotonic_ns()


def test_the_farthest_instants_are_decided_about_without_overflow() -> None:
    clock = Clock(2**62 - 1)
    limiter = MemoryLimiter(clock=clock)
    plan = (Quota("longest", 10**6, 3_653 * 86_400 * SECOND),)
    made = limiter.hit("key", plan, 10**6)
    clock.now = 1 - 2**62
    assert limiter.peek("key", plan).reset_after_ns == plan[0].longest_ns
    assert not limiter.hit("key", plan).allowed
    assert not limiter.refund(made)
    clock.now = 2**62 - 1
    assert limiter.hit("key", plan, 10**6).allowed


def test_a_thread_that_waits_for_its_turn_heeds_ctrl_c() -> None:
    program = """
import os, signal, threading
from learnflow_core.limiter import MemoryLimiter, Quota
inside, done, main = threading.Event(), threading.Event(), threading.main_thread()
def clock():
    if threading.current_thread() is not main:
        inside.set()
        done.wait()
    return 0
limiter, plan = MemoryLimiter(clock=clock), (Quota.per_minute(3),)
thread = threading.Thread(target=limiter.hit, args=("key", plan))
thread.start()
inside.wait()
signal.setitimer(signal.ITIMER_REAL, 0.05)
signal.signal(signal.SIGALRM, signal.default_int_handler)
try:
    limiter.hit("key", plan)
except KeyboardInterrupt:
    done.set()
thread.join()
print(limiter.hit("key", plan).remaining)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60, cwd=ROOT)
    assert run.stdout.split() == [b"1"]


@pytest.mark.parametrize(
    ("arguments", "named", "message"),
    [
        (("key",), {}, "argument 'quotas' is missing"),
        ((), {"quotas": ()}, "argument 'key' is missing"),
        (("key", (), 1, 2), {}, "at most 3 positional arguments"),
        (("key", ()), {"price": 2}, "there is no argument 'price'"),
        (("key", ()), {"key": "key"}, "argument 'key' was given twice"),
        (("key", 5), {}, "not iterable"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments: Any, named: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        MemoryLimiter().hit(*arguments, **named)


def test_arguments_can_be_named() -> None:
    limiter = MemoryLimiter(clock=Clock())
    assert limiter.hit(cost=3, quotas=MINUTE_AND_DAY, key="key").remaining == 297
    assert limiter.peek("key", cost=3, quotas=MINUTE_AND_DAY).cost == 3
    assert len(limiter.hit_many(keys=["key"], quotas=MINUTE_AND_DAY)) == 1
    limiter.reset(quotas=MINUTE_AND_DAY, key="key")
    with pytest.raises(TypeError, match="quotas"):
        limiter.reset("key")  # type: ignore[call-arg]


def test_what_is_no_quota_is_an_error_and_takes_nothing() -> None:
    limiter: Any = MemoryLimiter(clock=Clock())
    for nonsense in (1, "minute", None):
        with pytest.raises(AttributeError):
            limiter.hit("key", (*MINUTE_AND_DAY, nonsense))
    assert len(limiter) == 0


def test_it_can_be_derived_from_referred_to_weakly_and_collected_in_a_circle() -> None:
    class Limiter(MemoryLimiter):
        def __init__(self, *, note: str) -> None:
            super().__init__(clock=self.clock)
            self.note = note

        def clock(self) -> int:
            return 7

    limiter = Limiter(note="mine")
    assert limiter.hit("key", MINUTE_AND_DAY).now_ns == 7
    assert limiter.note == "mine"
    gone = weakref.ref(limiter)
    del limiter
    gc.collect()
    assert gone() is None


def test_a_circle_through_a_quota_of_a_class_of_ones_own_is_collected_unless_a_decision_is_part_of_it() -> None:
    class Note(Quota):
        limiter: MemoryLimiter

    limiter, quota = MemoryLimiter(clock=Clock()), Note("minute", 3, SECOND)
    object.__setattr__(quota, "limiter", limiter)
    made: Any = limiter.hit("key", (quota,))
    gone = weakref.ref(limiter)
    del limiter, quota
    gc.collect()
    assert gone() is made.quotas[0].limiter
    del made
    gc.collect()
    assert gone() is None


def test_a_limiter_that_was_not_made_or_made_twice_is_an_error() -> None:
    unmade = MemoryLimiter.__new__(MemoryLimiter)
    assert len(unmade) == 0
    for call in (unmade.hit, unmade.peek, unmade.reset):
        with pytest.raises(RuntimeError, match="__init__ was not called"):
            call("key", MINUTE_AND_DAY)
    with pytest.raises(RuntimeError, match="__init__ was not called"):
        unmade.hit_many(["key"], MINUTE_AND_DAY)
    with pytest.raises(RuntimeError, match="made once"):
        MemoryLimiter().__init__()  # type: ignore[misc]


def test_decisions_are_made_by_limiters_alone_and_do_not_change() -> None:
    made: Any = MemoryLimiter().hit("key", MINUTE_AND_DAY)
    assert isinstance(made, Decision)
    with pytest.raises(TypeError, match="cannot create"):
        type(made)()
    for field in ("key", "quotas", "cost", "now_ns", "full_at_ns", "allowed", "receipt"):
        with pytest.raises(AttributeError):
            setattr(made, field, None)


def test_nothing_is_kept_of_what_was_asked_once_it_is_forgotten() -> None:
    clock, quota, chance = Clock(), Quota.per_minute(300), random.Random(5)
    limiter = MemoryLimiter(clock=clock, max_buckets=2, overflow_buckets=50)

    def ask_for_an_hour() -> None:
        for _ in range(3_600):
            clock.now += SECOND
            key = f"key {chance.randrange(900)}"
            plan = (quota, Quota.per_minute(20, name=f"{chance.randrange(5)}"))
            made = limiter.hit(key, plan)
            limiter.refund(made)
            limiter.hit(key, [quota], 300)
            limiter.hit_many([key, "other", key], plan, cost=2)
            for nonsense in ((None, plan), (key, plan, 0), (key, plan, 21), (key, (quota, quota)), (key, [None])):
                with pytest.raises((TypeError, ValueError, AttributeError)):
                    limiter.hit(*nonsense)
            limiter.reset(key, plan)
            made.quotas, made.full_at_ns, made.receipt, made.states  # noqa: B018 - to read them is the test

    ask_for_an_hour()
    gc.collect()
    tracemalloc.start()
    try:
        ask_for_an_hour()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        ask_for_an_hour()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()


def test_a_decision_that_goes_lets_go_of_its_class() -> None:
    limiter = MemoryLimiter()
    of_decisions = type(limiter.hit("key", MINUTE_AND_DAY))
    held = sys.getrefcount(of_decisions)
    for _ in range(100):
        limiter.hit("key", MINUTE_AND_DAY)
    assert sys.getrefcount(of_decisions) == held


def test_a_key_is_let_go_of_when_the_last_of_its_buckets_is_forgotten() -> None:
    clock, key = Clock(), "".join(["a", "key"])
    limiter = MemoryLimiter(clock=clock)
    plan = [Quota.per_second(1, name=name) for name in "abcde"]
    held = sys.getrefcount(key)
    for quotas in (plan[:1], plan, plan[3:]):
        limiter.hit(key, quotas)
        assert sys.getrefcount(key) == held + 1
        clock.now += SECOND
        for number in range(10):
            limiter.hit(f"another {number}", (Quota.per_minute(60),))
        assert sys.getrefcount(key) == held
        clock.now += SECOND


def test_a_limiter_that_goes_lets_go_of_its_keys_quotas_and_clock() -> None:
    keys = [f"some key {number}" for number in range(3_000)]
    plan = (Quota.per_day(5), Quota.per_hour(5), Quota.per_minute(5))
    held = [*map(sys.getrefcount, keys)]
    of_plan = [sys.getrefcount(plan), *map(sys.getrefcount, plan)]
    clock = Clock()
    limiter = MemoryLimiter(clock=clock, max_buckets=5_000)
    made = limiter.hit_many(keys, plan)
    assert isinstance(made, Decisions)
    assert sum(map(sys.getrefcount, keys)) > sum(held) + len(keys)  # by the decisions, and by the table
    del limiter, made
    assert [*map(sys.getrefcount, keys)] == held
    assert [sys.getrefcount(plan), *map(sys.getrefcount, plan)] == of_plan
    assert sys.getrefcount(clock) == 2


def test_threads_that_ask_without_a_lock_between_them_are_admitted_exactly_the_limit() -> None:
    limiter, plan = MemoryLimiter(), (Quota.per_day(5_000), Quota.per_hour(100_000))
    admitted: list[int] = []
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [
            threading.Thread(target=lambda: admitted.append(sum(bool(limiter.hit("key", plan)) for _ in range(2_000))))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert sum(admitted) == 5_000
