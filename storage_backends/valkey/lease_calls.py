"""What a holder of leases asks of the store, as a command, and what it is answered. Pure."""

from __future__ import annotations

from struct import Struct, pack
from typing import TYPE_CHECKING

from learnflow_core.limiter.leases import Reply, Request
from storage_backends.valkey.calls import TICK_NS, Call, DecideCall, check_figures
from storage_backends.valkey.resp import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from learnflow_core.limiter.quota import Quota
    from storage_backends.valkey.resp import Reply as Raw
    from storage_backends.valkey.scripts import Script


class LeaseCall(Call):
    """A request of a holder; `hits` are its costs as decisions that are made without the store when it is away."""

    __slots__ = ("_figures", "_flags", "_told", "hits")

    def __init__(
        self,
        prefix: bytes,
        script: Script,
        quotas: Sequence[Quota],
        request: Request,
        hits: Sequence[DecideCall] = (),
    ) -> None:
        told, costs = request.settlements, request.costs
        numbers: list[float] = [request.block, request.share, len(told), len(costs), len(quotas)]
        for quota in quotas:
            numbers += (quota.interval_ns // TICK_NS, quota.capacity_ns // TICK_NS, quota.longest_ns // TICK_NS)
        for settlement in told:
            numbers += (settlement.left, settlement.final)
        numbers += costs
        names = [request.lease, *(settlement.lease for settlement in told), *(quota.bucket for quota in quotas)]
        super().__init__(prefix, script, [pack(f"<{len(numbers)}d", *numbers), *(name.encode() for name in names)])
        self.hits = hits
        self._figures = Struct(f"<{3 + len(quotas)}d")
        self._told = len(told)
        self._flags = len(told) + len(costs)

    def answer(self, reply: Raw, key: str) -> object:
        if not isinstance(reply, bytes) or len(reply) != self._figures.size + self._flags:
            raise ProtocolError("no answer to a request for a lease")
        figures = self._figures.unpack_from(reply)
        check_figures(figures)
        now, era, block, *levels = figures
        flags = [flag == ord("1") for flag in reply[self._figures.size :]]
        full_at_ns = [int(level) * TICK_NS for level in levels]
        return Reply(int(now) * TICK_NS, full_at_ns, flags[: self._told], flags[self._told :], int(block), era)
