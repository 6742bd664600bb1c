"""The demo's courses: 2,085 of them, always the same, made from words.

The first is the published example, and the most popular; among the others are courses to try every filter, every kind
of price and search on: accents, C++ and .NET, scripts without spaces, free ones, full ones, some with prerequisites.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from learnflow_core.model import DAY, Course, Instant, Lesson, Level, Section
from learnflow_core.money import Money
from learnflow_core.search import slug
from learnflow_http.cli import demo_words as words

COURSES: Final = 2_085
EXAMPLE_ID: Final = "crs_8x92k1"

_EXAMPLE_STUDENTS: Final = 12_450
_FIRST_DAY: Final[Instant] = 18_993 * DAY  # 2022-01-01
_DAYS: Final = 740


def category_names() -> dict[str, str]:
    """The demo's categories: slug to name."""
    return {slug(name): name for name in words.TOPICS}


def courses(owners: Mapping[str, str]) -> Iterator[Course]:
    """Every course of the demo, the example first. `owners`: accounts, and the user of each who creates its courses."""
    chance = random.Random("learnflow demo")  # noqa: S311 - the same courses every time, and no secret among them
    accounts = list(owners.items())
    beginners: dict[str, str] = {}
    for number, (title, category, topic, level, language) in enumerate(_outlines(chance)):
        account_id, creator_id = accounts[number % len(accounts)]
        course = _course(number, title, category, level, language, chance)
        if level == "beginner" and language == "en":
            beginners.setdefault(topic, course.id)
        prerequisites = (beginners[topic],) if level == "advanced" and topic in beginners and number % 3 == 0 else ()
        course = msgspec.structs.replace(
            course, account_id=account_id, created_by=creator_id, prerequisites=prerequisites
        )
        yield _example(course) if number == 0 else course


def _outlines(chance: random.Random) -> list[tuple[str, str, str, Level, str]]:
    """Title, category, topic, level and language of each course, in an order that mixes them."""
    regular = [
        (title.format(topic), category, topic, level, "en")
        for category, topics in words.TOPICS.items()
        for topic in topics.split(", ")
        for title, level in words.TITLES
    ]
    chance.shuffle(regular)
    foreign: list[tuple[str, str, str, Level, str]] = [
        (title, category, title, "all", language) for title, category, language in words.IN_OTHER_LANGUAGES
    ]
    example: list[tuple[str, str, str, Level, str]] = [
        ("Complete Web Development Bootcamp", "Development", "Web Development", "all", "en")
    ]
    return (example + foreign + regular)[:COURSES]


def _course(number: int, title: str, category: str, level: Level, language: str, chance: random.Random) -> Course:
    instructor = (
        f"{chance.choice(words.HONORIFICS)}{chance.choice(words.FIRST_NAMES)} {chance.choice(words.LAST_NAMES)}"
    )
    created_at = _FIRST_DAY + chance.randrange(_DAYS) * DAY + chance.randrange(86_400) * 1_000_000
    students = int(11_900 * chance.random() ** 4)
    return Course(
        id=f"crs_{_opaque(number)}",
        account_id="",
        created_by=None,
        title=title,
        instructor=instructor,
        category=slug(category),
        level=level,
        price=_price(chance),
        rating=None if students < 20 else 320 + int(160 * chance.betavariate(5, 2)),
        total_students=students,
        students_base=students,
        description=f"{title}, taught by {instructor}. {' '.join(chance.sample(words.PROMISES, 2))}",
        language=language,
        curriculum=_curriculum(chance),
        status="published",
        seats=chance.choice((0, 1, 20, 50, 100, 250)) if number % 19 == 7 else None,
        prerequisites=(),
        external_id=f"demo-{number:04}",
        created_at=created_at,
        updated_at=created_at,
    )


def _example(course: Course) -> Course:
    """The course that the documentation shows."""
    return msgspec.structs.replace(
        course,
        id=EXAMPLE_ID,
        instructor="Dr. John Smith",
        price=Money(4999, "USD"),
        rating=490,
        total_students=_EXAMPLE_STUDENTS,
        students_base=_EXAMPLE_STUDENTS,
        description=(
            "From the first page to a deployed application: HTML, CSS, JavaScript, a server, a database, tests, and the"
            " craft of finding out what went wrong."
        ),
        seats=None,
    )


def _price(chance: random.Random) -> Money:
    if chance.random() < 0.08:
        return Money(0, "USD")
    if chance.random() < 0.12:
        currency = chance.choice(list(words.FOREIGN_PRICES))
        return Money(chance.choice(words.FOREIGN_PRICES[currency]), currency)
    return Money(chance.choice(words.PRICES), "USD")


def _curriculum(chance: random.Random) -> tuple[Section, ...]:
    picked = sorted(chance.sample(range(len(words.SECTIONS)), chance.randint(2, 5)))
    return tuple(Section(words.SECTIONS[index], _lessons(chance)) for index in picked)


def _lessons(chance: random.Random) -> tuple[Lesson, ...]:
    picked = chance.sample(words.LESSONS, chance.randint(2, 5))
    return tuple(Lesson(title, chance.randint(2, 25) * 60) for title in picked)


def _opaque(number: int) -> str:
    """The opaque part of an id: 12 digits of base 36, always the same for the same course."""
    value = int.from_bytes(hashlib.sha256(f"learnflow demo {number}".encode()).digest()[:8], "big")
    digits = ""
    for _ in range(12):
        value, digit = divmod(value, 36)
        digits += "0123456789abcdefghijklmnopqrstuvwxyz"[digit]
    return digits
