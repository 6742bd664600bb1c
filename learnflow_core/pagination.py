"""Pages and cursors: how a client asks for a part of a list, and what it is told about the rest.

A page is found by counting (`page=3`), a cursor by the sort key of the last item seen, so that it neither skips nor
repeats an item when others are inserted meanwhile, and costs the same at any depth. A cursor is opaque, and bound to
the filters and the order it was made under. It is checked, not signed: who forges one gets a position in a list that
they may read anyway.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from urllib.parse import quote, urlencode

from learnflow_core.errors import Code, LearnFlowError

T = TypeVar("T")

Position = tuple[int | str | None, ...]
"""The sort key of an item: where in its list it stands."""

MAX_LIMIT: Final = 50
MAX_PAGE: Final = 2**53 // MAX_LIMIT
"""The highest page number: every offset stays below 2 ** 53, exact in every language that reads JSON."""

MAX_LINK_HEADER: Final = 4096
"""Bytes of a `Link` value. Reverse proxies commonly answer 502 to reply headers of more than 4-8 KiB in all."""

_MAX_ELEMENTS: Final = 8
_MAX_PAYLOAD: Final = 1024  # bytes of a position; the cursor's text is a third longer
_DIGEST_SIZE: Final = 9


@dataclass(frozen=True, slots=True)
class Page:
    """The part of a list that holds items `offset + 1` to `offset + limit`; `number` counts from 1."""

    number: int
    limit: int

    @property
    def offset(self) -> int:
        return (self.number - 1) * self.limit


@dataclass(frozen=True, slots=True)
class Cursor:
    """The `limit` items of a list that follow the position `after`; None is the start of the list."""

    after: Position | None
    limit: int


@dataclass(frozen=True, slots=True)
class Slice(Generic[T]):
    """What storage answers: the items in order, with `total` (of the whole list) for a Page, and for a Cursor with
    `next_after`, the position of the last item, None when nothing follows it."""

    items: list[T]
    total: int | None = None
    next_after: Position | None = None


def request(params: Mapping[str, str], *, filters: Mapping[str, str]) -> Page | Cursor:
    """What `page`, `limit` and `cursor` of a query ask for; without any of them, page 1 of 50.

    `filters` is everything else that decides which items the list has and in which order (category, normalised search,
    sort, …): the next cursor must be encoded with the same. `limit` may change from one cursor to the next. Raises
    INVALID_PARAMETER that names the parameter; `cursor` when it stands beside `page`, or was not made for this list.
    """
    limit = strict_int(params.get("limit", str(MAX_LIMIT)), param="limit", minimum=1, maximum=MAX_LIMIT)
    cursor = params.get("cursor")
    if cursor is None:
        return Page(strict_int(params.get("page", "1"), param="page", minimum=1, maximum=MAX_PAGE), limit)
    if "page" in params:
        raise _bad_cursor("cursor and page cannot be used together.")
    return Cursor(decode_cursor(cursor, filters) if cursor else None, limit)


def strict_int(text: str, *, param: str, minimum: int, maximum: int) -> int:
    """The integer that 1-20 ASCII digits write (no sign, space, underscore or other script's digits), within bounds.

    Raises INVALID_PARAMETER naming `param`, with a message that says what is allowed.
    """
    if text.isascii() and text.isdigit() and len(text) <= 20 and minimum <= (number := int(text)) <= maximum:
        return number
    message = f"{param} must be a whole number from {minimum} to {maximum}."
    raise LearnFlowError(Code.INVALID_PARAMETER, message, param=param)


def encode_cursor(after: Position, filters: Mapping[str, str]) -> str:
    """The opaque, URL-safe text (at most 1,400 characters) for a position in the list that `filters` describe.

    Raises ValueError for a position no list has: not 1-8 elements, an integer beyond 64 bits, a string with NUL or a
    lone surrogate, or more than 1,024 bytes in all.
    """
    if not 1 <= len(after) <= _MAX_ELEMENTS:
        raise ValueError(f"a position has 1 to {_MAX_ELEMENTS} elements, not {len(after)}")
    payload = "\0".join(map(_element_to_text, after)).encode("utf-8")
    if len(payload) > _MAX_PAYLOAD:
        raise ValueError(f"a position has at most {_MAX_PAYLOAD} bytes, not {len(payload)}")
    context = json.dumps(sorted(filters.items())).encode("ascii")
    digest = hashlib.sha256(context + b"\0" + payload).digest()[:_DIGEST_SIZE]
    return base64.urlsafe_b64encode(digest + payload).rstrip(b"=").decode("ascii")


def decode_cursor(text: str, filters: Mapping[str, str]) -> Position:
    """The position that `encode_cursor` wrote for the same filters, each element of the same type.

    Raises INVALID_PARAMETER (`cursor`) for every other text, and nothing else.
    """
    try:
        after = _unpack(text)
        if encode_cursor(after, filters) == text:  # a position has one text: no more need be checked
            return after
    except ValueError:
        pass  # answered below, as a text that unpacks to something else
    raise _bad_cursor("cursor is not one that this list gave out under the same filters and order.")


def total_pages(total_items: int, limit: int) -> int:
    """How many pages of `limit` items hold them all; none for no items."""
    return -(-total_items // limit)


def page_meta(page: Page, total: int) -> dict[str, int]:
    """The published `meta` of a page, true also for a page past the last."""
    return {
        "current_page": page.number,
        "total_pages": total_pages(total, page.limit),
        "total_items": total,
    }


def cursor_meta(next_cursor: str | None) -> dict[str, str | None]:
    """The `meta` of a list that is walked by cursor; None says that this was its end."""
    return {"next_cursor": next_cursor}


def page_links(path: str, query: Sequence[tuple[str, str]], page: Page, total: int) -> str:
    """The `Link` header (RFC 8288) of a page: next and prev where there are such, first and last.

    `path` and `query` are the request's, decoded; all parameters but `page` are kept. From a page past the last, prev
    is the last. The relations that would make the value longer than MAX_LINK_HEADER are left out, first and last before
    next and prev; the value may so be empty.
    """
    last = max(1, total_pages(total, page.limit))
    targets = {"first": 1, "last": last}
    if page.number > 1:
        targets = {"prev": min(page.number - 1, last), **targets}
    if page.number < last:
        targets = {"next": page.number + 1, **targets}
    return _link_header(path, query, {relation: ("page", str(number)) for relation, number in targets.items()})


def cursor_links(path: str, query: Sequence[tuple[str, str]], next_cursor: str | None) -> str:
    """The `Link` header (RFC 8288) of a part read by cursor: next unless this was the end, and first. As page_links."""
    targets = {"first": ("cursor", "")}
    if next_cursor is not None:
        targets = {"next": ("cursor", next_cursor), **targets}
    return _link_header(path, query, targets)


def _element_to_text(value: int | str | None) -> str:
    if value is None:
        return "n"
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("a string in a position holds NUL")
        return f"s{value}"
    if isinstance(value, bool) or not -(2**63) <= value < 2**63:
        raise ValueError(f"not a 64-bit integer: {value!r}")
    return f"i{value}"


def _text_to_element(text: str) -> int | str | None:
    kind, value = text[:1], text[1:]
    if kind == "s":
        return value
    if kind == "i":
        return int(value)
    if text == "n":
        return None
    raise ValueError("not an element of a position")


def _unpack(text: str) -> Position:
    packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return tuple(map(_text_to_element, packed[_DIGEST_SIZE:].decode("utf-8").split("\0")))


def _bad_cursor(message: str) -> LearnFlowError:
    return LearnFlowError(Code.INVALID_PARAMETER, message, param="cursor")


def _link_header(path: str, query: Sequence[tuple[str, str]], targets: Mapping[str, tuple[str, str]]) -> str:
    kept = [(name, value) for name, value in query if name not in ("page", "cursor")]
    search = urlencode(kept, quote_via=quote, errors="replace")
    begun = f"<{quote(path)}?{search}{'&' if search else ''}"
    value = ""
    for relation, (name, where) in targets.items():
        longer = f'{value}{", " if value else ""}{begun}{name}={quote(where)}>; rel="{relation}"'
        if len(longer) > MAX_LINK_HEADER:
            break
        value = longer
    return value
