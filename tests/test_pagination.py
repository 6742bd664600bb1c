"""Pages and cursors: walking a list yields every item once and in order, and no text breaks the reader."""

from __future__ import annotations

import base64
import bisect
import hashlib
import json
import re
import string
from collections.abc import Callable
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from learnflow_core import pagination
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.pagination import (
    MAX_LIMIT,
    MAX_LINK_HEADER,
    MAX_PAGE,
    Cursor,
    Page,
    Position,
    Slice,
    cursor_links,
    cursor_meta,
    decode_cursor,
    encode_cursor,
    page_links,
    page_meta,
    strict_int,
    total_pages,
)

FILTERS = {"category": "development", "sort": "popular"}

anything = st.text() | st.text("\ud800\udfff\0 aé.")  # lone surrogates too
limits = st.integers(1, MAX_LIMIT)
storable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
elements: st.SearchStrategy[int | str | None] = st.none() | st.integers(-(2**63), 2**63 - 1) | storable
positions: st.SearchStrategy[Position] = st.lists(elements, min_size=1, max_size=8).map(tuple)
filter_sets = st.dictionaries(anything, anything, max_size=4)
items = st.tuples(st.integers(0, 5), st.integers(0, 10**6))  # few keys, so that most tie, and ids that break the ties
Item = tuple[int, int]


def refused(call: Callable[[], object], param: str) -> str:
    with pytest.raises(LearnFlowError) as caught:
        call()
    assert (caught.value.code, caught.value.param) == (Code.INVALID_PARAMETER, param)
    return caught.value.message


# --- what a query asks for ---


def test_without_parameters_it_is_page_one_of_fifty() -> None:
    assert pagination.request({}, filters={}) == Page(number=1, limit=50)


@given(st.integers(1, MAX_PAGE), limits)
@example(MAX_PAGE, MAX_LIMIT)
def test_a_page_and_a_limit_are_taken_as_they_are_and_the_offset_is_exact_everywhere(number: int, limit: int) -> None:
    page = pagination.request({"page": str(number), "limit": str(limit)}, filters={})
    assert page == Page(number, limit)
    assert isinstance(page, Page)
    assert page.offset == (number - 1) * limit < 2**53


@given(positions, limits, filter_sets)
def test_a_cursor_that_was_given_out_is_taken_with_any_limit(
    after: Position, limit: int, filters: dict[str, str]
) -> None:
    params = {"cursor": encode_cursor(after, filters), "limit": str(limit)}
    assert pagination.request(params, filters=filters) == Cursor(after, limit)


def test_an_empty_cursor_is_the_start() -> None:
    assert pagination.request({"cursor": ""}, filters=FILTERS) == Cursor(after=None, limit=50)


@pytest.mark.parametrize("cursor", ["", encode_cursor((1, "crs_1"), FILTERS), "forged"])
def test_a_cursor_beside_a_page_is_refused(cursor: str) -> None:
    message = refused(lambda: pagination.request({"cursor": cursor, "page": "1"}, filters=FILTERS), "cursor")
    assert "together" in message


@pytest.mark.parametrize(
    "text",
    [
        "", "0", "-1", "+1", " 1", "1 ", "1\n", "1.0", "1e1", "1_0", "0x1", "abc", "\uff11", "\u0663", "\u00b2",
        "\u2460", "1\0", "9" * 21, "9" * 5000, "NaN", "\ud800",
    ],
)  # fmt: skip
@pytest.mark.parametrize("param", ["page", "limit"])
def test_an_integer_that_is_not_plain_digits_in_range_is_refused_by_name(param: str, text: str) -> None:
    refused(lambda: pagination.request({param: text}, filters={}), param)


@pytest.mark.parametrize(("param", "text"), [("limit", "51"), ("page", str(MAX_PAGE + 1)), ("page", "9" * 20)])
def test_an_integer_above_its_maximum_is_refused_by_name(param: str, text: str) -> None:
    refused(lambda: pagination.request({param: text}, filters={}), param)


def test_the_refusal_of_an_integer_says_what_is_allowed() -> None:
    assert refused(lambda: pagination.request({"limit": "51"}, filters={}), "limit") == (
        "limit must be a whole number from 1 to 50."
    )


@given(st.integers(0, 10**18), st.integers(0, 10**18), st.integers(0, 10**18))
def test_a_strict_integer_is_exactly_what_lies_within_its_bounds(number: int, low: int, high: int) -> None:
    def read() -> int:
        return strict_int(str(number), param="progress", minimum=low, maximum=high)

    if low <= number <= high:
        assert read() == number
    else:
        refused(read, "progress")


