"""PostgreSQL's search index: what is asked of it, and how it is kept.

Tokens stand in a table of their own, `course_search`, with whether the course is published, so that it can be counted
there what a search finds. It knows no order: a page is found by testing courses in theirs, which reads the tokens that
stand in their rows as text, or by gathering all that match.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from storage_backends.driver import DriverTransaction, Entry, Row, Wanted

TOKENS_AT_ONCE: Final = 50_000
"""How many tokens one statement brings into the index, where each may touch a page of its own on the disk."""

_ASKED: Final = "vec @@ CAST(CAST({0} AS TEXT) AS tsquery)"

# ruff: noqa: S608 - nothing but our own names is put into these
# An array is made first, and its courses are looked up one by one. A join would be planned by how much is thought to
# match: all courses might be read, and each be looked for among the tokens. And without the OFFSET, other conditions
# might be planned to be met first, and what they leave be compared with the array, element by element.
FOUND: Final = f"""(
    SELECT * FROM courses WHERE n = ANY (ARRAY(SELECT n FROM course_search WHERE {_ASKED})) OFFSET 0
) AS courses"""
COUNTING: Final = f"SELECT count(*) FROM course_search WHERE published = 1 AND {_ASKED}"
TESTS: Final = """
    ' ' || courses.search || ' ' LIKE ALL (
        ARRAY(SELECT json_array_elements_text(CAST(CAST({0} AS TEXT) AS JSON) -> 'has'))
    ) AND NOT ' ' || courses.search || ' ' LIKE ALL (
        ARRAY(SELECT json_array_elements_text(CAST(CAST({0} AS TEXT) AS JSON) -> 'lacks'))
    )
"""


def match(wanted: Wanted, without: Wanted | None, markers: Sequence[str]) -> str:
    """The text form of a query, for the index."""
    text = " & ".join([*_terms(wanted), *map(_lexeme, markers)])
    return text if without is None else f"{text} & !({' & '.join(_terms(without))})"


def test(wanted: Wanted, without: Wanted | None) -> str | None:
    """Patterns that the tokens of a row must all have, and others that they must not have all."""
    if wanted.prefix is None:
        return None
    # Nothing that is lacking: no tokens are like an empty pattern.
    return json.dumps({"has": _patterns(wanted), "lacks": [""] if without is None else _patterns(without)})


async def index(tx: DriverTransaction, changes: Iterable[tuple[Entry | None, Entry]]) -> None:
    """Keep the tokens of courses, where they are new, and whether they are published."""
    kept = [after for before, after in changes if before is None or _row(before) != _row(after)]
    for portion in _portions(kept):
        await tx.rows(_KEEP, json.dumps([_row(entry) for entry in portion]))


async def missed(tx: DriverTransaction, courses: Sequence[Entry]) -> Sequence[int]:
    """The numbers of those whose row is not as it should be."""
    found: list[int] = []
    for portion in _portions(courses):
        found += [n for (n,) in await tx.rows(_MISSED, json.dumps([_row(entry) for entry in portion]))]
    return found


async def indexed(tx: DriverTransaction) -> Sequence[Row]:
    """Every token that a row has, with how many courses the index leads to by it.

    A row that the index has lost makes the numbers of its tokens too small. To ask for each course by all its tokens
    would name it, and takes a hundred times as long.
    """
    await tx.rows("SET LOCAL enable_seqscan = off")  # it is the index that is asked, also where reading all is quicker
    rows = await tx.rows(_INDEXED)
    await tx.rows("SET LOCAL enable_seqscan = on")
    return rows


def _row(entry: Entry) -> dict[str, int | str]:
    return {"n": entry.n, "published": int(entry.published), "tokens": entry.tokens}


def _portions(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """As many as one statement is given, and always one."""
    portion: list[Entry] = []
    tokens = 0
    for entry in entries:
        has = entry.tokens.count(" ") + 1
        if portion and tokens + has > TOKENS_AT_ONCE:
            yield portion
            portion, tokens = [], 0
        portion.append(entry)
        tokens += has
    if portion:
        yield portion


def _terms(wanted: Wanted) -> list[str]:
    terms = [_lexeme(token) for token in wanted.every]
    if wanted.some:
        terms.append(f"({' | '.join(map(_lexeme, wanted.some))})")
    elif wanted.prefix is not None:
        terms.append(f"{_lexeme(wanted.prefix)}:*")
    return terms


def _lexeme(token: str) -> str:
    """A token in the text form of a query, in which nothing but quotes and backslashes means anything."""
    escaped = token.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def _patterns(wanted: Wanted) -> list[str]:
    return [*(f"% {_literal(token)} %" for token in wanted.every), f"% {_literal(wanted.prefix or '')}%"]


def _literal(token: str) -> str:
    """A token in a pattern."""
    return token.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


_VEC = "array_to_tsvector(string_to_array(tokens, ' '))"
_KEEP = f"""
    INSERT INTO course_search (n, published, vec)
    SELECT n, published, {_VEC} FROM json_to_recordset(CAST(CAST($1 AS TEXT) AS JSON))
        AS entry (n bigint, published bigint, tokens text)
    ON CONFLICT (n) DO UPDATE SET published = excluded.published, vec = excluded.vec
"""
_MISSED = f"""
    SELECT n FROM json_to_recordset(CAST(CAST($1 AS TEXT) AS JSON))
        AS asked (n bigint, published bigint, tokens text)
    WHERE NOT EXISTS (
        SELECT 1 FROM course_search AS held
        WHERE held.n = asked.n AND held.published = asked.published AND held.vec = {_VEC}
    )
"""
_INDEXED = r"""
    SELECT word, (
        SELECT count(*) FROM course_search
        WHERE vec @@ CAST(concat('''', replace(replace(word, '\', '\\'), '''', ''''''), '''') AS tsquery)
    ) FROM ts_stat('SELECT vec FROM course_search')
"""
