"""Enrolling, and what becomes of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from learnflow_core.errors import Code
from learnflow_core.fields import PlainText
from learnflow_core.model import DAY, EnrollmentStatus
from learnflow_core.usecases import enrollments, rehearsal
from learnflow_core.usecases.rehearsal import Rehearsal
from learnflow_http import batch, enrolling_wire, wire
from learnflow_http.call import Call
from learnflow_http.operations.changes import Changes, updated_since
from learnflow_http.operations.row import STAFF, Operation
from learnflow_http.services import Services


class EnrollmentFilters(Changes, frozen=True):
    """Which enrolments are listed."""

    user_id: PlainText | None = None
    course_id: PlainText | None = None
    status: EnrollmentStatus | None = None


class EnrollingOptions(msgspec.Struct, frozen=True):
    """How to enrol."""

    dry_run: Annotated[
        Literal["true", "false"] | None,
        Meta(description="`true`: answer what would happen, rule by rule, and change nothing."),
    ] = None


class BatchOptions(msgspec.Struct, frozen=True):
    """What must not be taken for an unknown parameter: who means to rehearse means to pay nothing."""

    dry_run: Annotated[
        Literal["false"] | None,
        Meta(description="A batch is not rehearsed: ask for each of its enrolments with `dry_run=true`."),
    ] = None


async def _list_enrollments(tx: Any, call: Call) -> Any:
    filters: EnrollmentFilters = call.query
    return await enrollments.list_enrollments(
        tx,
        call.actor,
        call.paging,
        user_id=filters.user_id,
        course_id=filters.course_id,
        status=filters.status,
        updated_since=updated_since(call),
        now=call.ctx.now,
    )


async def _rehearse(services: Services, call: Call) -> Rehearsal:
    return await services.storage.read(
        lambda tx: rehearsal.rehearse(tx, services.gateways, call.actor, call.body, call.ctx)
    )


_REHEARSAL = Operation(
    method="POST",
    path="/v1/enrollments",
    name="rehearseEnrollment",
    summary="Tell what enrolling would come to",
    tag="Enrollments",
    kind="saga",
    run=_rehearse,
    reply=enrolling_wire.Rehearsal,
    show=enrolling_wire.rehearsal,
    has_effect=False,
)

ENROLLMENTS = (
    Operation(
        method="GET",
        path="/v1/enrollments",
        name="listEnrollments",
        summary="List enrolments",
        tag="Enrollments",
        kind="read",
        run=_list_enrollments,
        reply=wire.EnrollmentDetail,
        show=wire.enrollment_detail,
        query=EnrollmentFilters,
        paged=True,
        scope="enrollments:read",
    ),
    Operation(
        method="POST",
        path="/v1/enrollments",
        name="createEnrollment",
        summary="Enrol a user in a course, charging what is owed",
        tag="Enrollments",
        kind="saga",
        run=lambda services, call: enrollments.enroll(
            services.storage, services.gateways, call.actor, call.body, call.ctx
        ),
        reply=wire.Enrollment,
        show=lambda enrolled: wire.enrollment(enrolled.enrollment),
        status=lambda enrolled: 201 if enrolled.created else 200,
        query=EnrollingOptions,
        body=enrollments.NewEnrollment,
        rehearsal=_REHEARSAL,
        scope="enrollments:write",
        errors=(
            Code.USER_NOT_FOUND,
            Code.COURSE_NOT_FOUND,
            Code.COURSE_NOT_AVAILABLE,
            Code.PREREQUISITE_NOT_MET,
            Code.ENROLLMENT_CLOSED,
            Code.COURSE_FULL,
            Code.LICENSE_EXHAUSTED,
            Code.INVALID_PAYMENT_METHOD,
            Code.CARD_DECLINED,
            Code.INSUFFICIENT_FUNDS,
            Code.AUTHENTICATION_REQUIRED,
        ),
    ),
    Operation(
        method="POST",
        path="/v1/enrollments/batch",
        name="createEnrollments",
        summary="Enrol many at once, each for itself; every item counts as a request",
        tag="Enrollments",
        kind="saga",
        run=batch.enroll_all,
        reply=enrolling_wire.EnrollmentResults,
        show=enrolling_wire.enrollment_results,
        query=BatchOptions,
        body=enrollments.NewEnrollments,
        cost=batch.cost,
        kept=lambda shown: None if any(result.status >= 500 for result in shown.results) else shown,
        scope="enrollments:write",
    ),
    Operation(
        method="GET",
        path="/v1/enrollments/{id}",
        name="getEnrollment",
        summary="Read an enrolment",
        tag="Enrollments",
        kind="read",
        run=lambda tx, call: enrollments.read_enrollment(tx, call.actor, call.path["id"], call.ctx),
        reply=wire.EnrollmentDetail,
        show=wire.enrollment_detail,
        scope="enrollments:read",
        errors=(Code.ENROLLMENT_NOT_FOUND,),
    ),
    Operation(
        method="PATCH",
        path="/v1/enrollments/{id}",
        name="setProgress",
        summary="Set the progress; 100 completes the course and issues the certificate",
        tag="Enrollments",
        run=lambda tx, call: enrollments.set_progress(tx, call.actor, call.path["id"], call.body, call.ctx),
        reply=wire.EnrollmentDetail,
        show=wire.enrollment_detail,
        body=enrollments.ProgressChange,
        scope="enrollments:write",
        roles=STAFF,
        errors=(Code.ENROLLMENT_NOT_FOUND, Code.ENROLLMENT_NOT_ACTIVE),
    ),
    Operation(
        method="POST",
        path="/v1/enrollments/{id}/cancel",
        name="cancelEnrollment",
        summary="Cancel an enrolment, refunding what was paid within the refund window",
        tag="Enrollments",
        kind="saga",
        run=lambda services, call: enrollments.leave(
            services.storage,
            services.gateways,
            call.actor,
            call.path["id"],
            services.settings.refund_window_days * DAY,
            call.ctx,
        ),
        reply=wire.EnrollmentDetail,
        show=wire.enrollment_detail,
        scope="enrollments:write",
        errors=(Code.ENROLLMENT_NOT_FOUND, Code.ENROLLMENT_NOT_ACTIVE, Code.REFUND_WINDOW_CLOSED),
    ),
)
