"""The order inside SQLite's search index, which answers by rowid: so a course's rowid there is its place in popularity.

Places rise as `(total_students, id)` falls, over the published courses; the others stand below zero, each by itself. A
page of a search is then read from where it begins, and ends when it is full, however many courses match.

A place is any number between those of its neighbours (list labelling, as in Bender and others, "Two Simplified
Algorithms for Maintaining Order in a List", 2002). A course keeps the place it has for as long as that is true. Else it
gets the one that its popularity and its id suggest, which is free nearly always; else one between its neighbours, which
are spread over more room when there is none left.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from storage_backends.driver import Entry

FRACTION_BITS: Final = 27
"""How finely a suggestion tells apart popularity within a doubling of it; 32 doublings make 32 bits of places.

Among a million courses some thousand are then suggested a place that another has; 8 bits more would make those a few,
and the index, which keeps distances between places, larger by a half.
"""

_DOUBLINGS: Final = 32
_GROWTH: Final = 1.75
"""How many more courses a stretch twice as wide may hold: less than twice, so that what is spread stays spread."""

FOUND: Final = """(
    SELECT * FROM courses WHERE n IN (
        SELECT n FROM places WHERE place IN (SELECT rowid FROM course_index WHERE course_index MATCH {0})
    )
) AS courses"""

RANKED: Final = """
    courses.n IN (SELECT n FROM places WHERE place IN (
        SELECT rowid FROM course_index WHERE course_index MATCH {0} AND rowid > COALESCE((
            SELECT place FROM places WHERE n = (
                SELECT n FROM courses WHERE status = 'published' AND (total_students, id) >= ({1}, {2})
                ORDER BY total_students, id LIMIT 1
            )
        ), -1) ORDER BY rowid LIMIT {3} OFFSET {4}
    ))
"""

COUNTING: Final = "SELECT count(*) FROM course_index WHERE course_index MATCH {0} AND rowid >= 0"

MISSED: Final = """
    SELECT n FROM json_each(CAST($1 AS TEXT)) AS asked JOIN places ON n = json_extract(asked.value, '$[0]')
    WHERE NOT EXISTS (
        SELECT 1 FROM course_index WHERE course_index MATCH json_extract(asked.value, '$[1]') AND rowid = place
    )
"""
"""The numbers of those courses, of pairs of a number and a match, that the index does not answer at their places."""

MISPLACED: Final = """
    SELECT id FROM (
        SELECT id, n, status, place, total_students, lag(id) OVER above AS id_above,
            lag(total_students) OVER above AS students_above
        FROM courses LEFT JOIN places USING (n)
        WINDOW above AS (PARTITION BY status = 'published' ORDER BY place)
    ) WHERE place IS NULL OR CASE status
        WHEN 'published' THEN place < 0 OR (total_students, id) >= (students_above, id_above)
        ELSE place <> -n END
    ORDER BY id
