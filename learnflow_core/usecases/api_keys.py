"""API keys: made, listed, rotated with an overlap, revoked."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from learnflow_core.access import SCOPES, Actor, require_grant
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.fields import Title
from learnflow_core.ids import api_key_digest, new_api_key
from learnflow_core.model import SECOND, ApiKey, Instant, Mode
from learnflow_core.pagination import Slice
from learnflow_core.ports import Context, Paging, Transaction

PREFIX_LENGTH = 12
"""How much of a secret is kept to tell keys apart: `sk_live_` and four characters."""


class MadeKey(msgspec.Struct, frozen=True):
    """A key together with its secret, in the one moment at which both are known."""

    key: ApiKey
    secret: str


class KeyRotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long the old secret still works beside the new one."""

    overlap_seconds: Annotated[int, Meta(ge=0, le=604_800)] = 3_600


async def create_key(
    tx: Transaction,
    actor: Actor,
    *,
    name: Title,
    scopes: tuple[str, ...] | None,
    mode: Mode | None,
    expires_at: Instant | None,
    ctx: Context,
) -> MadeKey:
    """Make a key. `scopes`, `mode` and `expires_at` default to the creator's; a test actor makes test keys only.

    Raises `invalid_parameter` (an unknown scope, an expiry in the past) and `forbidden` (more than the actor holds).
    """
    scopes = tuple(sorted(actor.scopes)) if scopes is None else tuple(sorted(set(scopes)))
    _check_scopes(scopes)
    require_grant(actor, scopes)
    mode = mode or actor.mode
    if actor.mode == "test" and mode == "live":
        raise LearnFlowError(Code.FORBIDDEN, "A test credential cannot make a live key.")
    if expires_at is not None and expires_at <= ctx.now:
        raise LearnFlowError(Code.INVALID_PARAMETER, "expires_at must be in the future.", param="expires_at")
    end = await _end_of(tx, actor)
    if end is not None and (expires_at or end) > end:
        raise LearnFlowError(Code.FORBIDDEN, "No key makes another that outlives it.")
    return await _make(tx, actor.account_id, name, scopes, mode, expires_at or end, ctx)


async def list_keys(
    tx: Transaction, actor: Actor, paging: Paging, updated_since: Instant | None = None
) -> Slice[ApiKey]:
    """The account's keys: all of them for a live actor, the test ones for a test actor."""
    return await tx.api_keys.list(actor.account_id, None if actor.mode == "live" else "test", paging, updated_since)


async def rotate_key(tx: Transaction, actor: Actor, key_id: str, rotation: KeyRotation, ctx: Context) -> MadeKey:
    """Make a successor with the same name, scopes, mode and expiry; the old secret works on for the overlap."""
    key = await _own(tx, actor, key_id)
    if not _works(key, ctx.now):
        raise LearnFlowError(Code.API_KEY_NOT_FOUND, "The key is expired or revoked, and cannot be rotated.")
    require_grant(actor, key.scopes)
    made = await _make(tx, key.account_id, key.name, key.scopes, key.mode, key.expires_at, ctx)
    end = ctx.now + rotation.overlap_seconds * SECOND
    expires_at = end if key.expires_at is None else min(key.expires_at, end)
    await tx.api_keys.put(msgspec.structs.replace(key, expires_at=expires_at, updated_at=ctx.now))
    await tx.audit.add(ctx.event("key.rotated", key.id, key.account_id, made.key.id))
    return made


async def revoke_key(tx: Transaction, actor: Actor, key_id: str, ctx: Context) -> ApiKey:
    """End a key at once, and with it every token it minted; revoking twice changes nothing."""
    return await end_key(tx, await _own(tx, actor, key_id), ctx)


async def end_key(tx: Transaction, key: ApiKey, ctx: Context) -> ApiKey:
    """What revoking a key does, for callers who need no permission: the operator's command line."""
    if key.revoked_at is not None:
        return key
    revoked = msgspec.structs.replace(key, revoked_at=ctx.now, updated_at=ctx.now)
    await tx.api_keys.put(revoked)
    await tx.tokens.revoke_of_key(key.id, ctx.now)
    await tx.audit.add(ctx.event("key.revoked", key.id, key.account_id))
    return revoked


def _works(key: ApiKey, now: Instant) -> bool:
    return key.revoked_at is None and (key.expires_at is None or now < key.expires_at)


async def _end_of(tx: Transaction, actor: Actor) -> Instant | None:
    key = await tx.api_keys.get(actor.key_id) if actor.key_id is not None else None
    return None if key is None else key.expires_at


def _check_scopes(scopes: tuple[str, ...]) -> None:
    for scope in scopes:
        if scope not in SCOPES:
            raise LearnFlowError(
                Code.INVALID_PARAMETER, f"There is no such scope; there are {', '.join(SCOPES)}.", param="scopes"
            )


async def _own(tx: Transaction, actor: Actor, key_id: str) -> ApiKey:
    key = await tx.api_keys.get(key_id)
    if key is None or key.account_id != actor.account_id or (actor.mode == "test" and key.mode == "live"):
        raise LearnFlowError(Code.API_KEY_NOT_FOUND)
    return key


async def _make(
    tx: Transaction,
    account_id: str,
    name: str,
    scopes: tuple[str, ...],
    mode: Mode,
    expires_at: Instant | None,
    ctx: Context,
) -> MadeKey:
    secret = new_api_key(mode, ctx.random_bytes)
    key = ApiKey(
        id=ctx.new_id("key"),
        account_id=account_id,
        name=name,
        prefix=secret[:PREFIX_LENGTH],
        digest=api_key_digest(secret),
        scopes=scopes,
        mode=mode,
        created_at=ctx.now,
        updated_at=ctx.now,
        expires_at=expires_at,
        revoked_at=None,
        last_used_at=None,
    )
    await tx.api_keys.add(key)
    await tx.audit.add(ctx.event("key.created", key.id, key.account_id))
    return MadeKey(key, secret)
