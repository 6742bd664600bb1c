"""Money: exact both ways, in every currency, whatever number a client writes."""

from __future__ import annotations

import contextlib
import decimal
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.money import CURRENCIES, MAX_AMOUNT_MINOR, Money, format_amount, parse_amount, sort_key

currencies = st.sampled_from(sorted(CURRENCIES)) | st.sampled_from(["JPY", "USD", "KWD", "CLF"])
amounts = st.integers(0, MAX_AMOUNT_MINOR)

anything = st.text() | st.text("\ud800\udfff\0 aé.")  # lone surrogates too
digits = st.text("0123456789", min_size=1, max_size=20)
whole_parts = st.just("0") | st.builds(str.__add__, st.sampled_from("123456789"), st.text("0123456789", max_size=20))
fractions = st.just("") | st.builds(".{}".format, digits)
exponents = st.just("") | st.builds("{}{}{}".format, st.sampled_from("eE"), st.sampled_from(["", "+", "-"]), digits)
small_exponents = st.just("") | st.builds("{}{}".format, st.sampled_from("eE"), st.integers(-30, 30))
numbers = st.builds("{}{}{}{}".format, st.sampled_from(["", "-"]), whole_parts, fractions, small_exponents)


def refusal(text: str, currency: str) -> LearnFlowError:
    with pytest.raises(LearnFlowError) as caught:
        parse_amount(text, currency)
    assert caught.value.code is Code.INVALID_PARAMETER
    return caught.value


@given(amounts, currencies)
@example(0, "USD")
@example(5, "KWD")
@example(MAX_AMOUNT_MINOR, "CLF")
def test_minor_units_survive_being_written_and_read(minor: int, currency: str) -> None:
    assert parse_amount(format_amount(minor, currency), currency) == minor


@given(whole_parts, st.data(), currencies)
def test_a_canonical_amount_survives_being_read_and_written_to_the_byte(
    whole: str, data: st.DataObject, currency: str
) -> None:
    decimals = CURRENCIES[currency]
    text = whole[:8]
    if decimals:
        text += "." + data.draw(st.text("0123456789", min_size=decimals, max_size=decimals))
    assert format_amount(parse_amount(text, currency), currency) == text


@given(numbers, currencies)
def test_a_number_means_what_its_exact_decimal_value_is_in_minor_units_or_is_refused(text: str, currency: str) -> None:
    with decimal.localcontext(prec=200):
        exact = Decimal(text).scaleb(CURRENCIES[currency])
        good = 0 <= exact <= MAX_AMOUNT_MINOR and exact == exact.to_integral_value()
    if good:
        assert parse_amount(text, currency) == exact
    else:
        assert refusal(text, currency).param == "price.amount"


@given(st.integers(1, MAX_AMOUNT_MINOR), currencies, st.integers(0, 40), st.integers(0, 40))
def test_every_spelling_of_a_number_is_the_same_amount(minor: int, currency: str, zeros: int, shift: int) -> None:
    number, power = f"{minor}{'0' * zeros}", -CURRENCIES[currency] - zeros
    for spelling in (
        f"{number}e{power}",
        f"{number}.000E{power:+03d}",
        f"0.{'0' * shift}{number}e{power + shift + len(number)}",
        f"{number}{'0' * shift}e{power - shift}",
    ):
        assert parse_amount(spelling, currency) == minor


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("49.99", "USD", 4999),
        ("49.990", "USD", 4999),
        ("4.999e1", "USD", 4999),
        ("50", "USD", 5000),
        ("1e2", "JPY", 100),
        ("500", "JPY", 500),
        ("500.00", "JPY", 500),
        ("1.5", "KWD", 1500),
        ("0.0001", "CLF", 1),
        ("0", "USD", 0),
        ("-0", "USD", 0),
        ("-0.00e5", "USD", 0),
        ("10000000000.00", "USD", MAX_AMOUNT_MINOR),
    ],
)
def test_amounts_that_are_good(text: str, currency: str, minor: int) -> None:
    assert parse_amount(text, currency) == minor


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (4999, "USD", "49.99"),
        (5000, "USD", "50.00"),
        (7, "USD", "0.07"),
        (0, "USD", "0.00"),
        (500, "JPY", "500"),
        (1500, "KWD", "1.500"),
        (1, "CLF", "0.0001"),
    ],
)
def test_amounts_are_written_with_all_decimals_of_their_currency(minor: int, currency: str, text: str) -> None:
    assert format_amount(minor, currency) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-0.01", "negative"),
        ("-1e999999999999", "negative"),
        ("0.001", "more decimals than USD allows (2)"),
        ("1e-3", "more decimals"),
        ("1e-400000", "more decimals"),
        ("1E-" + "9" * 100_000, "more decimals"),
        ("0." + "0" * 100_000 + "1", "more decimals"),
        ("10000000000.01", "at most 10000000000.00 USD"),
        ("1e11", "at most"),
        ("1E+999999", "at most"),
        ("1e" + "9" * 100_000, "at most"),
        ("1e4200", "at most"),
        ("9" * 5_000, "at most"),
        ("9" * 100_000, "at most"),
    ],
)
def test_a_refused_amount_says_why_and_takes_work_by_its_length_only(text: str, reason: str) -> None:
    error = refusal(text, "USD")
    assert error.param == "price.amount"
    assert reason in error.message


