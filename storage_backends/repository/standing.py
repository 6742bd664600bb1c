"""What of a course decides where it is listed and by what it is found, for those who follow its changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeVar

T = TypeVar("T")


class Standing(NamedTuple):
    """The columns of `courses` by which lists, counts and the search index know a course."""

    n: int
    id: str
    status: str
    category: str
    level: str
    search: str
    total_students: int
    created_at: int
    rating: int
    price_key: int


class Listed(NamedTuple):
    """A published course, as far as it matters to lists: which it is in, and where in each of their orders."""

    id: str
    category: str
    level: str
    total_students: int
    created_at: int
    rating: int
    price_key: int


Change = tuple[Standing | None, Standing]
"""A course as it stood before its row was written, None when it is new, and as it stands after."""

COLUMNS: Final = ", ".join(Standing._fields)


def listed(standing: Standing) -> Listed:
    """What lists know of a course that is published."""
    return Listed._make(getattr(standing, field) for field in Listed._fields)


def net(changes: Iterable[Change], told: Callable[[Standing], T]) -> dict[T, int]:
    """How many more published courses there are of which the same is `told`; what stays the same is left out."""
    counts = Counter[T]()
    for before, after in changes:
        if before is not None and before.status == "published":
            counts[told(before)] -= 1
        if after.status == "published":
            counts[told(after)] += 1
    return {what: change for what, change in counts.items() if change}
