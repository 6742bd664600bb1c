"""Named plans as data: a mapping from a name to quotas is all that a plan needs to be."""

from __future__ import annotations

from learnflow_core.limiter.quota import Quota

PLANS: dict[str, tuple[Quota, ...]] = {
    "starter": (Quota.per_minute(30), Quota.per_day(1_000)),
    "professional": (Quota.per_minute(300), Quota.per_day(25_000)),
    "enterprise": (Quota.per_minute(3_000),),
}
"""The plans that LearnFlow publishes. One decision asks all quotas of a plan."""
