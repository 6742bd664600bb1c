"""Clients as they are: they repeat what was not answered, ask twice at once, leave before they are told, and change
their minds. What they were told is kept, to be compared with what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

import msgspec

from tests.simulator.node import LostError, Node, Reply
from tests.simulator.school import School
from tests.simulator.trace import Trace

REFUSAL_OF = {"pm_visa_4242": None, "pm_visa_0002": "card_declined", "pm_visa_9995": "insufficient_funds"}
"""What the payment service says to each means of payment."""
METHODS = ("pm_visa_4242", "pm_visa_4242", "pm_visa_4242", "pm_visa_0002", "pm_visa_9995")


class Intent(NamedTuple):
    """What a client wants, in the words of one request that it may send many times."""

    number: int
    method: str
    path: str
    body: bytes
    key: str | None
    refusals: frozenset[str | None]
    """The codes with which it may be refused, whatever else happens; all but those of a server that cannot answer."""

    @property
    def fields(self) -> dict[str, str]:
        return {} if self.key is None else {"idempotency-key": self.key}


class Told(NamedTuple):
    """A reply that a client received."""

    intent: Intent
    reply: Reply


class Clients:
    """So many of them, each with a few intents, asking whichever node they like."""

    patience_s: Sequence[float] = (60, 60, 60, 5, 0.2, 0.02)
    """How long they wait for a reply: one of these."""
    tries = 6
    """How often they ask before they give up."""

    def __init__(self, random: Random, nodes: Sequence[Node], school: School, trace: Trace) -> None:
        self.told: list[Told] = []
        self.left: set[str] = set()
        """Enrolments that somebody has asked to cancel."""
        self.unanswered: list[Intent] = []
        """What had no answer in the end, when it was asked again."""
        self._random = random
        self._nodes = nodes
        self._trace = trace
        self._school = school
        self._users = random.sample(school.users, random.randint(1, 5))
        self._courses = random.sample(school.courses, random.randint(1, 3))
        self._intents = 0
        self._keyed: list[Intent] = []

    async def all(self) -> None:
        """Let every client do what it wants."""
        clients = [self._client() for _ in range(self._random.randint(2, 6))]
        await asyncio.gather(*clients)

    async def ask_again(self) -> None:
        """Send everything that had a key once more, as one who restores a queue does."""
        for intent in self._keyed:
            if not await self._insist(intent):
                self.unanswered.append(intent)

    async def _client(self) -> None:
        for _ in range(self._random.randint(1, 4)):
            await asyncio.sleep(self._random.choice((0, 0, 0.5, 12)) * self._random.random())
            intent = self._intent()
            copies = self._random.choice((1, 1, 1, 2, 3))
            await asyncio.gather(*(self._insist(intent) for _ in range(copies)))

    def _intent(self) -> Intent:
        enrolled = [told.reply.body["id"] for told in self.told if told.reply.status in (200, 201)]
        if not enrolled or self._random.random() < 0.6:
            return self._any_enrolling()
        place = self._random.choice(enrolled)
        if self._random.random() < 0.4:
            return self._leaving(place, self._perhaps_a_key())
        return self._progressing(place, self._random.choice((50, 100, 100)), self._perhaps_a_key())

    def _any_enrolling(self) -> Intent:
        who, what = self._random.choice(self._users), self._random.choice(self._courses)
        return self._enrolling(who, what, self._random.choice(METHODS), self._perhaps_a_key())

    def _perhaps_a_key(self) -> str | None:
        return f"key-{self._intents}" if self._random.random() < 0.5 else None

    def _enrolling(self, user: str, course: str, means: str, key: str | None) -> Intent:
        body = {"user_id": user, "course_id": course, "payment_method_id": means}
        return self._new("POST", "/v1/enrollments", body, key, "course_full", REFUSAL_OF[means])

    def _leaving(self, place: str, key: str | None) -> Intent:
        self.left.add(place)
        return self._new("POST", f"/v1/enrollments/{place}/cancel", None, key, "enrollment_not_active")

    def _progressing(self, place: str, progress: int, key: str | None) -> Intent:
        return self._new("PATCH", f"/v1/enrollments/{place}", {"progress": progress}, key, "enrollment_not_active")

    def _new(self, method: str, path: str, body: object, key: str | None, *refusals: str | None) -> Intent:
        self._intents += 1
        text = b"" if body is None else msgspec.json.encode(body)
        intent = Intent(self._intents, method, path, text, key, frozenset(refusals))
        if key is not None:
            self._keyed.append(intent)
        return intent

    async def _insist(self, intent: Intent) -> bool:
        """Ask until there is an answer, or until the client gives up; whether there was one."""
        for _ in range(self.tries):
            reply = await self._ask(intent)
            if reply is not None:
                self.told.append(Told(intent, reply))
                if reply.status not in (429, 503):
                    return True
            await asyncio.sleep(self._random.uniform(0.05, 3))
        return False

    async def _ask(self, intent: Intent) -> Reply | None:
        node = self._random.choice(self._nodes)
        patience_s = self._random.choice(self.patience_s)
        self._trace.note(f"client asks {node.name}: {intent.number} {intent.method} {intent.path} key={intent.key}")
        try:
            async with asyncio.timeout(patience_s):
                reply = await node.ask(intent.method, intent.path, self._school.key, intent.body, intent.fields)
        except (LostError, TimeoutError):
            self._trace.note(f"client heard nothing of {intent.number}")
            return None
        self._trace.note(f"client heard of {intent.number}: {reply.status} {_said(reply)}")
        return reply


def _said(reply: Reply) -> str:
    body = reply.body
    return body["error"]["code"] if "error" in body else f"{body.get('id')} {body.get('status')}"
