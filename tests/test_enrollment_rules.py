"""The rules of enrolling: the state machine whole, whatever happens in whatever order, and each rule beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from learnflow_core.enrollment import (
    REFUND_WINDOW,
    TRANSITIONS,
    Event,
    check_open,
    check_prerequisites,
    left,
    no_seat,
    payable,
    progressed,
    step,
)
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import (
    DAY,
    LIVE_STATUSES,
    SECOND,
    Course,
    CourseStatus,
    Enrollment,
    EnrollmentStatus,
    Instant,
    Plan,
)
from learnflow_core.money import Money

STATUSES: tuple[EnrollmentStatus, ...] = get_args(EnrollmentStatus)
EVENTS: tuple[Event, ...] = get_args(Event)
STARTED: Instant = 1_705_311_000 * SECOND

instants = st.integers(STARTED, STARTED + 400 * DAY)
statuses = st.sampled_from(STATUSES)
events = st.sampled_from(EVENTS)
payments = st.sampled_from([None, "pay_1"])


def enrollment(
    status: EnrollmentStatus = "active", *, payment_id: str | None = None, progress: int | None = None
) -> Enrollment:
    completed = status == "completed"
    return Enrollment(
        id="enr_1",
        account_id="acct_1",
        mode="live",
        user_id="usr_1",
        course_id="crs_1",
        status=status,
        progress=100 if completed else progress or 0,
        licensed=False,
        payment_id=payment_id,
        certificate_id="crt_1" if completed else None,
        enrolled_at=STARTED,
        updated_at=STARTED,
        completed_at=STARTED if completed else None,
        expires_at=None,
    )


def course(
    *,
    status: CourseStatus = "published",
    price: int = 4_999,
    seats: int | None = None,
    prerequisites: tuple[str, ...] = (),
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
    )


class Lives(RuleBasedStateMachine):
    """One enrolment through any sequence of what can happen to it, by the functions that use cases call."""

    @initialize(payment_id=payments)
    def enrol(self, payment_id: str | None) -> None:
        self.now = STARTED
        self.first = enrollment("pending" if payment_id else "active", payment_id=payment_id)
        self.enrollment = self.first
        self.completed_once = False

    def happen(self, after: Enrollment | None) -> None:
        """Check a step against the table, and take it; None stands for a refusal."""
        before = self.enrollment
        if after is None or after == before:
            return
        moved = (before.status, after.status)
        allowed = {(status, target) for (status, _), target in TRANSITIONS.items()}
        assert moved in allowed or moved == ("active", "active")
        assert after.updated_at == self.now
        self.enrollment = after
        self.completed_once |= after.status == "completed"

    @rule(microseconds=st.integers(0, 20 * DAY))
    def time_passes(self, microseconds: int) -> None:
        self.now += microseconds

    @rule(event=st.sampled_from(["pay", "decline", "expire"]))
    def an_event_comes(self, event: Event) -> None:
        self.happen(attempt(lambda: step(self.enrollment, event, self.now)))

    @rule(progress=st.integers(0, 100) | st.just(100))
    def the_instructor_sets_progress(self, progress: int) -> None:
        self.happen(attempt(lambda: progressed(self.enrollment, progress, self.now)))

    @rule()
    def the_user_leaves(self) -> None:
        self.happen(attempt(lambda: left(self.enrollment, self.now, REFUND_WINDOW)))

    @invariant()
    def what_was_agreed_at_the_beginning_never_changes(self) -> None:
        fixed = ("id", "account_id", "mode", "user_id", "course_id", "licensed", "payment_id", "enrolled_at")
        assert all(getattr(self.enrollment, name) == getattr(self.first, name) for name in fixed)

    @invariant()
    def completed_is_progress_100_with_its_instant_and_for_ever(self) -> None:
        assert (self.enrollment.status == "completed") == self.completed_once
        assert (self.enrollment.progress == 100) == self.completed_once
        assert (self.enrollment.completed_at is not None) == self.completed_once

    @invariant()
    def only_what_was_paid_is_refunded_and_only_what_was_not_is_cancelled_by_its_user(self) -> None:
        if self.enrollment.status == "refunded":
            assert self.enrollment.payment_id is not None
            assert self.enrollment.updated_at - self.enrollment.enrolled_at <= REFUND_WINDOW


test_whatever_happens_only_the_listed_transitions_do_and_completed_never_goes_back = Lives.TestCase


def attempt(change: Callable[[], Enrollment]) -> Enrollment | None:
    """What the change makes of the enrolment; None where one of the two reasons there are speaks against it."""
    try:
        return change()
    except LearnFlowError as error:
        if error.code not in {Code.ENROLLMENT_NOT_ACTIVE, Code.REFUND_WINDOW_CLOSED}:
            raise
        return None


def refusal(change: Callable[[], object]) -> LearnFlowError:
    with pytest.raises(LearnFlowError) as caught:
        change()
    return caught.value


@given(statuses, events, instants)
def test_a_step_is_what_the_table_says_or_a_refusal_that_names_the_status(
    status: EnrollmentStatus, event: Event, now: Instant
) -> None:
    before = enrollment(status)
    target = TRANSITIONS.get((status, event))
    if target is None:
        refused = refusal(lambda: step(before, event, now))
        assert (refused.code, refused.details) == (Code.ENROLLMENT_NOT_ACTIVE, {"status": status})
    else:
        assert step(before, event, now) == msgspec.structs.replace(before, status=target, updated_at=now)


def test_pending_and_active_are_the_only_statuses_that_anything_leads_out_of() -> None:
    assert {status for status, _ in TRANSITIONS} == {"pending", "active"}


def test_a_seat_is_given_back_by_every_transition_but_paying_and_completing() -> None:
    keeps = {event for (_, event), status in TRANSITIONS.items() if status in LIVE_STATUSES}
    assert keeps == {"pay", "complete"}


@given(statuses, st.integers(0, 100), st.integers(0, 99), instants)
def test_setting_the_same_progress_again_changes_nothing_but_the_instant(
    status: EnrollmentStatus, progress: int, earlier: int, now: Instant
) -> None:
    first = attempt(lambda: progressed(enrollment(status, progress=earlier), progress, now))
    if first is not None:
        again = progressed(first, progress, now + SECOND)
        assert msgspec.structs.replace(again, updated_at=first.updated_at) == first


@given(st.integers(0, 99), instants)
def test_a_completed_enrolment_takes_100_again_and_no_other_progress(progress: int, now: Instant) -> None:
    completed = enrollment("completed")
    assert progressed(completed, 100, now) is completed
    assert refusal(lambda: progressed(completed, progress, now)).code is Code.ENROLLMENT_NOT_ACTIVE


@pytest.mark.parametrize("status", ["pending", "cancelled", "refunded", "expired"])
@pytest.mark.parametrize("progress", [0, 50, 100])
def test_nothing_but_an_active_enrolment_progresses(status: EnrollmentStatus, progress: int) -> None:
    refused = refusal(lambda: progressed(enrollment(status), progress, STARTED))
    assert (refused.code, refused.details) == (Code.ENROLLMENT_NOT_ACTIVE, {"status": status})


@given(statuses, payments, st.integers(0, REFUND_WINDOW), st.integers(0, 400 * DAY))
def test_leaving_twice_is_leaving_once_however_late_the_second_time(
    status: EnrollmentStatus, payment_id: str | None, waited: Instant, later: Instant
) -> None:
    now = STARTED + waited
    once = attempt(lambda: left(enrollment(status, payment_id=payment_id), now, REFUND_WINDOW))
    if once is not None:
        assert left(once, now + later, REFUND_WINDOW) is once


@given(st.sampled_from([0, 1, SECOND, REFUND_WINDOW]) | st.integers(0, 400 * DAY))
def test_money_comes_back_up_to_the_last_microsecond_of_the_window_and_not_one_later(window: Instant) -> None:
    paid = enrollment(payment_id="pay_1")
    assert left(paid, STARTED + window, window).status == "refunded"
    refused = refusal(lambda: left(paid, STARTED + window + 1, window))
    assert refused.code is Code.REFUND_WINDOW_CLOSED


@given(instants, st.integers(0, DAY))
def test_what_cost_nothing_can_be_left_at_any_time_and_is_cancelled(now: Instant, window: Instant) -> None:
    assert left(enrollment(), now, window).status == "cancelled"


@pytest.mark.parametrize("status", ["pending", "completed", "expired"])
@pytest.mark.parametrize("payment_id", [None, "pay_1"])
@pytest.mark.parametrize("late", [0, 1])
def test_what_is_not_active_cannot_be_left_and_says_so_whatever_the_window(
    status: EnrollmentStatus, payment_id: str | None, late: int
) -> None:
    refused = refusal(lambda: left(enrollment(status, payment_id=payment_id), STARTED + late, 0))
    assert (refused.code, refused.details) == (Code.ENROLLMENT_NOT_ACTIVE, {"status": status})


def test_a_published_course_is_open() -> None:
    check_open(course(status="published"))


@pytest.mark.parametrize("status", ["draft", "archived"])
def test_a_course_that_is_not_published_is_not_available(status: CourseStatus) -> None:
    refused = refusal(lambda: check_open(course(status=status)))
    assert (refused.code, refused.details) == (Code.COURSE_NOT_AVAILABLE, {"status": status})


@given(st.lists(st.sampled_from("abcdef"), unique=True), st.sets(st.sampled_from("abcdefgh")))
def test_every_prerequisite_that_is_not_completed_is_named_in_the_order_of_the_course(
    needed: list[str], completed: set[str]
) -> None:
    wanting = course(prerequisites=tuple(needed))
    missing = [course_id for course_id in needed if course_id not in completed]
    if missing:
        refused = refusal(lambda: check_prerequisites(wanting, completed))
        assert (refused.code, refused.details) == (Code.PREREQUISITE_NOT_MET, {"missing": missing})
    else:
        check_prerequisites(wanting, completed)


def test_a_course_of_no_seats_is_closed_and_one_whose_seats_are_taken_is_full() -> None:
    assert no_seat(course(seats=0)).code is Code.ENROLLMENT_CLOSED
    assert no_seat(course(seats=1)).code is Code.COURSE_FULL


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
