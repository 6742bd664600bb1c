"""A search as parts of a list of courses, and how many it finds.

The last word typed may be the start of one. Where few words begin so they are asked for by name, which an index answers
at once; else by what was typed, which then is short, and short beginnings have an index of their own.

Where the index knows no order, there are two ways to the first of what is found: to test the courses in the order of
the list until there are enough, or to gather all that match and sort them. The first is quick when much matches, the
second when little does, and which of the two it is can be told from the counts of words only when one of these is
small. So some courses are tested first, unless they cannot be enough, and what they do not answer is gathered.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from learnflow_core.ports import CourseQuery
from learnflow_core.search import SLUG_PATTERN, SearchQuery
from storage_backends.driver import DriverTransaction, Row, Value, Wanted
from storage_backends.repository import words
from storage_backends.repository.paging import Listing, Rows, beyond, rows_where
from storage_backends.repository.sql import Where
from storage_backends.repository.words import in_title

NEAR: Final = 4_000
"""How many courses are tested in order for several words, of which it is not known how often they come together.

For one word it is known, and worth while to test 2.5 times as many. Where these hold no page, in a million there are
five thousand to gather; of several words, twelve thousand.
"""

_POPULAR: Final = ("relevance", "popular")
_MOST_POPULAR: Final = 2**63 - 1


@dataclass(frozen=True)
class Matches:
    """`Segment`: the courses that are wanted among those of `where`, which are the other conditions of the query.

    They are no more than `most`, where that is known.
    """

    tx: DriverTransaction
    query: CourseQuery
    where: Where
    wanted: Wanted
    asked: words.Asked
    without: Wanted | None = None
    most: int | None = None

    async def count(self) -> int:
        if self.most == 0:
            return 0
        if self._narrowed:
            return await self._counted()
        if (kept := self._beginning) is not None:
            return kept
        if not self.wanted.some:
            return await self._counted()
        # Those with the commonest word are counted already; the index counts those that only have others.
        common, *others = sorted(self.wanted.some, key=self.asked.count, reverse=True)
        others = [word for word in others if self.asked.count(word)]
        if not others:
            return self.asked.count(common)
        rest = replace(self, wanted=Wanted(some=tuple(others)), without=Wanted(every=(common,)))
        return self.asked.count(common) + await rest.count()

    async def rows(
        self, listing: Listing[Any], after: Sequence[Value] | None, limit: int, offset: int
    ) -> Sequence[Row]:
        if self.most == 0:
            return []
        if self.tx.ranked is not None and self._told and self.query.sort in _POPULAR:
            students, course_id = (_MOST_POPULAR, "") if after is None else after
            where = Where().also(self.tx.ranked, self._text, students, course_id, limit, offset)
            return await rows_where(self.tx, listing, where)
        before = self.where.copy() if after is None else beyond(listing, self.where, after)
        test, tested = self.tx.test(self.wanted, self.without), self._tested(offset + limit)
        if test is not None and tested:
            near = self._near(listing, before.copy(), test, tested, limit, offset)
            found = await rows_where(self.tx, listing, near)
            if len(found) == limit:
                return found
        return await rows_where(self.tx, listing, self._gathered(listing, before, limit, offset))

    def _tested(self, wanted: int) -> int:
        """How many courses to test so that there are likely to be enough; none where that is too many."""
        if self.most is None:
            return NEAR
        likely = wanted * self.asked.published // self.most
        if self.wanted.every:
            return NEAR if likely <= NEAR else 0
        most = NEAR * 5 // 2
        return min(most, 100 + 2 * likely) if likely <= most else 0

    def _near(self, listing: Listing[Any], where: Where, test: str, tested: int, limit: int, offset: int) -> Where:
        of_these = f"ORDER BY {listing.order} LIMIT {where.parameter(tested)}"
        where.within(f"(SELECT {listing.position}, {self.tx.tested} FROM courses WHERE {{}} {of_these})")  # noqa: S608
        bounds = f"LIMIT {where.parameter(limit)} OFFSET {where.parameter(offset)}"
        match = self.tx.tests.format(where.parameter(test))
        return where.within(
            f"id IN (SELECT id FROM {{}} AS courses WHERE {match} ORDER BY {listing.order} {bounds})"  # noqa: S608
        )

    def _gathered(self, listing: Listing[Any], where: Where, limit: int, offset: int) -> Where:
        found = self.tx.found.format(where.parameter(self._text))
        bounds = f"LIMIT {where.parameter(limit)} OFFSET {where.parameter(offset)}"
        # An order by a sum is one that no index has.
        (column, _), (identity, _) = listing.key
        direction = "DESC" if listing.falling else "ASC"
        order = f"{column} + 0 {direction}, {identity} {direction}"
        return where.within(f"id IN (SELECT id FROM {found} WHERE {{}} ORDER BY {order} {bounds})")  # noqa: S608

    async def _counted(self) -> int:
        if self.tx.counting is None or not self._told:
            where = self.where.copy()
            return await Rows(self.tx, self.tx.found.format(where.parameter(self._text)), where).count()
        row = await self.tx.row(self.tx.counting.format("$1"), self._text)
        assert row is not None, "an aggregate answers one row"
        return int(row[0])

    @property
    def _told(self) -> bool:
        """Whether the index is told, by markers, all that the query's other conditions say."""
        query = self.query
        return query.status == "published" and query.account_id is None and query.category in (None, _slug(query))

    @property
    def _beginning(self) -> int | None:
        """How many published courses have a word that begins as the last one typed."""
        return None if self.wanted.prefix is None else self.asked.beginning(self.wanted.prefix)

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
    if query.status != "published":
        return Matches(tx, query, where, Wanted(search.words, prefix=search.prefix), words.Asked(0, {}, None))
    asked = await words.asked(tx, search)
    wanted = Wanted(search.words, () if asked.ends is None else asked.ends or (search.prefix,), search.prefix)
    return Matches(tx, query, where, wanted, asked, most=_most(asked, wanted))


def by_relevance(found: Matches) -> list[Matches]:
    """The two parts of what a search finds: those whose title alone has all that is wanted, and the others."""
    every, some, prefix = found.wanted
    title = Wanted(in_title(every), in_title(some), None if prefix is None else f"={prefix}")
    if found.query.status != "published":
        return [replace(found, wanted=title), replace(found, without=title)]
    # What its title does not have of the words, a course must have elsewhere.
    both, counts = [*every, *some], found.asked
    elsewhere = sum(counts.count(word) - counts.count(f"={word}") for word in both) if some else None
    return [
        replace(found, wanted=title, most=_most(counts, title)),
        replace(found, without=title, most=_least(found.most, elsewhere)),
    ]


def _most(asked: words.Asked, wanted: Wanted) -> int | None:
    """How many published courses can have all that is wanted, as far as the counts of its words tell."""
    beginning = None if wanted.prefix is None else asked.beginning(wanted.prefix)
    of_some = sum(map(asked.count, wanted.some)) if wanted.some else None
    return _least(beginning, of_some, *(asked.count(word) for word in wanted.every))


def _least(*bounds: int | None) -> int | None:
    """The least of those that are known."""
    return min((bound for bound in bounds if bound is not None), default=None)


def _slug(query: CourseQuery) -> str | None:
    """The category, unless it is a text that can be none's; in the index's language it could mean anything."""
    return query.category if query.category and re.match(SLUG_PATTERN, query.category) else None
