"""The operations, one row each. Routes, the OpenAPI document and the matrix of who may do what are made from the rows.

A row says what is asked (path, query, body), who may ask (`public`, `scope`, `roles`), what it costs, what comes back
(`show`, `status`) and which refusals of its own it has. What it does is one use case of the core.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from learnflow_core.access import SCOPES
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.fields import PlainText, Title
from learnflow_core.model import DAY, CourseStatus, EnrollmentStatus, Level, Mode, Role
from learnflow_core.ports import CourseQuery, CourseSort
from learnflow_core.search import MAX_SEARCH_LENGTH, MAX_SEARCH_WORDS, parse_search
from learnflow_core.usecases import accounts, api_keys, certificates, courses, enrollments, users, visible
from learnflow_http import signing_in, wire
from learnflow_http.call import Call
from learnflow_http.services import Services

ANYONE: frozenset[Role] = frozenset({"learner", "instructor", "admin"})
STAFF: frozenset[Role] = frozenset({"instructor", "admin"})
ADMIN: frozenset[Role] = frozenset({"admin"})


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table.

    `kind`: `read` and `write` run in one transaction, `run(tx, call)`; a `saga` has several, `run(services, call)`.
    `sign_in`: the credential is in the body, and this leads it to the actor. `prepare` does what is too slow for a
    transaction. `show` makes the reply of what `run` answered; of a list (`paged`), of each item. `status` may
    depend on the answer. `kept` is what an idempotency key keeps of a reply. `secret`: the reply holds one, and is
    never stored. `revokes`: what is remembered of credentials may be wrong after it.
    """

    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    name: str
    summary: str
    tag: str
    run: Callable[[Any, Call], Awaitable[Any]]
    reply: type[msgspec.Struct]
    show: Callable[[Any], Any] = lambda result: result
    status: int | Callable[[Any], int] = 200
    kind: Literal["read", "write", "saga"] = "write"
    query: type[msgspec.Struct] | None = None
    body: type[msgspec.Struct] | None = None
    paged: bool = False
    public: bool = False
    scope: str | None = None
    roles: frozenset[Role] = ANYONE
    sign_in: Callable[..., Awaitable[Any]] | None = None
    prepare: Callable[[Services, Any], Awaitable[Any]] | None = None
    cost: int = 1
    kept: Callable[[Any], Any] = lambda shown: shown
    secret: bool = False
    revokes: bool = False
    errors: tuple[Code, ...] = ()

    @property
    def idempotent(self) -> bool:
        """Whether an `Idempotency-Key` is honoured."""
        return self.method in ("POST", "PATCH") and not self.path.startswith("/v1/auth/")


class CourseFilters(msgspec.Struct, frozen=True):
    """Which courses are listed; `draft` and `archived` are the caller's account's own."""

    search: Annotated[
        str | None,
        Meta(
            description=f"At most {MAX_SEARCH_WORDS} words; every one must occur, the last may be a beginning.",
            extra_json_schema={"maxLength": MAX_SEARCH_LENGTH},
        ),
    ] = None
    category: Annotated[PlainText | None, Meta(description="The slug of a category.")] = None
    level: Level | None = None
    sort: CourseSort | None = None
    status: CourseStatus = "published"


class EnrollmentFilters(msgspec.Struct, frozen=True):
    """Which enrolments are listed."""

    user_id: PlainText | None = None
    course_id: PlainText | None = None
    status: EnrollmentStatus | None = None
    updated_since: Annotated[str | None, Meta(extra_json_schema={"format": "date-time"})] = None


class CertificateFilters(msgspec.Struct, frozen=True):
    """Which certificates are listed."""

    user_id: PlainText | None = None
    course_id: PlainText | None = None


ScopeName = Annotated[str, Meta(extra_json_schema={"enum": list(SCOPES)})]


class NewApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a new key is made of; scopes and mode default to the creator's."""

    name: Title
    scopes: Annotated[tuple[ScopeName, ...], Meta(min_length=1, max_length=20)] | None = None
    mode: Mode | None = None
    expires_at: Annotated[str | None, Meta(extra_json_schema={"format": "date-time"})] = None


async def _list_courses(tx: Any, call: Call) -> Any:
    return await tx.courses.list(_course_query(call), call.paging)


def _course_query(call: Call) -> CourseQuery:
    filters: CourseFilters = call.query
    search = parse_search(filters.search or "")
    own = filters.status != "published"
    if own and call.actor is None:
        raise LearnFlowError(Code.INVALID_PARAMETER, "Without a credential, only published courses.", param="status")
    sort = filters.sort or ("relevance" if search else "popular")
    return CourseQuery(
        sort="popular" if sort == "relevance" and search is None else sort,
        search=search,
        category=filters.category or None,
        level=filters.level,
        status=filters.status,
        account_id=call.actor.account_id if own else None,
    )


async def _own_account(tx: Any, call: Call) -> Any:
    return call.actor, await accounts.get_account(tx, call.actor.account_id)


async def _own_quotas(_services: Services, call: Call) -> wire.QuotaStatuses:
    return wire.quota_statuses(call.decision, call.ctx.now * 1_000)


async def _own_user(tx: Any, call: Call) -> Any:
    if call.actor.user_id is None:
        raise LearnFlowError(Code.USER_NOT_FOUND, "An API key acts for its account, and is no user.")
    return await visible.get_user(tx, call.actor, call.actor.user_id)


async def _hash_password(services: Services, body: Any) -> str | None:
    return await services.passwords.hash(body.password) if isinstance(body.password, str) else None


async def _create_key(tx: Any, call: Call) -> Any:
    new: NewApiKey = call.body
    return await api_keys.create_key(
        tx,
        call.actor,
        name=new.name,
        scopes=new.scopes,
        mode=new.mode,
        expires_at=wire.instant(new.expires_at, param="expires_at") if new.expires_at is not None else None,
        ctx=call.ctx,
    )


async def _list_enrollments(tx: Any, call: Call) -> Any:
    filters: EnrollmentFilters = call.query
    since = filters.updated_since
    return await enrollments.list_enrollments(
        tx,
        call.actor,
        call.paging,
        user_id=filters.user_id,
        course_id=filters.course_id,
        status=filters.status,
        updated_since=wire.instant(since, param="updated_since") if since is not None else None,
    )


def _without_secret(shown: wire.ApiKeySecret) -> wire.ApiKeySecret:
    return msgspec.structs.replace(shown, secret=msgspec.UNSET)


