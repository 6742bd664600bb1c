"""`learnflow`, paid by the service of `tests.siege.payments` (its socket is in SIEGE_PAYMENTS), and with room for all.

Everything else is the program as it is.
"""

from __future__ import annotations

import os

from learnflow_core import access
from learnflow_core.limiter import Quota
from learnflow_core.limiter.plans import PLANS
from learnflow_http import app
from learnflow_http.cli import main
from tests.siege.payments import RemoteGateway

if __name__ == "__main__":
    vars(access)["PLANS"] = {plan: (Quota.per_minute(1_000_000_000),) for plan in PLANS}
    vars(app)["SandboxGateway"] = lambda storage: RemoteGateway(storage, os.environ["SIEGE_PAYMENTS"])
    main()
