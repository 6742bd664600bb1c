"""What a caller needs of a limiter, wherever the buckets are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

    from learnflow_core.limiter.decision import Decision, Decisions, Refund, Reset
    from learnflow_core.limiter.quota import Quota


class Limiter(Protocol):
    """Decisions that can be awaited: the one interface to a limiter in memory and to one behind a network.

    A decision takes from every quota or from none. Quotas of one call have different names. `hit` and `peek` raise
    TypeError or ValueError for nonsense: a cost that is not a positive int, a cost above a quota's `burst` (waiting
    cannot help), a name used twice, a str where many keys are asked for. A limiter in memory answers with the
    `Decision` itself, which a caller in a hurry, or without an event loop, uses as it is.
    """

    def hit(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Awaitable[Decision]:
        """Take `cost` tokens from each of the key's quotas, or none from any of them."""
        ...

    def hit_many(self, keys: Iterable[str], quotas: Sequence[Quota], cost: int = 1) -> Awaitable[Decisions]:
        """One `hit` for each of the keys, in their order, in one call: each is a decision of its own."""
        ...

    def peek(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Awaitable[Decision]:
        """What `hit` would answer now, without taking anything."""
        ...

    def refund(self, decision: Decision) -> Awaitable[Refund]:
        """Give back what a decision of this limiter took, as far as time has not done so.

        True the first time that it is asked for an allowed decision, unless a reset or a step back of the clock ended
        its refunds; what comes back may be nothing even so. Otherwise false, and nothing comes back.
        """
        ...

    def reset(self, key: str, quotas: Sequence[Quota]) -> Awaitable[Reset]:
        """Fill the key's buckets, and end the refunds of decisions made before."""
        ...
