"""Who may do what: plans and their quotas, scopes, roles, and the actor that every use case is handed.

Two questions are kept apart. *May this kind of caller do this kind of thing at all?* is answered by `permit`, before
the operation looks at any data: 403. *Does this thing exist for this caller?* is answered by the use case: 404.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

import msgspec

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.limiter import Quota
from learnflow_core.limiter.plans import PLANS
from learnflow_core.model import Account, Mode, Plan, Role

EVERY_SCOPE = "*"
SCOPES: dict[str, str] = {
    "courses:write": "create, change and archive the account's courses",
    "users:read": "read the account's users",
    "users:write": "create, change and delete the account's users, and their payment methods",
    "enrollments:read": "read the enrolments of the account's users",
    "enrollments:write": "enrol the account's users, cancel, and set progress",
    "certificates:read": "read the certificates of the account's users",
    "certificates:write": "revoke certificates of the account's users",
    "tokens:write": "mint access tokens for the account's users",
    EVERY_SCOPE: "everything, including API keys and the account itself",
}
"""Every scope an API key can have, and what it lets the key do."""

_LEARNING = frozenset({"users:write", "enrollments:read", "enrollments:write", "certificates:read"})

ROLE_SCOPES: dict[Role, frozenset[str]] = {
    "learner": _LEARNING,
    "instructor": _LEARNING | {"courses:write"},
    "admin": frozenset({EVERY_SCOPE}),
}
"""What somebody with a role can do once signed in: what a caller must hold to grant the role, or a password to its
owner."""

FAILED_CREDENTIALS: tuple[Quota, ...] = (Quota.per_minute(30, name="failed-credentials"),)
"""What one address may get wrong: every refused credential takes one."""


@lru_cache(maxsize=1_024)
def quotas(plan: Plan, per_minute: int | None = None) -> tuple[Quota, ...]:
    """The limiter's quotas of a plan, the minute's replaced by `per_minute` where an account has its own.

    Raises ValueError for a `per_minute` below 1.
    """
    minute, *rest = PLANS[plan]
    return (minute if per_minute is None else Quota.per_minute(per_minute), *rest)


class Actor(msgspec.Struct, frozen=True):
    """The caller of a use case: an account's key, or a user with a token; always in one mode.

    A key has `key_id`; a user has `user_id` and `role`. `scopes` bound both: what a key was given, and for a token what
    the key that minted it had (everything after a sign-in with a password).
    """

    account_id: str
    account_name: str
    plan: Plan
    mode: Mode
    scopes: frozenset[str]
    quotas: tuple[Quota, ...]
    key_id: str | None = None
    user_id: str | None = None
    role: Role | None = None

    @property
    def caller_id(self) -> str:
        """Whose idempotency keys these are: the user's, else the account's in this mode (all its keys together)."""
        return self.user_id or f"{self.account_id}:{self.mode}"

    @property
    def sees_account(self) -> bool:
        """Whether everything of the account (in the actor's mode) is visible: a key's and an admin's view."""
        return self.user_id is None or self.role == "admin"

    def holds(self, scope: str) -> bool:
        """Whether `scope` is among the actor's scopes, by name or by `*`."""
        return scope in self.scopes or EVERY_SCOPE in self.scopes


def actor_for(
    account: Account,
    *,
    mode: Mode,
    scopes: Collection[str],
    key_id: str | None = None,
    user_id: str | None = None,
    role: Role | None = None,
) -> Actor:
    """The actor that acts for `account`, unless the account is suspended (`account_suspended`)."""
    if account.suspended_at is not None:
        raise LearnFlowError(Code.ACCOUNT_SUSPENDED)
    return Actor(
        account_id=account.id,
        account_name=account.name,
        plan=account.plan,
        mode=mode,
        scopes=frozenset(scopes),
        quotas=quotas(account.plan, account.per_minute),
        key_id=key_id,
        user_id=user_id,
        role=role,
    )


def permit(actor: Actor, scope: str | None, roles: Collection[Role] | None) -> None:
    """Refuse a caller whose kind may not do this: a missing scope is `insufficient_scope`, a wrong role `forbidden`.

    `scope` None: any credential will do. `roles` None: no user may, only a key.
    """
    if scope is not None and not actor.holds(scope):
        raise LearnFlowError(
            Code.INSUFFICIENT_SCOPE,
            f"This operation needs the scope {scope}.",
            details={"scope": scope},
        )
    if actor.user_id is not None and (roles is None or actor.role not in roles):
        raise LearnFlowError(Code.FORBIDDEN)


def commands(actor: Actor, scope: str) -> bool:
    """Whether the actor has the power that `scope` names: a key by its scopes, a user by role and scopes both."""
    within_role = actor.role is None or bool(ROLE_SCOPES[actor.role] & {scope, EVERY_SCOPE})
    return within_role and actor.holds(scope)


def require_grant(actor: Actor, scopes: Collection[str]) -> None:
    """Refuse to hand on more than the actor has (`forbidden`): nobody grants more than they hold."""
    missing = sorted(scope for scope in scopes if not commands(actor, scope))
    if missing:
        raise LearnFlowError(Code.FORBIDDEN, "Nobody can grant more than they have.", details={"scopes": missing})


def require_role_grant(actor: Actor, role: Role, *, password: bool = False) -> None:
    """Refuse to make, to change or to delete somebody whose role goes beyond what the actor holds (`forbidden`).

    A learner without a `password` being set can do nothing by that, and is anyone's to look after.
    """
    if role != "learner" or password:
        require_grant(actor, ROLE_SCOPES[role])
