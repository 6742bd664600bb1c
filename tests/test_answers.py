"""Answers that are kept: never older than half a second, never anybody's own, never too many, and read once for all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.ports import Storage
from learnflow_http.answers import FRESH_FOR_NS, Answer, Answers
from learnflow_http.metrics import Metrics
from storage_backends.sqlite_transaction import SQLiteTransaction
from tests import scene
from tests.world import World, open_world

T = TypeVar("T")


class Catalogue:
    """A storage that has nothing but a version, which may be away, or slow to answer."""

    def __init__(self) -> None:
        self.version = 1
        self.looks = 0
        self.away = False
        self.slow: asyncio.Event | None = None
        self.changed: Callable[[], None] = lambda: None

    def watch_catalogue(self, changed: Callable[[], None]) -> None:
        self.changed = changed

    async def read(self, _work: Callable[[Any], Awaitable[T]]) -> int:
        self.looks += 1
        seen = self.version
        if self.away:
            raise LearnFlowError(Code.SERVICE_UNAVAILABLE)
        if self.slow is not None:
            await self.slow.wait()
        return seen

    def change(self, *, here: bool) -> None:
        """Change it, by a write of this process, or of another."""
        self.version += 1
        if here:
            self.changed()


class Asker:
    """Asks for targets, whose answers tell under which version they were read, and how often that was."""

    def __init__(self, size: int = 100_000) -> None:
        self.catalogue = Catalogue()
        self.metrics = Metrics()
        self.answers = Answers(cast(Storage, self.catalogue), size, self.metrics, lambda: self.now_ns)
        self.now_ns = 0
        self.readings = 0
        self.held: asyncio.Event | None = None
        self.cancelled = 0

    async def read(self) -> Answer:
        self.readings += 1
        seen = self.catalogue.version
        try:
            if self.held is not None:
                await self.held.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return Answer.of("/", "/", b"%d" % seen, None)

    async def ask(self, target: str = "/") -> int:
        answer = self.answers.kept(target.encode(), self.now_ns)
        if answer is None:
            answer = await self.answers.get(target.encode(), self.read)
        return int(answer.body)

    def asking(self, target: str = "/") -> asyncio.Task[int]:
        return asyncio.get_running_loop().create_task(self.ask(target))

    @property
    def held_bytes(self) -> int:
        self.metrics.refresh()
        [family] = [each for each in self.metrics.families if each.name == "learnflow_answers_bytes"]
        return int(self.metrics.row[family.cells[()]])


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# --- What is believed, and for how long


async def test_an_answer_is_read_once_and_told_again() -> None:
    asker = Asker()
    assert [await asker.ask() for _ in range(5)] == [1] * 5
    assert (asker.readings, asker.catalogue.looks) == (1, 1)


async def test_a_change_by_another_process_is_told_when_half_a_second_has_passed() -> None:
    asker = Asker()
    await asker.ask()
    asker.catalogue.change(here=False)
    asker.now_ns = FRESH_FOR_NS - 1
    assert await asker.ask() == 1
    asker.now_ns = FRESH_FOR_NS
    assert await asker.ask() == 2


async def test_who_was_long_on_the_way_neither_looks_again_nor_makes_the_next_one_look() -> None:
    asker = Asker()
    asker.now_ns = 10 * FRESH_FOR_NS
    await asker.ask()
    assert asker.answers.kept(b"/", asker.now_ns - FRESH_FOR_NS) is None  # by the time at which it came
    await asker.answers.get(b"/", asker.read)
    assert await asker.ask() == 1
    assert (asker.readings, asker.catalogue.looks) == (1, 1)


async def test_a_change_by_this_process_is_told_at_once() -> None:
    asker = Asker()
    await asker.ask()
    asker.catalogue.change(here=True)
    assert await asker.ask() == 2


async def test_a_clock_that_steps_back_believes_nothing() -> None:
    asker = Asker()
    asker.now_ns = 10 * FRESH_FOR_NS
    await asker.ask()
    asker.catalogue.change(here=False)
    asker.now_ns = 0
    assert await asker.ask() == 2


async def test_what_has_not_changed_is_not_read_again() -> None:
    asker = Asker()
    for _ in range(5):
        await asker.ask()
        asker.now_ns += FRESH_FOR_NS
    assert (asker.readings, asker.catalogue.looks) == (1, 5)


async def test_a_storage_that_is_away_is_not_hidden() -> None:
    asker = Asker()
    await asker.ask()
    asker.catalogue.away = True
    assert await asker.ask() == 1
    asker.now_ns = FRESH_FOR_NS
    with pytest.raises(LearnFlowError):
        await asker.ask()
    asker.catalogue.away = False
    assert await asker.ask() == 1
    assert asker.readings == 1


async def test_a_reading_that_a_change_overtakes_is_neither_kept_nor_joined() -> None:
    asker = Asker()
    asker.held = gate = asyncio.Event()
    before = asker.asking()
    await turns()
    asker.held = None
    asker.catalogue.change(here=True)
    assert await asker.ask() == 2
    gate.set()
    assert await before == 1
    assert await asker.ask() == 2
    assert asker.readings == 2


@pytest.mark.parametrize("meanwhile", [True, False])
async def test_a_look_that_a_change_overtakes_is_believed_by_nobody_who_comes_later(meanwhile: bool) -> None:
    asker = Asker()
    await asker.ask()
    asker.now_ns = FRESH_FOR_NS
    asker.catalogue.slow = gate = asyncio.Event()
    before = asker.asking()
    await turns()
    asker.catalogue.change(here=True)
    asker.catalogue.slow = None
    if meanwhile:
        assert await asker.ask() == 2
    gate.set()
    assert await before in (1, 2)
    assert await asker.ask() == 2


@given(st.lists(st.sampled_from(["ask", "ask other", "change here", "change there", "time"]), max_size=40))
def test_whatever_happens_nobody_is_told_what_is_too_old(steps: list[str]) -> None:
    async def play() -> None:
        asker = Asker(size=2_000)
        oldest, there = 1, list[tuple[int, int]]()
        for step in steps:
            if step == "change here":
                asker.catalogue.change(here=True)
                oldest = asker.catalogue.version
            elif step == "change there":
                asker.catalogue.change(here=False)
                there.append((asker.now_ns, asker.catalogue.version))
            elif step == "time":
                asker.now_ns += FRESH_FOR_NS // 2
            else:
                due = [version for at, version in there if asker.now_ns - at >= FRESH_FOR_NS]
                told = await asker.ask(step)
                assert max([oldest, *due]) <= told <= asker.catalogue.version

    asyncio.run(play())


# --- One reading for all


async def test_a_hundred_who_ask_at_once_share_one_reading() -> None:
    asker = Asker()
    asker.held = asyncio.Event()
    asking = [asker.asking() for _ in range(100)]
    await turns()
    asker.held.set()
    assert await asyncio.gather(*asking) == [1] * 100
    assert (asker.readings, asker.catalogue.looks) == (1, 1)


async def test_a_reading_goes_on_while_anybody_waits_and_is_cancelled_with_the_last() -> None:
    asker = Asker()
    asker.held = asyncio.Event()
    asking = [asker.asking() for _ in range(3)]
    await turns()
    for number, each in enumerate(asking):
        assert (asker.cancelled, number) == (0, number)
        each.cancel()
        await turns()
    assert asker.cancelled == 1


async def test_who_comes_after_a_cancelled_reading_gets_one_of_their_own() -> None:
    asker = Asker()
    asker.held = asyncio.Event()
    first = asker.asking()
    await turns()
    first.cancel()
    await asyncio.sleep(0)
    second = asker.asking()
    await turns()
    third = asker.asking()
    await turns()
    asker.held.set()
    assert (await second, await third) == (1, 1)
    assert (asker.readings, asker.cancelled) == (2, 1)


async def test_an_error_is_told_to_all_who_wait_and_not_kept() -> None:
    asker = Asker()
    gate = asyncio.Event()

    async def fail() -> Answer:
        await gate.wait()
        raise LearnFlowError(Code.COURSE_NOT_FOUND)

    asking = [asyncio.ensure_future(asker.answers.get(b"/", fail)) for _ in range(3)]
    await turns()
    gate.set()
    told = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(each) for each in told] == [LearnFlowError] * 3
    assert await asker.ask() == 1


# --- Memory


async def test_answers_take_no_more_memory_than_they_may_and_the_oldest_go() -> None:
    asker = Asker(size=10_000)
    for number in range(1_000):
        await asker.ask(f"/{number}")
        assert 0 < asker.held_bytes <= 10_000
    assert asker.answers.kept(b"/999", 0) is not None
    assert asker.answers.kept(b"/0", 0) is None


async def test_an_answer_larger_than_all_the_memory_is_not_kept() -> None:
    asker = Asker(size=10_000)
    await asker.ask("/kept")
    await asker.ask("/" + 10_000 * "x")
    assert asker.answers.kept(b"/kept", 0) is not None


async def test_without_memory_every_answer_is_read() -> None:
    asker = Asker(size=0)
    assert [await asker.ask() for _ in range(3)] == [1] * 3
    assert (asker.readings, asker.catalogue.looks, asker.held_bytes) == (3, 0, 0)


async def test_what_was_kept_under_another_version_takes_no_memory() -> None:
    asker = Asker()
    for number in range(10):
        await asker.ask(f"/{number}")
    before = asker.held_bytes
    asker.catalogue.change(here=True)
    await asker.ask()
    assert 0 < asker.held_bytes < before / 5


# --- Over HTTP


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the database is asked."""
    asked: list[str] = []
    rows = SQLiteTransaction.rows

    async def watched(self: SQLiteTransaction, sql: str, *args: Any) -> Any:
        asked.append(sql)
        return await rows(self, sql, *args)

    monkeypatch.setattr(SQLiteTransaction, "rows", watched)
    return asked


