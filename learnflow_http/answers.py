"""Answers about the catalogue, kept as bytes for as long as it is the same.

What everybody is answered alike, and what depends on the catalogue alone, is read once and told often. It is believed
under the version of the catalogue that was last looked at, and that is looked at again

- when the last look is `FRESH_FOR_NS` old, so that a change by any process is told within that time;
- when this process has changed the catalogue, so that whoever wrote reads it.

The look comes before what is read under it. So what is kept may be newer than its version says, and never older. When
the version is another one, everything goes. When the storage does not answer, the look fails and nothing is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, NamedTuple

from learnflow_core.ports import Storage
from learnflow_http import conditional
from learnflow_http.metrics import Metrics
from learnflow_http.outgoing import Headers, lines

FRESH_FOR_NS: Final = 500_000_000
"""How long the version that was looked at is believed."""

_OF_AN_ENTRY: Final = 600
"""Bytes that an entry takes beside its texts, about."""


class Answer(NamedTuple):
    """The answer to a successful GET of a `path` by its `route`: its body, the headers that are its own, the same with
    the body's length as lines, and its entity tag."""

    route: str
    path: str
    body: bytes
    headers: Headers
    lines: bytes
    tag: str

    @classmethod
    def of(cls, route: str, path: str, body: bytes, link: str | None) -> Answer:
        """The answer with this body."""
        tag = conditional.entity_tag(body)
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"private")]
        if link:
            headers.append((b"link", link.encode("ascii")))
        headers.append((b"etag", tag.encode("ascii")))
        return cls(route, path, body, headers, lines([*headers, (b"content-length", b"%d" % len(body))]), tag)


class Answers:
    """The answers that are kept under the targets that asked for them, in at most `size` bytes.

    With 0, none are, and every one is read for itself. The one kept longest makes room. Who asks for what is being read
    waits for that; it is read on as long as anybody waits. `hits` counts those that were kept when they were asked for.
    """

    def __init__(self, storage: Storage, size: int, metrics: Metrics, clock_ns: Callable[[], int]) -> None:
        self._storage = storage
        self._size = size
        self._clock_ns = clock_ns
        self._held = 0
        self._entries: dict[bytes, Answer] = {}
        self._flights: dict[bytes, _Flight] = {}
        self._version: int | None = None
        self._looked_ns: int | None = None
        self._look: asyncio.Task[None] | None = None
        self._doubts = 0
        storage.watch_catalogue(self.doubt)
        self._count(metrics)

    def _count(self, metrics: Metrics) -> None:
        asked = metrics.family("counter", "learnflow_answers", "Answers about the catalogue, by where from.", "source")
        self.hits, self._joined, self._read = (asked.series(source) for source in ("kept", "joined", "read"))
        held = metrics.family("gauge", "learnflow_answers_bytes", "Memory taken by answers that are kept.").series()
        metrics.readers.append(lambda: held.put(self._held))

    def doubt(self) -> None:
        """The catalogue was changed: look at its version before anything is told."""
        self._doubts += 1
        self._looked_ns = self._look = None

    def kept(self, target: bytes, now_ns: int) -> Answer | None:
        """The answer at once, where it is kept and to be believed."""
        return self._entries.get(target) if self._is_fresh(now_ns) else None

    async def get(self, target: bytes, read: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer: what is kept, or what somebody else is reading, or what `read` says; its errors too."""
        if not self._size:
            return await read()
        if not self._is_fresh(self._clock_ns()):
            await self._look_again()
        if (answer := self._entries.get(target)) is not None:
            self.hits.add()
            return answer
        flight = self._flights.get(target)
        if flight is None:
            self._read.add()
            flight = _Flight(self._flights, target, self._fly(target, read))
        else:
            self._joined.add()
        return await flight.join()

    def _is_fresh(self, now_ns: int) -> bool:
        return self._looked_ns is not None and 0 <= now_ns - self._looked_ns < FRESH_FOR_NS

    async def _look_again(self) -> None:
        """Look at the version, together with all who ask meanwhile; what is kept is then no older than this call."""
        if self._look is None:
            self._look = asyncio.get_running_loop().create_task(self._see_version(self._clock_ns(), self._doubts))
            self._look.add_done_callback(_retrieve)
        await asyncio.shield(self._look)

    async def _see_version(self, now_ns: int, doubts: int) -> None:
        try:
            version = await self._storage.read(lambda tx: tx.courses.version())
        finally:
            if doubts == self._doubts:
                self._look = None
        if version != self._version:  # newer, or older, seen by a look that a later one overtook: then for nothing
            self._version = version
            self._entries, self._flights, self._held = {}, {}, 0
        if doubts == self._doubts:
            self._looked_ns = now_ns

    async def _fly(self, target: bytes, read: Callable[[], Awaitable[Answer]]) -> Answer:
        entries = self._entries
        answer = await read()
        if entries is self._entries:
            self._keep(target, answer)
        return answer

    def _keep(self, target: bytes, answer: Answer) -> None:
        size = _size(target, answer)
        if size > self._size:
            return
        if (before := self._entries.pop(target, None)) is not None:
            self._held -= _size(target, before)
        self._entries[target] = answer
        self._held += size
        while self._held > self._size:
            oldest = next(iter(self._entries))
            self._held -= _size(oldest, self._entries.pop(oldest))


class _Flight:
    """A reading under way, for all who wait for it. When the last of them leaves, it is cancelled."""

    def __init__(self, flights: dict[bytes, _Flight], target: bytes, reading: Coroutine[Any, Any, Answer]) -> None:
        self._waiting = 0
        self._flights = flights
        self._target = target
        self._task = asyncio.get_running_loop().create_task(reading)
        self._task.add_done_callback(self._landed)
        flights[target] = self

    async def join(self) -> Answer:
        self._waiting += 1
        try:
            return await asyncio.shield(self._task)
        finally:
            self._waiting -= 1
            if not self._waiting and not self._task.done():
                self._task.cancel()
                self._leave()

    def _landed(self, task: asyncio.Task[Answer]) -> None:
        self._leave()
        _retrieve(task)

    def _leave(self) -> None:
        """Let nobody join any more; another may have begun for the same target since then."""
        if self._flights.get(self._target) is self:
            del self._flights[self._target]


def _size(target: bytes, answer: Answer) -> int:
    return _OF_AN_ENTRY + len(target) + 2 * len(answer.lines) + len(answer.body)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Take note of what was raised: it has been told to those who waited, if there still were any."""
    if not task.cancelled():
        task.exception()
