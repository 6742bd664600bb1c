"""Do the counts of the catalogue's lists agree with its courses? Questions as those of `books`."""

from __future__ import annotations

from itertools import product
from typing import Final

from storage_backends.repository.blocks import SORTS

_LAST: Final = 2**63 - 1
_NAME: Final = (
    "CASE WHEN level = '' THEN '' ELSE '~' || level END || CASE WHEN category = '' THEN '' ELSE '@' || category END"
)

# A range of places in three parts, each of which ends in an index where the range does. PostgreSQL ends a comparison of
# rows where the first column passes it, and reads all that has the same: most courses may have no rating. '~' is beyond
# every id.
_PARTS: Final = (
    "{key} = held_key AND id >= held_id AND id < CASE WHEN held_key < next_key THEN '~' ELSE next_id END",
    "{key} > held_key AND {key} < next_key",
    "{key} = next_key AND held_key < next_key AND id < next_id",
)

# ruff: noqa: S608 - nothing but our own names is put into these
_SORTS = " UNION ALL ".join(f"SELECT '{sort}' AS sort" for sort in SORTS)


def _blocks(sort: str, *, of_category: bool, of_level: bool) -> str:
    """Blocks of the lists with these filters that count more or fewer courses than there are in them."""
    same = (" AND category = held_category" if of_category else "") + (" AND level = held_level" if of_level else "")
    within = f"({sort}, id) >= (held_key, held_id) AND ({sort}, id) < (next_key, next_id){same}"
    parts = (f"status = 'published' AND {part.format(key=sort)}{same}" for part in _PARTS)
    has = " + ".join(f"(SELECT count(*) FROM courses WHERE {part})" for part in parts)
    filters = f"category {'<>' if of_category else '='} '' AND level {'<>' if of_level else '='} ''"
    return f"""
        SELECT list, held_key, held_id, counted, has FROM (
            SELECT list, held_key, held_id,
                courses + (SELECT CAST(COALESCE(SUM(change), 0) AS BIGINT) FROM uncounted WHERE {within}) AS counted,
                {has} AS has
            FROM (
                SELECT {_NAME} AS list, category AS held_category, level AS held_level, blocks.courses,
                    blocks.key AS held_key, LEAD(blocks.key, 1, {_LAST}) OVER followed AS next_key,
                    blocks.id AS held_id, LEAD(blocks.id, 1, '') OVER followed AS next_id
                FROM blocks JOIN spans ON spans.no = span WHERE sort = '{sort}' AND {filters}
                WINDOW followed AS (
                    PARTITION BY category, level ORDER BY spans.key, spans.id, blocks.key, blocks.id
                )
            ) AS holding
        ) AS counts WHERE counted <> has
    """


def _blocks_by(sort: str) -> str:
    kinds = product((False, True), repeat=2)
    every = (_blocks(sort, of_category=of_category, of_level=of_level) for of_category, of_level in kinds)
    return f"{' UNION ALL '.join(every)} ORDER BY list, held_key, held_id"


QUESTIONS = {
    "list '{}': it counts {} published courses, but has {}": """
        SELECT list, CAST(SUM(counted) AS BIGINT), CAST(SUM(held) AS BIGINT) FROM (
            SELECT list, courses AS counted, 0 AS held FROM totals
            UNION ALL SELECT '', change, 0 FROM uncounted
            UNION ALL SELECT '@' || category, change, 0 FROM uncounted
            UNION ALL SELECT '~' || level, change, 0 FROM uncounted
            UNION ALL SELECT '~' || level || '@' || category, change, 0 FROM uncounted
            UNION ALL SELECT '', 0, count(*) FROM courses WHERE status = 'published'
            UNION ALL SELECT '@' || category, 0, count(*) FROM courses WHERE status = 'published' GROUP BY category
            UNION ALL SELECT '~' || level, 0, count(*) FROM courses WHERE status = 'published' GROUP BY level
            UNION ALL SELECT '~' || level || '@' || category, 0, count(*) FROM courses
                WHERE status = 'published' GROUP BY level, category
        ) AS counts GROUP BY list HAVING SUM(counted) <> SUM(held) ORDER BY list
    """,
    "list '{}' by {}: it has no beginning": f"""
        SELECT list, sort FROM totals CROSS JOIN ({_SORTS}) AS sorts WHERE NOT EXISTS (
            SELECT 1 FROM spans WHERE spans.sort = sorts.sort AND {_NAME} = list AND key = -{_LAST} - 1 AND id = ''
        ) ORDER BY list, sort
    """,
    "list '{}' by {}: the span from {} '{}' counts {} courses, but its blocks {}": f"""
        SELECT {_NAME}, sort, spans.key, spans.id, spans.courses, held FROM spans LEFT JOIN (
            SELECT span, CAST(SUM(courses) AS BIGINT) AS held FROM blocks GROUP BY span
        ) AS sums ON span = no WHERE spans.courses <> COALESCE(held, -1) ORDER BY category, level, sort, key, id
    """,
    "list '{}' by {}: no block begins with the span from {} '{}'": f"""
        SELECT {_NAME}, sort, key, id FROM spans WHERE NOT EXISTS (
            SELECT 1 FROM blocks WHERE span = spans.no AND blocks.key = spans.key AND blocks.id = spans.id
        ) ORDER BY category, level, sort, key, id
    """,
}
QUESTIONS |= {
    f"list '{{}}' by {sort}: the block from {{}} '{{}}' counts {{}} courses, but has {{}}": _blocks_by(sort)
    for sort in SORTS
}
"""What to say of each row that a statement answers."""
