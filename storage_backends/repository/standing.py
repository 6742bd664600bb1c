"""What of a course decides where it is listed and by what it is found, for those who follow its changes."""

from __future__ import annotations

from typing import Final, NamedTuple


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


Change = tuple[Standing | None, Standing]
"""A course as it stood before its row was written, None when it is new, and as it stands after."""

COLUMNS: Final = ", ".join(Standing._fields)
