"""What clients see: the Structs that replies are made of, and how each is shown from the domain's model.

The Structs are the schema: the served OpenAPI document is made from them. None has defaults, so that every field reads
as required.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from learnflow_core import model
from learnflow_core.access import Actor
from learnflow_core.fields import Price
from learnflow_core.instants import timestamp
from learnflow_core.limiter import Decision
from learnflow_core.model import CourseStatus, EnrollmentStatus, Instant, Level, Mode, Plan, Role, Section
from learnflow_core.usecases.api_keys import MadeKey


def maybe_timestamp(at: Instant | None) -> str | None:
    """An instant as text, where there is one."""
    return None if at is None else timestamp(at)


def _rating(hundredths: int | None) -> float | None:
    return None if hundredths is None else hundredths / 100


class CourseItem(msgspec.Struct, frozen=True):
    """A course as a list shows it: the eight published fields. `rating` is null until there is one."""

    id: str
    title: str
    instructor: str
    category: str
    level: Level
    price: Price
    rating: float | None
    total_students: int


class Course(CourseItem, frozen=True):
    """A course whole. `seats` null: no limit; 0: closed. It takes enrolments from `enrolls_from` until `enrolls_until`
    (null: open on that side), and each ends `access_days` after it began (null: never). `version` grows when its price
    or its access change."""

    description: str
    language: str
    curriculum: tuple[Section, ...]
    status: CourseStatus
    seats: int | None
    prerequisites: tuple[str, ...]
    enrolls_from: str | None
    enrolls_until: str | None
    access_days: int | None
    version: int
    external_id: str | None
    created_at: str
    updated_at: str


class Category(msgspec.Struct, frozen=True):
    """A category and how many published courses it has."""

    slug: str
    name: str
    courses: int


class User(msgspec.Struct, frozen=True):
    """A person of the account. After deletion, `email` and `name` are null and `deleted_at` tells when."""

    id: str
    account_id: str
    mode: Mode
    email: str | None
    name: str | None
    role: Role
    external_id: str | None
    created_at: str
    updated_at: str
    deleted_at: str | None


class PaymentMethod(msgspec.Struct, frozen=True):
    """A means of payment of a user; what the payment service calls it is not shown."""

    id: str
    user_id: str
    created_at: str
    deleted_at: str | None


class Enrollment(msgspec.Struct, frozen=True):
    """An enrolment as the request that makes it is answered: the six published fields."""

    id: str
    user_id: str
    course_id: str
    status: EnrollmentStatus
    progress: int
    enrolled_at: str


class EnrollmentDetail(Enrollment, frozen=True):
    """An enrolment as it is read later."""

    updated_at: str
    completed_at: str | None
    expires_at: str | None
    certificate_id: str | None


class Certificate(msgspec.Struct, frozen=True):
    """The proof that a user completed a course."""

    id: str
    enrollment_id: str
    user_id: str
    course_id: str
    recipient: str | None
    course_title: str
    issued_at: str
    updated_at: str
    revoked_at: str | None


class Verification(msgspec.Struct, frozen=True):
    """Whether a certificate is valid, for anyone who was shown it. One made in test mode says so."""

    valid: bool
    id: str
    mode: Mode
    recipient: str | None
    course_id: str
    course_title: str
    issued_at: str
    revoked_at: str | None


class ApiKey(msgspec.Struct, frozen=True):
    """An API key, without its secret."""

    id: str
    name: str
    prefix: str
    scopes: tuple[str, ...]
    mode: Mode
    created_at: str
    updated_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None


class ApiKeySecret(ApiKey, frozen=True):
    """An API key in the one reply that shows its secret; a replay of that reply leaves it out."""

    secret: str | UnsetType = UNSET


class QuotaStatus(msgspec.Struct, frozen=True):
    """One quota of the caller: `reset` is the Unix second at which it is full again."""

    name: str
    limit: int
    remaining: int
    reset: int


class QuotaStatuses(msgspec.Struct, frozen=True):
    """Every quota of the caller."""

    data: tuple[QuotaStatus, ...]


class PlanQuota(msgspec.Struct, frozen=True):
    """One quota of a plan."""

    name: str
    limit: int
    period_seconds: int


class Account(msgspec.Struct, frozen=True):
    """The caller's account, and the mode in which the caller acts."""

    id: str
    name: str
    plan: Plan
    mode: Mode
    quotas: tuple[PlanQuota, ...]
    licenses: int | None
    created_at: str


class TokenPair(msgspec.Struct, frozen=True):
    """A new session."""

    access_token: str
    refresh_token: str
    token_type: str
    expires_in: int


class RefreshedToken(msgspec.Struct, frozen=True):
    """A refreshed session: the three published fields; `refresh_token` only where rotation is switched on."""

    access_token: str
    token_type: str
    expires_in: int
    refresh_token: str | UnsetType = UNSET


class Empty(msgspec.Struct, frozen=True):
    """Nothing to tell."""


class PageMeta(msgspec.Struct, frozen=True):
    """Where a page stands among its pages."""

    current_page: int
    total_pages: int
    total_items: int


class CursorMeta(msgspec.Struct, frozen=True):
    """Where a walk by cursor goes on; null at the end."""

    next_cursor: str | None


