"""A search as parts of a list of courses, and how many it finds.

The last word typed may be the start of one. Where few words begin so they are asked for by name, which an index answers
at once; else by what was typed, which then is short, and short beginnings have an index of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from learnflow_core.ports import CourseQuery
from learnflow_core.search import SLUG_PATTERN, SearchQuery
from storage_backends.driver import DriverTransaction, Ranked, Value, Wanted
from storage_backends.repository import words
from storage_backends.repository.paging import Listing, Rows
from storage_backends.repository.sql import Where

_POPULAR = ("relevance", "popular")


@dataclass(frozen=True)
class Matches:
    """`Segment`: the courses that are wanted among those of `where`, which are the other conditions of the query.

    `kept` says of words that are wanted how many published courses have each, as far as that is known.
    """

    tx: DriverTransaction
    query: CourseQuery
    where: Where
    wanted: Wanted
    without: Wanted | None = None
    kept: Mapping[str, int] | None = None

    async def count(self) -> int:
        if self._narrowed or not self.wanted.some:
            return await self._counted()
        kept = await words.counts(self.tx, self.wanted.some) if self.kept is None else self.kept
        # Those with the commonest word are counted already; the index counts those that only have others.
        common, *others = sorted(kept, key=kept.__getitem__, reverse=True) or [""]
        if not others:
            return kept.get(common, 0)
        rest = replace(self, wanted=Wanted(some=tuple(others)), without=Wanted(every=(common,)))
        return kept[common] + await rest.count()

    async def stretch(self, listing: Listing[Any], after: Sequence[Value] | None, limit: int, offset: int) -> Where:
        if self._ranked is None or self.query.sort not in _POPULAR:
            return await self._rows().stretch(listing, after, limit, offset)
        students, course_id = (_MOST_POPULAR, "") if after is None else after
        return Where().also(self._ranked.page, self._text, students, course_id, limit, offset)

    async def _counted(self) -> int:
        if self._ranked is None:
            return await self._rows().count()
        row = await self.tx.row(self._ranked.counting.format("$1"), self._text)
        assert row is not None, "an aggregate answers one row"
        return int(row[0])

    def _rows(self) -> Rows:
        return Rows(self.tx, "courses", self.where.copy().also(self.tx.matches, self._text))

    @property
    def _ranked(self) -> Ranked | None:
        """The index's own way, where its markers say all that the query's other conditions do."""
        query = self.query
        told = query.status == "published" and query.account_id is None and query.category in (None, _slug(query))
        return self.tx.ranked if told else None

    @property
    def _narrowed(self) -> bool:
        """Whether anything but one word, or the start of one, narrows the published courses down."""
        query = self.query
        filtered = (query.status, query.account_id, query.category, query.level) != ("published", None, None, None)
        return filtered or self.without is not None or bool(self.wanted.every)

    @property
    def _text(self) -> str:
        category, level = _slug(self.query), self.query.level
        markers = ([f"@{category}"] if category else []) + ([f"~{level}"] if level else [])
        return self.tx.match(self.wanted, without=self.without, markers=markers)


async def matches(tx: DriverTransaction, query: CourseQuery, search: SearchQuery, where: Where) -> Matches:
    """All that a search finds among the courses of `where`, which are the query's other conditions."""
    ends = await words.beginning_with(tx, search.prefix) if query.status == "published" else None
    wanted = Wanted(search.words, tuple(ends)) if ends else Wanted(search.words, prefix=search.prefix)
    return Matches(tx, query, where, wanted, kept=ends)


def by_relevance(found: Matches) -> list[Matches]:
    """The two parts of what a search finds: those whose title alone has all that is wanted, and the others."""
    every, some, prefix = found.wanted
    title = Wanted(_in_title(every), _in_title(some), None if prefix is None else f"={prefix}")
    return [replace(found, wanted=title, kept=None), replace(found, without=title, kept=None)]


def _in_title(tokens: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"={word}" for word in tokens)


def _slug(query: CourseQuery) -> str | None:
    """The category, unless it is a text that can be none's; in the index's language it could mean anything."""
    return query.category if query.category and re.match(SLUG_PATTERN, query.category) else None


_MOST_POPULAR = 2**63 - 1
