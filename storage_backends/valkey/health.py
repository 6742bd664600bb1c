"""How a store is doing: what it decided, what was decided without it, and why; told once, and counted always."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Final

from storage_backends.valkey.breaker import PAUSE_NS, Breaker

_log: Final = logging.getLogger("storage_backends.valkey")


class Counts:
    """What a limiter has done so far: answers `by_store`, decisions `by_lease` and `by_fallback`, `failures` by kind.

    A kind is `connect`, `timeout`, `lost` (the connection broke before the answer), `protocol` (what came was no
    answer), or the code of an error that the server answered, such as `READONLY`.
    """

    __slots__ = ("by_fallback", "by_lease", "by_store", "failures")

    def __init__(self) -> None:
        self.by_store = 0
        self.by_lease = 0
        self.by_fallback = 0
        self.failures: dict[str, int] = {}

    def __repr__(self) -> str:
        told = (f"{field}={getattr(self, field)}" for field in ("by_store", "by_lease", "by_fallback", "failures"))
        return f"Counts({', '.join(told)})"


class Health:
    """Of one server: its breaker, and the two lines that the log has of an outage.

    An outage begins with a failure, and ends with the first success after `PAUSE_NS` without one; so a server that
    answers some and fails others has one outage, and not thousands. Of several threads that see it begin or end one
    says so: the one that takes the entry out of a list.
    """

    __slots__ = ("_counts", "_failed", "_name", "_policy", "_since", "_well", "breaker")

    def __init__(self, name: str, policy: str, counts: Counts, budget_ns: int) -> None:
        self.breaker = Breaker(budget_ns)
        self._name = name
        self._policy = policy
        self._counts = counts
        self._well = [True]
        self._since: list[int] = []
        self._failed = 0

    def succeeded(self, now: int) -> None:
        """The store answered as it should."""
        self.breaker.succeeded(now)
        if self._since and now - self._failed >= PAUSE_NS:
            with suppress(IndexError):
                since = self._since.pop()
                _log.warning("%s answers again, after %.1f s", self._name, (now - since) / 1e9)
                self._well.append(True)

    def failed(self, kind: str, now: int, times: int = 1) -> None:
        """The store did not answer as it should: so many calls fared alike."""
        failures = self._counts.failures
        failures[kind] = failures.get(kind, 0) + times
        self._failed = now
        self.breaker.failed(now)
        if self._well:
            with suppress(IndexError):
                self._well.pop()
                _log.warning(
                    "%s does not answer as it should (%s): the policy %r decides", self._name, kind, self._policy
                )
                self._since.append(now)
