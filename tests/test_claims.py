"""The claim to an idempotency key, in virtual time: kept by whoever runs, however slow, and left by whoever crashed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import closing
from random import Random
from typing import Any, TypeVar, cast

import msgspec
import pytest

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import SECOND, Reply
from learnflow_core.ports import Storage
from learnflow_http.idempotency import CLAIM_LIFETIME, WAIT_S, Key, Outcome, once
from tests.simulator.loop import Process, SimulatedLoop, within

T = TypeVar("T")

START_NS = 1_705_311_000_000_000_000


class Shelf:
    """Replies in a dictionary; a storage, its transaction, and the part of one that is asked for."""

    def __init__(self) -> None:
        self.replies = self
        self.kept: dict[tuple[str, str], Reply] = {}
        self.takes_s = 0.0

    async def get(self, scope: str, key: str) -> Reply | None:
        return self.kept.get((scope, key))

    async def put(self, scope: str, key: str, reply: Reply) -> None:
        self.kept[scope, key] = reply

    async def drop(self, scope: str, key: str) -> None:
        self.kept.pop((scope, key), None)

    async def write(self, work: Callable[[Any], Awaitable[T]], **_options: object) -> T:
        await asyncio.sleep(self.takes_s)
        return await work(self)

    read = write


class Desk:
    """Where requests under one key come in. `runs` has the second of each that ran, and `began` tells of the first."""

    def __init__(self) -> None:
        self.shelf = Shelf()
        self.storage = cast("Storage", self.shelf)
        self.runs: list[int] = []
        self.began = asyncio.Event()

    @property
    def seconds(self) -> int:
        return round(asyncio.get_running_loop().time() - START_NS / 1e9)

    def key(self, body: bytes = b"{}") -> Key:
        now = round(asyncio.get_running_loop().time() * SECOND)
        return Key.of("key", caller="caller", request="POST /v1/enrollments?", body=body, now=now)

    async def request(self, takes_s: float = 1, status: int = 201) -> Outcome:
        async def run() -> Outcome:
            self.runs.append(self.seconds)
            self.began.set()
            await asyncio.sleep(takes_s)
            body = b"%d" % status
            return Outcome(status, body, body)

        return await once(self.storage, self.key(), run)

    def age_claim(self) -> None:
        """Let the claim be as old as that of somebody who has crashed."""
        for place, claim in self.shelf.kept.items():
            self.shelf.kept[place] = msgspec.structs.replace(claim, claimed_at=claim.claimed_at - CLAIM_LIFETIME)

    async def crash(self, after_s: float = 0) -> None:
        """Begin a request whose process dies over it."""
        process = Process("doomed")
        asyncio.get_running_loop().create_task(self.request(10**6), context=within(process))
        await self.began.wait()
        await asyncio.sleep(after_s)
        process.alive = False


def in_virtual_time(story: Callable[[Desk], Coroutine[Any, Any, None]]) -> None:
    # What it lacks of an event loop is what a simulation has not: sockets, signals, processes.
    loop = SimulatedLoop(Random(0), START_NS, lambda _: None)  # type: ignore[abstract]

    async def told() -> None:
        await story(Desk())

    with closing(loop):
        loop.run_until_complete(told())


LIFETIME_S = CLAIM_LIFETIME // SECOND


def test_a_retry_after_a_crash_waits_until_the_claim_is_over_and_is_answered() -> None:
    async def story(desk: Desk) -> None:
        await desk.crash()
        retried = await desk.request()
        assert (retried.status, retried.replayed) == (201, False)
        assert desk.runs == [0, LIFETIME_S]
        assert (await desk.request()).replayed
        assert LIFETIME_S < WAIT_S

    in_virtual_time(story)


def test_of_many_retries_after_a_crash_one_runs_and_all_are_answered_alike() -> None:
    async def story(desk: Desk) -> None:
        await desk.crash()
        answers = await asyncio.gather(*(desk.request(takes_s=12) for _ in range(20)))
        assert [answer.replayed for answer in answers].count(False) == 1
        assert desk.runs == [0, LIFETIME_S]

    in_virtual_time(story)


def test_who_runs_for_longer_than_a_claim_lasts_renews_it() -> None:
    async def story(desk: Desk) -> None:
        first = asyncio.ensure_future(desk.request(takes_s=100))
        await desk.began.wait()
        for _ in range(3):
            with pytest.raises(LearnFlowError) as refused:
                await desk.request()
            assert refused.value.code is Code.SERVICE_UNAVAILABLE
        assert (await desk.request()).replayed
        assert not (await first).replayed
        assert desk.runs == [0]

    in_virtual_time(story)


def test_who_renews_slowly_since_each_write_takes_long_is_not_taken_for_crashed() -> None:
    async def story(desk: Desk) -> None:
        desk.shelf.takes_s = 2
        first = asyncio.ensure_future(desk.request(takes_s=60))
        await desk.began.wait()
        await asyncio.sleep(40)
        again = await desk.request()
        assert (again.replayed, len(desk.runs)) == (True, 1)
        assert not (await first).replayed

    in_virtual_time(story)


def test_a_claim_that_was_renewed_ends_too_when_its_owner_has_crashed() -> None:
    async def story(desk: Desk) -> None:
        await desk.crash(after_s=100)
        assert (await desk.request()).status == 201
        assert 100 < desk.runs[1] <= 100 + LIFETIME_S

    in_virtual_time(story)


def test_the_key_of_who_has_crashed_is_not_free_for_another_body() -> None:
    async def story(desk: Desk) -> None:
        await desk.crash()
        await asyncio.sleep(10 * LIFETIME_S)

        async def never() -> Outcome:
            raise AssertionError

        with pytest.raises(LearnFlowError) as refused:
            await once(desk.storage, desk.key(b'{"another": "body"}'), never)
        assert refused.value.code is Code.IDEMPOTENCY_KEY_REUSED
        assert (await desk.request()).status == 201

    in_virtual_time(story)


def test_who_was_taken_for_crashed_gives_the_answer_that_was_given_in_their_place() -> None:
    async def story(desk: Desk) -> None:
        first = asyncio.ensure_future(desk.request(takes_s=2))
        await desk.began.wait()
        desk.age_claim()
        assert (await desk.request(takes_s=0.5, status=200)).status == 200
        assert (await first) == Outcome(200, b"200", b"200", replayed=True)
        assert (await desk.request()).status == 200

    in_virtual_time(story)


def test_who_was_taken_for_crashed_and_is_cancelled_takes_no_answer_with_them() -> None:
    async def story(desk: Desk) -> None:
        first = asyncio.ensure_future(desk.request(takes_s=2))
        await desk.began.wait()
        desk.age_claim()
        await desk.request(takes_s=0.5)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await desk.request()).replayed
        assert desk.runs == [0, 0]

    in_virtual_time(story)
