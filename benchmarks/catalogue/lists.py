"""Lists of the storage at several sizes: every order and filter, the first page, late ones, and by cursor."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final

from benchmarks.measure import summary
from learnflow_core.model import CourseSummary
from learnflow_core.pagination import Cursor, Page, Slice
from learnflow_core.ports import CourseQuery, Paging, Storage, Transaction
from storage_backends import open_storage

LIMIT: Final = 50
FIRST, CURSOR, MIDDLE, LAST = "page 1", "by cursor", "the middle page", "the last page"
PARTS: Final = (FIRST, CURSOR, MIDDLE, LAST)
QUERIES: Final = {
    "popular": CourseQuery("popular"),
    "newest": CourseQuery("newest"),
    "rating": CourseQuery("rating"),
    "price": CourseQuery("price"),
    "a category": CourseQuery("popular", category="development-1"),
    "a level": CourseQuery("popular", level="beginner"),
    "a category at a level": CourseQuery("popular", category="development-1", level="all"),
    "a category by price": CourseQuery("price", category="development-1"),
    "the rarest level, newest": CourseQuery("newest", level="advanced"),
    "a category at a level, by rating": CourseQuery("rating", category="development-1", level="all"),
}
"""Each fills a page at a thousand courses, so that sizes can be compared."""

_DEADLINE_S: Final = 60.0
_BURST_S: Final = 0.02
_MOST_CALLS: Final = 20

Read = Callable[[], Awaitable[object]]
BySize = dict[str, dict[str, Any]]
"""For each row the summary of its milliseconds at each number of courses."""


@asynccontextmanager
async def storages(urls: Mapping[int, str]) -> AsyncIterator[Mapping[int, Storage]]:
    """The storage of each size, open for the block."""
    async with AsyncExitStack() as stack:
        opened = {}
        for courses, url in urls.items():
            opened[courses] = await open_storage(url, read_deadline_s=_DEADLINE_S)
            stack.push_async_callback(opened[courses].close)
        yield opened


async def measured(opened: Mapping[int, Storage], rounds: int, seed: int) -> BySize:
    """What each list takes at each size. Samples of all are taken in turn, after a round that is thrown away."""
    cases = {
        (row, courses): read for courses, storage in opened.items() for row, read in (await reads(storage)).items()
    }
    order, chance = list(cases), random.Random(seed)
    samples: dict[tuple[str, int], list[float]] = {case: [] for case in order}
    for take in range(rounds + 1):
        chance.shuffle(order)
        for case in order:
            milliseconds = await _burst(cases[case])
            if take:
                samples[case].append(milliseconds)
    return by_size(samples)


def by_size(samples: Mapping[tuple[str, int], list[float]]) -> BySize:
    """Samples of rows at sizes, put together."""
    rows: BySize = {}
    for (row, courses), of_case in samples.items():
        rows.setdefault(row, {})[str(courses)] = summary(of_case)
    return rows


async def reads(storage: Storage) -> dict[str, Read]:
    """How each part of each list is read, by the name of its row."""
    found: dict[str, Read] = {}
    for name, query in QUERIES.items():
        total = (await listed(storage, query, Page(1, 1))).total or 0
        for part, paging in _parts(max(1, total // LIMIT)):
            found[row_of(name, part)] = partial(listed, storage, query, paging)
    return found


def row_of(name: str, part: str) -> str:
    """The name of the row of a part of a list."""
    return f"{name}: {part}"


async def listed(storage: Storage, query: CourseQuery, paging: Paging) -> Slice[CourseSummary]:
    """A part of a list."""
    return await storage.read(partial(_list, query=query, paging=paging))


async def milliseconds(read: Read) -> float:
    """What a read takes."""
    began = time.perf_counter()
    await read()
    return (time.perf_counter() - began) * 1e3


def _parts(last: int) -> Iterator[tuple[str, Paging]]:
    """The parts of a list; pages are full ones, and in a short list the same."""
    return zip(PARTS, (Page(1, LIMIT), Cursor(None, LIMIT), Page(-(-last // 2), LIMIT), Page(last, LIMIT)), strict=True)


async def _list(tx: Transaction, query: CourseQuery, paging: Paging) -> Slice[CourseSummary]:
    return await tx.courses.list(query, paging)


async def _burst(read: Read) -> float:
    """The median of some calls in a row: the first finds the caches as another case left them."""
    times: list[float] = []
    until = time.perf_counter() + _BURST_S
    while not times or (len(times) < _MOST_CALLS and time.perf_counter() < until):
        times.append(await milliseconds(read))
    return statistics.median(times)