def course_item(course: model.CourseSummary) -> CourseItem:
    """A course of a list."""
    return CourseItem(
        course.id,
        course.title,
        course.instructor,
        course.category,
        course.level,
        Price.of(course.price),
        _rating(course.rating),
        course.total_students,
    )


def course(course: model.Course) -> Course:
    """A course whole."""
    return Course(
        id=course.id,
        title=course.title,
        instructor=course.instructor,
        category=course.category,
        level=course.level,
        price=Price.of(course.price),
        rating=_rating(course.rating),
        total_students=course.total_students,
        description=course.description,
        language=course.language,
        curriculum=course.curriculum,
        status=course.status,
        seats=course.seats,
        prerequisites=course.prerequisites,
        enrolls_from=maybe_timestamp(course.enrolls_from),
        enrolls_until=maybe_timestamp(course.enrolls_until),
        access_days=course.access_days,
        version=course.version,
        external_id=course.external_id,
        created_at=timestamp(course.created_at),
        updated_at=timestamp(course.updated_at),
    )


def category(category: model.Category) -> Category:
    """A category."""
    return Category(category.slug, category.name, category.courses)


def user(user: model.User) -> User:
    """A user, without anything secret."""
    return User(
        id=user.id,
        account_id=user.account_id,
        mode=user.mode,
        email=user.email or None,
        name=user.name or None,
        role=user.role,
        external_id=user.external_id,
        created_at=timestamp(user.created_at),
        updated_at=timestamp(user.updated_at),
        deleted_at=maybe_timestamp(user.deleted_at),
    )


def payment_method(method: model.PaymentMethod) -> PaymentMethod:
    """A payment method."""
    return PaymentMethod(method.id, method.user_id, timestamp(method.created_at), maybe_timestamp(method.deleted_at))


def enrollment(enrollment: model.Enrollment) -> Enrollment:
    """An enrolment, in the six published fields."""
    return Enrollment(
        enrollment.id,
        enrollment.user_id,
        enrollment.course_id,
        enrollment.status,
        enrollment.progress,
        timestamp(enrollment.enrolled_at),
    )


def enrollment_detail(enrollment: model.Enrollment) -> EnrollmentDetail:
    """An enrolment whole."""
    return EnrollmentDetail(
        id=enrollment.id,
        user_id=enrollment.user_id,
        course_id=enrollment.course_id,
        status=enrollment.status,
        progress=enrollment.progress,
        enrolled_at=timestamp(enrollment.enrolled_at),
        updated_at=timestamp(enrollment.updated_at),
        completed_at=maybe_timestamp(enrollment.completed_at),
        expires_at=maybe_timestamp(enrollment.expires_at),
        certificate_id=enrollment.certificate_id,
    )


def certificate(certificate: model.Certificate) -> Certificate:
    """A certificate."""
    return Certificate(
        id=certificate.id,
        enrollment_id=certificate.enrollment_id,
        user_id=certificate.user_id,
        course_id=certificate.course_id,
        recipient=certificate.recipient or None,
        course_title=certificate.course_title,
        issued_at=timestamp(certificate.issued_at),
        updated_at=timestamp(certificate.updated_at),
        revoked_at=maybe_timestamp(certificate.revoked_at),
    )


def verification(certificate: model.Certificate) -> Verification:
    """What anyone may know of a certificate."""
    return Verification(
        valid=certificate.revoked_at is None,
        id=certificate.id,
        mode=certificate.mode,
        recipient=certificate.recipient or None,
        course_id=certificate.course_id,
        course_title=certificate.course_title,
        issued_at=timestamp(certificate.issued_at),
        revoked_at=maybe_timestamp(certificate.revoked_at),
    )


def api_key(key: model.ApiKey) -> ApiKey:
    """An API key, without its secret."""
    return ApiKey(
        id=key.id,
        name=key.name,
        prefix=key.prefix,
        scopes=key.scopes,
        mode=key.mode,
        created_at=timestamp(key.created_at),
        updated_at=timestamp(key.updated_at),
        expires_at=maybe_timestamp(key.expires_at),
        revoked_at=maybe_timestamp(key.revoked_at),
        last_used_at=maybe_timestamp(key.last_used_at),
    )


def api_key_secret(made: MadeKey) -> ApiKeySecret:
    """An API key with its secret."""
    return ApiKeySecret(**msgspec.structs.asdict(api_key(made.key)), secret=made.secret)


def account(actor: Actor, account: model.Account) -> Account:
    """The caller's account."""
    quotas = tuple(PlanQuota(quota.name, quota.limit, quota.period_ns // 1_000_000_000) for quota in actor.quotas)
    return Account(
        id=account.id,
        name=account.name,
        plan=account.plan,
        mode=actor.mode,
        quotas=quotas,
        licenses=account.licenses,
        created_at=timestamp(account.created_at),
    )


def quota_statuses(decision: Decision, now_ns: int) -> QuotaStatuses:
    """Every quota of a decision; instants are rounded up to whole seconds."""
    return QuotaStatuses(
        tuple(
            QuotaStatus(state.name, state.limit, state.remaining, -(-(now_ns + state.reset_after_ns) // 1_000_000_000))
            for state in decision.states
        )
    )
