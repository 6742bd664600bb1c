"""The rules of getting into a course: each by itself, and what a refusal tells about when it would pass."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_core.admission import (
    admitted,
    check_licenses,
    check_prerequisites,
    check_published,
    check_seats,
    check_window,
    payable,
)
from learnflow_core.enrollment import Payable
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.instants import instant
from learnflow_core.model import DAY, SECOND, Course, CourseStatus, Instant, Plan
from learnflow_core.money import Money
from learnflow_core.ports import Context
from storage_backends.conformance.samples import account, user

STARTED: Instant = 1_705_311_000 * SECOND

seconds = st.integers(STARTED // SECOND, STARTED // SECOND + 86_400).map(lambda at: at * SECOND)
instants = st.integers(STARTED, STARTED + DAY)


def course(
    *,
    status: CourseStatus = "published",
    price: int = 4_999,
    seats: int | None = None,
    prerequisites: tuple[str, ...] = (),
    enrolls_from: Instant | None = None,
    enrolls_until: Instant | None = None,
    access_days: int | None = None,
) -> Course:
    return Course(
        id="crs_1",
        account_id="acct_1",
        created_by=None,
        title="Rust",
        instructor="Ann",
        category="development",
        level="all",
        price=Money(price, "USD"),
        rating=None,
        total_students=0,
        students_base=0,
        description="",
        language="en",
        curriculum=(),
        status=status,
        seats=seats,
        prerequisites=prerequisites,
        external_id=None,
        created_at=STARTED,
        updated_at=STARTED,
        enrolls_from=enrolls_from,
        enrolls_until=enrolls_until,
        access_days=access_days,
    )


def told(refusal: LearnFlowError | None) -> tuple[Code, dict[str, object]]:
    assert refusal is not None
    assert refusal.details is not None
    return refusal.code, refusal.details


def test_a_published_course_is_open() -> None:
    assert check_published(course(status="published")) is None


@pytest.mark.parametrize("status", ["draft", "archived"])
def test_a_course_that_is_not_published_is_not_available(status: CourseStatus) -> None:
    facts = {"rule": "published", "status": status, "passes_from": None}
    assert told(check_published(course(status=status))) == (Code.COURSE_NOT_AVAILABLE, facts)


@given(st.lists(st.sampled_from("abcdef"), unique=True), st.sets(st.sampled_from("abcdefgh")))
def test_every_prerequisite_that_is_not_completed_is_named_in_the_order_of_the_course(
    needed: list[str], completed: set[str]
) -> None:
    refusal = check_prerequisites(course(prerequisites=tuple(needed)), completed)
    missing = [course_id for course_id in needed if course_id not in completed]
    facts = {"rule": "prerequisites", "missing": missing, "passes_from": None}
    assert told(refusal) == (Code.PREREQUISITE_NOT_MET, facts) if missing else refusal is None


@given(st.none() | seconds, st.none() | seconds, instants)
def test_the_window_is_open_from_its_first_instant_on_and_at_its_last_no_more(
    opens: Instant | None, closes: Instant | None, now: Instant
) -> None:
    refusal = check_window(course(enrolls_from=opens, enrolls_until=closes), now)
    has_begun, has_ended = opens is None or opens <= now, closes is not None and closes <= now
    assert (refusal is None) == (has_begun and not has_ended)


@given(seconds, instants)
def test_who_comes_too_early_is_told_the_very_second_from_which_it_passes(opens: Instant, now: Instant) -> None:
    early = course(enrolls_from=opens)
    refusal = check_window(early, now)
    if refusal is not None:
        code, facts = told(refusal)
        assert (code, facts["rule"]) == (Code.ENROLLMENT_CLOSED, "window")
        passes_from = instant(str(facts["passes_from"]), param="")
        assert check_window(early, passes_from) is None
        assert check_window(early, passes_from - 1) is not None


def test_who_comes_too_late_is_told_since_when_and_that_it_never_passes_again() -> None:
    facts = {"rule": "window", "closed_at": "2024-01-15T09:30:00Z", "passes_from": None}
    assert told(check_window(course(enrolls_until=STARTED), STARTED)) == (Code.ENROLLMENT_CLOSED, facts)


def test_a_course_of_no_seats_is_closed_and_one_whose_seats_are_taken_is_full() -> None:
    assert told(check_seats(course(seats=0), 0))[0] is Code.ENROLLMENT_CLOSED
    assert told(check_seats(course(seats=1), 1)) == (
        Code.COURSE_FULL,
        {"rule": "seats", "seats": 1, "passes_from": None},
    )
    assert check_seats(course(seats=2), 1) is None
    assert check_seats(course(seats=None), 10**9) is None


def test_licences_are_free_up_to_the_number_agreed_and_without_one_always() -> None:
    assert check_licenses(account(licenses=2), 1) is None
    assert told(check_licenses(account(licenses=2), 2))[0] is Code.LICENSE_EXHAUSTED
    assert told(check_licenses(account(licenses=0), 0))[0] is Code.LICENSE_EXHAUSTED
    assert check_licenses(account(), 10**9) is None


@pytest.mark.parametrize(
    ("price", "plan", "way"),
    [
        (0, "starter", "free"),
        (0, "professional", "free"),
        (0, "enterprise", "free"),
        (1, "starter", "charge"),
        (1, "professional", "charge"),
        (1, "enterprise", "license"),
    ],
)
def test_a_free_course_costs_nobody_anything_and_an_enterprise_a_licence(price: int, plan: Plan, way: str) -> None:
    assert payable(course(price=price), plan) == way


@pytest.mark.parametrize(("way", "status"), [("free", "active"), ("license", "active"), ("charge", "pending")])
@pytest.mark.parametrize("days", [None, 1, 36_500])
def test_who_is_admitted_is_pending_only_while_money_is_owed_and_stays_as_long_as_was_agreed(
    way: Payable, status: str, days: int | None
) -> None:
    made = admitted(user(), course(access_days=days), way, Context(STARTED, os.urandom))
    assert (made.status, made.progress, made.licensed) == (status, 0, way == "license")
    assert made.expires_at == (None if days is None else STARTED + days * DAY)
