"""The buckets of a limiter in memory: bounded whatever keys arrive, and without a pause to forget those that are full.

Whoever changes the table has the turn to, so that each change is one step to every thread.
"""

from __future__ import annotations

import os
from collections import deque

TYPE_CHECKING = False  # importing typing would take longer than the rest of the package
if TYPE_CHECKING:
    from typing import Any

    from learnflow_core.limiter.turns import Turn

_NOTHING: dict[str, int] = {}


class Table:
    """At most `max_buckets` buckets of one key each, and `overflow_buckets` for each name and period that keys share.

    `own` has for each name and period (the `bucket` of a quota) the instants of its keys, `shared` all that are shared.
    """

    __slots__ = ("_max_buckets", "_overflow_buckets", "_secret", "_turn", "_turns", "own", "shared")

    def __init__(self, turn: Turn, max_buckets: int, overflow_buckets: int) -> None:
        self.own: dict[str, dict[str, int]] = {}
        self.shared: dict[str, int] = {}
        # The table and the key there of every bucket once, in the order in which they are looked at. One object for
        # both would take 56 bytes more for each.
        self._turns: deque[Any] = deque()
        self._turn = turn
        self._max_buckets = max_buckets
        self._overflow_buckets = overflow_buckets
        self._secret = os.urandom(16).hex()

    def __len__(self) -> int:
        return sum([len(table) for table in [*self.own.values(), self.shared]])

    def place(self, key: str, bucket: str) -> tuple[dict[str, int], str] | None:
        """Where the key's bucket is: its own, or the shared one that stands for it; None when it has neither."""
        table = self.own.get(bucket, _NOTHING)
        if key in table:
            return table, key
        if not self.shared:
            return None
        slot = self._slot(key, bucket)
        return (self.shared, slot) if slot in self.shared else None

    def shares(self, key: str, bucket: str) -> bool:
        """Whether the key's bucket is a shared one."""
        place = self.place(key, bucket)
        return place is not None and place[0] is self.shared

    def _slot(self, key: str, bucket: str) -> str:
        # Python's own hash of a str is keyed unless PYTHONHASHSEED is set; the secret in front keys it even then.
        return f"{bucket}\0{hash(self._secret + key) % self._overflow_buckets}"

    def store(self, key: str, bucket: str, full_at: int, now: int) -> bool:
        """Keep what a taking left, in the key's own bucket or, without room for one, in the shared one: true if so."""
        table = self.own.setdefault(bucket, {})
        if key in table:
            table[key] = full_at
            return False
        if self._turn.torn:
            self._take_stock()
        self._turn.torn = True
        self._forget_some(now)
        if len(self._turns) // 2 - len(self.shared) >= self._max_buckets:
            table, key = self.shared, self._slot(key, bucket)
        if key not in table:
            self._turns.extend((table, key))
        table[key] = full_at
        self._turn.torn = False
        return table is self.shared

    def _forget_some(self, now: int) -> None:
        """Look at the two buckets whose turn it is, and forget those that are full again."""
        turns = self._turns
        for _ in range(min(2, len(turns) // 2)):
            table, key = turns.popleft(), turns.popleft()
            if table[key] > now:
                turns.extend((table, key))
            else:
                del table[key]

    def _take_stock(self) -> None:
        """Give each bucket its turn anew: where a change was broken off, one may have none, or two."""
        turns: deque[Any] = deque()
        for table in (*self.own.values(), self.shared):
            for key in table:
                turns.extend((table, key))
        self._turns = turns
