"""Which column of an export holds which fact about a course: guessed from its name, or said with `--map`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from learnflow_core.usecases.catalogue import ImportedCourse
from learnflow_http.cli import readers

NEEDED: Final = ("external_id", "title", "category", "price")

SYNONYMS: Final[dict[str, tuple[str, ...]]] = {
    "external_id": ("external_id", "course_id", "id", "uid", "uuid", "course_code", "code", "sku"),
    "title": ("title", "course_title", "course_name", "name", "course"),
    "instructor": (
        *("instructor", "instructor_name", "instructors", "course_instructor", "teacher", "author", "taught_by"),
        *("instructor_names", "visible_instructors", "tutor", "lecturer", "creator", "professor"),
    ),
    "category": (
        *("category", "course_category", "primary_category", "category_name", "subject", "subject_area"),
        *("topic", "department", "domain"),
    ),
    "level": ("level", "course_level", "difficulty", "difficulty_level", "course_difficulty", "instructional_level"),
    "price": ("price", "price_amount", "course_price", "list_price", "amount", "cost", "fee"),
    "currency": ("currency", "price_currency", "currency_code"),
    "paid": ("paid", "is_paid"),
    "rating": ("rating", "average_rating", "avg_rating", "course_rating", "stars"),
    "students": (
        *("students", "total_students", "num_students", "students_count", "num_subscribers", "subscribers"),
        *("students_enrolled", "course_students_enrolled", "enrollments", "enrolled", "learners"),
    ),
    "description": ("description", "course_description", "summary", "headline", "short_description", "overview"),
    "language": ("language", "course_language", "lang", "locale"),
    "created_at": (
        *("created_at", "created", "published_at", "published", "published_timestamp", "published_time"),
        *("publish_date", "published_date", "date_published", "release_date", "launch_date"),
    ),
}
"""The facts an import can take over, and under which names exports have them, the best first."""

_READERS: Final[dict[str, Callable[[str], object]]] = {
    "external_id": readers.external_id,
    "title": readers.title,
    "instructor": readers.title,
    "category": readers.category,
    "level": readers.level,
    "currency": readers.currency,
    "paid": readers.truth,
    "rating": readers.rating,
    "students": readers.count,
    "description": readers.description,
    "language": readers.language,
    "created_at": readers.instant,
}

_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_BETWEEN_WORDS: Final = re.compile(r"[^a-z0-9]+")


class MappingError(Exception):
    """A `--map` that names what is not there, or a table that lacks what is needed; the text tells a person."""


class RowError(Exception):
    """A row that cannot be taken over; the text names the facts and what is wrong with each."""


def recognised(column: str) -> bool:
    """Whether a column's name is one that a guess goes by."""
    return _plain(column) in _KNOWN


def choose(columns: Sequence[str], chosen: Mapping[str, str]) -> dict[str, str]:
    """The column for each fact: the one `chosen` names (an empty name: none), else the best by its name.

    Raises MappingError for an unknown fact or column, and when a fact that every course needs has no column.
    """
    for fact, column in chosen.items():
        if fact not in SYNONYMS:
            raise MappingError(f"there is no {fact}; there are {', '.join(SYNONYMS)}.")
        if column and column not in columns:
            raise MappingError(f"the file has no column {column!r}; it has {', '.join(filter(None, columns))}.")
    guessed = {fact: column for fact, column in _guesses(columns).items() if column not in chosen.values()}
    found = {fact: column for fact, column in (guessed | dict(chosen)).items() if column}
    if missing := [fact for fact in NEEDED if fact not in found]:
        raise MappingError(
            f"no column looks like {' or '.join(missing)}; say which one it is, as in {missing[0]}=COLUMN."
            f" The file has {', '.join(filter(None, columns))}."
        )
    return {fact: found[fact] for fact in SYNONYMS if fact in found}


def read_course(
    cells: Mapping[str, str], columns: Mapping[str, str], default_currency: str, default_language: str | None
) -> ImportedCourse:
    """What a row says of its course; a blank cell says nothing. Raises RowError."""
    texts = {fact: cells[column] for fact, column in columns.items() if cells.get(column, "").strip()}
    problems = [f"{fact}: is missing" for fact in NEEDED if fact not in texts]
    values: dict[str, Any] = {"language": default_language} if default_language else {}
    for fact, text in texts.items():
        if fact in _READERS:
            try:
                values[fact] = _READERS[fact](text)
            except ValueError as error:
                problems.append(f"{fact}: {error}")
    if problems:
        raise RowError("; ".join(problems))
    try:
        price = readers.price(
            texts["price"], paid=values.pop("paid", None), stated=values.pop("currency", None), default=default_currency
        )
    except ValueError as error:
        raise RowError(f"price: {error}") from None
    return ImportedCourse(price=price, category_name=readers.title(texts["category"]), **values)


def several_lines(cells: Mapping[str, str], columns: Mapping[str, str]) -> list[str]:
    """The facts shown in one line of which the row has several, so that only the first is taken."""
    shown_in_one = ("title", "instructor", "category")
    return [
        fact for fact in shown_in_one if fact in columns and len(cells.get(columns[fact], "").strip().splitlines()) > 1
    ]


def _guesses(columns: Sequence[str]) -> dict[str, str]:
    by_name = {_plain(column): column for column in reversed(columns)}
    found: dict[str, str] = {}
    for fact, names in SYNONYMS.items():
        column = next((by_name[name] for name in names if name in by_name), None)
        if column is not None:
            found[fact] = column
    return found


def _plain(column: str) -> str:
    """A column's name in lower case, its words joined by underscores."""
    return _BETWEEN_WORDS.sub("_", _HUMP.sub("_", column).lower()).strip("_")


_KNOWN: Final = frozenset(name for names in SYNONYMS.values() for name in names)
