"""`python -m benchmarks.served …` is `learnflow …` with two quotas that nobody reaches.

A benchmark asks more in a second than other plans allow in a day, and the Enterprise plan has no quota of the day. Here
it has one that nobody reaches, so that every request is counted twice, as it is for most callers. So has Professional,
whose accounts pay for courses for which those of the Enterprise plan have licences.
"""

from __future__ import annotations

from benchmarks.school import PER_MINUTE
from learnflow_core.limiter import Quota
from learnflow_core.limiter.plans import PLANS
from learnflow_http.cli import main

PER_DAY = 100 * PER_MINUTE

if __name__ == "__main__":
    PLANS["enterprise"] = PLANS["professional"] = (Quota.per_minute(PER_MINUTE), Quota.per_day(PER_DAY))
    main()
