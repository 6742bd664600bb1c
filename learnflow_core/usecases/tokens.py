"""Sessions of users: a sign-in opens a family of tokens, refreshing carries it on, revoking ends it.

Tokens themselves (their signature and encoding) belong to the HTTP layer; here is what is known of them: ids, families
and the chain of rotated refresh tokens (RFC 9700, section 4.14; RFC 7009 for revocation).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from learnflow_core.access import EVERY_SCOPE, Actor
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import DAY, SECOND, Instant, Mode, RefreshToken, TokenFamily, User, fold_email
from learnflow_core.ports import Context, Session, Transaction
from learnflow_core.usecases.visible import get_user

REFRESH_LIFETIME: Instant = 30 * DAY
STRICT_GRACE: Instant = 30 * SECOND
"""How long a retired refresh token still answers with its successor under strict rotation: time for a retry."""

Rotation = Literal["off", "compatible", "strict"]
"""What refreshing does to the refresh token: nothing (`off`); a successor is offered, and the parent works until the
successor is first used (`compatible`); a successor replaces the parent at once (`strict`)."""


async def find_login(tx: Transaction, email: str, mode: Mode, account_id: str | None) -> User | None:
    """The one user who signs in with this email; none when nobody, or more than one account's people, does."""
    users = await tx.users.by_email(fold_email(email), mode, account_id)
    return users[0] if len(users) == 1 else None


async def open_family(
    tx: Transaction, user: User, *, scopes: frozenset[str], key_id: str | None, ctx: Context
) -> TokenFamily:
    """Begin a session of `user`, whose tokens do no more than `scopes`."""
    family = TokenFamily(
        id=ctx.new_id("fam"),
        user_id=user.id,
        key_id=key_id,
        scopes=tuple(sorted(scopes)),
        created_at=ctx.now,
        expires_at=await _end(tx, key_id, ctx),
        revoked_at=None,
    )
    await tx.tokens.add_family(family)
    await tx.audit.add(ctx.event("token.minted", family.id, user.account_id))
    return family


async def mint(tx: Transaction, actor: Actor, user_id: str, ctx: Context) -> TokenFamily:
    """Begin a session of one of the account's users on behalf of its key, within the key's scopes.

    Revoking a key ends every session it minted, so none may begin afterwards: `invalid_api_key`, also where the
    revocation has not yet reached whoever let the key in.
    """
    key = await tx.api_keys.get(actor.key_id or "")
    if key is None or key.revoked_at is not None:
        raise LearnFlowError(Code.INVALID_API_KEY)
    user = await get_user(tx, actor, user_id)
    return await open_family(tx, user, scopes=actor.scopes, key_id=key.id, ctx=ctx)


async def begin(tx: Transaction, login: User, ctx: Context) -> TokenFamily:
    """Begin a session of a user whose password has been verified, with everything the user may do.

    `login` is the user as the password was verified against it. A new password ends every session, so none may begin
    with the one before: `invalid_credentials` when it was changed, or the user deleted, meanwhile.
    """
    user = await tx.users.get(login.id)
    if user is None or user.password_hash != login.password_hash:
        raise LearnFlowError(Code.INVALID_CREDENTIALS)
    return await open_family(tx, user, scopes=frozenset({EVERY_SCOPE}), key_id=None, ctx=ctx)


def check_session(session: Session | None, now: Instant) -> Session:
    """The session, if its tokens are good: not revoked, not expired, its user still there; else `invalid_token`."""
    if (
        session is None
        or session.token_revoked
        or session.family.revoked_at is not None
        or session.family.expires_at <= now
        or session.user.deleted_at is not None
    ):
        raise LearnFlowError(Code.INVALID_TOKEN)
    return session


async def rotate(
    tx: Transaction, session: Session, token_id: str, rotation: Rotation, ctx: Context
) -> RefreshToken | None:
    """Use a refresh token: its successor, or None when rotation is `off`, or when the use is a sign of theft.

    Theft (a retired token is used again) ends the whole family, so the answer must commit rather than raise: the
    caller tells the two apart by `rotation`. Parallel and retried uses get the same successor.
    """
    if rotation == "off":
        return None
    token = await tx.tokens.refresh_token(token_id) or _first(token_id, session.family, ctx)
    if token.retired_at is not None and (rotation == "compatible" or ctx.now - token.retired_at > STRICT_GRACE):
        if await tx.tokens.revoke_family(session.family.id, ctx.now):
            await tx.audit.add(ctx.event("token.reused", session.family.id, session.account.id))
        return None
    await _retire_parent(tx, token, ctx)
    if token.successor_id is not None:
        return await tx.tokens.refresh_token(token.successor_id)
    successor = RefreshToken(
        id=ctx.new_id("tok"),
        family_id=session.family.id,
        parent_id=token.id,
        successor_id=None,
        issued_at=ctx.now,
        rotated_at=None,
        retired_at=None,
    )
    await tx.tokens.put_refresh_token(successor)
    rotated = msgspec.structs.replace(
        token,
        successor_id=successor.id,
        rotated_at=ctx.now,
        retired_at=ctx.now if rotation == "strict" else None,
    )
    await tx.tokens.put_refresh_token(rotated)
    await tx.tokens.extend_family(session.family.id, await _end(tx, session.family.key_id, ctx))
    return successor


async def end_family(tx: Transaction, user_id: str, family_id: str, ctx: Context) -> None:
    """End a session, as somebody asks who holds its refresh token; once more changes nothing."""
    if await tx.tokens.revoke_family(family_id, ctx.now):
        await _note_end(tx, user_id, family_id, ctx)


async def end_token(tx: Transaction, user_id: str, token_id: str, expires_at: Instant, ctx: Context) -> None:
    """End a single token, as somebody asks who holds it; once more changes nothing."""
    if await tx.tokens.revoke_token(token_id, expires_at):
        await _note_end(tx, user_id, token_id, ctx)


async def _note_end(tx: Transaction, user_id: str, object_id: str, ctx: Context) -> None:
    """Whoever holds a user's token acts for the user."""
    user = await tx.users.get(user_id)
    account_id = None if user is None else user.account_id
    await tx.audit.add(msgspec.structs.replace(ctx, actor=user_id).event("token.revoked", object_id, account_id))


async def _end(tx: Transaction, key_id: str | None, ctx: Context) -> Instant:
    """When a family that is used now ends: no later than the key that minted it."""
    end = ctx.now + REFRESH_LIFETIME
    key = await tx.api_keys.get(key_id) if key_id is not None else None
    return end if key is None or key.expires_at is None else min(end, key.expires_at)


def _first(token_id: str, family: TokenFamily, ctx: Context) -> RefreshToken:
    """A refresh token that rotation meets for the first time: the one the sign-in issued."""
    return RefreshToken(
        id=token_id,
        family_id=family.id,
        parent_id=None,
        successor_id=None,
        issued_at=family.created_at,
        rotated_at=None,
        retired_at=None,
    )


async def _retire_parent(tx: Transaction, token: RefreshToken, ctx: Context) -> None:
    """The first use of a successor shows that it arrived: from then on its parent is of no use to an honest client."""
    parent = await tx.tokens.refresh_token(token.parent_id) if token.parent_id else None
    if parent is not None and parent.retired_at is None:
        await tx.tokens.put_refresh_token(msgspec.structs.replace(parent, retired_at=ctx.now))
