"""Buckets that processes share: one limit, whoever comes, goes, or is killed in the middle of it."""

from __future__ import annotations

import copy
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from mmap import mmap
from pathlib import Path
from typing import Any

import pytest

from learnflow_core.limiter import Quota
from storage_backends.shared_memory import SharedMemoryLimiter, table
from storage_backends.shared_memory.table import Table
from tests.limiting import MINUTE_AND_DAY, ROOT, SECOND, Clock, Plan
from tests.servers import eventually

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

LIMIT = 4_000
MANY = 50_000_000  # more than any machine asks in the time of a test
PLAN = (Quota.per_day(LIMIT), Quota.per_day(2 * LIMIT, name="more"))


def forked(work: Callable[[], Any]) -> int:
    """A child that does this and ends with what it gives, or 99 for an error; its pid."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            signal.alarm(60)
            status = int(work() or 0)
        finally:
            os._exit(status)
    return pid


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def hitting(limiter: SharedMemoryLimiter, counted: memoryview, times: int = 10**9, plan: Plan = PLAN) -> int:
    """A child that asks often, and counts what passes where the test sees it even if the child is killed."""

    def work() -> None:
        for number in range(times):
            limiter.hit(f"stranger {os.getpid()} {number}", plan)
            if limiter.hit("key", plan):
                counted[0] += 1

    return forked(work)


def counters(number: int) -> list[memoryview]:
    """Words that children write and the test reads."""
    words = memoryview(mmap(-1, 8 * number)).cast("q")
    return [words[each : each + 1] for each in range(number)]


def test_processes_together_are_admitted_exactly_the_limit_in_every_window() -> None:
    for _ in range(5):
        limiter, counted = SharedMemoryLimiter(), counters(4)
        children = [hitting(limiter, one, LIMIT) for one in counted]
        assert [status_of(child) for child in children] == [0] * 4
        assert sum(one[0] for one in counted) == LIMIT
        assert [state.remaining for state in limiter.peek("key", PLAN).states] == [0, LIMIT]


def test_processes_killed_at_any_instant_neither_lock_the_others_out_nor_let_more_pass() -> None:
    limiter, counted = SharedMemoryLimiter(clock=Clock(), max_buckets=64, overflow_buckets=4), counters(60)
    chance, plan = random.Random(7), (Quota.per_day(MANY), Quota.per_day(MANY + 1, name="more"))
    for pair in zip(counted[::2], counted[1::2], strict=True):
        children = [hitting(limiter, one, plan=plan) for one in pair]
        eventually(lambda pair=pair: all(one[0] for one in pair))  # type: ignore[misc]
        time.sleep(chance.random() / 200)  # the instant is what is drawn here
        for child in children:
            os.kill(child, signal.SIGKILL)
            assert status_of(child) == -signal.SIGKILL
    answered = sum(one[0] for one in counted)
    for state in limiter.peek("key", plan).states:
        assert answered <= state.limit - state.remaining <= answered + len(counted)
    assert answered < MANY


class Dying:
    """A table's words, of which a process is killed at the one it is about to write."""

    def __init__(self, words: memoryview, after: int) -> None:
        self.words = words
        self.left = after

    def __getitem__(self, at: Any) -> Any:
        return self.words[at]

    def __setitem__(self, at: Any, value: Any) -> None:
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        self.words[at] = value


class DyingBytes(Dying):
    """The same of its bytes, the last of several of which are not written."""

    def find(self, *args: Any) -> Any:
        return self.words.find(*args)  # type: ignore[attr-defined]

    def __setitem__(self, at: Any, value: Any) -> None:
        if not self.left:
            self.words[at.start : at.start + 11] = value[:11]
        super().__setitem__(at, value)


