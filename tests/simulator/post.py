"""The post between the payment service and the nodes: what the service tells by itself comes late, twice, or never to
the node it was sent to, and is sent again until a node says that it was heard."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

import msgspec

from learnflow_core.ports import PaymentNews
from tests.simulator.node import LostError, Node
from tests.simulator.payments import PaymentService

ADDRESS = "/webhooks/stripe"
ROUNDS = 20
"""So often everything is carried to somebody in the end."""


class Post:
    """Carries the news of a service. In some worlds it is quick, in others slow; now and then the service gives money
    back by itself."""

    def __init__(self, random: Random, service: PaymentService, nodes: Sequence[Node]) -> None:
        self._random = random
        self._service = service
        self._nodes = nodes
        self._every_s = random.choice((0.5, 5, 60))
        self._returns = random.choice((0, 0.05))

    async def carry_for_ever(self) -> None:
        """Carry something now and then."""
        while True:
            await asyncio.sleep(self._every_s * self._random.random())
            held = [charge for charge in self._service.charges.values() if charge.holds_money]
            if held and self._random.random() < self._returns:
                self._service.give_back(self._random.choice(held))
            if self._service.news:
                await self._carry(self._random.choice(self._service.news))

    async def carry_all(self) -> None:
        """Carry what is left, until nothing is, or nobody hears it though all is well."""
        for _ in range(ROUNDS):
            for news in self._service.news.copy():
                await self._carry(news)
            await asyncio.sleep(1)

    async def _carry(self, news: PaymentNews) -> None:
        node = self._random.choice(self._nodes)
        try:
            reply = await node.ask("POST", ADDRESS, "", msgspec.json.encode(news), {})
        except LostError:
            return
        if reply.status == 200 and news in self._service.news and self._random.random() < 0.8:
            self._service.news.remove(news)