@given(anything)
def test_any_text_is_a_strict_integer_only_if_it_is_all_ascii_digits(text: str) -> None:
    def read() -> int:
        return strict_int(text, param="page", minimum=0, maximum=10**20)

    if re.fullmatch("[0-9]{1,20}", text):
        assert read() == int(text)
    else:
        refused(read, "page")


# --- pages ---


@given(st.integers(0, 400), limits)
@example(0, 50)
@example(50, 50)
@example(51, 50)
@example(100, 50)
def test_walking_all_pages_yields_every_item_once_and_in_order(size: int, limit: int) -> None:
    everything = list(range(size))
    walked: list[int] = []
    for number in range(1, total_pages(size, limit) + 1):
        page = Page(number, limit)
        part = everything[page.offset : page.offset + page.limit]
        assert part, "no page is empty"
        walked += part
    assert walked == everything


@given(st.integers(0, 10**6), limits)
def test_totals_are_exact_at_multiples_and_beside_them(full_pages: int, limit: int) -> None:
    items_of_full_pages = full_pages * limit
    assert total_pages(items_of_full_pages, limit) == full_pages
    assert total_pages(items_of_full_pages + 1, limit) == full_pages + 1
    if full_pages:
        assert total_pages(items_of_full_pages - 1, limit) == full_pages - (limit == 1)


@given(st.integers(1, 1000), limits, st.integers(0, 10**6))
def test_the_meta_of_a_page_has_the_three_published_keys_also_past_the_last(
    number: int, limit: int, total: int
) -> None:
    assert list(page_meta(Page(number, limit), total).items()) == [
        ("current_page", number),
        ("total_pages", total_pages(total, limit)),
        ("total_items", total),
    ]


def test_the_published_example_is_42_pages() -> None:
    assert page_meta(Page(1, 50), 2085) == {"current_page": 1, "total_pages": 42, "total_items": 2085}


# --- cursors ---


class Catalogue:
    """A list that storage could hold: sorted by (key, id), read by position."""

    def __init__(self, rows: set[Item]) -> None:
        self.rows = sorted(rows)

    def insert(self, row: Item) -> None:
        if row not in self.rows:
            bisect.insort(self.rows, row)

    def read(self, cursor: Cursor) -> Slice[Item]:
        start = 0 if cursor.after is None else bisect.bisect_right(self.rows, cursor.after)
        part = self.rows[start : start + cursor.limit]
        more = start + cursor.limit < len(self.rows)
        return Slice(part, next_after=part[-1] if more else None)


def step(catalogue: Catalogue, text: str, limit: int) -> tuple[list[Item], str | None]:
    """One request of a client: the cursor as it stands in the query, to the next as it stands in the meta."""
    asked = pagination.request({"cursor": text, "limit": str(limit)}, filters=FILTERS)
    assert isinstance(asked, Cursor)
    part = catalogue.read(asked)
    next_cursor = None if part.next_after is None else encode_cursor(part.next_after, FILTERS)
    return part.items, cursor_meta(next_cursor)["next_cursor"]


@given(st.sets(items, max_size=60), st.data())
def test_walking_all_cursors_yields_every_item_once_and_in_order_whatever_the_limits(
    rows: set[Item], data: st.DataObject
) -> None:
    catalogue, walked, text = Catalogue(rows), list[Item](), ""
    while True:
        part, following = step(catalogue, text, data.draw(limits))
        walked += part
        if following is None:
            break
        assert part
        text = following
    assert walked == sorted(rows)


@given(st.sets(items, max_size=60), st.data())
def test_rows_inserted_meanwhile_make_a_cursor_neither_skip_nor_repeat(rows: set[Item], data: st.DataObject) -> None:
    catalogue, walked, text = Catalogue(rows), list[Item](), ""
    insertions = iter(data.draw(st.lists(items, max_size=30)))
    while True:
        part, following = step(catalogue, text, data.draw(st.integers(1, 9)))
        walked += part
        if following is None:
            break
        text = following
        for row in (row for _, row in zip(range(3), insertions, strict=False)):
            catalogue.insert(row)
    assert walked == sorted(set(walked)), "once each, and in order"
    assert rows <= set(walked) <= set(catalogue.rows)


@given(positions, filter_sets)
@example((0, "0", None, ""), {})
@example((-(2**63), 2**63 - 1), {})
def test_a_position_survives_with_the_types_of_its_elements(after: Position, filters: dict[str, str]) -> None:
    decoded = decode_cursor(encode_cursor(after, filters), filters)
    assert decoded == after
    assert [type(element) for element in decoded] == [type(element) for element in after]


