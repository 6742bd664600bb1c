"""Clients as they are: they repeat what was not answered, ask twice at once, leave before they are told, and change
their minds. What they were told is kept, to be compared with what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

from tests.simulator.intents import Intent, Told, Wishes
from tests.simulator.node import LostError, Node, Reply
from tests.simulator.school import School
from tests.simulator.trace import Trace


class Clients:
    """So many of them, each with a few intents, asking whichever node they like."""

    patience_s: Sequence[float] = (60, 60, 60, 5, 0.2, 0.02)
    """How long they wait for a reply: one of these."""
    tries = 6
    """How often they ask before they give up."""

    def __init__(self, random: Random, nodes: Sequence[Node], school: School, trace: Trace) -> None:
        self.told: list[Told] = []
        self.unanswered: list[Intent] = []
        """What had no answer in the end, when it was asked again."""
        self.wishes = Wishes(random, school)
        self._random = random
        self._nodes = nodes
        self._trace = trace
        self._school = school
        self._keyed: dict[int, Intent] = {}

    async def all(self) -> None:
        """Let every client do what it wants."""
        clients = [self._client() for _ in range(self._random.randint(2, 6))]
        await asyncio.gather(*clients)

    async def ask_again(self) -> None:
        """Send everything that had a key once more, as one who restores a queue does."""
        for intent in list(self._keyed.values()):
            if not await self._insist(intent):
                self.unanswered.append(intent)

    async def _client(self) -> None:
        for _ in range(self._random.randint(1, 4)):
            await asyncio.sleep(self._random.choice((0, 0, 0.5, 12)) * self._random.random())
            intent = self.wishes.any()
            copies = self._random.choice((1, 1, 1, 2, 3))
            await asyncio.gather(*(self._insist(intent) for _ in range(copies)))

    async def _insist(self, intent: Intent) -> bool:
        """Ask until there is an answer, or until the client gives up; whether there was one."""
        if intent.key is not None:
            self._keyed[intent.number] = intent
        for _ in range(self.tries):
            reply = await self._ask(intent)
            if reply is not None:
                told = Told(intent, reply)
                self.told.append(told)
                self.wishes.hear(told)
                if told.is_final:
                    return True
            await asyncio.sleep(self._random.uniform(0.05, 3))
        return False

    async def _ask(self, intent: Intent) -> Reply | None:
        node = self._random.choice(self._nodes)
        patience_s = self._random.choice(self.patience_s)
        self._trace.note(f"client asks {node.name}: {intent.number} {intent.method} {intent.path} key={intent.key}")
        try:
            async with asyncio.timeout(patience_s):
                reply = await node.ask(intent.method, intent.path, intent.credential, intent.body, intent.fields)
        except (LostError, TimeoutError):
            self._trace.note(f"client heard nothing of {intent.number}")
            return None
        self._trace.note(f"client heard of {intent.number}: {_summary(Told(intent, reply))}")
        return reply


def _summary(told: Told) -> str:
    return ", ".join(
        f"{status} {body['error']['code'] if 'error' in body else body.get('id')} {body.get('status', '')}"
        for status, body in told.said
    )
