"""The kinds of text and number that commands are made of: what each takes, in every language that checks it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from learnflow_core import fields
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.fields import Price
from learnflow_core.money import CURRENCIES, MAX_AMOUNT_MINOR, Money
from tests.conftest import missing

TEXTS: dict[str, Any] = {
    "Title": fields.Title,
    "PlainText": fields.PlainText,
    "LongText": fields.LongText,
    "CategorySlug": fields.CategorySlug,
    "Language": fields.Language,
    "ExternalId": fields.ExternalId,
    "Email": fields.Email,
    "Password": fields.Password,
    "IdText": fields.IdText,
}
SCHEMAS: dict[str, dict[str, Any]] = {name: msgspec.json.schema(kind) for name, kind in TEXTS.items()}

TAKEN = {
    "Title": ["x", "Café ☕", "two\nlines", " x ", "🎓" * 200, "a\u0001"],
    "PlainText": ["", " ", "a\nb", "\x85"],
    "LongText": ["", "a\nb\n", "x" * 20_000],
    "CategorySlug": ["a", "web-development", "3d", "a" * 64],
    "Language": ["en", "pt-BR", "zh-Hant-TW", "de-CH-1996", "a" * 8],
    "ExternalId": ["1", "sku 7/b", "é", "x" * 128],
    "Email": ["a@b", "Ann.O'Hara+x@example.com", "δοκιμή@παράδειγμα.δοκιμή", "a" * 64 + "@" + "b" * 189],
    "Password": ["0123456789", "ten chars\n", "пароль пароль", "x" * 256],
    "IdText": ["usr_7f3d9a", "whatever it is", "é", "x" * 80],
}
REFUSED = {
    "Title": ["", " ", "\n", "\t \u00a0", "\x85", "\ufeff", "\u2003", "\u0001", "a\0", "\0a", "x" * 201],
    "PlainText": ["\0", "a\0b"],
    "LongText": ["a\0", "x" * 20_001],
    "CategorySlug": ["", "A", "a-", "-a", "a--b", "a b", "a\n", "é", "a_b", "a" * 65],
    "Language": ["", "e", "en_GB", "en-", "en\n", "englishes", "é", "en-" + "x" * 9],
    "ExternalId": ["", "a\n", "\n", "a\0", "a\tb", "x" * 129],
    "Email": [
        *(
            "",
            "a",
            "@",
            "a@",
            "@b",
            "a@b@c",
            "a b@c",
            "a@b\n",
            "a\u00a0@b",
            "a@b\x85",
            "\ufeffa@b",
            "a\0@b",
            "a\u0001@b",
        ),
        *("a" * 65 + "@b", "a@" + "b" * 190),
    ],
    "Password": ["", "123456789", "0123456789\0", "x" * 257],
    "IdText": ["", "a\0", "x" * 81],
}

tricky = st.sampled_from("\0\n\r\t\x1c\x85\u00a0\u2028\ufeff @-_aA0é🎓")
texts = st.text(tricky | st.characters(exclude_categories=["Cs"]), max_size=12)
halves = st.characters(categories=["Cs"]) | st.just("\udc00\ud800")
kinds = st.sampled_from(sorted(TEXTS))


def takes(kind: Any, value: object) -> bool:
    """Whether a body with this value is taken; one that is comes back as it was sent."""
    try:
        assert msgspec.json.decode(json.dumps(value), type=kind) == value
    except msgspec.DecodeError:
        return False
    return True


def pairs(table: dict[str, list[str]]) -> list[Any]:
    return [pytest.param(kind, text, id=f"{kind}-{text[:20]!a}") for kind, texts in table.items() for text in texts]


@pytest.mark.parametrize(("kind", "text"), pairs(TAKEN))
def test_what_people_write_is_taken_as_it_is(kind: str, text: str) -> None:
    assert takes(TEXTS[kind], text)


@pytest.mark.parametrize(("kind", "text"), pairs(REFUSED))
def test_what_no_such_thing_can_be_is_refused(kind: str, text: str) -> None:
    assert not takes(TEXTS[kind], text)


@given(kinds, texts)
def test_no_text_with_a_nul_in_it_is_taken_by_any_kind(kind: str, text: str) -> None:
    assert not takes(TEXTS[kind], text + "\0" + text)


@given(st.sampled_from(["CategorySlug", "Language", "ExternalId", "Email"]), texts)
@example("CategorySlug", "a")
@example("Language", "en")
@example("ExternalId", "a")
@example("Email", "a@b")
def test_what_stands_in_one_line_does_not_end_with_a_line_break(kind: str, text: str) -> None:
    assert not takes(TEXTS[kind], text + "\n")


@given(kinds, texts, halves)
def test_half_of_a_character_is_taken_by_none(kind: str, text: str, half: str) -> None:
    assert not takes(TEXTS[kind], "aaaaaaaaaa" + half + text)


@given(kinds, texts)
def test_what_is_taken_is_what_the_served_schema_says(kind: str, text: str) -> None:
    assert takes(TEXTS[kind], text) == is_valid(SCHEMAS[kind], text)


def is_valid(schema: dict[str, Any], text: str) -> bool:
    """JSON Schema's own words: lengths count characters, and a pattern may match anywhere."""
    long_enough = schema.get("minLength", 0) <= len(text) <= schema.get("maxLength", len(text))
    return long_enough and re.search(schema["pattern"], text) is not None


