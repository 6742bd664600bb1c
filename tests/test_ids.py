"""Ids and API keys: their shape, their randomness, and that nothing a client sends can break their readers."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import re
import string
from collections import Counter
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_core import ids

BASE_62 = string.digits + string.ascii_letters
MODES: list[Literal["live", "test"]] = ["live", "test"]

anything = st.text() | st.text("\ud800\udfff\0 aé.")  # lone surrogates too
prefixes = st.sampled_from(sorted(ids.PREFIXES))


def seeded(seed: int) -> ids.RandomBytes:
    return random.Random(seed).randbytes


api_keys = st.builds(ids.new_api_key, st.sampled_from(MODES), st.integers().map(seeded))


@given(prefixes, st.integers())
def test_a_new_id_is_its_kind_and_digits_of_base_36(prefix: str, seed: int) -> None:
    assert re.fullmatch(rf"{prefix}_[0-9a-z]+", ids.new_id(prefix, seeded(seed)))


@pytest.mark.parametrize("prefix", sorted(ids.PREFIXES))
def test_every_id_has_at_least_60_random_bits_and_a_certificates_100(prefix: str) -> None:
    lengths = {len(ids.new_id(prefix, seeded(seed))) - len(prefix) - 1 for seed in range(100)}
    assert len(lengths) == 1, "the length tells nothing"
    assert lengths.pop() * math.log2(36) >= (100 if prefix == "crt" else 60)


def test_each_digit_comes_from_equally_many_bytes_and_the_bytes_left_over_are_drawn_again() -> None:
    def last_digit(byte: int) -> str:
        draws = itertools.chain([bytes([byte])], itertools.repeat(b"\0"))
        return ids.new_id("crs", lambda size: next(draws) * size)[-1]

    counts = Counter(last_digit(byte) for byte in range(252))
    assert set(counts) == set(string.digits + string.ascii_lowercase)
    assert set(counts.values()) == {7}
    assert {last_digit(byte) for byte in range(252, 256)} == {"0"}


def test_the_same_randomness_makes_the_same_ids_and_other_randomness_others() -> None:
    assert ids.new_id("enr", seeded(1)) == ids.new_id("enr", seeded(1))
    assert len({ids.new_id("enr", seeded(seed)) for seed in range(1000)}) == 1000


def test_an_id_of_no_known_kind_is_a_bug() -> None:
    with pytest.raises(ValueError, match="xyz"):
        ids.new_id("xyz", seeded(1))


@given(st.sampled_from(MODES), st.integers())
def test_a_new_key_says_its_mode_and_has_the_published_form(mode: Literal["live", "test"], seed: int) -> None:
    key = ids.new_api_key(mode, seeded(seed))
    assert ids.api_key_mode(key) == mode
    assert key.startswith(f"sk_{mode}_")
    assert len(key) == len("sk_live_") + 30 + 6
    assert set(key.removeprefix(f"sk_{mode}_")) <= set(BASE_62)


@given(api_keys, st.data())
def test_a_key_with_one_wrong_character_is_none(key: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(key) - 1))
    other = data.draw(st.sampled_from(BASE_62 + "_ é").filter(lambda character: character != key[place]))
    assert ids.api_key_mode(key[:place] + other + key[place + 1 :]) is None


@given(api_keys, st.text(min_size=1, max_size=3))
def test_a_key_with_something_before_or_after_it_is_none(key: str, more: str) -> None:
    assert ids.api_key_mode(key + more) is None
    assert ids.api_key_mode(more + key) is None


@pytest.mark.parametrize("length", [0, 29, 31])
def test_a_key_of_another_length_is_none_even_with_a_right_checksum(length: int) -> None:
    body = "sk_live_" + "0" * length
    assert ids.api_key_mode(body + ids._checksum(body)) is None


def test_a_key_that_was_given_out_once_stays_well_formed() -> None:
    assert ids.api_key_mode("sk_test_" + "0123456789abcdefghijKLMNOPQRST" + "0yagwH") == "test"


@given(api_keys)
def test_a_key_does_not_change_its_mode_by_a_change_of_its_name(key: str) -> None:
    other = key.replace("sk_live_", "sk_test_") if "live" in key[:8] else key.replace("sk_test_", "sk_live_")
    assert ids.api_key_mode(other) is None


@given(anything)
def test_any_text_is_a_key_or_none(text: str) -> None:
    assert ids.api_key_mode(text) is None
    assert ids.api_key_mode(f"sk_live_{text}") is None


def test_every_digit_of_a_key_is_used() -> None:
    assert set("".join(ids.new_api_key("live", seeded(seed))[8:] for seed in range(200))) == set(BASE_62)


def test_the_digest_is_sha_256() -> None:
    # The example of FIPS 180-2, appendix B.1.
    assert ids.api_key_digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@given(anything)
def test_every_text_has_a_digest(text: str) -> None:
    assert len(ids.api_key_digest(text)) == hashlib.sha256().digest_size * 2


def test_the_kinds_are_frozen() -> None:
    kinds = "acct aud crs crt enr evt fam key pay pm req tok usr whk"
    assert sorted(ids.PREFIXES) == kinds.split()


def test_the_same_chance_makes_the_same_id_in_every_version() -> None:
    """What a simulated world of a seed is made of would else be another one."""
    assert ids.new_id("crs", seeded(1)) == "crs_txty2g317yp0"
    assert re.fullmatch("crt_[0-9a-z]{20}", ids.new_id("crt", seeded(1)))


def test_an_id_is_drawn_at_once_and_again_only_for_what_was_rejected() -> None:
    sizes: list[int] = []

    def draw(size: int) -> bytes:
        sizes.append(size)
        return b"\xff" * size if len(sizes) == 1 else b"\0" * size

    assert ids.new_id("crs", draw) == "crs_000000000000"
    assert len(sizes) == 2


def test_ids_that_are_drawn_together_are_like_any_other() -> None:
    drawn: list[bytes] = []
    chance = seeded(1)

    def draw(size: int) -> bytes:
        drawn.append(chance(size))
        return drawn[-1]

    made = list(itertools.islice(ids.new_ids("enr", draw), 500))
    assert all(re.fullmatch("enr_[0-9a-z]{12}", one) for one in made)
    assert len(set(made)) == 500
    assert len(drawn) < 50, "that would be no quicker than one by one"
