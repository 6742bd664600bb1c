"""How many published courses have each word: counted as they change, for the totals of searches and for half a word.

Words of titles are counted twice, as words and as `=word`; the other markers of `learnflow_core.search` not at all. And
so are their beginnings: `*wo` is how many courses have a word that begins so, `*=wo` in the title. Many words have a
short beginning, so that counting those who have any of them takes long; few have a long one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from learnflow_core.search import SearchQuery
from storage_backends.driver import DriverTransaction, Row
from storage_backends.repository import uncounted
from storage_backends.repository.sql import json_text

MOST_ENDS: Final = 64
"""How many words may begin with what was typed last, to be asked for by name."""

_BEGINNINGS: Final = range(1, 5)  # as SQLite's index has them
_LAST: Final = "\U0010ffff"
_WIDTH: Final = 12
_EVERY: Final = ""  # the list of all published courses, which is no word


def words_of(tokens: str) -> list[str]:
    """The words and beginnings that a published course with these tokens is counted under."""
    words = [token for token in tokens.split(" ") if token[:1] not in "@~"]
    beginnings = {f"*{word[: length + (word[0] == '=')]}" for word in words for length in _BEGINNINGS}
    return [*words, *beginnings]


async def follow(tx: DriverTransaction, texts: Mapping[str, int]) -> None:
    """Count so many more courses under the words of their tokens."""
    counts = Counter[str]()
    for tokens, change in texts.items():
        counts.update(dict.fromkeys(words_of(tokens), change))
    more = {word: change for word, change in counts.items() if change > 0}
    fewer = {word: -change for word, change in counts.items() if change < 0}
    if more:
        await tx.rows(_ADD, _numbered(more))
    if fewer:
        await tx.rows(_TAKE_AWAY, _numbered(fewer))
        await tx.rows(_FORGET, json_text(sorted(fewer)))


@dataclass(frozen=True)
class Asked:
    """What is counted of the words of a search: how many published courses there are, and how many have each.

    `ends` are the words that begin with the prefix; None when they are more than MOST_ENDS, and then not counted.
    """

    published: int
    counts: Mapping[str, int]
    ends: tuple[str, ...] | None

    def count(self, word: str) -> int:
        """How many have the word."""
        return self.counts.get(word, 0)

    def beginning(self, prefix: str) -> int | None:
        """How many have a word (or, after a `=`, one of their title) that begins so; None where that is not counted."""
        return self.count(f"*{prefix}") if len(prefix.removeprefix("=")) in _BEGINNINGS else None


async def asked(tx: DriverTransaction, search: SearchQuery) -> Asked:
    """What is counted of the words of a search."""
    prefix = search.prefix
    ranges = [(mark + prefix, mark + prefix + _LAST) for mark in ("", "=")]
    whole = json_text([*search.words, *in_title(search.words), f"*{prefix}", f"*={prefix}"])
    rows = await tx.rows(_ASKED, *chain(*ranges), MOST_ENDS + 1, whole, json_text([*search.words, prefix]))
    counts = {word: courses for word, courses in _summed(rows, _asked_of(search)).items() if courses}
    published = counts.pop(_EVERY, 0)
    # What is noted may have ended some of the words that were read, but there are others, which were not.
    many = sum(not noted and word.startswith(prefix) for word, _, noted in rows) > MOST_ENDS
    ends = tuple(word for word in counts if word.startswith(prefix))
    return Asked(published, counts, None if many or len(ends) > MOST_ENDS else ends)


def in_title(words: Iterable[str]) -> tuple[str, ...]:
    """The tokens of the same words in titles."""
    return tuple(f"={word}" for word in words)


async def all_counts(tx: DriverTransaction) -> Counter[str]:
    """How many courses have each word that one has."""
    return _summed(await tx.rows(_ALL), words_of)


def _summed(rows: Sequence[Row], words: Callable[[str], Iterable[str]]) -> Counter[str]:
    """What is counted under single words, though it may have been read twice, and what is noted of whole courses."""
    found = Counter({word: courses for word, courses, noted in rows if not noted})
    for tokens, change in ((tokens, change) for tokens, change, noted in rows if noted):
        for word in words(tokens):
            found[word] += change
    return found


def _asked_of(search: SearchQuery) -> Callable[[str], Iterable[str]]:
    """Of what a course is counted under, what matters to a search."""
    prefixes = (search.prefix, f"={search.prefix}")
    whole = {*search.words, *in_title(search.words)}

    def words(tokens: str) -> Iterable[str]:
        held = tokens.split(" ")
        yield from (token for token in held if token in whole or token.startswith(prefixes))
        yield from (f"*{prefix}" for prefix in prefixes if any(token.startswith(prefix) for token in held))

    return words


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
_NOTED = (
    "UNION ALL SELECT search, CAST(SUM(change) AS BIGINT), 1 FROM uncounted_texts "
    f"WHERE {uncounted.ALL} AND {{having}} GROUP BY search HAVING SUM(change) <> 0"
)
# What both databases have to look into a text.
_HAVING = "EXISTS (SELECT 1 FROM json_each(CAST($7 AS TEXT)) WHERE replace(search, value, '') <> search)"
_ASKED = f"""
    SELECT word, courses, noted FROM ({_KEPT} WHERE word >= $1 AND word < $2 ORDER BY word LIMIT $5) AS plain
    UNION ALL SELECT word, courses, noted FROM ({_KEPT} WHERE word >= $3 AND word < $4 ORDER BY word LIMIT $5) AS titled
    UNION ALL {_KEPT} WHERE word IN (SELECT value FROM json_each(CAST($6 AS TEXT)))
    UNION ALL SELECT list, courses, 0 FROM totals WHERE list = '{_EVERY}'
    {_NOTED.format(having=_HAVING)}
"""
_ALL = f"{_KEPT} {_NOTED.format(having='1 = 1')}"
