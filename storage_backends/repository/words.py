"""How many published courses have each word: counted as they change, for the totals of searches and for half a word.

Words of titles are counted twice, as words and as `=word`; the other markers of `learnflow_core.search` not at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from storage_backends.driver import DriverTransaction, Row
from storage_backends.repository.sql import json_text
from storage_backends.repository.standing import Change

MOST_ENDS: Final = 64
"""How many words may begin with what was typed last, to be asked for by name."""

_LAST: Final = "\U0010ffff"
_WIDTH: Final = 12


def words_of(status: str, tokens: str) -> list[str]:
    """The words that a course with these tokens is counted under; none unless it is published."""
    return [token for token in tokens.split(" ") if token[0] not in "@~"] if status == "published" else []


async def follow(tx: DriverTransaction, changes: Sequence[Change]) -> None:
    """Count the courses that came to words, and those that left them."""
    counts = Counter[str]()
    for before, after in changes:
        if before is None or (before.status, before.search) != (after.status, after.search):
            counts.subtract([] if before is None else words_of(before.status, before.search))
            counts.update(words_of(after.status, after.search))
    more = {word: change for word, change in counts.items() if change > 0}
    fewer = {word: -change for word, change in counts.items() if change < 0}
    if more:
        await tx.rows(_ADD, _numbered(more))
    if fewer:
        await tx.rows(_TAKE_AWAY, _numbered(fewer))
        await tx.rows(_FORGET, json_text(sorted(fewer)))


async def beginning_with(tx: DriverTransaction, prefix: str) -> Mapping[str, int] | None:
    """The words that begin so, with how many courses have each; None when they are more than MOST_ENDS."""
    rows = await tx.rows(_BEGINNING, prefix, prefix + _LAST, MOST_ENDS + 1)
    if sum(not noted for *_, noted in rows) > MOST_ENDS:
        return None  # what is noted may have ended some of them, but there are others that were not looked at
    found = _summed(rows)
    held = {word: courses for word, courses in found.items() if courses and word.startswith(prefix)}
    return None if len(held) > MOST_ENDS else held


async def counts(tx: DriverTransaction, words: Sequence[str]) -> Mapping[str, int]:
    """How many courses have each of the words, without those that none has."""
    found = _summed(await tx.rows(_COUNTS, json_text(words)))
    return {word: found[word] for word in words if found[word]}


async def all_counts(tx: DriverTransaction) -> Counter[str]:
    """How many courses have each word that one has."""
    return _summed(await tx.rows(_ALL))


def _summed(rows: Iterable[Row]) -> Counter[str]:
    """What is counted under single words, and what is noted of whole courses."""
    found = Counter[str]()
    for tokens, courses, noted in rows:
        for word in words_of("published", tokens) if noted else (tokens,):
            found[word] += courses
    return found


def _numbered(changes: Mapping[str, int]) -> str:
    """Numbers and words as one list, in one order, so that two transactions do not wait for each other in a circle."""
    return json_text(f"{changes[word]:0{_WIDTH}}{word}" for word in sorted(changes))


# ruff: noqa: S608 - nothing but our own names is put into these
_CHANGES = (
    f"SELECT substr(value, {_WIDTH + 1}) AS changed, CAST(substr(value, 1, {_WIDTH}) AS BIGINT) AS change "
    "FROM json_each(CAST($1 AS TEXT))"
)
_ADD = (
    f"INSERT INTO words (word, courses) {_CHANGES} WHERE 1 = 1 "
    "ON CONFLICT (word) DO UPDATE SET courses = words.courses + excluded.courses"
)
_TAKE_AWAY = f"UPDATE words SET courses = courses - change FROM ({_CHANGES}) AS changes WHERE word = changed"
_FORGET = "DELETE FROM words WHERE courses = 0 AND word IN (SELECT value FROM json_each(CAST($1 AS TEXT)))"
_KEPT = "SELECT word, courses, 0 AS noted FROM words"
_NOTED = "UNION ALL SELECT search, change, 1 FROM uncounted"
_BEGINNING = (
    f"SELECT word, courses, noted FROM ({_KEPT} WHERE word >= $1 AND word < $2 ORDER BY word LIMIT $3) AS kept {_NOTED}"
)
_COUNTS = f"{_KEPT} WHERE word IN (SELECT value FROM json_each(CAST($1 AS TEXT))) {_NOTED}"
_ALL = f"{_KEPT} {_NOTED}"
