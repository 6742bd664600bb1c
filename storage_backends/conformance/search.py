"""The suite, on search: courses are found by what they say, in every script, and by nothing else."""

from __future__ import annotations

# ruff: noqa: S311 - seeded randomness, so that a failure comes again
# ruff: noqa: SIM905 - words in a row read as words
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from random import Random
from typing import get_args

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learnflow_core.model import Course, CourseSummary, Level
from learnflow_core.money import sort_key
from learnflow_core.pagination import Page
from learnflow_core.ports import CourseQuery, CourseSort, Storage
from learnflow_core.search import MAX_SEARCH_WORDS, SearchQuery, course_tokens, matches, title_matches, words
from storage_backends.conformance.base import Suite
from storage_backends.conformance.samples import account, course, keep

LEVELS: tuple[Level, ...] = get_args(Level)

_WORDS = st.sampled_from(
    """
    Python python3 C++ C# .NET Node.js 3.8 html+css e-commerce master's naïve Straße STRASSE \ufb03 İstanbul
    \u039f\u0394\u039f\u03a3 ὀδός Ёлка שלום مَرْحَبًا हिन्दी ไทย 日本語 かな ｶﾀｶﾅ 한국어 👩‍🚀 ™ AND OR NOT NEAR title:x
    "quoted 'single back\\slash (a & b|c) * ! <-> =x @dev ~all _ - + # . $1 {0} %
    """.split()
)
_TEXT = st.lists(_WORDS | st.text(max_size=6), max_size=8).map(lambda parts: " ".join(parts).replace("\0", ""))
_TEXTS = st.lists(
    st.tuples(_TEXT.map(lambda text: text[:200]), _TEXT.map(lambda text: text[:200]), _TEXT), min_size=1, max_size=12
)
_SEARCHES = st.lists(
    st.tuples(st.integers(0, 11), st.integers(0, 20), _WORDS | st.text(max_size=3)), min_size=1, max_size=6
)


class Search(Suite):
    """Every search finds what `learnflow_core.search` says, in text of every script."""

    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
            HealthCheck.too_slow,
        ],
    )
    @given(texts=_TEXTS, asked=_SEARCHES, number=st.integers(0, 2**60))
    async def test_search_agrees_with_the_definition_of_a_match(
        self, storage: Storage, texts: list[tuple[str, str, str]], asked: list[tuple[int, int, str]], number: int
    ) -> None:
        random = Random(number)
        owner = f"acct_{number}"
        courses = [
            course(
                f"crs_{number}_{index}",
                account_id=owner,
                title=title or "-",
                instructor=instructor or "-",
                description=description,
                students_base=random.randrange(3),
                level=random.choice(LEVELS),
            )
            for index, (title, instructor, description) in enumerate(texts)
        ]
        if await storage.read(lambda tx: tx.accounts.get(owner)) is not None:
            return  # Hypothesis tries an example again, and it is kept already
        await keep(storage, account(owner), *courses)
        for index, start, typed in asked:
            text = f"{' '.join(texts[index % len(texts)])[start:][:200]} {typed}"
            for query in _queries(text, owner):
                found = await storage.read(lambda tx, it=query: tx.courses.list(it, Page(1, 50)))  # type: ignore[misc]
                wanted = expected(courses, query)
                assert (found.items, found.total) == (wanted, len(wanted))


def expected(courses: Iterable[Course], query: CourseQuery) -> list[CourseSummary]:
    """The list that a query should give, by the definitions of the core and nothing else."""
    found = [one for one in courses if _asked_for(one, query)]
    found.sort(key=lambda one: (_key(one, query.sort), one.id), reverse=query.sort != "price")
    if query.sort == "relevance" and query.search is not None:
        search = query.search
        found.sort(key=lambda one: not title_matches(_tokens(one), search))
    return [CourseSummary(*(getattr(one, name) for name in CourseSummary.__struct_fields__)) for one in found]


def _asked_for(one: Course, query: CourseQuery) -> bool:
    return (
        one.status == query.status
        and query.category in (None, one.category)
        and query.level in (None, one.level)
        and query.account_id in (None, one.account_id)
        and (query.search is None or matches(_tokens(one), query.search))
    )


def _key(one: Course, sort: CourseSort) -> int:
    keys: dict[CourseSort, Callable[[], int]] = {
        "relevance": lambda: one.total_students,
        "popular": lambda: one.total_students,
        "newest": lambda: one.created_at,
        "rating": lambda: -1 if one.rating is None else one.rating,
        "price": lambda: sort_key(one.price),
        "-price": lambda: sort_key(one.price),
    }
    return keys[sort]()


def _tokens(one: Course) -> str:
    return course_tokens(one.title, one.instructor, one.description, one.category, one.level)


def _queries(text: str, owner: str) -> Iterator[CourseQuery]:
    *whole, last = words(text)[:MAX_SEARCH_WORDS] or [""]
    search = SearchQuery(tuple(dict.fromkeys(whole)), last) if last else None
    sorts: tuple[CourseSort, ...] = ("relevance", "popular")
    levels: tuple[Level | None, ...] = (None, "all")
    if search is not None:
        for sort, level in product(sorts, levels):
            yield CourseQuery(sort, search, account_id=owner, level=level)
