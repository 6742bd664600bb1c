"""Certificates: reading, revoking and verifying them."""

from __future__ import annotations

from learnflow_core.errors import Code
from learnflow_core.fields import PlainText
from learnflow_core.usecases import certificates, visible
from learnflow_http import wire
from learnflow_http.operations.changes import Changes, updated_since
from learnflow_http.operations.row import ADMIN, Operation


class CertificateFilters(Changes, frozen=True):
    """Which certificates are listed."""

    user_id: PlainText | None = None
    course_id: PlainText | None = None


CERTIFICATES = (
    Operation(
        method="GET",
        path="/v1/certificates",
        name="listCertificates",
        summary="List certificates",
        tag="Certificates",
        kind="read",
        run=lambda tx, call: certificates.list_certificates(
            tx,
            call.actor,
            call.paging,
            user_id=call.query.user_id,
            course_id=call.query.course_id,
            updated_since=updated_since(call),
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