@given(positions, filter_sets)
def test_a_cursor_needs_no_escaping_in_a_url_and_is_bounded(after: Position, filters: dict[str, str]) -> None:
    cursor = encode_cursor(after, filters)
    assert set(cursor) <= set(string.ascii_letters + string.digits + "-_")
    assert len(cursor) <= 1400


@pytest.mark.parametrize("after", [("x" * 1023,), ("é" * 510, None), (1,) * 8])
def test_the_longest_positions_fit(after: Position) -> None:
    assert decode_cursor(encode_cursor(after, FILTERS), FILTERS) == after


@given(positions, filter_sets, filter_sets)
@example((1,), {"a": "b"}, {"a": "b", "c": ""})
@example((1,), {"a": 'b", "c'}, {"a": "b", "c": ""})
def test_a_cursor_made_under_other_filters_is_refused(
    after: Position, filters: dict[str, str], others: dict[str, str]
) -> None:
    assume(filters != others)
    cursor = encode_cursor(after, filters)
    refused(lambda: pagination.request({"cursor": cursor}, filters=others), "cursor")


@given(positions, filter_sets)
def test_the_order_in_which_filters_are_named_does_not_matter(after: Position, filters: dict[str, str]) -> None:
    assert encode_cursor(after, filters) == encode_cursor(after, dict(reversed(filters.items())))


@given(positions, st.data())
def test_a_cursor_with_any_one_character_changed_added_or_removed_is_refused(
    after: Position, data: st.DataObject
) -> None:
    cursor = encode_cursor(after, FILTERS)
    place = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.sampled_from(string.ascii_letters + string.digits + "-_=+/ \n\0é"))
    for tampered in (
        cursor[:place] + other + cursor[place + 1 :],
        cursor[:place] + other + cursor[place:],
        cursor[:place] + cursor[place + 1 :],
        cursor + other,
        cursor + "=",
    ):
        if tampered not in (cursor, ""):
            refused(lambda text=tampered: decode_cursor(text, FILTERS), "cursor")  # type: ignore[misc]


@given(anything)
@example("=" * 10_000)
@example("A" * 1_000_000)
@example("")
def test_no_text_makes_the_reader_of_cursors_do_anything_but_refuse(text: str) -> None:
    refused(lambda: decode_cursor(text, FILTERS), "cursor")


@given(st.binary(max_size=60).map(lambda junk: base64.urlsafe_b64encode(junk).rstrip(b"=").decode()))
def test_well_formed_base_64_of_anything_else_is_refused(text: str) -> None:
    refused(lambda: decode_cursor(text, FILTERS), "cursor")


def forged(payload: bytes) -> str:
    """A cursor by someone who has read the source: the checksum is right."""
    context = json.dumps(sorted(FILTERS.items())).encode()
    digest = hashlib.sha256(context + b"\0" + payload).digest()[:9]
    return base64.urlsafe_b64encode(digest + payload).rstrip(b"=").decode()


def test_the_forger_of_these_tests_knows_the_trade() -> None:
    assert decode_cursor(forged(b"i7\0scrs_1\0n"), FILTERS) == (7, "crs_1", None)


@pytest.mark.parametrize(
    "payload",
    [
        b"x", b"", b"\0", b"i", b"i1.5", b"i 1", b"i+1", b"i007", b"i-0", b"i1_0", b"inan", b"i\xd9\xa3", b"n1",
        b"i1\0", b"i9223372036854775808", b"i-9223372036854775809", b"i" + b"9" * 900, b"\xff", b"s\xed\xa0\x80",
        b"\0".join([b"n"] * 9), b"s" + b"x" * 1024,
    ],
)  # fmt: skip
def test_a_cursor_with_a_right_checksum_must_still_hold_a_position(payload: bytes) -> None:
    refused(lambda: decode_cursor(forged(payload), FILTERS), "cursor")


@pytest.mark.parametrize(
    "after",
    [(), (None,) * 9, (2**63,), (-(2**63) - 1,), (True,), ("a\0b",), ("\ud800",), ("x" * 1024,), ("é" * 600,)],
)
def test_what_no_list_has_as_a_position_is_a_bug(after: Position) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words of UnicodeEncodeError are Python's
        encode_cursor(after, {})


def test_a_cursor_that_a_client_holds_is_good_in_the_next_version_too() -> None:
    position: Position = (1, "crs_1", None)
    assert decode_cursor("m9wypq5R4RRKaTEAc2Nyc18xAG4", FILTERS) == position
    assert encode_cursor(position, FILTERS) == "m9wypq5R4RRKaTEAc2Nyc18xAG4"


