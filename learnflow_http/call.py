"""One call of an operation, decoded: what the rows of the table are handed."""

from __future__ import annotations

from typing import Any

import msgspec

from learnflow_core.limiter import Decision
from learnflow_core.model import User
from learnflow_core.ports import Context


class Call(msgspec.Struct, frozen=True):
    """Who calls, and what was sent.

    `actor` is None only where the operation is public. `query` and `body` are the Structs that the row names, `paging`
    is there for lists, and `prepared` is what the row's `prepare` answered. `login` is the user whose password came in
    the body, as it was when it was verified. `decision` is what the limiter said.
    """

    actor: Any
    path: dict[str, str]
    query: Any
    body: Any
    paging: Any
    prepared: Any
    login: User | None
    decision: Decision
    ctx: Context
