"""What there is: the records of the domain, frozen, without behaviour beyond what follows from their own fields.

Instants are whole microseconds since 1970-01-01 UTC; money is whole minor units; a rating is whole hundredths.
Every id is `prefix_` and an opaque part (`learnflow_core.ids`).
"""

from __future__ import annotations

import unicodedata
from typing import Annotated, Literal

import msgspec

from learnflow_core.fields import Seconds, Title
from learnflow_core.money import Money

Instant = int
"""Microseconds since 1970-01-01 00:00 UTC."""

SECOND: Instant = 1_000_000
DAY: Instant = 86_400 * SECOND

Mode = Literal["live", "test"]
Plan = Literal["starter", "professional", "enterprise"]
Role = Literal["learner", "instructor", "admin"]
Level = Literal["all", "beginner", "intermediate", "advanced"]
CourseStatus = Literal["draft", "published", "archived"]
EnrollmentStatus = Literal["pending", "active", "completed", "cancelled", "refunded", "expired"]

LIVE_STATUSES: frozenset[EnrollmentStatus] = frozenset({"pending", "active", "completed"})
"""The statuses in which an enrolment holds its seat; one user has at most one such enrolment in a course."""


def fold_email(email: str) -> str:
    """The form in which two emails are compared: case and compatibility forms of characters make no difference."""
    return unicodedata.normalize("NFKC", email).casefold()


class Account(msgspec.Struct, frozen=True):
    """A developer or a company: it has a plan, API keys, people, and the courses it publishes.

    `per_minute` is the agreed rate of an Enterprise account (null: the plan's own); `licenses` is how many
    enrolments an Enterprise account may hold at once without paying for them one by one (null: no limit).
    """

    id: str
    name: str
    plan: Plan
    per_minute: int | None
    licenses: int | None
    suspended_at: Instant | None
    created_at: Instant


class ApiKey(msgspec.Struct, frozen=True):
    """A secret that acts for its account within its scopes; the secret itself is kept nowhere, only its digest.

    `prefix` is the beginning of the secret, enough for a person to tell keys apart. Being used does not move
    `updated_at`.
    """

    id: str
    account_id: str
    name: str
    prefix: str
    digest: str
    scopes: tuple[str, ...]
    mode: Mode
    created_at: Instant
    updated_at: Instant
    expires_at: Instant | None
    revoked_at: Instant | None
    last_used_at: Instant | None


class User(msgspec.Struct, frozen=True):
    """A person of one account, in one mode. A deleted user keeps the id, which the books refer to, and nothing else."""

    id: str
    account_id: str
    mode: Mode
    email: str
    name: str
    role: Role
    password_hash: str | None
    external_id: str | None
    created_at: Instant
    updated_at: Instant
    deleted_at: Instant | None

    @property
    def email_key(self) -> str | None:
        """What makes the email unique in its account and mode; none for a deleted user, whose email is free again."""
        return None if self.deleted_at is not None else fold_email(self.email)


class Lesson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One lesson of a section: its title and its length in seconds."""

    title: Title
    seconds: Seconds


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One section of a curriculum."""

    title: Title
    lessons: Annotated[tuple[Lesson, ...], msgspec.Meta(max_length=500)]


class Course(msgspec.Struct, frozen=True):
    """A course of the catalogue.

    `seats` is how many live enrolments it takes (null: no limit; 0: closed). `rating` is in hundredths and null
    until there is one. `total_students` follows `students_base` (imported) and the live enrolments, in batches.

    It takes enrolments from `enrolls_from` on and before `enrolls_until` (whole seconds; null: open on that side); an
    enrolment that is not completed `access_days` after it began expires (null: never). `version` grows by one whenever
    what a learner agrees to changes, the price or the access.
    """

    id: str
    account_id: str
    created_by: str | None
    title: str
    instructor: str
    category: str
    level: Level
    price: Money
    rating: int | None
    total_students: int
    students_base: int
    description: str
    language: str
    curriculum: tuple[Section, ...]
    status: CourseStatus
    seats: int | None
    prerequisites: tuple[str, ...]
    external_id: str | None
    created_at: Instant
    updated_at: Instant
    enrolls_from: Instant | None = None
    enrolls_until: Instant | None = None
    access_days: int | None = None
    version: int = 1


