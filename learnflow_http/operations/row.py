"""What a row of the table is, and who the people are that rows let in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

from learnflow_core.errors import Code
from learnflow_core.model import Role
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
    depend on the answer. `cost` is how many requests it counts as; where the body decides it,
    a function of the actor and the body. `kept` is what an
    idempotency key keeps of a reply; None lets go of the key, as after a failure. `secret`: the reply holds one, and is
    never stored. `shared`: of a call, whether the answer to somebody unknown is everybody's, and only the catalogue
    decides it, so that it is kept (`learnflow_http.answers`). `revokes`: what is remembered of credentials may be wrong
    after it. `rehearsal` is done in its place where the query says `dry_run=true`, and `has_effect` is false of one:
    there is nothing that an idempotency key could keep from happening twice.
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
    cost: int | Callable[[Any, Any], int] = 1
    kept: Callable[[Any], Any] = lambda shown: shown
    secret: bool = False
    shared: Callable[[Call], bool] | None = None
    rehearsal: Operation | None = None
    has_effect: bool = True
    revokes: bool = False
    errors: tuple[Code, ...] = ()

    def price(self, actor: Any, body: Any) -> int:
        """How many requests this call counts as."""
        return self.cost(actor, body) if callable(self.cost) else self.cost

    def meant_by(self, query: Any) -> Operation:
        """What the query asks for: the operation, or its rehearsal."""
        return self.rehearsal if self.rehearsal is not None and query.dry_run == "true" else self

    @property
    def idempotent(self) -> bool:
        """Whether an `Idempotency-Key` is honoured."""
        return self.method in ("POST", "PATCH") and not self.path.startswith("/v1/auth/") and self.has_effect
