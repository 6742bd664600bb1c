"""Certificates: issued on completion, listed, verified by anyone, revoked."""

from __future__ import annotations

import msgspec

from learnflow_core.access import Actor
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import Certificate, Course, Enrollment, Instant, User
from learnflow_core.pagination import Slice
from learnflow_core.ports import CertificateQuery, Context, Paging, Transaction
from learnflow_core.usecases.visible import get_certificate, narrowed


def certificate_for(enrollment: Enrollment, course: Course, user: User, ctx: Context) -> Certificate:
    """The certificate for an enrolment that has just been completed."""
    return Certificate(
        id=ctx.new_id("crt"),
        account_id=enrollment.account_id,
        mode=enrollment.mode,
        enrollment_id=enrollment.id,
        user_id=user.id,
        course_id=course.id,
        recipient=user.name,
        course_title=course.title,
        issued_at=ctx.now,
        updated_at=ctx.now,
        revoked_at=None,
    )


async def list_certificates(
    tx: Transaction,
    actor: Actor,
    paging: Paging,
    *,
    user_id: str | None = None,
    course_id: str | None = None,
    updated_since: Instant | None = None,
) -> Slice[Certificate]:
    """The certificates the actor can see, narrowed as asked."""
    query = CertificateQuery(
        mode=actor.mode,
        account_id=actor.account_id if actor.sees_account else None,
        seen_by=None if actor.sees_account else actor.user_id,
        user_id=narrowed(actor, user_id),
        course_id=course_id,
        updated_since=updated_since,
    )
    return await tx.certificates.list(query, paging)


async def verify_certificate(tx: Transaction, certificate_id: str) -> Certificate:
    """The certificate, for anyone who was shown its id: more than 100 random bits are the proof of that."""
    certificate = await tx.certificates.get(certificate_id)
    if certificate is None:
        raise LearnFlowError(Code.CERTIFICATE_NOT_FOUND)
    return certificate


async def revoke_certificate(tx: Transaction, actor: Actor, certificate_id: str, ctx: Context) -> Certificate:
    """Declare a certificate of the actor's account void; revoking twice changes nothing."""
    certificate = await get_certificate(tx, actor, certificate_id)
    if certificate.revoked_at is not None:
        return certificate
    revoked = msgspec.structs.replace(certificate, revoked_at=ctx.now, updated_at=ctx.now)
    await tx.certificates.put(revoked)
    return revoked