class CourseSummary(msgspec.Struct, frozen=True):
    """What a list of courses shows of each: the eight published facts."""

    id: str
    title: str
    instructor: str
    category: str
    level: Level
    price: Money
    rating: int | None
    total_students: int


class Category(msgspec.Struct, frozen=True):
    """A category with the number of published courses in it."""

    slug: str
    name: str
    courses: int


class PaymentMethod(msgspec.Struct, frozen=True):
    """A means of payment that the payment service keeps for a user; `token` is the service's word for it.

    `forgotten_at` is when the payment service was told to forget it, which comes after its deletion here.
    """

    id: str
    user_id: str
    token: str
    created_at: Instant
    deleted_at: Instant | None
    forgotten_at: Instant | None


class Enrollment(msgspec.Struct, frozen=True):
    """One user's place in one course. `payment_id` names the payment it was bought with; `licensed` says that a
    licence of the user's account stands in for money; with neither, the course was free."""

    id: str
    account_id: str
    mode: Mode
    user_id: str
    course_id: str
    status: EnrollmentStatus
    progress: int
    licensed: bool
    payment_id: str | None
    certificate_id: str | None
    enrolled_at: Instant
    updated_at: Instant
    completed_at: Instant | None
    expires_at: Instant | None


PaymentStatus = Literal["charging", "reversing", "charged", "declined", "refunding", "refunded"]

UNRESOLVED_STATUSES: frozenset[PaymentStatus] = frozenset({"charging", "reversing", "refunding"})
"""The statuses in which the payment service has still to say something: `charging` whether it was paid, `reversing` the
same of a charge whose money, if it was paid, is to be given back, `refunding` that the money was given back."""


class Payment(msgspec.Struct, frozen=True):
    """What was agreed for one enrolment, and how far its payment has come.

    Written before the payment service is asked, and its id is the idempotency key of the charge (and, with another
    prefix, of the refund): whoever finds it unresolved can ask again without charging twice. What is asked never
    changes: `amount` is the price under `course_version`, whatever the course costs later, and `token` the payment
    service's word for the method `method_id`, also when the method is deleted.

    `due_at` is when somebody is to carry it on who does not do so already; null when it is resolved. `tries` is how
    often a sweep has done so in vain. `payee_id` is the account that published the course, in whose books the money is.
    """

    id: str
    enrollment_id: str
    payee_id: str
    mode: Mode
    method_id: str
    token: str
    amount: Money
    course_version: int
    status: PaymentStatus
    created_at: Instant
    updated_at: Instant
    due_at: Instant | None
    tries: int


class SandboxCharge(msgspec.Struct, frozen=True):
    """What the sandbox payment service was asked under an idempotency key, and what it answered."""

    key: str
    outcome: str
    amount: Money
    created_at: Instant


class Certificate(msgspec.Struct, frozen=True):
    """The proof that a user completed a course; issued once for an enrolment, and revocable.

    `recipient` and `course_title` are what they were on the day it was issued.
    """

    id: str
    account_id: str
    mode: Mode
    enrollment_id: str
    user_id: str
    course_id: str
    recipient: str
    course_title: str
    issued_at: Instant
    updated_at: Instant
    revoked_at: Instant | None


class TokenFamily(msgspec.Struct, frozen=True):
    """All tokens that descend from one sign-in: revoking the family ends every one of them.

    `scopes` bound what its tokens may do (`*` after a sign-in with a password, else the minting key's).
    """

    id: str
    user_id: str
    key_id: str | None
    scopes: tuple[str, ...]
    created_at: Instant
    expires_at: Instant
    revoked_at: Instant | None


class RefreshToken(msgspec.Struct, frozen=True):
    """What rotation remembers of one refresh token. `retired_at`: its use is from then on a sign of theft."""

    id: str
    family_id: str
    parent_id: str | None
    successor_id: str | None
    issued_at: Instant
    rotated_at: Instant | None
    retired_at: Instant | None


class Reply(msgspec.Struct, frozen=True):
    """A reply kept under an `Idempotency-Key`. `status` 0 says that the first request is still being worked on."""

    fingerprint: str
    status: int
    body: bytes
    claimed_at: Instant
