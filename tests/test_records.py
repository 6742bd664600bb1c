"""The core's records cannot be changed once they are made, and commands take what they know, within its bounds."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator
from inspect import getmembers, isclass
from typing import Any

import msgspec
import pytest

import learnflow_core
from learnflow_core import fields
from learnflow_core.fields import Price
from learnflow_core.model import Lesson, Section
from learnflow_core.usecases.api_keys import KeyRotation
from learnflow_core.usecases.courses import Curriculum, Prerequisites
from learnflow_core.usecases.enrollments import NewEnrollment, NewEnrollments
from learnflow_http.operations import OPERATIONS


def classes() -> Iterator[type]:
    """Every class that a module of the core defines."""
    for found in pkgutil.walk_packages(learnflow_core.__path__, "learnflow_core."):
        module = importlib.import_module(found.name)
        yield from (cls for _, cls in getmembers(module, isclass) if cls.__module__ == found.name)


CLASSES = list(classes())
STRUCTS: list[Any] = [cls for cls in CLASSES if issubclass(cls, msgspec.Struct)]
PARTS: list[Any] = [Price, Lesson, Section, NewEnrollment]
COMMANDS: list[Any] = [operation.body for operation in OPERATIONS if operation.body is not None]


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_a_record_is_frozen(struct: Any) -> None:
    assert struct.__struct_config__.frozen


@pytest.mark.parametrize(
    "record", [cls for cls in CLASSES if dataclasses.is_dataclass(cls)], ids=lambda record: record.__name__
)
def test_a_value_is_frozen_and_has_no_room_for_more(record: Any) -> None:
    assert record.__dataclass_params__.frozen
    assert "__slots__" in record.__dict__


@pytest.mark.parametrize("struct", [*dict.fromkeys([*COMMANDS, *PARTS])], ids=lambda struct: struct.__name__)
def test_a_command_refuses_what_it_does_not_know(struct: Any) -> None:
    assert struct.__struct_config__.forbid_unknown_fields


def takes(kind: Any, value: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [
        (fields.Seats, 0, 1_000_000_000),
        (fields.Seconds, 0, 864_000),
        (fields.Days, 1, 36_500),
        (fields.Percent, 0, 100),
    ],
)
def test_a_number_is_taken_from_its_least_to_its_most(kind: Any, least: int, most: int) -> None:
    assert [takes(kind, value) for value in (least - 1, least, most, most + 1)] == [False, True, True, False]


def test_an_overlap_of_keys_is_at_most_a_week_and_an_hour_unless_it_is_said() -> None:
    assert [takes(KeyRotation, {"overlap_seconds": value}) for value in (-1, 0, 604_800, 604_801)] == [
        *(False, True, True, False),
    ]
    assert KeyRotation().overlap_seconds == 3_600


LESSON = {"title": "x", "seconds": 1}
SECTION = {"title": "x", "lessons": []}
ENROLLMENT = {"user_id": "usr_1", "course_id": "crs_1"}


@pytest.mark.parametrize(
    ("kind", "wrapped", "item", "least", "most"),
    [
        (Section, {"title": "x", "lessons": None}, LESSON, 0, 500),
        (Curriculum, None, SECTION, 0, 200),
        (Prerequisites, None, "crs_1", 0, 20),
        (NewEnrollments, {"enrollments": None}, ENROLLMENT, 1, 100),
    ],
)
def test_a_list_is_taken_from_its_shortest_to_its_longest(
    kind: Any, wrapped: dict[str, Any] | None, item: Any, least: int, most: int
) -> None:
    def with_items(count: int) -> Any:
        return [item] * count if wrapped is None else {name: value or [item] * count for name, value in wrapped.items()}

    assert [takes(kind, with_items(count)) for count in (least, most, most + 1)] == [True, True, False]
    assert least == 0 or not takes(kind, with_items(least - 1))
