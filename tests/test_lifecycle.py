"""The picture and the table of an enrolment's life are those of the state machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import pytest

from learnflow_core.enrollment import TRANSITIONS, Event
from learnflow_core.model import EnrollmentStatus
from learnflow_http import lifecycle

DOCS = Path(__file__).parent.parent / "docs"


def test_the_picture_is_the_one_that_the_program_draws() -> None:
    assert (DOCS / "enrolling.svg").read_text("utf-8") == lifecycle.svg()


def test_the_table_is_the_one_of_the_code() -> None:
    document = (DOCS / "enrolling.md").read_text("utf-8")
    shown = re.search(r"<!-- transitions -->\n(.*)<!-- /transitions -->", document, re.DOTALL)
    assert shown is not None
    assert shown[1].strip() == lifecycle.table().strip()


def test_every_status_and_every_event_is_in_the_picture_and_explained() -> None:
    words = [text.strip() for text in ElementTree.fromstring(lifecycle.svg()).itertext()]  # noqa: S314 - our own
    for name in (*get_args(EnrollmentStatus), *get_args(Event)):
        assert name in words
    assert lifecycle.MEANINGS.keys() == set(get_args(Event))


def test_another_machine_makes_another_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    before = lifecycle.svg(), lifecycle.table()
    monkeypatch.setitem(TRANSITIONS, ("expired", "refund"), "refunded")
    assert lifecycle.svg() != before[0]
    assert lifecycle.table() != before[1]