COURSES = (
    Operation(
        method="GET",
        path="/v1/courses",
        name="listCourses",
        summary="List and search the catalogue",
        tag="Courses",
        kind="read",
        run=_list_courses,
        reply=wire.CourseItem,
        show=wire.course_item,
        query=CourseFilters,
        paged=True,
        public=True,
    ),
    Operation(
        method="POST",
        path="/v1/courses",
        name="createCourse",
        summary="Publish a course, or keep it as a draft",
        tag="Courses",
        run=lambda tx, call: courses.create_course(tx, call.actor, call.body, call.ctx),
        reply=wire.Course,
        show=wire.course,
        status=201,
        body=courses.NewCourse,
        scope="courses:write",
        roles=STAFF,
    ),
    Operation(
        method="GET",
        path="/v1/courses/{id}",
        name="getCourse",
        summary="Read a course with its curriculum",
        tag="Courses",
        kind="read",
        run=lambda tx, call: visible.get_course(tx, call.actor, call.path["id"]),
        reply=wire.Course,
        show=wire.course,
        public=True,
        errors=(Code.COURSE_NOT_FOUND,),
    ),
    Operation(
        method="PATCH",
        path="/v1/courses/{id}",
        name="changeCourse",
        summary="Change a course",
        tag="Courses",
        run=lambda tx, call: courses.change_course(tx, call.actor, call.path["id"], call.body, call.ctx),
        reply=wire.Course,
        show=wire.course,
        body=courses.CourseChanges,
        scope="courses:write",
        roles=STAFF,
        errors=(Code.COURSE_NOT_FOUND,),
    ),
    Operation(
        method="DELETE",
        path="/v1/courses/{id}",
        name="archiveCourse",
        summary="Take a course out of the catalogue",
        tag="Courses",
        run=lambda tx, call: courses.archive_course(tx, call.actor, call.path["id"], call.ctx),
        reply=wire.Course,
        show=wire.course,
        scope="courses:write",
        roles=STAFF,
        errors=(Code.COURSE_NOT_FOUND,),
    ),
    Operation(
        method="GET",
        path="/v1/categories",
        name="listCategories",
        summary="List the categories with their numbers of courses",
        tag="Courses",
        kind="read",
        run=lambda tx, call: tx.courses.categories(call.paging),
        reply=wire.Category,
        show=wire.category,
        paged=True,
        public=True,
    ),
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
        body=enrollments.NewEnrollment,
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
        method="GET",
        path="/v1/enrollments/{id}",
        name="getEnrollment",
        summary="Read an enrolment",
        tag="Enrollments",
        kind="read",
        run=lambda tx, call: visible.get_enrollment(tx, call.actor, call.path["id"]),
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

CERTIFICATES = (
    Operation(
        method="GET",
        path="/v1/certificates",
        name="listCertificates",
        summary="List certificates",
        tag="Certificates",
        kind="read",
        run=lambda tx, call: certificates.list_certificates(
            tx, call.actor, call.query.user_id, call.query.course_id, call.paging
        ),
        reply=wire.Certificate,
        show=wire.certificate,
        query=CertificateFilters,
        paged=True,
        scope="certificates:read",
    ),
    Operation(
        method="GET",
        path="/v1/certificates/{id}",
        name="getCertificate",
        summary="Read a certificate",
        tag="Certificates",
        kind="read",
        run=lambda tx, call: visible.get_certificate(tx, call.actor, call.path["id"]),
        reply=wire.Certificate,
        show=wire.certificate,
        scope="certificates:read",
        errors=(Code.CERTIFICATE_NOT_FOUND,),
    ),
    Operation(
        method="DELETE",
        path="/v1/certificates/{id}",
        name="revokeCertificate",
        summary="Revoke a certificate",
        tag="Certificates",
        run=lambda tx, call: certificates.revoke_certificate(tx, call.actor, call.path["id"], call.ctx),
        reply=wire.Certificate,
        show=wire.certificate,
        scope="certificates:write",
        roles=ADMIN,
        errors=(Code.CERTIFICATE_NOT_FOUND,),
    ),
    Operation(
        method="GET",
        path="/v1/certificates/{id}/verify",
        name="verifyCertificate",
        summary="Verify a certificate that somebody shows",
        tag="Certificates",
        kind="read",
        run=lambda tx, call: certificates.verify_certificate(tx, call.path["id"]),
        reply=wire.Verification,
        show=wire.verification,
        public=True,
        errors=(Code.CERTIFICATE_NOT_FOUND,),
    ),
)

USERS = (
    Operation(
        method="GET",
        path="/v1/users",
        name="listUsers",
        summary="List the account's users",
        tag="Users",
        kind="read",
        run=lambda tx, call: tx.users.list(call.actor.account_id, call.actor.mode, call.paging),
        reply=wire.User,
        show=wire.user,
        paged=True,
        scope="users:read",
        roles=ADMIN,
    ),
    Operation(
        method="POST",
        path="/v1/users",
        name="createUser",
        summary="Create a user",
        tag="Users",
        prepare=_hash_password,
        run=lambda tx, call: users.create_user(tx, call.actor, call.body, call.prepared, call.ctx),
        reply=wire.User,
        show=wire.user,
        status=201,
        body=users.NewUser,
        scope="users:write",
        roles=ADMIN,
        errors=(Code.EMAIL_TAKEN,),
    ),
    Operation(
        method="GET",
        path="/v1/users/me",
        name="getMe",
        summary="Read the user whose token this is",
        tag="Users",
        kind="read",
        run=_own_user,
        reply=wire.User,
        show=wire.user,
        errors=(Code.USER_NOT_FOUND,),
    ),
    Operation(
        method="GET",
        path="/v1/users/{id}",
        name="getUser",
        summary="Read a user",
        tag="Users",
        kind="read",
        run=lambda tx, call: visible.get_user(tx, call.actor, call.path["id"]),
        reply=wire.User,
        show=wire.user,
        scope="users:read",
        errors=(Code.USER_NOT_FOUND,),
    ),
    Operation(
        method="PATCH",
        path="/v1/users/{id}",
        name="changeUser",
        summary="Change a user; a new password ends every session",
        tag="Users",
        prepare=_hash_password,
        run=lambda tx, call: users.change_user(tx, call.actor, call.path["id"], call.body, call.prepared, call.ctx),
        reply=wire.User,
        show=wire.user,
        body=users.UserChanges,
        scope="users:write",
        revokes=True,
        errors=(Code.USER_NOT_FOUND, Code.EMAIL_TAKEN),
    ),
    Operation(
        method="DELETE",
        path="/v1/users/{id}",
        name="deleteUser",
        summary="Erase a user's personal data, and keep the books",
        tag="Users",
        run=lambda tx, call: users.delete_user(tx, call.actor, call.path["id"], call.ctx),
        reply=wire.User,
        show=wire.user,
        scope="users:write",
        roles=ADMIN,
        revokes=True,
        errors=(Code.USER_NOT_FOUND,),
    ),
    Operation(
        method="GET",
        path="/v1/users/{id}/payment-methods",
        name="listPaymentMethods",
        summary="List a user's payment methods",
        tag="Users",
        kind="read",
        run=lambda tx, call: users.list_payment_methods(tx, call.actor, call.path["id"], call.paging),
        reply=wire.PaymentMethod,
        show=wire.payment_method,
        paged=True,
        scope="users:write",
        errors=(Code.USER_NOT_FOUND,),
    ),
    Operation(
        method="POST",
        path="/v1/users/{id}/payment-methods",
        name="addPaymentMethod",
        summary="Add a payment method by the payment service's token",
        tag="Users",
        run=lambda tx, call: users.add_payment_method(tx, call.actor, call.path["id"], call.body, call.ctx),
        reply=wire.PaymentMethod,
        show=wire.payment_method,
        status=201,
        body=users.NewPaymentMethod,
        scope="users:write",
        errors=(Code.USER_NOT_FOUND,),
    ),
    Operation(
        method="DELETE",
        path="/v1/users/{id}/payment-methods/{method_id}",
        name="deletePaymentMethod",
        summary="Delete a payment method",
        tag="Users",
        run=lambda tx, call: users.delete_payment_method(
            tx, call.actor, call.path["id"], call.path["method_id"], call.ctx
        ),
        reply=wire.PaymentMethod,
        show=wire.payment_method,
        scope="users:write",
        errors=(Code.USER_NOT_FOUND, Code.PAYMENT_METHOD_NOT_FOUND),
    ),
)

API_KEYS = (
    Operation(
        method="GET",
        path="/v1/api-keys",
        name="listApiKeys",
        summary="List the account's API keys",
        tag="API keys",
        kind="read",
        run=lambda tx, call: api_keys.list_keys(tx, call.actor, call.paging),
        reply=wire.ApiKey,
        show=wire.api_key,
        paged=True,
        scope="*",
        roles=ADMIN,
    ),
    Operation(
        method="POST",
        path="/v1/api-keys",
        name="createApiKey",
        summary="Make an API key; its secret is in this reply and never again",
        tag="API keys",
        run=_create_key,
        reply=wire.ApiKeySecret,
        show=wire.api_key_secret,
        kept=_without_secret,
        status=201,
        body=NewApiKey,
        scope="*",
        roles=ADMIN,
        secret=True,
    ),
    Operation(
        method="POST",
        path="/v1/api-keys/{id}/rotate",
        name="rotateApiKey",
        summary="Replace an API key; the old secret works on for the overlap",
        tag="API keys",
        run=lambda tx, call: api_keys.rotate_key(tx, call.actor, call.path["id"], call.body, call.ctx),
        reply=wire.ApiKeySecret,
        show=wire.api_key_secret,
        kept=_without_secret,
        status=201,
        body=api_keys.KeyRotation,
        scope="*",
        roles=ADMIN,
        secret=True,
        revokes=True,
        errors=(Code.API_KEY_NOT_FOUND,),
    ),
    Operation(
        method="DELETE",
        path="/v1/api-keys/{id}",
        name="revokeApiKey",
        summary="Revoke an API key, and every token it minted",
        tag="API keys",
        run=lambda tx, call: api_keys.revoke_key(tx, call.actor, call.path["id"], call.ctx),
        reply=wire.ApiKey,
        show=wire.api_key,
        scope="*",
        roles=ADMIN,
        revokes=True,
        errors=(Code.API_KEY_NOT_FOUND,),
    ),
)

ACCOUNT = (
    Operation(
        method="GET",
        path="/v1/account",
        name="getAccount",
        summary="Read the caller's account, plan and quotas",
        tag="Account",
        kind="read",
        run=_own_account,
        reply=wire.Account,
        show=lambda found: wire.account(*found),
        scope="*",
        roles=ADMIN,
    ),
    Operation(
        method="GET",
        path="/v1/rate-limit",
        name="getRateLimit",
        summary="Read every quota of the caller, at no cost",
        tag="Account",
        kind="saga",
        run=_own_quotas,
        reply=wire.QuotaStatuses,
        public=True,
        cost=0,
        secret=True,
    ),
)

AUTH = (
    Operation(
        method="POST",
        path="/v1/auth/token",
        name="createToken",
        summary="Sign in with email and password, or mint tokens for a user with an API key",
        tag="Authentication",
        kind="saga",
        sign_in=signing_in.by_password_or_key,
        run=signing_in.create_token,
        reply=wire.TokenPair,
        body=signing_in.SignIn,
        roles=ANYONE,
        secret=True,
        errors=(
            Code.MISSING_TOKEN,
            Code.INVALID_CREDENTIALS,
            Code.INSUFFICIENT_SCOPE,
            Code.FORBIDDEN,
            Code.USER_NOT_FOUND,
        ),
    ),
    Operation(
        method="POST",
        path="/v1/auth/refresh",
        name="refreshToken",
        summary="Get a new access token",
        tag="Authentication",
        kind="saga",
        sign_in=signing_in.by_refresh_token,
        run=signing_in.refresh_token,
        reply=wire.RefreshedToken,
        body=signing_in.Refresh,
        secret=True,
    ),
    Operation(
        method="POST",
        path="/v1/auth/revoke",
        name="revokeToken",
        summary="Revoke a token, whatever it is (RFC 7009)",
        tag="Authentication",
        kind="saga",
        sign_in=signing_in.by_nobody,
        run=signing_in.revoke_token,
        reply=wire.Empty,
        body=signing_in.Revocation,
        public=True,
        revokes=True,
    ),
)

OPERATIONS: tuple[Operation, ...] = (
    *COURSES,
    *ENROLLMENTS,
    *CERTIFICATES,
    *USERS,
    *API_KEYS,
    *ACCOUNT,
    *AUTH,
)
"""Every operation of the API, in the order of the reference."""
