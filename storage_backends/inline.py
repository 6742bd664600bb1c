"""Work without an event loop: a coroutine that awaits only its transaction is called like an ordinary function.

Where a database answers on the calling thread, nothing in the work ever waits for an event loop: a transaction costs
one hop from thread to thread, however many statements it has.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


def run_inline(awaitable: Awaitable[T]) -> T:
    """What the awaitable returns or raises. RuntimeError when it waits for anything, and nothing would ever wake it."""
    steps: Any = awaitable.__await__()
    try:
        next(steps)
    except StopIteration as end:
        result: T = end.value
        return result
    steps.close()
    raise RuntimeError("work may await nothing but its transaction: no event loop runs where it does")
