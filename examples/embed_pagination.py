"""Pages, cursors and errors for a list of your own: `python examples/embed_pagination.py`. Standard library only."""

import json
import sqlite3
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from learnflow_core import pagination
from learnflow_core.errors import Code, LearnFlowError, envelope

books = sqlite3.connect(":memory:")
books.execute("CREATE TABLE books (id INTEGER PRIMARY KEY, stars INTEGER, title TEXT)")
books.executemany("INSERT INTO books VALUES (?, ?, ?)", [(n, n % 5, f"Book {n}") for n in range(1, 121)])

ORDER = "ORDER BY stars DESC, id DESC"  # total: the id decides between equal stars


def list_books(query: str) -> tuple[dict[str, Any], str]:
    """What `GET /books?<query>` answers, and its `Link` header; LearnFlowError where the query makes no sense."""
    pairs = parse_qsl(query, keep_blank_values=True)
    params = dict(pairs)
    if len(params) < len(pairs):
        raise LearnFlowError(Code.INVALID_PARAMETER, "A parameter is given more than once.")
    filters = {"stars": params.get("stars", "")}
    if filters["stars"]:
        pagination.strict_int(filters["stars"], param="stars", minimum=0, maximum=4)
    asked = pagination.request(params, filters=filters)
    if isinstance(asked, pagination.Page):
        total = select("count(*)", filters)[0][0]
        rows = select("stars, id, title", filters, f"{ORDER} LIMIT {asked.limit} OFFSET {asked.offset}")
        meta: dict[str, Any] = pagination.page_meta(asked, total)
        link = pagination.page_links("/books", pairs, asked, total)
    else:
        rows = select("stars, id, title", filters, f"{ORDER} LIMIT {asked.limit + 1}", asked.after)
        more, rows = len(rows) > asked.limit, rows[: asked.limit]
        cursor = pagination.encode_cursor(rows[-1][:2], filters) if more else None
        meta, link = pagination.cursor_meta(cursor), pagination.cursor_links("/books", pairs, cursor)
    return {"data": [title for _, _, title in rows], "meta": meta}, link


def select(
    what: str, filters: Mapping[str, str], rest: str = "", after: pagination.Position | None = None
) -> list[Any]:
    """Rows of the filtered books; those behind the position `after`, where there is one."""
    stars = filters["stars"]
    behind = "AND (stars, id) < (?, ?)" if after else ""
    sql = f"SELECT {what} FROM books WHERE (? = '' OR stars = ?) {behind} {rest}"  # noqa: S608 - no text of a client
    return books.execute(sql, (stars, stars, *(after or ()))).fetchall()


page, link = list_books("stars=4&page=2&limit=10")
print(page["data"][0], page["meta"])
print(link)

titles: list[str] = []
cursor: str | None = ""
while cursor is not None:
    part, _ = list_books(f"limit=50&cursor={cursor}")
    titles += part["data"]
    cursor = part["meta"]["next_cursor"]
print(f"{len(titles)} books walked, {len(set(titles))} different")

for wrong in ("page=zero", "limit=51", "cursor=made-up", "stars=five"):
    try:
        list_books(wrong)
    except LearnFlowError as error:
        print(json.dumps(envelope(error, request_id="req_1")))
