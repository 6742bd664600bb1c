"""When to ask a store that did not answer: a circuit breaker, pure, by instants that it is told."""

from __future__ import annotations

PATIENCE = 3
"""A failure opens the breaker when nothing has succeeded for so many budgets."""

FIRST_PAUSE_NS = 50_000_000
PAUSE_NS = 1_000_000_000
"""How long an open breaker rests: first so long, twice as long after each probe, and up to a second."""


class Breaker:
    """Closed, everyone may ask. Open, one caller may after each rest, the probe, and whatever succeeds closes it.

    It opens at a failure when the last success is `PATIENCE` budgets ago or more, so that one late answer among many is
    no outage. Where calls are rare, one late answer does open it, for the first and shortest of the rests. A probe that
    never reports, as one that was cancelled, does not hold up the next. Instants are whole nanoseconds of one monotonic
    clock.
    """

    __slots__ = ("_next_probe", "_patience_ns", "_pause_ns", "_succeeded", "is_open")

    def __init__(self, budget_ns: int) -> None:
        self._patience_ns = PATIENCE * budget_ns
        self.is_open = False
        self._next_probe = 0
        self._pause_ns = FIRST_PAUSE_NS
        self._succeeded: int | None = None

    def may_ask(self, now: int) -> bool:
        """Whether to ask the store now; when open, a true answer makes the caller the probe."""
        if not self.is_open:
            return True
        if now < self._next_probe:
            return False
        self._pause_ns = min(2 * self._pause_ns, PAUSE_NS)
        self._next_probe = now + self._pause_ns
        return True

    def succeeded(self, now: int) -> None:
        """The store answered as it should."""
        self._succeeded = now
        self.is_open = False

    def failed(self, now: int) -> None:
        """The store answered too late, with an error, or not at all."""
        if self.is_open:
            self._next_probe = max(self._next_probe, now + self._pause_ns)
        elif self._succeeded is None or now - self._succeeded >= self._patience_ns:
            self.is_open = True
            self._pause_ns = FIRST_PAUSE_NS
            self._next_probe = now + FIRST_PAUSE_NS

    def rest(self, now: int) -> int:
        """How long until the store is asked again, at least one nanosecond."""
        return max(1, self._next_probe - now)