@pytest.mark.parametrize(
    ("text", "minor"),
    [
        ("0e" + "9" * 100_000, 0),
        ("0." + "0" * 100_000, 0),
        ("1." + "0" * 100_000, 100),
        ("0." + "0" * 5_000 + "1e5001", 100),
        ("1" + "0" * 5_000 + "e-5000", 100),
        ("1e" + "0" * 100_000 + "2", 10_000),
    ],
)
def test_an_amount_written_at_length_is_still_read_exactly(text: str, minor: int) -> None:
    assert parse_amount(text, "USD") == minor


@pytest.mark.parametrize(
    "text",
    [
        "", "-", "+1", "01", "-01", ".5", "1.", "1.e2", "1e", "1e+", "e1", "1e1.5", "NaN", "nan", "Infinity", "-inf",
        "1_000", "1,000", " 1", "1 ", "1\n", "\uff11", "\u0663", "0x10", "--1", "1-1", "$1", "1\0",
        "null", '"1"', "\ud800",
    ],
)  # fmt: skip
def test_what_is_no_json_number_is_no_amount(text: str) -> None:
    assert refusal(text, "USD").param == "price.amount"


@given(anything | st.builds("{}{}{}".format, whole_parts, fractions, exponents), currencies)
def test_no_text_makes_anything_but_an_amount_or_a_refusal(text: str, currency: str) -> None:
    with contextlib.suppress(LearnFlowError):
        assert 0 <= parse_amount(text, currency) <= MAX_AMOUNT_MINOR


@given(anything.filter(lambda code: code not in CURRENCIES))
@example("usd")
@example("USD ")
@example("XXX")
@example("XAU")
def test_an_unknown_currency_is_named_as_what_is_wrong(currency: str) -> None:
    error = refusal("1", currency)
    assert error.param == "price.currency"
    assert "ISO 4217" in error.message


def test_a_negative_amount_or_unknown_currency_is_never_written() -> None:
    with pytest.raises(ValueError, match="-1"):
        format_amount(-1, "USD")
    with pytest.raises(KeyError):
        format_amount(1, "usd")


@given(amounts, currencies)
@example(MAX_AMOUNT_MINOR, "JPY")
def test_the_sort_key_is_the_face_value_in_one_unit_for_all_currencies_and_fits_64_bits(
    minor: int, currency: str
) -> None:
    key = sort_key(Money(minor, currency))
    assert Fraction(key, 10**4) == Fraction(minor, 10 ** CURRENCIES[currency])
    assert 0 <= key < 2**63


def test_the_table_has_the_exponents_of_iso_4217() -> None:
    known = {
        "JPY": 0,
        "ISK": 0,
        "USD": 2,
        "EUR": 2,
        "MGA": 2,
        "MRU": 2,
        "KWD": 3,
        "TND": 3,
        "CLF": 4,
        "UYW": 4,
        "UYI": 0,
    }
    assert {code: CURRENCIES[code] for code in known} == known
    assert all(len(code) == 3 and code.isascii() and code.isupper() for code in CURRENCIES)
    retired_metals_and_test_codes = {"DEM", "HRK", "BGN", "ANG", "ZWL", "XAU", "XTS", "XXX", "XDR"}
    assert not retired_metals_and_test_codes & set(CURRENCIES)
