"""Clients of real servers: some hang up before they hear, and all ask again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any, NamedTuple

from tests.siege.machines import Machine

DROPPED = 0.2
"""The share of replies that a client does not wait for."""
AT_ONCE = 5
"""How many copies of a request that was not answered are sent again together, at most."""


class Place(NamedTuple):
    """Who is to be enrolled where."""

    user: str
    course: str


class Told(NamedTuple):
    """A reply: its status, and what it says."""

    status: int
    body: Any


class LostError(Exception):
    """No reply came."""


def wanted(place: Place, means: str = "pm_visa_4242") -> dict[str, str]:
    """The body of a request for a place."""
    return {"user_id": place.user, "course_id": place.course, "payment_method_id": means}


class Client:
    """Somebody who asks one machine or the other, on a new connection each time."""

    def __init__(self, machines: Sequence[Machine], key: str, random: Random) -> None:
        self._machines = machines
        self._key = key
        self._random = random

    async def enrol(self, place: Place, means: str, key: str | None) -> Told:
        """Ask until there is an answer: once, and then several times at once."""
        body = wanted(place, means)
        copies = 1
        while True:
            asked = [self.ask(body, key, waits=self._random.random() > DROPPED) for _ in range(copies)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            told = [one for one in answers if isinstance(one, Told) and one.status < 429]
            if told:
                return self._random.choice(told)
            unexpected = [one for one in answers if isinstance(one, Exception) and not isinstance(one, LostError)]
            if unexpected:
                raise unexpected[0]
            await asyncio.sleep(self._random.uniform(0.02, 0.2))
            copies = self._random.randint(1, AT_ONCE)

    async def ask(self, body: dict[str, str], key: str | None, *, waits: bool = True) -> Told:
        """One request; `LostError` when no reply comes, or none is waited for."""
        reader, writer = await self._connect()
        try:
            writer.write(self._request(json.dumps(body).encode(), key))
            if not waits:
                await writer.drain()
                raise LostError
            return await _reply(reader)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise LostError from error
        finally:
            writer.close()

    async def leave(self, body: dict[str, str], sent: float) -> None:
        """Send that share of a request, and hang up."""
        _, writer = await self._connect()
        request = self._request(json.dumps(body).encode(), None)
        writer.write(request[: round(len(request) * sent)])
        with suppress(OSError):
            await writer.drain()
        writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_connection("127.0.0.1", self._random.choice(self._machines).port)
        except OSError as error:
            await asyncio.sleep(0.1)
            raise LostError from error

    def _request(self, body: bytes, key: str | None) -> bytes:
        head = "POST /v1/enrollments HTTP/1.1\r\nHost: learnflow.test\r\n"
        head += f"Authorization: Bearer {self._key}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        head += "" if key is None else f"Idempotency-Key: {key}\r\n"
        return f"{head}\r\n".encode() + body


async def _reply(reader: asyncio.StreamReader) -> Told:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(head.partition("content-length:")[2].partition("\r\n")[0])
    body = await reader.readexactly(length)
    return Told(int(head.split(" ", 2)[1]), json.loads(body))
