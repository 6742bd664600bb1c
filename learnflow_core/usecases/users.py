"""People of an account: making, changing and deleting them."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from learnflow_core.access import Actor, require_role_grant
from learnflow_core.enrollment import abandoned
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.fields import Email, ExternalId, Password, Title
from learnflow_core.model import Instant, Role, User, fold_email
from learnflow_core.ports import Context, Transaction
from learnflow_core.usecases.enrollments import end
from learnflow_core.usecases.visible import get_user


class NewUser(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a new user is made of. Without a password the user cannot sign in, but keys can mint tokens for them."""

    email: Email
    name: Title
    role: Role = "learner"
    password: Password | None = None
    external_id: ExternalId | None = None


class UserChanges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to change about a user; what is absent stays. Users themselves change `name` and `password` only."""

    email: Email | UnsetType = UNSET
    name: Title | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    password: Password | UnsetType = UNSET
    external_id: ExternalId | UnsetType | None = UNSET


async def create_user(tx: Transaction, actor: Actor, new: NewUser, password_hash: str | None, ctx: Context) -> User:
    """Make a user in the actor's account and mode. `password_hash` is of `new.password`; hashing is too slow for here.

    Raises `email_taken`, `forbidden` (a role, or with a password what its owner may do, is beyond the actor's own
    power), `invalid_parameter` (`external_id`).
    """
    require_role_grant(actor, new.role, password=password_hash is not None)
    user = User(
        id=ctx.new_id("usr"),
        account_id=actor.account_id,
        mode=actor.mode,
        email=new.email,
        name=new.name,
        role=new.role,
        password_hash=password_hash,
        external_id=new.external_id,
        created_at=ctx.now,
        updated_at=ctx.now,
        deleted_at=None,
    )
    if not await tx.users.add(user):
        raise await _taken(tx, user)
    await tx.audit.add(ctx.event("user.created", user.id, user.account_id, user.role))
    return user


async def change_user(
    tx: Transaction, actor: Actor, user_id: str, changes: UserChanges, password_hash: str | None, ctx: Context
) -> User:
    """Change what `changes` names. A new password ends every session of the user.

    Raises `forbidden` when a user changes more of themselves than name and password, or when the actor would take over,
    or make, somebody with more power than their own.
    """
    user = await get_user(tx, actor, user_id)
    given = {name: value for name, value in msgspec.structs.asdict(changes).items() if value is not UNSET}
    if not actor.sees_account and not given.keys() <= {"name", "password"}:
        raise LearnFlowError(Code.FORBIDDEN, "Users can change their own name and password only.")
    if given.keys() & {"email", "password", "role"}:
        require_role_grant(actor, user.role, password="password" in given)
    if "role" in given:
        require_role_grant(actor, given["role"])
    if given.pop("password", None) is not None:
        given["password_hash"] = password_hash
        await tx.tokens.revoke_of_user(user.id, ctx.now)
        await tx.audit.add(ctx.event("password.set", user.id, user.account_id))
    changed = msgspec.structs.replace(user, **given)
    if changed == user:
        return user
    if changed.role != user.role:
        await tx.audit.add(ctx.event("role.set", user.id, user.account_id, changed.role))
    changed = msgspec.structs.replace(changed, updated_at=ctx.now)
    if not await tx.users.put(changed):
        raise await _taken(tx, changed)
    return changed


async def delete_user(tx: Transaction, actor: Actor, user_id: str, refund_window: Instant, ctx: Context) -> User:
    """Erase the person and keep the books: sessions end, certificates lose the name, and enrolments that are not
    completed end. What was paid for them within `refund_window` goes back, by the sweep."""
    user = await get_user(tx, actor, user_id)
    require_role_grant(actor, user.role)
    return await erase(tx, user, refund_window, ctx)


async def erase(tx: Transaction, user: User, refund_window: Instant, ctx: Context) -> User:
    """What deleting a user does, for callers who need no permission: the operator's command line."""
    await tx.tokens.revoke_of_user(user.id, ctx.now)
    for enrollment in await tx.enrollments.live_of_user(user.id):
        ended = abandoned(enrollment, ctx.now, refund_window)
        if ended is not enrollment:
            await end(tx, ended, ctx)
    await tx.certificates.erase_recipient(user.id, ctx.now)
    await tx.payments.delete_methods(user.id, ctx.now)
    await tx.replies.drop_naming(user.id)
    erased = msgspec.structs.replace(
        user,
        email="",
        name="",
        password_hash=None,
        external_id=None,
        updated_at=ctx.now,
        deleted_at=ctx.now,
    )
    await tx.users.put(erased)
    await tx.audit.add(ctx.event("user.erased", user.id, user.account_id))
    return erased


async def _taken(tx: Transaction, user: User) -> LearnFlowError:
    """Which of the two unique facts of a user is another's."""
    namesakes = await tx.users.by_email(fold_email(user.email), user.mode, user.account_id)
    if any(namesake.id != user.id for namesake in namesakes):
        return LearnFlowError(Code.EMAIL_TAKEN, param="email")
    return LearnFlowError(
        Code.INVALID_PARAMETER, "Another user of the account has this external_id.", param="external_id"
    )
