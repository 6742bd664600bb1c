"""The operations, one row each. Routes, the OpenAPI document and the matrix of who may do what are made from the rows.

A row says what is asked (path, query, body), who may ask (`public`, `scope`, `roles`), what it costs, what comes back
(`show`, `status`) and which refusals of its own it has. What it does is one use case of the core.
"""

from __future__ import annotations

from learnflow_http.operations.account import ACCOUNT
from learnflow_http.operations.api_keys import API_KEYS
from learnflow_http.operations.authentication import AUTHENTICATION
from learnflow_http.operations.certificates import CERTIFICATES
from learnflow_http.operations.courses import COURSES
from learnflow_http.operations.enrollments import ENROLLMENTS
from learnflow_http.operations.row import Operation
from learnflow_http.operations.users import USERS

__all__ = ["OPERATIONS", "Operation"]

OPERATIONS: tuple[Operation, ...] = (
    *COURSES,
    *ENROLLMENTS,
    *CERTIFICATES,
    *USERS,
    *API_KEYS,
    *ACCOUNT,
    *AUTHENTICATION,
)
"""Every operation of the API, in the order of the reference."""