def test_a_hostile_megabyte_is_refused_for_its_length_before_a_pattern_looks_at_it() -> None:
    hostile = "a" * 1_000_000 + "\0"  # for which the pattern of a title takes a million squared steps
    assert not takes(fields.Title, hostile)
    assert not takes(fields.Email, hostile)


FRAMES = ["{}", "a{}", "{}a", "a{}a", "{}\n", "a@b{}", "{}@b", "en{}", "aa-{}"]
"""Where in a text a character may stand."""

IN_ECMASCRIPT = """
const {patterns, frames, characters} = JSON.parse(require("fs").readFileSync(0, "utf8"));
const verdicts = patterns.map(pattern => {
  const compiled = new RegExp(pattern, "u");
  return frames.map(frame => characters.map(c => +compiled.test(frame.replace("{}", () => c))).join(""));
});
console.log(JSON.stringify(verdicts));
"""


def test_every_pattern_takes_the_same_texts_in_ecmascript() -> None:
    node = shutil.which("node") or missing("Node.js")
    characters = [chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000] + ["", "🎓", "\U0010ffff"]
    patterns = sorted({schema["pattern"] for schema in SCHEMAS.values()})
    question = json.dumps({"patterns": patterns, "frames": FRAMES, "characters": characters})
    answer = subprocess.run([node, "-e", IN_ECMASCRIPT], input=question, check=True, capture_output=True, text=True)
    for pattern, by_frame in zip(patterns, json.loads(answer.stdout), strict=True):
        compiled = re.compile(pattern)
        for frame, verdicts in zip(FRAMES, by_frame, strict=True):
            different = [
                character
                for character, verdict in zip(characters, verdicts, strict=True)
                if (compiled.search(frame.replace("{}", character)) is not None) != (verdict == "1")
            ]
            assert not different, (pattern, frame, different[:10])


@pytest.mark.parametrize(
    ("kind", "lowest", "highest"),
    [(fields.Seats, 0, 1_000_000_000), (fields.Seconds, 0, 864_000), (fields.Percent, 0, 100)],
)
def test_a_number_is_whole_and_within_its_range(kind: Any, lowest: int, highest: int) -> None:
    assert takes(kind, lowest)
    assert takes(kind, highest)
    for wrong in (lowest - 1, highest + 1, 0.5, True, None, "1", [1], 10**30):
        assert not takes(kind, wrong)


@given(st.integers(0, MAX_AMOUNT_MINOR), st.sampled_from(sorted(CURRENCIES)))
def test_a_price_is_the_money_it_shows_through_json_and_back(minor: int, currency: str) -> None:
    money = Money(minor, currency)
    sent = msgspec.json.encode(Price.of(money))
    assert msgspec.json.decode(sent, type=Price).money() == money


@pytest.mark.parametrize("amount", ['"49.99"', "null", "true", "[]", "{}", "-1", "49.999", "1e99", "1E+999999999"])
def test_an_amount_that_is_no_exact_number_of_minor_units_is_named(amount: str) -> None:
    price = msgspec.json.decode(f'{{"amount":{amount},"currency":"USD"}}', type=Price)
    with pytest.raises(LearnFlowError) as caught:
        price.money()
    assert (caught.value.code, caught.value.param) == (Code.INVALID_PARAMETER, "price.amount")


def test_a_price_without_its_parts_or_with_more_is_no_price() -> None:
    for wrong in ("{}", '{"amount":1}', '{"currency":"USD"}', '{"amount":1,"currency":"USD","tax":1}', "1"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(wrong, type=Price)


def test_the_schema_says_what_an_amount_and_a_time_are() -> None:
    amount = msgspec.json.schema(fields.Amount)
    assert (amount["type"], amount["minimum"]) == ("number", 0)
    assert msgspec.json.schema(fields.Time) == {"type": "string", "format": "date-time"}
