"""The published examples, word for word, under the names of the schemas that they are examples of."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

EXAMPLES: Mapping[str, Any] = MappingProxyType(
    {
        "CourseItemPage": {
            "data": [
                {
                    "id": "crs_8x92k1",
                    "title": "Complete Web Development Bootcamp",
                    "instructor": "Dr. John Smith",
                    "category": "development",
                    "level": "all",
                    "price": {"amount": 49.99, "currency": "USD"},
                    "rating": 4.9,
                    "total_students": 12450,
                }
            ],
            "meta": {"current_page": 1, "total_pages": 42, "total_items": 2085},
        },
        "NewEnrollment": {
            "user_id": "usr_7f3d9a",
            "course_id": "crs_8x92k1",
            "payment_method_id": "pm_visa_4242",
        },
        "Enrollment": {
            "id": "enr_2m4p1z",
            "user_id": "usr_7f3d9a",
            "course_id": "crs_8x92k1",
            "status": "active",
            "progress": 0,
            "enrolled_at": "2024-01-15T09:30:00Z",
        },
        "Refresh": {"refresh_token": "<JWT>"},
        "RefreshedToken": {"access_token": "<JWT>", "token_type": "Bearer", "expires_in": 3600},
        "Error": {
            "error": {
                "code": "invalid_token",
                "message": "The access token provided is expired or invalid.",
                "request_id": "req_9x2k1m",
            }
        },
    }
)