@pytest.mark.parametrize("cap", [1, 2, 64])
def test_at_whatever_word_a_process_is_killed_nobody_has_more_than_was_promised(cap: int) -> None:
    died = {"words": 0, "memory": 0}
    for part, dying in (("words", Dying), ("memory", DyingBytes)):
        for after in range(12):
            clock = Clock()
            limiter = SharedMemoryLimiter(clock=clock, max_buckets=cap, overflow_buckets=1)
            owed = {key: limiter.hit(key, MINUTE_AND_DAY, 200) for key in ("a", "b", "expired")}
            clock.now = 59 * SECOND  # the minutes of each are full again, and their places free
            owed["b"] = limiter.hit("b", MINUTE_AND_DAY, 250)

            def work(
                limiter: SharedMemoryLimiter = limiter, part: str = part, dying: type[Dying] = dying, after: int = after
            ) -> None:
                setattr(limiter._table, part, dying(getattr(limiter._table, part), after))
                made = [limiter.hit(key, MINUTE_AND_DAY, 10) for key in ("a", "c", "b", "d")]
                limiter.refund(made[0])
                limiter.reset("c", MINUTE_AND_DAY)

            died[part] += status_of(forked(work)) == -signal.SIGKILL
            for key, spent in (("a", 200), ("b", 450), ("expired", 200)):
                minute, day = limiter.peek(key, MINUTE_AND_DAY).states
                assert day.remaining <= 25_000 - spent + 17 + 1
                assert minute.remaining <= (50 if key == "b" else 300)
            if cap == 64:  # nobody is locked out, nor charged for what another took
                assert limiter.hit("a", MINUTE_AND_DAY)
                assert limiter.peek("expired", MINUTE_AND_DAY).states[0].remaining == 300
    assert died["words"] >= 7
    assert died["memory"] >= 2 or cap < 64


def test_a_process_killed_in_the_middle_of_its_turn_leaves_the_turn_to_others() -> None:
    limiter = SharedMemoryLimiter()

    def killing() -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def work() -> None:
        limiter._clock = killing
        limiter.hit("key", PLAN)

    assert status_of(forked(work)) == -signal.SIGKILL
    assert limiter.hit("key", PLAN).remaining == LIMIT - 1


