"""One function for each operation: `(tx, actor, …, ctx) → model`, inside the one transaction it is given.

A use case assumes that `learnflow_core.access.permit` let this kind of caller through, and decides the rest: what the
caller may see (else 404) and whether the rules allow it. It raises `LearnFlowError` and nothing else on purpose.
Enrolling and leaving, where money moves outside the transaction, are sagas of several
(`learnflow_core.usecases.enrollments`).
"""
