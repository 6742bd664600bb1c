"""The rules of enrolling: the state machine whole, whatever happens in whatever order, and each rule beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from learnflow_core.enrollment import (
    BEGINNINGS,
    PAYMENTS,
    REFUND_WINDOW,
    TRANSITIONS,
    Event,
    abandoned,
    as_of,
    back_off,
    is_overdue,
    left,
    paid,
    progressed,
    step,
)
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import (
    DAY,
    LIVE_STATUSES,
    SECOND,
    Enrollment,
    EnrollmentStatus,
    Instant,
    PaymentStatus,
)

STATUSES: tuple[EnrollmentStatus, ...] = get_args(EnrollmentStatus)
EVENTS: tuple[Event, ...] = get_args(Event)
STARTED: Instant = 1_705_311_000 * SECOND

instants = st.integers(STARTED, STARTED + 400 * DAY)
statuses = st.sampled_from(STATUSES)
events = st.sampled_from(EVENTS)
payments = st.sampled_from([None, "pay_1"])


def enrollment(
    status: EnrollmentStatus = "active",
    *,
    payment_id: str | None = None,
    progress: int | None = None,
    expires_at: Instant | None = None,
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
        expires_at=expires_at,
    )


class Lives(RuleBasedStateMachine):
    """One enrolment through any sequence of what can happen to it, by the functions that use cases call.

    `payment` is how far its payment has come, moved as the use cases move it.
    """

    @initialize(payment_id=payments, lasts=st.none() | st.integers(1, 40 * DAY))
    def enrol(self, payment_id: str | None, lasts: Instant | None) -> None:
        self.now = STARTED
        expires_at = None if lasts is None else STARTED + lasts
        status = BEGINNINGS["charge" if payment_id else "free"]
        self.first = enrollment(status, payment_id=payment_id, expires_at=expires_at)
        self.enrollment = self.first
        self.payment: PaymentStatus | None = "charging" if payment_id else None
        self.paid_at: Instant | None = None
        self.completed_once = False

    def happen(self, after: Enrollment | None) -> bool:
        """Check a step against the table, and take it; None stands for a refusal. Whether it changed the status."""
        before = self.enrollment
        if after is None or after == before:
            return False
        moved = (before.status, after.status)
        allowed = {(status, target) for (status, _), target in TRANSITIONS.items()}
        assert moved in allowed or moved == ("active", "active")
        assert after.updated_at == self.now
        self.enrollment = after
        self.completed_once |= after.status == "completed"
        return before.status != after.status

    @rule(microseconds=st.integers(0, 20 * DAY))
    def time_passes(self, microseconds: int) -> None:
        self.now += microseconds

    @precondition(lambda self: self.payment in ("charging", "reversing"))
    @rule(is_paid=st.booleans())
    def the_payment_service_answers(self, is_paid: bool) -> None:
        if not is_paid:
            assert self.happen(step(self.enrollment, "decline", self.now))
            self.payment = "declined"
        elif self.payment == "reversing":
            assert self.happen(step(self.enrollment, "reverse", self.now))
            self.payment = "refunding"
        else:
            assert self.happen(paid(self.enrollment, self.now))
            self.payment, self.paid_at = "charged", self.now

    @rule()
    def the_sweep_comes(self) -> None:
        if is_overdue(self.enrollment, self.now):
            assert self.happen(step(self.enrollment, "expire", self.now))

    @rule(progress=st.integers(0, 100) | st.just(100))
    def the_instructor_sets_progress(self, progress: int) -> None:
        self.happen(attempt(lambda: progressed(self.enrollment, progress, self.now)))

    @rule()
    def the_user_leaves(self) -> None:
        if self.happen(attempt(lambda: left(self.enrollment, self.now, REFUND_WINDOW))):
            self._give_back()
        elif self.enrollment.status == "pending":
            self.payment = "reversing"

    @rule()
    def the_user_is_deleted(self) -> None:
        if self.happen(abandoned(self.enrollment, self.now, REFUND_WINDOW)):
            self._give_back()
        elif self.enrollment.status == "pending":
            self.payment = "reversing"
        else:
            assert self.enrollment.status not in ("pending", "active")

    def _give_back(self) -> None:
        if self.enrollment.status == "refunded":
            assert self.payment == "charged"
            self.payment = "refunding"

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
    def the_payment_is_as_far_as_the_status_says(self) -> None:
        if self.payment is not None:
            assert self.payment in PAYMENTS[self.enrollment.status]

    @invariant()
    def only_what_was_paid_is_refunded(self) -> None:
        if self.enrollment.status == "refunded":
            assert self.enrollment.payment_id is not None

    @invariant()
    def access_lasts_as_long_as_was_agreed_from_the_instant_it_began(self) -> None:
        if self.first.expires_at is not None and self.enrollment.status != "pending":
            began = self.paid_at or self.first.enrolled_at
            assert self.enrollment.expires_at == self.first.expires_at + began - self.first.enrolled_at

    @invariant()
    def what_is_seen_is_expired_from_the_agreed_instant_on(self) -> None:
        seen, end = as_of(self.enrollment, self.now), self.enrollment.expires_at
        if self.enrollment.status == "active":
            assert (seen.status == "expired") == (end is not None and end <= self.now)
            assert as_of(seen, self.now) is seen
        else:
            assert seen is self.enrollment


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


def told(refused: LearnFlowError) -> tuple[Code, str]:
    assert refused.details is not None
    assert (refused.details["rule"], refused.details["passes_from"]) == ("status", None)
    return refused.code, refused.details["status"]


@given(statuses, events, instants)
def test_a_step_is_what_the_table_says_or_a_refusal_that_names_the_status(
    status: EnrollmentStatus, event: Event, now: Instant
) -> None:
    before = enrollment(status)
    target = TRANSITIONS.get((status, event))
    if target is None:
        refused = refusal(lambda: step(before, event, now))
        assert told(refused) == (Code.ENROLLMENT_NOT_ACTIVE, status)
    else:
        assert step(before, event, now) == msgspec.structs.replace(before, status=target, updated_at=now)


def test_pending_and_active_are_the_only_statuses_that_anything_leads_out_of() -> None:
    assert {status for status, _ in TRANSITIONS} == {"pending", "active"}


def test_a_seat_is_given_back_by_every_transition_but_paying_withdrawing_and_completing() -> None:
    keeps = {event for (_, event), status in TRANSITIONS.items() if status in LIVE_STATUSES}
    assert keeps == {"pay", "withdraw", "complete"}


def test_every_event_happens_somewhere_and_every_status_is_reached() -> None:
    assert {event for _, event in TRANSITIONS} == set(EVENTS)
    assert {*TRANSITIONS.values(), *BEGINNINGS.values()} == set(STATUSES) == PAYMENTS.keys()


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
    assert told(refused) == (Code.ENROLLMENT_NOT_ACTIVE, status)


@given(statuses, payments, st.integers(0, REFUND_WINDOW), st.integers(0, 400 * DAY))
def test_leaving_twice_is_leaving_once_however_late_the_second_time(
    status: EnrollmentStatus, payment_id: str | None, waited: Instant, later: Instant
) -> None:
    now = STARTED + waited
    once = attempt(lambda: left(enrollment(status, payment_id=payment_id), now, REFUND_WINDOW))
    if once is not None:
        again = left(once, now + later, REFUND_WINDOW)
        assert again is once or (again.status, once.status) == ("pending", "pending")


@given(st.sampled_from([0, 1, SECOND, REFUND_WINDOW]) | st.integers(0, 400 * DAY))
def test_money_comes_back_up_to_the_last_microsecond_of_the_window_and_not_one_later(window: Instant) -> None:
    paid = enrollment(payment_id="pay_1")
    assert left(paid, STARTED + window, window).status == "refunded"
    refused = refusal(lambda: left(paid, STARTED + window + 1, window))
    assert refused.code is Code.REFUND_WINDOW_CLOSED


def test_who_is_too_late_for_the_money_is_told_since_when() -> None:
    refused = refusal(lambda: left(enrollment(payment_id="pay_1"), STARTED + 2 * DAY, DAY))
    assert refused.details == {"rule": "refund_window", "closed_at": "2024-01-16T09:30:00Z", "passes_from": None}


@pytest.mark.parametrize("change", [lambda it, now: progressed(it, 50, now), lambda it, now: left(it, now, DAY)])
@pytest.mark.parametrize("payment_id", [None, "pay_1"])
def test_nothing_can_be_done_with_an_enrolment_from_the_instant_on_at_which_access_is_over(
    change: Callable[[Enrollment, Instant], Enrollment], payment_id: str | None
) -> None:
    over = enrollment(payment_id=payment_id, expires_at=STARTED + SECOND)
    assert told(refusal(lambda: change(over, STARTED + SECOND))) == (Code.ENROLLMENT_NOT_ACTIVE, "expired")
    assert change(over, STARTED + SECOND - 1).status in ("active", "cancelled", "refunded")


def test_what_was_tried_in_vain_once_waits_20_seconds_and_what_was_more_often_40() -> None:
    assert [back_off(tries) // SECOND for tries in (1, 2, 3, 1_000)] == [20, 40, 40, 40]


def test_who_is_deleted_after_the_refund_window_goes_without_the_money() -> None:
    kept = enrollment(payment_id="pay_1")
    assert abandoned(kept, STARTED + DAY, DAY).status == "refunded"
    assert abandoned(kept, STARTED + DAY + 1, DAY).status == "cancelled"


@given(instants, st.integers(0, DAY))
def test_what_cost_nothing_can_be_left_at_any_time_and_is_cancelled(now: Instant, window: Instant) -> None:
    assert left(enrollment(), now, window).status == "cancelled"


@pytest.mark.parametrize("status", ["completed", "expired"])
@pytest.mark.parametrize("payment_id", [None, "pay_1"])
@pytest.mark.parametrize("late", [0, 1])
def test_what_is_not_active_cannot_be_left_and_says_so_whatever_the_window(
    status: EnrollmentStatus, payment_id: str | None, late: int
) -> None:
    refused = refusal(lambda: left(enrollment(status, payment_id=payment_id), STARTED + late, 0))
    assert told(refused) == (Code.ENROLLMENT_NOT_ACTIVE, status)
