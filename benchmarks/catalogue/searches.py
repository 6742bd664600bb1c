"""Searches of the storage at several sizes: the first page, and what counting all that is found takes.

A total may be remembered once it was counted. So every sample asks for texts that were not asked for before, except
where there is only one text of a kind; its total is kept with the courses, and not remembered.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count, islice
from typing import Final

from benchmarks.catalogue.lists import LIMIT, BySize, by_size, listed, milliseconds
from benchmarks.catalogue_data import COMMONEST, Vocabulary
from learnflow_core.pagination import Cursor, Page
from learnflow_core.ports import CourseQuery, Storage
from learnflow_core.search import parse_search

RARE, COMMON, TWO, PREFIX = "a rare word", "a word in 22 % of titles", "two words", "a prefix of three"
KINDS: Final = (RARE, COMMON, TWO, PREFIX)
PAGE, TOTAL, AGAIN = "page 1 without a total", "its total", "page 1 again, with its total"
MEASURED: Final = (PAGE, TOTAL, AGAIN)

_TEXTS_A_SAMPLE: Final = 3
_WORDS_A_COURSE: Final = 20
_OF_RANK_1: Final = 0.1
"""The commonest word of the vocabulary stands for about this part of all words; one of rank r, for this part of r."""
_FOUND: Final = 50


async def measured(opened: Mapping[int, Storage], rounds: int) -> BySize:
    """What each kind of search takes at each size: medians of the texts of a sample."""
    asked = {(kind, courses): texts(kind, courses) for kind in KINDS for courses in opened}
    samples: dict[tuple[str, int], list[float]] = {}
    for take in range(rounds + 1):
        for (kind, courses), of_kind in asked.items():
            took = [await _asked(opened[courses], text) for text in islice(of_kind, _TEXTS_A_SAMPLE)]
            for part in MEASURED if take else ():
                row = (row_of(kind, part), courses)
                samples.setdefault(row, []).append(statistics.median(each[part] for each in took))
    return by_size(samples)


def row_of(kind: str, part: str) -> str:
    """The name of the row of a part of a search."""
    return f"{kind}: {part}"


async def _asked(storage: Storage, text: str) -> dict[str, float]:
    """Milliseconds of each part. The total is what the first page by number takes more than the one by cursor."""
    query = CourseQuery("relevance", parse_search(text))
    by_cursor, by_number = (partial(listed, storage, query, paging) for paging in (Cursor(None, LIMIT), Page(1, LIMIT)))
    await milliseconds(by_cursor)  # the caches are another's until then
    page = await milliseconds(by_cursor)
    first = await milliseconds(by_number)
    return {PAGE: page, TOTAL: max(0.0, first - page), AGAIN: await milliseconds(by_number)}


def texts(kind: str, courses: int) -> Iterator[str]:
    """What is searched at a size, of a kind."""
    words = Vocabulary().words
    if kind == COMMON:
        return iter(lambda: COMMONEST, None)
    if kind == RARE:
        # Found about as often at every size, so that pages are as long.
        rank = min(len(words) // 2, int(courses * _WORDS_A_COURSE * _OF_RANK_1 / _FOUND))
        return (words[(rank + number) % len(words)] for number in count(1))
    if kind == TWO:
        return (f"{words[number % 200]} {COMMONEST}" for number in count())
    prefixes = list(dict.fromkeys(word[:3] for word in words))
    return (prefixes[number % len(prefixes)] for number in count())
