"""Instants as clients see and write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.instants import instant, timestamp
from learnflow_core.model import SECOND

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
END = (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)

instants = st.integers(0, END)
offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def test_the_published_instant_is_shown_as_published() -> None:
    assert timestamp(1_705_311_000 * SECOND) == "2024-01-15T09:30:00Z"


@given(instants)
def test_an_instant_is_shown_in_whole_seconds_of_utc_and_read_back(at: int) -> None:
    shown = timestamp(at)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", shown)
    assert instant(shown, param="at") == at - at % SECOND


@given(st.datetimes(datetime(1970, 1, 3), datetime(9999, 12, 29), timezones=offsets))  # noqa: DTZ001 - timezones says it
def test_an_instant_may_be_written_with_any_offset_and_to_the_microsecond(at: datetime) -> None:
    assert instant(at.isoformat(), param="at") == (at - EPOCH) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    "text",
    ["", "now", "2024-01-15", "2024-01-15T09:30:00", "2024-02-30T00:00:00Z", "1705311000", "2024-01-15T25:00:00Z"],
)
def test_what_names_no_instant_is_refused_by_its_parameter(text: str) -> None:
    with pytest.raises(LearnFlowError) as caught:
        instant(text, param="expires_at")
    assert (caught.value.code, caught.value.param) == (Code.INVALID_PARAMETER, "expires_at")
