"""Turns to decide: a lock for a limiter in Python, which no signal, tracer or fork leaves taken."""

from __future__ import annotations

import os
import sys
import time
from _thread import get_ident  # threading would take longer to import than the rest of the package
from weakref import WeakValueDictionary

TYPE_CHECKING = False  # importing typing would take longer than the rest of the package
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")
    T = TypeVar("T")

TURN = "turn"
_PATIENCE_NS = 100_000_000


class Turn:
    """One limiter's turn. It can be had while `free` has its one entry: deleting that takes it, setting it releases it.

    Each is one step of the interpreter, which nothing interrupts, at a third of the price of `with lock`. Whoever takes
    it does as `alone`: in one line, where no tracer comes in between, and with the same names of variables.

    `torn` is true while what the turn is for is in the middle of a change. Whoever finds it so when they have the turn
    comes after one who was interrupted there, or who did not come along with a fork.
    """

    __slots__ = ("__weakref__", "free", "torn")

    def __init__(self) -> None:
        self.free = {TURN: True}
        self.torn = False
        _turns[id(self)] = self

    def alone(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a step answers that has the turn to itself. Whoever comes meanwhile lets other threads go first."""
        free, taken = self.free, None
        try:
            while taken is None:
                try:
                    del free[TURN]; taken = free  # fmt: skip  # noqa: E702
                except KeyError:
                    wait(free)
            answer = step(*args, **kwargs)
            free[TURN], taken = True, None
        except BaseException:
            if taken is not None:
                free[TURN] = True
            raise
        return answer


def wait(free: dict[str, bool]) -> None:
    """Let other threads go first. Raises RuntimeError where this one has the turn itself, and would wait for ever."""
    if _taken_here(free):
        raise RuntimeError("a limiter was asked by its own clock, or by a signal handler while it decided") from None
    time.sleep(0)


def _taken_here(free: dict[str, bool]) -> bool:
    """Whether a call that this thread is in the middle of has the turn."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - what else walks the stack is slow to import
    while frame is not None:
        if frame.f_globals.get("TURN") is TURN and frame.f_locals.get("taken") is free:
            return True
        frame = frame.f_back
    return False


_turns: WeakValueDictionary[int, Turn] = WeakValueDictionary()
_taken_for_a_fork: dict[int, list[dict[str, bool]]] = {}


def _all() -> list[Turn]:
    return [turn for turn in [reference() for reference in _turns.valuerefs()] if turn is not None]


def _before_fork() -> None:
    """Take every turn, so that the child gets whole decisions.

    One that is not to be had soon is that of a thread that reads a slow clock, or forks too. To wait for it could be to
    wait for ever; the child will find nothing half done, or a table that is `torn`.
    """
    taken = _taken_for_a_fork[get_ident()] = []
    until = time.monotonic_ns() + _PATIENCE_NS
    for turn in _all():
        free = turn.free
        while not _taken_here(free):
            try:
                del free[TURN]; taken.append(free)  # fmt: skip  # noqa: E702
            except KeyError:
                if time.monotonic_ns() > until:
                    break
                time.sleep(0)
            else:
                break


def _after_in_parent() -> None:
    for free in _taken_for_a_fork.pop(get_ident(), ()):
        free[TURN] = True


def _after_in_child() -> None:
    """Of the parent's threads there is only the one that forked: what the others had is free, and may be torn."""
    taken = _taken_for_a_fork.pop(get_ident(), [])
    _taken_for_a_fork.clear()
    for turn in _all():
        if not _taken_here(turn.free):
            turn.torn = turn.torn or not any(free is turn.free for free in taken)
            turn.free[TURN] = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
