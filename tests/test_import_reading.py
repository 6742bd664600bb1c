"""Reading what exports hold: values, tables, and which column means what."""

from __future__ import annotations

import contextlib
import csv
import io
import time
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_core.money import CURRENCIES, Money, format_amount
from learnflow_core.search import slug
from learnflow_http.cli import columns, readers
from learnflow_http.cli.tables import MAX_ROW, BadRow, Row, TableError, open_text, read_table

# --- Values


def usd(text: str, **more: Any) -> Money:
    return readers.price(text, **({"paid": None, "stated": None, "default": "USD"} | more))


@pytest.mark.parametrize(
    ("text", "minor"),
    [
        ("0", 0), ("Free", 0), ("FREE ", 0), ("49.99", 4999), ("$49.99", 4999), ("US$ 49.99", 4999),
        ("49.99 USD", 4999), ("1,23", 123),
        ("usd 49", 4900), ("49,99", 4999), ("1,234", 123400), ("1,234.5", 123450), ("1.234,56", 123456),
        ("200.0", 20000),
        ("1 234,50", 123450), ("1'234.50", 123450), ("1,234,567", 123456700), ("049.90", 4990), ("0.5", 50),
    ],
)  # fmt: skip
def test_a_price_is_read_as_people_and_programs_write_it(text: str, minor: int) -> None:
    assert usd(text) == Money(minor, "USD")


@pytest.mark.parametrize(
    "text",
    [
        "1.234", "49.990", "1.000", "12,34,56", "-5", "+5", "4e1", "49.99.99", "1,234.567", "49.999", "ab", "$", "5 %",
        "1 2 3", "\u0664\u0669", "49.99/month", "from 49", "10000000001", "nan",
    ],
)  # fmt: skip
def test_a_price_that_may_mean_two_things_or_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no price|one way|does not stand for|decimals|at most"):
        usd(text)


@given(st.sampled_from(sorted(CURRENCIES)), st.integers(0, 10**9))
def test_what_the_api_writes_as_an_amount_is_read_back_or_refused_never_read_otherwise(code: str, minor: int) -> None:
    text = format_amount(minor, code)
    try:
        assert usd(text, default=code) == usd(f"{text} {code}") == Money(minor, code)
    except ValueError:
        assert CURRENCIES[code] == 4 or (CURRENCIES[code] != 3 and len(text.partition(".")[2]) == 3)


@given(st.text(alphabet="0123456789.,' €$%-xUSD", max_size=14))
def test_a_price_has_the_digits_of_its_text_and_no_others(text: str) -> None:
    try:
        money = usd(text)
    except ValueError:
        return
    digits = "".join(character for character in text if character.isdigit())
    written = format_amount(money.amount_minor, money.currency)
    assert Decimal(written).normalize().as_tuple().digits == Decimal(digits).normalize().as_tuple().digits


def test_the_currency_beside_an_amount_counts_and_must_agree_with_its_column() -> None:
    assert usd("€49") == Money(4900, "EUR")
    assert usd("¥500", stated="JPY") == Money(500, "JPY")
    assert usd("$49", default="CAD") == Money(4900, "CAD")
    for text, stated, default in [
        ("€49", "USD", "USD"),
        ("$49", None, "EUR"),
        ("¥500", None, "USD"),
        ("5 XYZ", None, "USD"),
    ]:
        with pytest.raises(ValueError, match="does not stand for"):
            usd(text, stated=stated, default=default)


def test_a_price_must_agree_with_what_says_whether_the_course_is_paid() -> None:
    assert usd("20", paid=True).amount_minor == 2000
    assert usd("Free", paid=False).amount_minor == 0
    for text, paid in [("20", False), ("0", True), ("Free", True)]:
        with pytest.raises(ValueError, match="another column says"):
            usd(text, paid=paid)


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("12450", 12450), ("1,234", 1234), ("1,234,567", 1234567), ("1 234", 1234), ("2147.0", 2147)],
)
def test_a_count_is_read_with_its_thousands_separated(text: str, count: int) -> None:
    assert readers.count(text) == count


@pytest.mark.parametrize("text", ["1.2", "1.234", "12,34", "1,2345", "-1", "1e3", "1.2K", "", "\uff19", "9" * 16])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no whole number"):
        readers.count(text)


@pytest.mark.parametrize(
    ("text", "rating"),
    [("4.6", 460), ("5", 500), ("4,55", 455), ("4.555", 456), ("0", None), ("0.0", None), ("4.999999999", 500)],
)
def test_a_rating_is_hundredths_and_none_where_there_is_none(text: str, rating: int | None) -> None:
    assert readers.rating(text) == rating


