"""An event loop in which nothing is left to chance: time is virtual, and a seed draws who goes on next.

It has no sockets, no signals and no threads, so what runs in it is a function of the seed alone. Time stands still
while something can be done, and then jumps to the next timer. asyncio promises to call what is ready in the order in
which it became so; between tasks nobody may rely on that, and drawing the order finds out who does.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")

SECOND_NS = 1_000_000_000


class Process:
    """What the tasks of one simulated process have in common: they end together, wherever they are."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)
"""Whose task it is. Tasks inherit it, as they inherit every context; what belongs to nobody never ends early."""


def within(process: Process) -> Context:
    """A context whose tasks belong to a process."""
    context = copy_context()
    context.run(PROCESS.set, process)
    return context


class SimulatedLoop(asyncio.AbstractEventLoop):
    """`asyncio` in virtual time. `before_step` is told of a process each time before one of its tasks goes on."""

    def __init__(self, random: Random, now_ns: int, before_step: Callable[[Process], None]) -> None:
        self.now_ns = now_ns
        self.burying = False
        self.tasks: list[asyncio.Task[Any]] = []
        self._random = random
        self._before_step = before_step
        self._ready: list[tuple[Process | None, asyncio.Handle]] = []
        self._timers: list[tuple[int, int, Process | None, asyncio.TimerHandle]] = []
        self._dropped: list[tuple[Process | None, asyncio.Handle]] = []
        self._made = 0

    def run_until_complete(self, main: Coroutine[Any, Any, T]) -> T:  # type: ignore[override]
        """What `main` returns. RuntimeError when it waits for what nothing will ever bring about."""
        asyncio._set_running_loop(self)
        try:
            task = self.create_task(main)
            while not task.done():
                self._step()
            result: T = task.result()
            return result
        finally:
            asyncio._set_running_loop(None)

    def close(self) -> None:
        """Let every task that is left come to its end, dead processes' too: to the world, all of it is over."""
        asyncio._set_running_loop(self)
        try:
            self.burying = True
            self._ready += self._dropped
            while left := [task for task in self.tasks if not task.done()]:
                for task in left:
                    task.cancel()
                while self._ready:
                    self._step()
        finally:
            asyncio._set_running_loop(None)

    def pass_time(self, seconds: float) -> None:
        """Let time pass within a step, as it does for one who blocks a thread."""
        self.now_ns += round(seconds * SECOND_NS)

    def time(self) -> float:
        return self.now_ns / SECOND_NS

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        context = copy_context() if context is None else context
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append((context.get(PROCESS), handle))
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:  # type: ignore[override]
        context = copy_context() if context is None else context
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._made += 1
        heapq.heappush(self._timers, (round(when * SECOND_NS), self._made, context.get(PROCESS), handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, work: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=self, name=name, context=context)
        self.tasks.append(task)
        return task

    def run_in_executor(self, _executor: Any, work: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Do here and now what others do on a thread."""
        answer = self.create_future()
        try:
            answer.set_result(work(*args))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the caller's
            answer.set_exception(error)
        return answer

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, _context: dict[str, Any]) -> None:
        """An exception that nobody asks for any more: whoever caused it has gone."""

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is passed over when its time comes."""

    def _step(self) -> None:
        """Let one task go on, after the next timer where none can."""
        if not self._ready:
            self._jump()
        at = self._random.randrange(len(self._ready))
        self._ready[at], self._ready[-1] = self._ready[-1], self._ready[at]
        process, handle = self._ready.pop()
        if handle.cancelled():
            return
        if self._lets(process):
            handle._run()
        else:
            self._dropped.append((process, handle))

    def _lets(self, process: Process | None) -> bool:
        """Whether a task may go on: a process that has ended, or ends in this moment, takes no step more."""
        if process is None or self.burying:
            return True
        if process.alive:
            self._before_step(process)
        return process.alive

    def _jump(self) -> None:
        """Go to the instant of the next timer, and make ready all whose time has come."""
        if not self._timers:
            raise RuntimeError("everything waits, and nothing would ever happen")
        self.now_ns = max(self.now_ns, self._timers[0][0])
        while self._timers and self._timers[0][0] <= self.now_ns:
            _, _, process, handle = heapq.heappop(self._timers)
            self._ready.append((process, handle))
