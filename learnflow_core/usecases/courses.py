"""The catalogue: publishing, changing and archiving courses."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from learnflow_core.access import Actor
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.fields import CategorySlug, Days, ExternalId, IdText, Language, LongText, Price, Seats, Time, Title
from learnflow_core.instants import instant
from learnflow_core.model import SECOND, Course, CourseStatus, Instant, Level, Section
from learnflow_core.ports import Context, Transaction
from learnflow_core.usecases.visible import get_course, owns

Curriculum = Annotated[tuple[Section, ...], Meta(max_length=200)]
Prerequisites = Annotated[tuple[IdText, ...], Meta(max_length=20)]


TERMS = ("price", "access_days")
"""What a learner agrees to by enrolling: whenever one of these changes, the course has another version."""


class NewCourse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a new course is made of. `instructor` defaults to the account's name; `seats` null: no limit, 0: closed.

    It takes enrolments from `enrolls_from` until `enrolls_until` (null: open on that side); one that is not completed
    ends `access_days` after it began (null: never).
    """

    title: Title
    category: CategorySlug
    price: Price
    instructor: Title | None = None
    level: Level = "all"
    description: LongText = ""
    language: Language = "en"
    curriculum: Curriculum = ()
    seats: Seats | None = None
    prerequisites: Prerequisites = ()
    enrolls_from: Time | None = None
    enrolls_until: Time | None = None
    access_days: Days | None = None
    status: CourseStatus = "published"
    external_id: ExternalId | None = None


class CourseChanges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to change about a course; what is absent stays."""

    title: Title | UnsetType = UNSET
    category: CategorySlug | UnsetType = UNSET
    price: Price | UnsetType = UNSET
    instructor: Title | UnsetType = UNSET
    level: Level | UnsetType = UNSET
    description: LongText | UnsetType = UNSET
    language: Language | UnsetType = UNSET
    curriculum: Curriculum | UnsetType = UNSET
    seats: Seats | UnsetType | None = UNSET
    prerequisites: Prerequisites | UnsetType = UNSET
    enrolls_from: Time | UnsetType | None = UNSET
    enrolls_until: Time | UnsetType | None = UNSET
    access_days: Days | UnsetType | None = UNSET
    status: CourseStatus | UnsetType = UNSET
    external_id: ExternalId | UnsetType | None = UNSET


async def create_course(tx: Transaction, actor: Actor, new: NewCourse, ctx: Context) -> Course:
    """Publish a course, or keep it as a draft, in the actor's account."""
    course = Course(
        id=ctx.new_id("crs"),
        account_id=actor.account_id,
        created_by=actor.user_id,
        title=new.title,
        instructor=new.instructor or actor.account_name,
        category=new.category,
        level=new.level,
        price=new.price.money(),
        rating=None,
        total_students=0,
        students_base=0,
        description=new.description,
        language=new.language,
        curriculum=new.curriculum,
        status=new.status,
        seats=new.seats,
        prerequisites=new.prerequisites,
        external_id=new.external_id,
        created_at=ctx.now,
        updated_at=ctx.now,
        enrolls_from=_second(new.enrolls_from, "enrolls_from"),
        enrolls_until=_second(new.enrolls_until, "enrolls_until"),
        access_days=new.access_days,
    )
    _check_window(course)
    await _check_prerequisites(tx, actor, course)
    if not await tx.courses.add(course):
        raise _external_id_taken()
    return course


async def change_course(tx: Transaction, actor: Actor, course_id: str, changes: CourseChanges, ctx: Context) -> Course:
    """Change what `changes` names of a course the actor may change."""
    course = await _changeable(tx, actor, course_id)
    given = {name: value for name, value in msgspec.structs.asdict(changes).items() if value is not UNSET}
    if isinstance(changes.price, Price):
        given["price"] = changes.price.money()
    given |= {name: _second(given[name], name) for name in ("enrolls_from", "enrolls_until") if name in given}
    changed = msgspec.structs.replace(course, **given)
    if changed == course:
        return course
    _check_window(changed)
    if changes.prerequisites is not UNSET:
        await _check_prerequisites(tx, actor, changed)
    return await _put(tx, revised(course, changed, ctx.now))


async def archive_course(tx: Transaction, actor: Actor, course_id: str, ctx: Context) -> Course:
    """Take a course out of the catalogue; who is enrolled keeps it. Archiving twice changes nothing."""
    course = await _changeable(tx, actor, course_id)
    if course.status == "archived":
        return course
    return await _put(tx, revised(course, msgspec.structs.replace(course, status="archived"), ctx.now))


def revised(before: Course, after: Course, now: Instant) -> Course:
    """The course after a change, as it is to be kept: of another version where its terms are others."""
    is_new = any(getattr(before, name) != getattr(after, name) for name in TERMS)
    return msgspec.structs.replace(after, updated_at=now, version=before.version + is_new)


async def _changeable(tx: Transaction, actor: Actor, course_id: str) -> Course:
    """The course, if the actor may change it: the owning account's key or admin, or the instructor who created it."""
    course = await get_course(tx, actor, course_id)
    if not owns(actor, course) or not (actor.sees_account or course.created_by == actor.user_id):
        raise LearnFlowError(Code.FORBIDDEN, "Only those who publish a course can change it.")
    return course


async def _put(tx: Transaction, course: Course) -> Course:
    if not await tx.courses.put(course):
        raise _external_id_taken()
    return course


def _second(text: str | None, param: str) -> Instant | None:
    """The whole second that a text names; what is finer is dropped, as replies show none of it."""
    return None if text is None else instant(text, param=param) // SECOND * SECOND


def _check_window(course: Course) -> None:
    """Enrolling ends after it has begun."""
    opens, closes = course.enrolls_from, course.enrolls_until
    if opens is not None and closes is not None and opens >= closes:
        message = "enrolls_until must be later than enrolls_from."
        raise LearnFlowError(Code.INVALID_PARAMETER, message, param="enrolls_until")


async def _check_prerequisites(tx: Transaction, actor: Actor, course: Course) -> None:
    """Every prerequisite is a course that the actor can see, and none needs this one first."""
    known: dict[str, Course] = {}
    waiting = list(course.prerequisites)
    while waiting:
        course_id = waiting.pop()
        if course_id == course.id:
            raise _no_prerequisite("the course would have to be completed before itself")
        if course_id not in known:
            found = await tx.courses.get(course_id)
            if found is None or (course_id in course.prerequisites and not await _can_require(tx, actor, course_id)):
                raise _no_prerequisite(f"{course_id} is no course")
            known[course_id] = found
            waiting += found.prerequisites


async def _can_require(tx: Transaction, actor: Actor, course_id: str) -> bool:
    try:
        await get_course(tx, actor, course_id)
    except LearnFlowError:
        return False
    return True


def _no_prerequisite(why: str) -> LearnFlowError:
    return LearnFlowError(Code.INVALID_PARAMETER, f"prerequisites: {why}.", param="prerequisites")


def _external_id_taken() -> LearnFlowError:
    return LearnFlowError(
        Code.INVALID_PARAMETER, "Another course of the account has this external_id.", param="external_id"
    )
