"""The suite, on search: courses are found by what they say, in every script, and by nothing else."""

from __future__ import annotations

# ruff: noqa: S311 - seeded randomness, so that a failure comes again
# ruff: noqa: SIM905 - words in a row read as words
import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import accumulate, product
from random import Random
from typing import Final, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learnflow_core.model import Course, CourseSummary, Level
from learnflow_core.money import sort_key
from learnflow_core.pagination import Page, Slice
from learnflow_core.ports import CourseQuery, CourseSort, Paging, Storage, Transaction
from learnflow_core.search import (
    MAX_SEARCH_WORDS,
    SearchQuery,
    course_tokens,
    matches,
    parse_search,
    title_matches,
    words,
)
from storage_backends.conformance.base import Suite
from storage_backends.conformance.lists import read_part, walk
from storage_backends.conformance.samples import account, course, enrollment, keep, user

LEVELS: tuple[Level, ...] = get_args(Level)

replace = msgspec.structs.replace

_VOCABULARY: Final = [f"w{number:04}" for number in range(100)]
_SHARES: Final = list(accumulate(1 / rank for rank in range(1, 101)))

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

    @pytest.mark.parametrize("seed", range(2))
    async def test_searches_of_the_whole_catalogue_stay_exact_whatever_is_written(
        self, storage: Storage, seed: int
    ) -> None:
        random = Random(seed)
        courses: dict[str, Course] = {}
        await keep(storage, account("acct_1"), account("acct_2"), *map(user, map("usr_{}".format, range(40))))
        for round_ in range(4):
            for _ in range(12):
                await _written(storage, random, courses)
            for query in _whole_catalogue(random):
                await _assert_found(storage, query, expected(courses.values(), query))
            assert await storage.check() == [], round_

    async def test_the_start_of_many_words_finds_all_when_some_of_them_have_just_ended(self, storage: Storage) -> None:
        courses = [course(f"crs_{number}", title=f"w{number:04}") for number in range(80)]
        await keep(storage, account())
        await storage.write(lambda tx: tx.courses.add_all(courses))
        courses[:20] = [replace(one, status="archived") for one in courses[:20]]
        for one in courses[:20]:
            assert await storage.write(lambda tx, it=one: tx.courses.put(it))  # type: ignore[misc]
        query = CourseQuery("popular", parse_search("w00"))
        await _assert_found(storage, query, expected(courses, query))

    async def test_searches_stay_exact_when_many_write_at_once(self, storage: Storage) -> None:
        random = Random("at once")
        courses = [_random_course(random, f"crs_{number}") for number in range(40)]
        await keep(storage, account("acct_1"), account("acct_2"), *courses[:20])
        courses[:20] = [_changed_course(random, one) for one in courses[:20]]
        puts = [storage.write(lambda tx, it=one: tx.courses.put(it)) for one in courses[:20]]  # type: ignore[misc]
        adds = [storage.write(lambda tx, it=one: tx.courses.add(it)) for one in courses[20:]]  # type: ignore[misc]
        assert all(await asyncio.gather(*puts, *adds))
        for query in _whole_catalogue(random):
            await _assert_found(storage, query, expected(courses, query))
        assert await storage.check() == []


async def _written(storage: Storage, random: Random, courses: dict[str, Course]) -> None:
    """Change something at random, there and here."""
    deed = random.randrange(4 if courses else 2)
    name = f"crs_{random.choice('0az')}{random.randrange(36**3):x}"
    if deed == 0 and name not in courses:
        courses[name] = _random_course(random, name)
        await keep(storage, courses[name])
    elif deed == 1:
        some = [_random_course(random, f"{name}_{number}") for number in range(8) if f"{name}_{number}" not in courses]
        courses |= {one.id: one for one in some}
        await storage.write(lambda tx: tx.courses.add_all(some))
    elif deed == 2:
        before = random.choice(list(courses.values()))
        after = courses[before.id] = _changed_course(random, before)
        assert await storage.write(lambda tx: tx.courses.put(after))
    else:
        chosen = random.choice(list(courses.values()))
        number = sum(one.total_students - one.students_base for one in courses.values())
        person = f"usr_{chosen.total_students - chosen.students_base}"
        await keep(storage, enrollment(f"enr_{number}", user_id=person, course_id=chosen.id))
        await storage.write(lambda tx: tx.courses.settle(100))
        courses[chosen.id] = replace(chosen, total_students=chosen.total_students + 1)


def _random_course(random: Random, course_id: str) -> Course:
    def text(most: int) -> str:
        return " ".join(random.choices(_VOCABULARY, cum_weights=_SHARES, k=random.randint(1, most)))

    students = random.choice([0, 0, 0, 1, 8, 9, 1000, 2**31])
    return course(
        course_id,
        account_id=random.choice(["acct_1", "acct_2"]),
        title=text(3),
        description=text(8),
        category=random.choice(["art", "dev"]),
        level=random.choice(LEVELS),
        status=random.choice(["published", "published", "published", "draft", "archived"]),
        students_base=students,
        created_at=random.randrange(5),
    )


def _changed_course(random: Random, before: Course) -> Course:
    after = _random_course(random, before.id)
    enrolled = before.total_students - before.students_base
    fixed = {"account_id": before.account_id, "created_at": before.created_at}
    return replace(after, **fixed, total_students=after.students_base + enrolled)


def _whole_catalogue(random: Random) -> list[CourseQuery]:
    """Some searches that account and status do not narrow down, and some that they do."""
    return random.sample(list(_every_search(random)), 20)


def _every_search(random: Random) -> Iterator[CourseQuery]:
    """Searches of a word, of several, and of the start of one: of few words, and of more than are asked for by name."""
    word = random.choice(_VOCABULARY)
    texts = ("w", "w0", "w00", "w0000", f"w0000 {word}", f"{word} w", "nothing", "w0000 nothing")
    sorts: tuple[CourseSort, ...] = ("relevance", "popular", "newest")
    for text, sort in product(texts, sorts):
        search = parse_search(text)
        yield CourseQuery(sort, search)
        yield CourseQuery(sort, search, level=random.choice(LEVELS), category=random.choice([None, "art", "no slug"]))
        yield CourseQuery(sort, search, status=random.choice(["draft", "published"]), account_id="acct_1")


async def _assert_found(storage: Storage, query: CourseQuery, wanted: list[CourseSummary]) -> None:
    def ask(tx: Transaction, paging: Paging) -> Awaitable[Slice[CourseSummary]]:
        return tx.courses.list(query, paging)

    for page in (1, 2, max(1, -(-len(wanted) // 7)), 99):
        found = await read_part(storage, ask, Page(page, 7))
        assert (found.items, found.total) == (wanted[7 * (page - 1) : 7 * page], len(wanted)), query
    assert await walk(storage, ask, 7) == wanted, query


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
