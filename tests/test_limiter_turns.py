"""Turns of the limiter in Python: one after the other, never waited for by who has it, and whole across a fork.

A fork is what the hooks of this module make of it; `test_limiter_concurrency` forks in truth.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace

import pytest

from learnflow_core import limiter as package
from learnflow_core.limiter import Quota, memory, turns
from learnflow_core.limiter.memory import MemoryLimiter
from learnflow_core.limiter.turns import TURN, Turn
from tests.limiting import Clock

PLAN = (Quota.per_minute(300),)


@pytest.fixture
def turn(monkeypatch: pytest.MonkeyPatch) -> Turn:
    """A turn that is the only one of its process."""
    monkeypatch.setattr(turns, "_turns", type(turns._turns)())
    return Turn()


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set as soon as somebody waits for a turn."""
    event = threading.Event()
    clock = Clock()

    def sleep(_seconds: float) -> None:
        clock.now += 1_000_000
        event.set()

    monkeypatch.setattr(turns, "time", SimpleNamespace(sleep=sleep, monotonic_ns=clock))
    return event


@pytest.fixture
def elsewhere() -> Iterator[Callable[[Callable[[], object]], threading.Thread]]:
    """Begins a step in a thread of its own, whose end the test waits for."""
    threads: list[threading.Thread] = []

    def begin(step: Callable[[], object]) -> threading.Thread:
        threads.append(threading.Thread(target=step))
        threads[-1].start()
        return threads[-1]

    yield begin
    for thread in threads:
        thread.join()


def test_who_comes_while_another_has_the_turn_waits_until_it_is_free(
    turn: Turn, waiting: threading.Event, elsewhere: Callable[..., threading.Thread]
) -> None:
    answers: list[str] = []
    del turn.free[TURN]
    thread = elsewhere(lambda: answers.append(turn.alone(str.upper, "mine")))
    assert waiting.wait(60)
    assert answers == []
    turn.free[TURN] = True
    thread.join()
    assert (answers, turn.free) == (["MINE"], {TURN: True})


@pytest.mark.parametrize("ask", ["hit", "peek"])
def test_a_limiter_waits_for_its_turn_too(
    ask: str, waiting: threading.Event, elsewhere: Callable[..., threading.Thread]
) -> None:
    limiter = MemoryLimiter(clock=Clock())
    del limiter._free[TURN]
    thread = elsewhere(lambda: getattr(limiter, ask)("key", PLAN))
    assert waiting.wait(60)
    assert len(limiter) == 0
    limiter._free[TURN] = True
    thread.join()
    assert len(limiter) == (ask == "hit")


def test_a_step_that_fails_gives_the_turn_back(turn: Turn) -> None:
    with pytest.raises(ZeroDivisionError):
        turn.alone(divmod, 1, 0)
    assert turn.free == {TURN: True}


def test_who_asks_for_the_turn_that_is_its_own_is_told_so_and_keeps_it_until_the_end(turn: Turn) -> None:
    def ask_again() -> bool:
        with pytest.raises(RuntimeError, match="by its own clock"):
            turn.alone(str)
        return TURN in turn.free

    assert turn.alone(ask_again) is False
    assert turn.free == {TURN: True}


@pytest.mark.parametrize("error", [KeyError, OSError])
def test_what_a_clock_raises_is_raised_and_the_limiter_decides_on(error: type[Exception]) -> None:
    broken: list[type[Exception]] = []

    def clock() -> int:
        if broken:
            raise broken.pop()("no time")
        return 0

    limiter = MemoryLimiter(clock=clock)
    limiter.hit("key", PLAN)
    for ask in (limiter.hit, limiter.peek):
        broken.append(error)
        with pytest.raises(error, match="no time"):
            ask("key", PLAN)
    assert limiter.hit("key", PLAN).remaining == 298


class TestAFork:
    def test_takes_every_turn_and_gives_it_back_to_the_parent(self, turn: Turn) -> None:
        turns._before_fork()
        assert turn.free == {}
        turns._after_in_parent()
        assert turn.free == {TURN: True}
        assert turns._taken_for_a_fork == {}

    def test_leaves_the_child_turns_that_are_free_and_whole(self, turn: Turn) -> None:
        turns._before_fork()
        turns._after_in_child()
        assert (turn.free, turn.torn) == ({TURN: True}, False)
        assert turns._taken_for_a_fork == {}

    def test_waits_for_a_decision_of_another_thread_to_end(self, turn: Turn, monkeypatch: pytest.MonkeyPatch) -> None:
        def let_the_other_end(_seconds: float) -> None:
            turn.free[TURN] = True

        monkeypatch.setattr(turns, "time", SimpleNamespace(sleep=let_the_other_end, monotonic_ns=Clock()))
        del turn.free[TURN]
        turns._before_fork()
        assert turn.free == {}
        turns._after_in_child()
        assert (turn.free, turn.torn) == ({TURN: True}, False)

    @pytest.mark.usefixtures("waiting")
    def test_does_not_wait_for_ever_and_the_child_knows_that_the_table_may_be_torn(self, turn: Turn) -> None:
        """The clock of `waiting` is a millisecond on whenever somebody has waited."""
        other = Turn()
        del turn.free[TURN]
        turns._before_fork()
        assert other.free == {}
        turns._after_in_child()
        assert (turn.free, turn.torn) == ({TURN: True}, True)
        assert (other.free, other.torn) == ({TURN: True}, False)

    def test_in_the_midst_of_ones_own_decision_goes_on_in_parent_and_child(self, turn: Turn) -> None:
        def fork() -> dict[str, bool]:
            turns._before_fork()
            turns._after_in_child()
            return dict(turn.free)

        assert turn.alone(fork) == {}
        assert (turn.free, turn.torn) == ({TURN: True}, False)

    def test_a_child_of_a_torn_parent_is_torn_until_stock_is_taken(self, turn: Turn) -> None:
        turn.torn = True
        turns._before_fork()
        turns._after_in_child()
        assert turn.torn

    def test_what_other_threads_had_taken_for_forks_of_their_own_is_forgotten_in_the_child(self, turn: Turn) -> None:
        del turn.free[TURN]
        turns._taken_for_a_fork[-1] = [turn.free]
        turns._after_in_child()
        assert (turn.free, turn.torn) == ({TURN: True}, True)
        assert turns._taken_for_a_fork == {}


def test_after_a_change_that_was_broken_off_every_bucket_has_its_turn_to_be_forgotten() -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock=clock, max_buckets=2, overflow_buckets=1)
    for key in ("a", "b", "shared"):
        limiter.hit(key, PLAN)
    limiter._table._turns.clear()
    limiter._turn.torn = True
    limiter.hit("shared too", PLAN)
    assert (len(limiter), limiter.overflow_hits, limiter._turn.torn) == (3, 2, False)
    assert len(limiter._table._turns) == 2 * 3
    clock.now += 60 * 10**9
    for key in "cdef":
        limiter.hit(key, PLAN)
    assert len(limiter) == 2 + len(limiter._table.shared)
    assert not {"a", "b"} & limiter._table.own[PLAN[0].bucket].keys()


def again(module: ModuleType, name: str) -> ModuleType:
    """A module imported once more, beside the one there is."""
    spec = importlib.util.spec_from_file_location(name, module.__file__)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_where_nothing_forks_there_is_nothing_to_be_called_at_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "register_at_fork")
    assert again(turns, "turns_without_fork").Turn().alone(int, "7") == 7


def test_without_the_accelerator_the_limiter_is_the_one_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "_learnflow_limiter", None)
    assert again(package, "limiter_without_accelerator").MemoryLimiter is memory.MemoryLimiter