"""
"""The courses that stand where they should not, or behind one that is less popular; reads all of them."""

Key = tuple[int, str]


def move(connection: sqlite3.Connection, changes: Sequence[tuple[Entry | None, Entry]]) -> None:
    """Bring places and the index after changes of courses, whose rows have been written; each course comes once."""
    moves = _Moves(connection)
    for before, after in changes:
        if before is not None:
            moves.take_out(after.n, before.tokens)
    for _, after in sorted(changes, key=lambda change: _key(change[1]), reverse=True):
        moves.put_in(after)
    moves.write()


def clear(connection: sqlite3.Connection) -> None:
    """Let nothing have a place, and the index be empty."""
    connection.execute("INSERT INTO course_index (course_index) VALUES ('delete-all')")
    connection.execute("DELETE FROM places")


def suggested(total_students: int, course_id: str) -> int:
    """Where a course would stand if all were spread evenly: by the logarithm of its students, then by its id."""
    one_more = min(total_students + 1, (1 << _DOUBLINGS) - 1)
    doublings = one_more.bit_length() - 1
    within = (((one_more << FRACTION_BITS) + _fraction(course_id)) >> doublings) - (1 << FRACTION_BITS)
    return _space() - 1 - (doublings << FRACTION_BITS) - within


class _Moves:
    """Courses on their way from one place to another; the index is told at the end, once for each."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._were: dict[int, tuple[int, str]] = {}
        self._are: dict[int, tuple[int, str]] = {}

    def take_out(self, n: int, tokens: str) -> None:
        place = self._int("DELETE FROM places WHERE n = ? RETURNING place", n)
        assert place is not None, "every course has a place"
        self._were[n] = (place, tokens)

    def put_in(self, course: Entry) -> None:
        place = self._free(course) if course.published else -course.n
        self._connection.execute(_PUT, (place, course.n))
        self._are[course.n] = (place, course.tokens)

    def write(self) -> None:
        """In the order of places: the index writes out what it has gathered when one is lower than the last."""
        moved = {n for n, now in self._are.items() if now != self._were.get(n)}
        rows = [(place, 0, tokens) for n, (place, tokens) in self._were.items() if n in moved]
        rows += [(place, 1, tokens) for n, (place, tokens) in self._are.items() if n in moved]
        for place, comes, tokens in sorted(rows):
            self._connection.execute(_INDEX if comes else _FORGET, (place, tokens))

    def _free(self, course: Entry) -> int:
        old, _ = self._were.get(course.n, (-1, ""))
        key = _key(course)
        for place in (old, suggested(*key)):
            if place >= 0 and self._fits(place, key):
                return place
        return self._between(key)

    def _fits(self, place: int, key: Key) -> bool:
        """Whether nobody has the place, and those around it are its neighbours in the order."""
        above = self._connection.execute(_AT_OR_ABOVE, (place,)).fetchone()
        below = self._connection.execute(_BELOW, (place,)).fetchone()
        follows = above is None or (above[0] != place and above[1:] > key)
        return follows and (below is None or below < key)

    def _between(self, key: Key) -> int:
        above, below = self._neighbours(key)
        if below - above < 2:
            self._spread(max(above, 0))
            above, below = self._neighbours(key)
        return (above + below) // 2

    def _neighbours(self, key: Key) -> tuple[int, int]:
        above, below = self._int(_NEXT_ABOVE, *key), self._int(_NEXT_BELOW, *key)
        return -1 if above is None else above, _space() if below is None else below

    def _spread(self, place: int) -> None:
        """Spread the courses around a place evenly over the narrowest stretch that has room between any two."""
        width, most = 2, 1.0
        while True:
            first = place - place % width
            held = self._connection.execute(_STRETCH, (first, first + width)).fetchall()
            if len(held) < most - 1 or width >= _space():
                break
            width, most = width * 2, most * _GROWTH
        self._connection.execute("DELETE FROM places WHERE place >= ? AND place < ?", (first, first + width))
        for index, (old, n, tokens) in enumerate(held):
            new = first + (2 * index + 1) * width // (2 * len(held))
            self._connection.execute(_PUT, (new, n))
            if n not in self._are:
                self._were[n] = (old, tokens)
            self._are[n] = (new, tokens)

    def _int(self, sql: str, *args: int | str) -> int | None:
        found = self._connection.execute(sql, args).fetchone()
        return None if found is None else int(found[0])


def _key(course: Entry) -> Key:
    return course.total_students, course.id


def _space() -> int:
    return _DOUBLINGS << FRACTION_BITS


def _fraction(course_id: str) -> int:
    """How far an id lies between the lowest and the highest; none for one that is not of the usual form."""
    digits = course_id[4:16]
    if not (digits.isascii() and digits.isalnum()):
        return 0
    highest: int = 36 ** len(digits)
    return (int(digits, 36) << FRACTION_BITS) // highest


_PUT = "INSERT INTO places (place, n) VALUES (?, ?)"
_FORGET = "INSERT INTO course_index (course_index, rowid, search) VALUES ('delete', ?, ?)"
_INDEX = "INSERT INTO course_index (rowid, search) VALUES (?, ?)"
_AT_OR_ABOVE = (
    "SELECT place, total_students, id FROM places CROSS JOIN courses ON courses.n = places.n "
    "WHERE place BETWEEN 0 AND ? ORDER BY place DESC LIMIT 1"
)
_BELOW = (
    "SELECT total_students, id FROM places CROSS JOIN courses ON courses.n = places.n "
    "WHERE place > ? ORDER BY place LIMIT 1"
)
_NEXT_ABOVE = (
    "SELECT place FROM courses CROSS JOIN places ON places.n = courses.n "
    "WHERE status = 'published' AND (total_students, id) > (?, ?) ORDER BY total_students, id LIMIT 1"
)
_NEXT_BELOW = (
    "SELECT place FROM courses CROSS JOIN places ON places.n = courses.n "
    "WHERE status = 'published' AND (total_students, id) < (?, ?) ORDER BY total_students DESC, id DESC LIMIT 1"
)
_STRETCH = (
    "SELECT place, places.n, search FROM places CROSS JOIN courses ON courses.n = places.n "
    "WHERE place >= ? AND place < ? ORDER BY place"
)
