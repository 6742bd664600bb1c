"""What the storage takes to list, sort, page, search and count a catalogue of any size, without HTTP around it.

A database that is empty is filled first; one with courses is measured as it is, so that filling a large one is paid for
once. One reader asks, warm; the time is of a whole `Storage.read`.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Final

from benchmarks.catalogue_data import catalogue
from benchmarks.measure import options, print_table, summary, write_report
from learnflow_core.model import Account, Course, CourseSummary
from learnflow_core.pagination import Cursor, Page, Slice
from learnflow_core.ports import CourseQuery, Paging, Storage, Transaction
from learnflow_core.search import parse_search
from storage_backends import migrate, open_storage

ACCOUNT: Final = Account("acct_catalogue", "Catalogue", "starter", None, None, None, 0)
BATCH: Final = 5_000
_DEADLINE_S: Final = 60.0
_LIMIT: Final = 50

Case = Callable[[], Awaitable[object]]

QUERIES: Final = {
    "popular": CourseQuery("popular"),
    "newest": CourseQuery("newest"),
    "rating": CourseQuery("rating"),
    "price": CourseQuery("price"),
    "category": CourseQuery("popular", category="design-1"),
    "level": CourseQuery("popular", level="beginner"),
    "category and level": CourseQuery("popular", category="design-1", level="beginner"),
    "category by price": CourseQuery("price", category="design-1"),
    "a rare level, newest": CourseQuery("newest", level="advanced"),
    "category and rare level by rating": CourseQuery("rating", category="design-1", level="advanced"),
}
SEARCHES: Final = {
    "a rare word": "mingtoness",
    "in 22 % of titles": "python",
    "two common words": "vertem python",
    "prefix of three": "mus",
}


def run(argv: list[str]) -> int:
    """Fill the database unless it has courses, and print a table of what each list takes."""
    parser = options("catalogue", __doc__ or "")
    parser.add_argument("--database", default="sqlite://", help="URL (default: SQLite in memory)")
    parser.add_argument("--courses", type=int, default=1_000, help="of a database that is empty (default: 1,000)")
    given = parser.parse_args(argv)
    results = asyncio.run(_run(given))
    print_table(("list", "median ms", "worst ms"), [(name, *_ms(times)) for name, times in results.items()])
    measured = {"courses": given.courses, "seconds": {name: summary(times) for name, times in results.items()}}
    write_report(given.json, "catalogue", given.seed, measured)
    return 0


async def _run(given: argparse.Namespace) -> dict[str, list[float]]:
    await migrate(given.database)
    storage = await open_storage(given.database, read_deadline_s=_DEADLINE_S)
    try:
        await fill(storage, given.courses, given.seed)
        return {name: await _sampled(case, given.rounds) for name, case in (await cases(storage)).items()}
    finally:
        await storage.close()


async def fill(storage: Storage, count: int, seed: int = 1) -> None:
    """Make a catalogue of so many courses, unless there is one."""
    if await storage.read(lambda tx: tx.accounts.get(ACCOUNT.id)) is not None:
        return
    began = time.perf_counter()
    await storage.write(lambda tx: tx.accounts.add(ACCOUNT))
    courses = catalogue(count, account_id=ACCOUNT.id, seed=seed)
    while batch := list(islice(courses, BATCH)):
        await storage.write(partial(_add, batch=batch))
    print(f"{count} courses kept in {time.perf_counter() - began:.1f} s.")


async def cases(storage: Storage) -> Mapping[str, Case]:
    """Every list by what it is called: its first page, a late one, and a page by cursor."""
    found: dict[str, Case] = {}
    for name, query in _queries():
        total = (await storage.read(partial(_list, query=query, paging=Page(1, 1)))).total or 0
        last = max(1, -(-total // _LIMIT))
        for part, paging in _parts(last):
            found[f"{name} ({total}): {part}"] = partial(storage.read, partial(_list, query=query, paging=paging))
    return found


def _queries() -> Iterator[tuple[str, CourseQuery]]:
    yield from QUERIES.items()
    for name, text in SEARCHES.items():
        search = parse_search(text)
        yield f"{name}, relevance", CourseQuery("relevance", search)
        yield f"{name}, popular", CourseQuery("popular", search)
    yield "common in category at level", CourseQuery("relevance", parse_search("python"), "design-1", "beginner")


def _parts(last: int) -> Iterator[tuple[str, Paging]]:
    yield "page 1", Page(1, _LIMIT)
    yield "cursor", Cursor(None, _LIMIT)
    if last > 2:
        yield "middle", Page(last // 2, _LIMIT)
        yield "last", Page(last, _LIMIT)


async def _sampled(case: Case, rounds: int) -> list[float]:
    """Seconds that each of some calls took, after one that is thrown away."""
    times = []
    for _ in range(1 + rounds):
        began = time.perf_counter()
        await case()
        times.append(time.perf_counter() - began)
    return times[1:]


async def _add(tx: Transaction, batch: list[Course]) -> None:
    await tx.courses.add_all(batch)


async def _list(tx: Transaction, query: CourseQuery, paging: Paging) -> Slice[CourseSummary]:
    return await tx.courses.list(query, paging)


def _ms(times: list[float]) -> tuple[str, str]:
    ordered = sorted(times)
    return f"{ordered[len(ordered) // 2] * 1e3:.2f}", f"{ordered[-1] * 1e3:.2f}"