SHARED = ["/v1/courses", "/v1/courses?search=web&limit=3", "/v1/courses?cursor=", "/v1/categories", "/v1/courses/{id}"]


@pytest.mark.parametrize("path", SHARED)
async def test_a_second_asker_costs_the_database_nothing(world: World, statements: list[str], path: str) -> None:
    course = await scene.course(world, await world.account())
    target = path.format(id=course.id)
    first = await world.ask("GET", target)
    statements.clear()
    second = await world.ask("GET", target)
    assert statements == []
    assert (second.content, second.headers["ETag"]) == (first.content, first.headers["ETag"])
    assert (await world.ask("GET", target, If_None_Match=first.headers["ETag"])).status_code == 304
    assert (await world.ask("HEAD", target)).headers["Content-Length"] == str(len(first.content))
    assert statements == []


async def test_who_changes_the_catalogue_reads_the_change(world: World) -> None:
    account = await world.account()
    key = await world.key(account)
    course = await scene.course(world, account)
    for title in ("One", "Two", "Three"):
        await world.ask("PATCH", f"/v1/courses/{course.id}", key, {"title": title})
        assert (await world.ask("GET", f"/v1/courses/{course.id}")).json()["title"] == title
        assert [one["title"] for one in (await world.ask("GET", "/v1/courses")).json()["data"]] == [title]
    await world.ask("DELETE", f"/v1/courses/{course.id}", key)
    assert (await world.ask("GET", f"/v1/courses/{course.id}")).status_code == 404
    assert (await world.ask("GET", "/v1/categories")).json()["data"] == []


