"""Enrolments and the certificates that completed ones earn."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from learnflow_core.model import Certificate, Enrollment, Instant
from learnflow_core.pagination import Slice
from learnflow_core.ports import CertificateQuery, EnrollmentQuery, Paging
from storage_backends.driver import DriverTransaction
from storage_backends.repository.paging import Listing, part
from storage_backends.repository.sql import Table, Where, flag, insert, insert_unless, json_text, update

ENROLLMENTS = Table("enrollments", Enrollment, licensed=flag("licensed"))
CERTIFICATES = Table("certificates", Certificate)

LIVE = "status IN ('pending', 'active', 'completed')"
"""`learnflow_core.model.LIVE_STATUSES`, in the words of the partial index that keeps one live enrolment for a place."""

_ENROLLMENTS_IN_ORDER = Listing(
    "enrollments", ENROLLMENTS.columns, ENROLLMENTS.make, key=(("enrolled_at", int), ("id", str)), falling=True
)
_CERTIFICATES_IN_ORDER = Listing(
    "certificates", CERTIFICATES.columns, CERTIFICATES.make, key=(("issued_at", int), ("id", str)), falling=True
)


class Enrollments:
    """`learnflow_core.ports.Enrollments` in SQL."""

    def __init__(self, tx: DriverTransaction) -> None:
        self._tx = tx

    async def add(self, enrollment: Enrollment) -> bool:
        place = f"(user_id, course_id) WHERE {LIVE}"
        return await insert_unless(self._tx, "enrollments", ENROLLMENTS.pack(enrollment), place)

    async def get(self, enrollment_id: str) -> Enrollment | None:
        return ENROLLMENTS.maybe(await self._tx.row(ENROLLMENTS.select("WHERE id = $1"), enrollment_id))

    async def live(self, user_id: str, course_id: str) -> Enrollment | None:
        wanted = ENROLLMENTS.select(f"WHERE user_id = $1 AND course_id = $2 AND {LIVE}")
        return ENROLLMENTS.maybe(await self._tx.row(wanted, user_id, course_id))

    async def put(self, enrollment: Enrollment) -> None:
        changed = ENROLLMENTS.pack(
            enrollment,
            only=("status", "progress", "payment_id", "certificate_id", "updated_at", "completed_at", "expires_at"),
        )
        await update(self._tx, "enrollments", enrollment.id, changed)

    async def completed(self, user_id: str, course_ids: Collection[str]) -> frozenset[str]:
        if not course_ids:
            return frozenset()
        rows = await self._tx.rows(_COMPLETED, user_id, json_text(course_ids))
        return frozenset(course_id for (course_id,) in rows)

    async def list(self, query: EnrollmentQuery, paging: Paging) -> Slice[Enrollment]:
        where = _of_status(_visible(query), query)
        return await part(self._tx, _ENROLLMENTS_IN_ORDER, paging, where, updated_since=query.updated_since)

    async def overdue(self, now: Instant, limit: int, course_id: str | None = None) -> Sequence[Enrollment]:
        where = Where().also("status = 'active'").also("expires_at <= {}", now).when("course_id = {}", course_id)
        wanted = ENROLLMENTS.select(f"WHERE {where} ORDER BY expires_at ASC, id ASC LIMIT {where.parameter(limit)}")
        return [ENROLLMENTS.make(row) for row in await self._tx.rows(wanted, *where.args)]

    async def live_of_user(self, user_id: str) -> Sequence[Enrollment]:
        wanted = ENROLLMENTS.select(f"WHERE user_id = $1 AND {LIVE} ORDER BY enrolled_at, id")
        return [ENROLLMENTS.make(row) for row in await self._tx.rows(wanted, user_id)]


class Certificates:
    """`learnflow_core.ports.Certificates` in SQL."""

    def __init__(self, tx: DriverTransaction) -> None:
        self._tx = tx

    async def add(self, certificate: Certificate) -> None:
        await insert(self._tx, "certificates", CERTIFICATES.pack(certificate))

    async def get(self, certificate_id: str) -> Certificate | None:
        return CERTIFICATES.maybe(await self._tx.row(CERTIFICATES.select("WHERE id = $1"), certificate_id))

    async def put(self, certificate: Certificate) -> None:
        changed = CERTIFICATES.pack(certificate, only=("recipient", "revoked_at", "updated_at"))
        await update(self._tx, "certificates", certificate.id, changed)

    async def list(self, query: CertificateQuery, paging: Paging) -> Slice[Certificate]:
        where = _visible(query)
        return await part(self._tx, _CERTIFICATES_IN_ORDER, paging, where, updated_since=query.updated_since)

    async def erase_recipient(self, user_id: str, now: Instant) -> None:
        statement = "UPDATE certificates SET recipient = '', updated_at = $2 WHERE user_id = $1"
        await self._tx.rows(statement, user_id, now)


_COMPLETED = (
    "SELECT course_id FROM enrollments WHERE user_id = $1 AND status = 'completed' "
    "AND course_id IN (SELECT value FROM json_each(CAST($2 AS TEXT)))"
)
_SEEN_BY = "(user_id = {0} OR course_id IN (SELECT id FROM courses WHERE created_by = {0}))"


def _of_status(where: Where, query: EnrollmentQuery) -> Where:
    """The status as it is to be seen: what is active until an instant is expired from it on."""
    if query.status == "active":
        return where.also("status = 'active' AND (expires_at IS NULL OR expires_at > {})", query.now)
    if query.status == "expired":
        return where.also("(status = 'expired' OR (status = 'active' AND expires_at <= {}))", query.now)
    return where.when("status = {}", query.status)


def _visible(query: EnrollmentQuery | CertificateQuery) -> Where:
    where = Where().also("mode = {}", query.mode).when("account_id = {}", query.account_id)
    where.when(_SEEN_BY, query.seen_by)
    return where.when("user_id = {}", query.user_id).when("course_id = {}", query.course_id)
