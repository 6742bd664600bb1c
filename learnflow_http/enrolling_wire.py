"""What clients see of enrolling beside the enrolment: what a rehearsal foretells, and what each of many came to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from learnflow_core.admission import Rule, Verdict
from learnflow_core.errors import LearnFlowError
from learnflow_core.fields import Price
from learnflow_core.usecases import rehearsal as usecase
from learnflow_core.usecases.enrollments import Enrolled
from learnflow_core.usecases.rehearsal import Outcome
from learnflow_http import wire
from learnflow_http.errors import STATUS


class ItemError(msgspec.Struct, frozen=True):
    """Why one item of many was refused: as the error of a reply, without a request of its own to name. `param` names a
    field of the item."""

    code: str
    message: str
    param: str | UnsetType = UNSET
    details: dict[str, Any] | UnsetType = UNSET


class EnrollmentResult(msgspec.Struct, frozen=True):
    """What one item came to: the `status` and either the `enrollment` or the `error` that a request for it alone would
    have been answered with."""

    status: int
    enrollment: wire.Enrollment | UnsetType = UNSET
    error: ItemError | UnsetType = UNSET


class EnrollmentResults(msgspec.Struct, frozen=True):
    """What each item came to, in their order."""

    results: tuple[EnrollmentResult, ...]


class RuleVerdict(msgspec.Struct, frozen=True):
    """What one rule of enrolling says: it passes, or with which error it would refuse."""

    rule: Rule
    passes: bool
    code: str | None
    message: str | None
    details: dict[str, Any] | None


class Rehearsal(msgspec.Struct, frozen=True):
    """What enrolling would come to, as far as can be told without asking the payment service.

    `charge` is what would be charged (null: nothing), and `licensed` whether a licence of the account would stand in
    for it. `enrollment_id` names the enrolment there is already. `seats_left` null: no limit; `expires_at` null: never.
    `rules` are those that would be asked, in their order; the first that does not pass is the error that would come.
    """

    user_id: str
    course_id: str
    course_version: int
    outcome: Outcome
    enrollment_id: str | None
    price: Price
    charge: Price | None
    licensed: bool
    seats_left: int | None
    expires_at: str | None
    rules: tuple[RuleVerdict, ...]


def enrollment_results(found: Sequence[Enrolled | LearnFlowError]) -> EnrollmentResults:
    """What each item of many came to."""
    return EnrollmentResults(tuple(map(_enrollment_result, found)))


def _enrollment_result(result: Enrolled | LearnFlowError) -> EnrollmentResult:
    if isinstance(result, LearnFlowError):
        error = ItemError(
            result.code.value,
            result.message,
            UNSET if result.param is None else result.param,
            UNSET if result.details is None else result.details,
        )
        return EnrollmentResult(STATUS[result.code], error=error)
    return EnrollmentResult(201 if result.created else 200, wire.enrollment(result.enrollment))


def rehearsal(found: usecase.Rehearsal) -> Rehearsal:
    """What enrolling would come to."""
    is_new = found.existing is None
    price = Price.of(found.course.price)
    return Rehearsal(
        user_id=found.user.id,
        course_id=found.course.id,
        course_version=found.course.version,
        outcome=found.outcome,
        enrollment_id=None if found.existing is None else found.existing.id,
        price=price,
        charge=price if is_new and found.way == "charge" else None,
        licensed=found.way == "license" if found.existing is None else found.existing.licensed,
        seats_left=found.seats_left,
        expires_at=wire.maybe_timestamp(found.expires_at),
        rules=tuple(map(_verdict, found.verdicts)),
    )


def _verdict(verdict: Verdict) -> RuleVerdict:
    refusal = verdict.refusal
    if refusal is None:
        return RuleVerdict(verdict.rule, True, None, None, None)
    return RuleVerdict(verdict.rule, False, refusal.code.value, refusal.message, refusal.details)
