"""Reading what clients send: what a wrong body costs, and how much of it is sent back."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any, Literal

import msgspec
import pytest

from learnflow_core.errors import Code, LearnFlowError
from learnflow_http.parsing import parse_body, parse_query

WIDTH = 20
LONG = "x" * 1_000_000


class Leaf(msgspec.Struct, forbid_unknown_fields=True):
    number: int


class Branch(msgspec.Struct, forbid_unknown_fields=True):
    leaves: tuple[Leaf, ...]


class Tree(msgspec.Struct, forbid_unknown_fields=True):
    branches: tuple[Branch, ...]
    kind: Literal["oak", "elm"] = "oak"


def tree_whose_last_leaf_is(last: object) -> bytes:
    whole: list[object] = [{"number": 1}] * WIDTH
    branches = [{"leaves": whole}] * (WIDTH - 1) + [{"leaves": [*whole[1:], {"number": last}]}]
    return msgspec.json.encode({"branches": branches})


def refused(raw: bytes) -> LearnFlowError:
    with pytest.raises(LearnFlowError) as refusal:
        parse_body(raw, Tree)
    return refusal.value


def decoded(raw: bytes) -> tuple[LearnFlowError, int]:
    """How a body was refused, and how often something was decoded for it."""
    calls: list[str] = []

    def note(_frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call" and function.__name__.endswith("decode"):
            calls.append(event)

    sys.setprofile(note)
    try:
        error = refused(raw)
    finally:
        sys.setprofile(None)
    return error, len(calls)


def test_to_find_what_is_wrong_only_the_items_beside_what_is_wrong_are_read_one_by_one() -> None:
    error, decodes = decoded(tree_whose_last_leaf_is("one"))
    assert error.param == f"branches.{WIDTH - 1}.leaves.{WIDTH - 1}.number"
    branches, leaves = WIDTH, WIDTH
    assert branches + leaves < decodes < branches + leaves + 20, f"of {WIDTH * WIDTH} leaves"


def test_what_fits_is_not_looked_into_when_something_else_is_wrong() -> None:
    error, decodes = decoded(tree_whose_last_leaf_is(1)[:-1] + b',"kind":"ash"}')
    assert error.param == "kind"
    assert decodes < 10


@pytest.mark.parametrize(
    ("part", "param"), [({LONG: 1}, "x" * 100), ({"branches": [{LONG: 1}]}, "branches.0." + "x" * 100)]
)
def test_of_an_unknown_fields_name_a_hundred_characters_are_sent_back(part: object, param: str) -> None:
    error = refused(msgspec.json.encode(part))
    assert (error.code, error.param) == (Code.UNKNOWN_PARAMETER, param)
    assert error.message == f"There is no field {param}."


def test_a_value_is_not_sent_back_whole_either() -> None:
    error = refused(msgspec.json.encode({"branches": [], "kind": LONG}))
    assert error.param == "kind"
    assert "Invalid enum value 'xxx" in error.message
    assert len(error.message) < 300


def test_what_is_not_of_a_closed_list_is_told_the_list() -> None:
    assert refused(b'{"branches": [], "kind": "ash"}').message.endswith(" It is one of: oak, elm.")


def test_a_name_given_twice_is_told_where_the_body_is_refused_for_it() -> None:
    assert "more than once" in refused(b'{"branches": [], "kind": "ash", "kind": "oak"}').message


def test_of_a_repeated_query_parameters_name_a_hundred_characters_are_sent_back() -> None:
    with pytest.raises(LearnFlowError) as refusal:
        parse_query([(LONG, "1"), (LONG, "2")], None)
    assert refusal.value.param == "x" * 100
    assert refusal.value.message == "x" * 100 + " is given more than once."