async def test_what_only_the_owner_sees_is_kept_for_nobody(world: World) -> None:
    account = await world.account()
    owner, stranger = await world.key(account), await world.key(await world.account("Other"))
    draft = await scene.course(world, account, status="draft")
    for _ in range(2):
        for credential, status in ((owner, 200), (stranger, 404), (None, 404), (owner, 200)):
            assert (await world.ask("GET", f"/v1/courses/{draft.id}", credential)).status_code == status
        mine = await world.ask("GET", "/v1/courses?status=draft", owner)
        theirs = await world.ask("GET", "/v1/courses?status=draft", stranger)
        assert (len(mine.json()["data"]), len(theirs.json()["data"])) == (1, 0)
        assert (await world.ask("GET", "/v1/courses?status=draft")).status_code == 400


async def test_a_kept_answer_still_costs_its_caller_a_request() -> None:
    async with open_world() as world:
        key = await world.key(await world.account(per_minute=3))
        replies = [await world.ask("GET", "/v1/courses", key) for _ in range(4)]
        assert [reply.status_code for reply in replies] == [200, 200, 200, 429]
        assert [reply.headers["X-RateLimit-Remaining"] for reply in replies] == ["2", "1", "0", "0"]
        assert len({reply.headers["X-Request-Id"] for reply in replies}) == 4