def test_a_child_forked_while_a_thread_decides_can_decide_and_what_it_takes_is_taken() -> None:
    program = """
import os, signal, threading
from learnflow_core.limiter import Quota
from storage_backends.shared_memory import SharedMemoryLimiter

inside, done, slow = threading.Event(), threading.Event(), False

def clock():
    if slow and threading.current_thread() is not threading.main_thread():
        inside.set()
        done.wait()
    return 0

limiter, plan = SharedMemoryLimiter(clock=clock), (Quota.per_minute(3),)
before = limiter.hit("key", plan)
slow = True
thread = threading.Thread(target=limiter.hit, args=("key", plan))
thread.start()
inside.wait()
child = os.fork()
if child == 0:
    signal.alarm(10)
    refunded = bool(limiter.refund(before))
    os._exit(10 * refunded + limiter.hit("key", plan).remaining)
done.set()
thread.join()
status = os.waitpid(child, 0)[1]
print(os.waitstatus_to_exitcode(status), limiter.peek("key", plan).remaining, bool(limiter.refund(before)))
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT)
    status, *rest = run.stdout.split()
    assert status in {"0", "1"}  # whoever came first
    assert rest == ["0", "True"]


def test_processes_that_name_a_file_share_its_buckets_and_those_who_come_later_find_them(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    program = f"""
from learnflow_core.limiter import Quota
from storage_backends.shared_memory import SharedMemoryLimiter
print(SharedMemoryLimiter({str(path)!r}).hit("key", (Quota.per_day(3),)).remaining)
"""
    told = [subprocess.check_output([sys.executable, "-c", program], text=True, cwd=ROOT) for _ in range(2)]
    assert [text.strip() for text in told] == ["2", "1"]
    one, other = SharedMemoryLimiter(path), SharedMemoryLimiter(path)
    assert one._table is other._table  # else closing one would let go of the lock of the other
    assert one.hit("key", (Quota.per_day(3),)).remaining == 0
    assert not other.hit("key", (Quota.per_day(3),))
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_reset_in_one_process_ends_the_refunds_of_every_other() -> None:
    limiter = SharedMemoryLimiter()
    kept = [limiter.hit("key", PLAN) for _ in range(2)]
    assert limiter.refund(kept[0])
    assert status_of(forked(lambda: bool(limiter.reset("another key", PLAN)) and 0)) == 0
    assert not limiter.refund(kept[1])
    assert limiter.refund(limiter.hit("key", PLAN))


def test_the_debt_that_one_process_made_is_not_cut_by_the_plan_of_another() -> None:
    limiter = SharedMemoryLimiter(clock=Clock())
    looser, tighter = (Quota.per_minute(700),), (Quota.per_minute(300),)
    assert looser[0].longest_ns > tighter[0].longest_ns
    assert status_of(forked(lambda: not limiter.hit("key", looser, 700))) == 0
    assert not limiter.peek("key", tighter)
    assert not limiter.hit("key", tighter)
    assert limiter.peek("key", looser).retry_after_ns == looser[0].interval_ns


def test_with_more_names_than_are_noted_a_clock_that_steps_back_still_locks_nobody_out_for_long() -> None:
    clock = Clock(10**15)
    limiter = SharedMemoryLimiter(clock=clock)
    plans = [(Quota.per_minute(2, name=f"n{number}"),) for number in range(300)]
    for number, plan in enumerate(plans):
        assert limiter.hit(f"key {number}", plan, 2)
    clock.now -= 3_600 * SECOND
    waits = [limiter.peek(f"key {number}", plan).reset_after_ns for number, plan in enumerate(plans)]
    assert waits[0] == 60 * SECOND
    assert set(waits) == {60 * SECOND, 120 * SECOND}


def test_a_limiter_that_is_asked_by_its_own_clock_says_so_and_holds_up_nobody() -> None:
    limiter = SharedMemoryLimiter()
    limiter._clock = lambda: limiter.hit("key", PLAN).now_ns
    with pytest.raises(RuntimeError, match="asked by its own clock"):
        limiter.hit("key", PLAN)
    limiter._clock = time.monotonic_ns
    assert status_of(forked(lambda: not limiter.hit("key", PLAN))) == 0


def test_a_limiter_is_true_and_cannot_be_copied() -> None:
    limiter = SharedMemoryLimiter()
    assert limiter
    assert not len(limiter)
    for way in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            way(limiter)


def test_a_file_that_was_not_finished_is_made_again_and_one_of_other_sizes_refused(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    path.write_bytes(bytes(100))
    limiter = SharedMemoryLimiter(path, max_buckets=100)
    assert limiter.hit("key", PLAN).remaining == LIMIT - 1
    with pytest.raises(ValueError, match="made for other numbers of buckets"):
        SharedMemoryLimiter(path, max_buckets=1_000)
    del limiter
    with pytest.raises(ValueError, match="made for other numbers of buckets"):
        SharedMemoryLimiter(path, max_buckets=1_000)
    assert SharedMemoryLimiter(path, max_buckets=100).hit("key", PLAN).remaining == LIMIT - 2


def test_a_file_of_somebody_else_and_a_link_to_one_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "limits")
    with pytest.raises(OSError, match="symbolic links"):
        SharedMemoryLimiter(tmp_path / "link")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PermissionError, match="belongs to another user"):
        SharedMemoryLimiter(tmp_path / "limits")


def test_as_many_buckets_as_the_cap_have_places_of_their_own_but_for_a_few() -> None:
    limiter = SharedMemoryLimiter(clock=Clock(), max_buckets=20_000)
    for number in range(10_000):
        assert limiter.hit(f"key {number}", MINUTE_AND_DAY).remaining in (298, 299)
    assert limiter.overflow_hits < 10
    assert len(limiter) >= 19_900


def test_tables_have_secrets_of_their_own_so_that_nobody_can_foresee_who_shares() -> None:
    one, other = SharedMemoryLimiter(), SharedMemoryLimiter()
    assert one._digest("key") != other._digest("key")
    assert one._table.name_digest("minute") != other._table.name_digest("minute")


def test_keys_of_any_text_have_buckets_of_their_own() -> None:
    limiter = SharedMemoryLimiter()
    keys = ["", "a", "a\0", "\0a", "\ud800", "ä" * 10_000, "ä" * 10_001]
    assert [limiter.hit(key, PLAN).remaining for key in keys] == [LIMIT - 1] * len(keys)


def test_more_names_than_shared_places_are_refused_and_never_forgotten() -> None:
    clock = Clock()
    limiter = SharedMemoryLimiter(clock=clock, max_buckets=1, overflow_buckets=1)
    plans = [(Quota.per_minute(2, name=f"n{number}"),) for number in range(table.SHARED_WIDTH + 2)]
    assert [bool(limiter.hit("key", plan)) for plan in plans] == [True] * (len(plans) - 1) + [False]
    refused = limiter.hit("key", plans[-1])
    assert (refused.remaining, refused.retry_after_ns) == (0, 30 * SECOND)
    clock.now += refused.retry_after_ns
    assert limiter.hit("key", plans[-1])


def test_what_is_dropped_leaves_no_file_open() -> None:
    before = len(os.listdir("/dev/fd"))  # noqa: PTH208 - names are enough
    limiters = [SharedMemoryLimiter() for _ in range(10)]
    assert len({limiter._table.fd for limiter in limiters}) == 10
    del limiters
    assert len(os.listdir("/dev/fd")) == before  # noqa: PTH208 - as above
    assert isinstance(SharedMemoryLimiter()._table, Table)