@pytest.mark.parametrize("text", ["5.1", "6", "-1", "4/5", "92%", "good", "4.6 stars"])
def test_what_is_no_rating_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no rating"):
        readers.rating(text)


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("All Levels", "all"), ("all", "all"), ("Beginner Level", "beginner"), ("INTERMEDIATE", "intermediate"),
        ("Intermediate Level", "intermediate"), ("Expert Level", "advanced"), ("Advanced", "advanced"),
        ("Mixed", "all"),
    ],
)  # fmt: skip
def test_a_level_is_known_by_its_usual_names(text: str, level: str) -> None:
    assert readers.level(text) == level


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose own time is not UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "JST-9")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2017-01-18T20:58:58Z", 1_484_773_138), ("2017-01-18 20:58:58", 1_484_773_138), ("2017-01-18", 1_484_697_600),
        ("2017-01-18T21:58:58+01:00", 1_484_773_138), ("1970-01-01", 0),
    ],
)  # fmt: skip
def test_a_time_without_an_offset_is_utc(text: str, at: int, far_from_greenwich: None) -> None:
    assert readers.instant(text) == at * 1_000_000


@pytest.mark.parametrize(
    "text", ["01/18/2017", "18.01.2017", "1484773138", "20170118", "yesterday", "9999-01-01", "0001-01-01"]
)
def test_a_date_that_people_read_differently_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no date or time"):
        readers.instant(text)


@pytest.mark.parametrize(("text", "tag"), [("en", "en"), ("English", "en"), ("pt_BR", "pt-BR"), ("zh-Hant", "zh-Hant")])
def test_a_language_is_a_tag_or_its_english_name(text: str, tag: str) -> None:
    assert readers.language(text) == tag


@given(st.text(max_size=300))
@pytest.mark.parametrize(
    "read",
    [
        readers.title, readers.external_id, readers.category, readers.description, readers.language, readers.level,
        readers.truth, readers.count, readers.rating, readers.instant, readers.currency, usd,
    ],
)  # fmt: skip
def test_whatever_a_cell_holds_a_reader_reads_it_or_says_why_not(read: Any, text: str) -> None:
    if not text.strip():
        return  # a blank cell says nothing, and is not read
    with contextlib.suppress(ValueError):
        read(text)


# --- Tables


def table(tmp_path: Path, content: str | bytes, name: str = "courses.csv") -> tuple[Sequence[str], list[Row | BadRow]]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with open_text(path) as file:
        found = read_table(path, file, columns.recognised)
        return found.columns, list(found.rows)


def lines_and_reasons(rows: Sequence[Row | BadRow]) -> list[tuple[int, Any]]:
    return [(row.line, row.reason if isinstance(row, BadRow) else tuple(row.cells.values())) for row in rows]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_delimiter_the_ends_of_lines_and_a_byte_order_mark_are_found_out(
    tmp_path: Path, delimiter: str, end: str, mark: str
) -> None:
    content = f"{mark}course_id,title{end}1,a{end}{end}2,b".replace(",", delimiter)
    names, rows = table(tmp_path, content)
    assert names == ["course_id", "title"]
    assert lines_and_reasons(rows) == [(2, ("1", "a")), (4, ("2", "b"))]


cell = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(st.lists(st.lists(cell, min_size=3, max_size=3).filter(any), max_size=8))
def test_whatever_cells_a_program_wrote_are_read_back_in_order(
    tmp_path_factory: pytest.TempPathFactory, cells: list[list[str]]
) -> None:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([["id", "title", "price"], *cells])
    _, rows = table(tmp_path_factory.getbasetemp(), text.getvalue())
    assert [list(row.cells.values()) for row in rows if isinstance(row, Row)] == cells


def test_a_quoted_line_break_is_part_of_its_cell_and_the_row_has_the_line_it_starts_in(tmp_path: Path) -> None:
    _, rows = table(tmp_path, 'id,title\n1,"a\nb\n"\n2,c\n')
    assert lines_and_reasons(rows) == [(2, ("1", "a\nb\n")), (5, ("2", "c"))]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1,a,b", "has 3 fields where the header has 2"),
        ("1", "has 1 fields where the header has 2"),
        ('1,"never closed', "opens a quote that is never closed"),
        ('1,"a"b', "',' expected after '\"'"),
        ("1,a\0b", "has a NUL character"),
        (b"1,caf\xe9", "is not UTF-8 (byte 0xe9, character 6 of the line)"),
        ("1," + "x" * MAX_ROW, f"is longer than {MAX_ROW} characters"),
        ('1,"' + "x" * 200_000 + '"', "field larger than field limit (131072)"),
    ],
)
def test_a_row_that_cannot_be_read_costs_no_other_row(tmp_path: Path, line: str | bytes, reason: str) -> None:
    bad = line if isinstance(line, bytes) else line.encode()
    _, rows = table(tmp_path, b"id,title\n0,before\n" + bad + b"\n2,after\n3,end\n")
    assert lines_and_reasons(rows) == [(2, ("0", "before")), (3, reason), (4, ("2", "after")), (5, ("3", "end"))]