def test_the_bounds_that_clients_and_proxies_count_on() -> None:
    assert (MAX_LIMIT, MAX_PAGE, MAX_LINK_HEADER) == (50, 180_143_985_094_819, 4_096)
    encode_cursor(("x" * 1_023,), {})
    with pytest.raises(ValueError, match="at most 1024 bytes, not 1025"):
        encode_cursor(("x" * 1_024,), {})


# --- Link headers ---


query_pairs = st.lists(
    st.tuples(st.sampled_from(["search", "category", "limit", "page", "cursor", "x y"]), anything), max_size=5
)


def parse_links(header: str) -> dict[str, str]:
    """RFC 8288 as far as we write it: what each relation points at."""
    return {relation: target for target, relation in re.findall(r'<([^<>"\s]*)>; rel="([a-z]+)"(?:, |$)', header)}


def parameters(target: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(target).query, keep_blank_values=True)


@given(st.integers(1, 500), limits, st.integers(0, 5000))
def test_a_page_links_to_its_neighbours_and_to_both_ends(number: int, limit: int, total: int) -> None:
    last = max(1, total_pages(total, limit))
    links = parse_links(
        page_links("/v1/courses", [("page", str(number)), ("limit", str(limit))], Page(number, limit), total)
    )
    pages = {relation: int(dict(parameters(target))["page"]) for relation, target in links.items()}
    expected = {"first": 1, "last": last}
    if number < last:
        expected["next"] = number + 1
    if number > 1:
        expected["prev"] = min(number - 1, last)
    assert pages == expected


@given(st.integers(0, 300), limits)
def test_following_next_from_the_first_page_visits_every_page_once(total: int, limit: int) -> None:
    visited, number = [1], 1
    while "next" in (links := parse_links(page_links("/v1/courses", [], Page(number, limit), total))):
        number = int(dict(parameters(links["next"]))["page"])
        visited.append(number)
    assert visited == list(range(1, max(1, total_pages(total, limit)) + 1))


@given(st.none() | positions.map(lambda after: encode_cursor(after, {})), limits)
def test_a_part_by_cursor_links_to_the_first_and_unless_it_is_the_end_to_the_next(
    cursor: str | None, limit: int
) -> None:
    links = parse_links(cursor_links("/v1/courses", [("cursor", "x"), ("limit", str(limit))], cursor))
    cursors = {relation: dict(parameters(target))["cursor"] for relation, target in links.items()}
    assert cursors == {"first": ""} | ({} if cursor is None else {"next": cursor})


@given(query_pairs)
def test_links_keep_the_other_parameters_in_their_order_whatever_they_hold(query: list[tuple[str, str]]) -> None:
    links = parse_links(page_links("/v1/courses", query, Page(1, 50), 100))
    kept = [(name, re.sub("[\ud800-\udfff]", "?", value)) for name, value in query if name not in ("page", "cursor")]
    assert parameters(links["next"]) == [*kept, ("page", "2")]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.lists(st.tuples(anything, anything), max_size=20))
def test_a_link_header_is_printable_ascii_without_a_break_and_bounded(path: str, query: list[tuple[str, str]]) -> None:
    header = page_links(path, query, Page(2, 50), 500)
    assert len(header) <= MAX_LINK_HEADER
    assert re.fullmatch(r'(<[!#-;=?-~]*>; rel="(next|prev|first|last)"(, |$))*', header)


@pytest.mark.parametrize(
    ("length", "relations"),
    [(10, ["next", "prev", "first", "last"]), (1000, ["next", "prev", "first"]), (1500, ["next", "prev"]), (5000, [])],
)
def test_links_that_would_make_the_header_too_long_for_proxies_are_left_out_the_least_useful_first(
    length: int, relations: list[str]
) -> None:
    header = page_links("/v1/courses", [("search", "x" * length)], Page(2, 50), 500)
    assert list(parse_links(header)) == relations


def test_the_link_header_as_it_is_sent() -> None:
    assert page_links("/v1/courses", [("search", "C++ é"), ("limit", "50")], Page(1, 50), 120) == (
        '</v1/courses?search=C%2B%2B%20%C3%A9&limit=50&page=2>; rel="next", '
        '</v1/courses?search=C%2B%2B%20%C3%A9&limit=50&page=1>; rel="first", '
        '</v1/courses?search=C%2B%2B%20%C3%A9&limit=50&page=3>; rel="last"'
    )
