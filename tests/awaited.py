"""Limiters whose answers have to be awaited, as those behind a network: a coroutine each, or a future."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from learnflow_core.limiter import Decision, MemoryLimiter, Quota


class CoroutineLimiter:
    def __init__(self, **options: Any) -> None:
        self.memory = MemoryLimiter(**options)

    async def hit(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Decision:
        await asyncio.sleep(0)
        return self.memory.hit(key, quotas, cost)


class FutureLimiter:
    def __init__(self, **options: Any) -> None:
        self.memory = MemoryLimiter(**options)

    def hit(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> asyncio.Future[Decision]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Decision] = loop.create_future()
        loop.call_soon(future.set_result, self.memory.hit(key, quotas, cost))
        return future


EVERY_KIND: list[Callable[..., Any]] = [MemoryLimiter, CoroutineLimiter, FutureLimiter]
"""Whatever an async caller may be given."""