def test_a_quote_that_swallowed_other_rows_gives_them_back(tmp_path: Path) -> None:
    _, rows = table(tmp_path, 'id,title\n1,"open\n2,b\n3,"c"\n4,d\n')
    assert lines_and_reasons(rows)[0][0] == 2
    assert lines_and_reasons(rows)[1:] == [(3, ("2", "b")), (4, ("3", "c")), (5, ("4", "d"))]
    _, rows = table(tmp_path, 'id,title\n1,"open\n2,b\n3,c",closed\n4,d\n')
    assert [row.line for row in rows if isinstance(row, BadRow)] == [2, 4]
    assert lines_and_reasons(rows)[1::2] == [(3, ("2", "b")), (5, ("4", "d"))]


def test_empty_cells_behind_the_last_column_and_rows_of_nothing_are_no_matter(tmp_path: Path) -> None:
    _, rows = table(tmp_path, "id,title\n1,a,,\n,\n,,,\n2,b\n")
    assert lines_and_reasons(rows) == [(2, ("1", "a")), (5, ("2", "b"))]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        ("id,title\n".encode("utf-16"), "UTF-16"),
        (b"id,id\n1,2\n", "Two columns are called 'id'"),
        (b"id\0,title\n", "header has a NUL"),
    ],
)
def test_what_is_no_table_is_refused_as_a_whole(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(TableError, match=reason):
        table(tmp_path, content)


def test_json_lines_are_objects_whose_parts_are_columns_and_whose_numbers_stay_exact(tmp_path: Path) -> None:
    content = '{"id": 7, "price": {"amount": 49.990000000000001, "currency": "USD"}, "free": false, "x": null}\n'
    names, rows = table(tmp_path, content, "courses.jsonl")
    assert names == ["id", "price.amount", "price.currency", "free"]
    assert lines_and_reasons(rows) == [(1, ("7", "49.990000000000001", "USD", "false"))]


@pytest.mark.parametrize("line", ["[1]", "{", "nope", '{"a": NaN}', "[" * 100_000, '{"id": "\ud800"}'])
def test_a_line_that_is_no_json_object_costs_no_other(tmp_path: Path, line: str) -> None:
    content = b'{"id": "1"}\n\n' + line.encode("utf-8", "surrogatepass") + b'\n{"id": "2"}'
    _, rows = table(tmp_path, content, "courses.ndjson")
    assert [row.line for row in rows] == [1, 3, 4]
    assert [type(row) for row in rows] == [Row, BadRow, Row]


# --- Columns


def test_the_columns_of_a_well_known_export_are_guessed() -> None:
    names = [
        "course_id",
        "course_title",
        "url",
        "is_paid",
        "price",
        "num_subscribers",
        "num_reviews",
        "num_lectures",
        "level",
        "content_duration",
        "published_timestamp",
        "subject",
    ]
    assert columns.choose(names, {}) == {
        "external_id": "course_id",
        "title": "course_title",
        "category": "subject",
        "level": "level",
        "price": "price",
        "paid": "is_paid",
        "students": "num_subscribers",
        "created_at": "published_timestamp",
    }


@pytest.mark.parametrize("spelt", ["Course Title", "courseTitle", "COURSE-TITLE", " course_title "])
def test_a_name_is_recognised_however_it_is_spelt(spelt: str) -> None:
    assert columns.recognised(spelt)


def test_what_is_said_wins_over_the_guess_and_an_empty_name_means_none() -> None:
    names = ["id", "name", "title", "subject", "price", "level"]
    chosen = columns.choose(names, {"title": "name", "level": "", "instructor": "title"})
    assert (chosen["title"], chosen["instructor"], "level" in chosen) == ("name", "title", False)


def test_every_fact_of_the_import_is_named_by_itself_and_names_are_not_shared() -> None:
    assert all(fact in names for fact, names in columns.SYNONYMS.items())
    every = [name for names in columns.SYNONYMS.values() for name in names]
    assert len(every) == len(set(every))


@given(st.dictionaries(st.sampled_from(sorted(columns.SYNONYMS)), st.text(max_size=40)))
def test_a_row_becomes_a_course_or_an_explanation(cells: dict[str, str]) -> None:
    facts = {fact: fact for fact in columns.SYNONYMS}
    try:
        course = columns.read_course(cells, facts, "USD", None)
    except columns.RowError:
        return
    assert course.category == slug(course.category_name)
