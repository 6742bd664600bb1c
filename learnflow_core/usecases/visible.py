"""What exists for a caller: everything else is not found, whether it is there or not."""

from __future__ import annotations

from learnflow_core.access import Actor
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import Certificate, Course, Enrollment, User
from learnflow_core.ports import Transaction

NOBODY = ""
"""An id that no user has."""


async def get_course(tx: Transaction, actor: Actor | None, course_id: str) -> Course:
    """The course, if the caller can see it (`course_not_found`).

    Everyone sees what is published; the owning account sees drafts and what is archived too, and an archived course is
    still seen by those who are enrolled in it.
    """
    return await _shown(tx, actor, await tx.courses.get(course_id))


async def get_outline(tx: Transaction, actor: Actor | None, course_id: str) -> Course:
    """The same course, or the same refusal, without what `Courses.outline` leaves out."""
    return await _shown(tx, actor, await tx.courses.outline(course_id))


async def get_user(tx: Transaction, actor: Actor, user_id: str) -> User:
    """The user, if the actor can see them: an account's people for its keys and admins, else oneself."""
    user = await tx.users.get(user_id)
    if (
        user is None
        or user.deleted_at is not None
        or (user.account_id, user.mode) != (actor.account_id, actor.mode)
        or not (actor.sees_account or user.id == actor.user_id)
    ):
        raise LearnFlowError(Code.USER_NOT_FOUND)
    return user


async def get_enrollment(tx: Transaction, actor: Actor, enrollment_id: str) -> Enrollment:
    """The enrolment, if the actor can see it: one's own, the account's, an instructor's courses'
    (`enrollment_not_found`)."""
    enrollment = await tx.enrollments.get(enrollment_id)
    if enrollment is None or not await _sees(tx, actor, enrollment):
        raise LearnFlowError(Code.ENROLLMENT_NOT_FOUND)
    return enrollment


async def get_certificate(tx: Transaction, actor: Actor, certificate_id: str) -> Certificate:
    """The certificate, if the actor can see it, by the same rule as an enrolment (`certificate_not_found`)."""
    certificate = await tx.certificates.get(certificate_id)
    if certificate is None or not await _sees(tx, actor, certificate):
        raise LearnFlowError(Code.CERTIFICATE_NOT_FOUND)
    return certificate


def owns(actor: Actor | None, course: Course) -> bool:
    """Whether the course belongs to the actor's account."""
    return actor is not None and actor.account_id == course.account_id


async def teaches(tx: Transaction, actor: Actor, course_id: str) -> bool:
    """Whether the actor is the instructor who created the course, in whatever account its learners are."""
    course = await tx.courses.outline(course_id) if actor.role == "instructor" else None
    return course is not None and course.created_by == actor.user_id


def narrowed(actor: Actor, user_id: str | None) -> str | None:
    """Whose things a list that was asked for `user_id` shows the actor: a learner's are their own, and no one else's.

    None is everybody whom the actor sees.
    """
    if actor.role != "learner":
        return user_id
    return actor.user_id if user_id in (None, actor.user_id) else NOBODY


async def _shown(tx: Transaction, actor: Actor | None, course: Course | None) -> Course:
    if course is None or not (course.status == "published" or owns(actor, course) or await _keeps(tx, actor, course)):
        raise LearnFlowError(Code.COURSE_NOT_FOUND)
    return course


async def _keeps(tx: Transaction, actor: Actor | None, course: Course) -> bool:
    if course.status != "archived" or actor is None or actor.user_id is None:
        return False
    return await tx.enrollments.live(actor.user_id, course.id) is not None


async def _sees(tx: Transaction, actor: Actor, thing: Enrollment | Certificate) -> bool:
    if thing.mode != actor.mode:
        return False
    if actor.sees_account:
        return thing.account_id == actor.account_id
    return thing.user_id == actor.user_id or await teaches(tx, actor, thing.course_id)
