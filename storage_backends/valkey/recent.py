"""Who was there lately: in two sets, so that to forget takes no sweep. Pure, by instants that it is told."""

from __future__ import annotations

from typing import Final

from learnflow_core.limiter.leases import TERM_NS

SEEN_NS: Final = TERM_NS
MAX_SEEN: Final = 8_192
"""A caller is remembered for so long at least, and among so many others; and for twice that at most."""


class Recent:
    """The callers that were seen in this span of time, and in the one before it."""

    __slots__ = ("_before", "_now", "_until_ns")

    def __init__(self) -> None:
        self._now: set[str] = set()
        self._before: set[str] = set()
        self._until_ns = 0

    def __len__(self) -> int:
        """How many entries are kept."""
        return len(self._now) + len(self._before)

    def has_seen(self, key: str, now_ns: int) -> bool:
        """Whether the caller was there lately; from now on it was."""
        if now_ns >= self._until_ns or len(self._now) >= MAX_SEEN:
            self._before = self._now if now_ns < self._until_ns + SEEN_NS else set()
            self._now = set()
            self._until_ns = now_ns + SEEN_NS
        if key in self._now or key in self._before:
            return True
        self._now.add(key)
        return False
