"""Getting, refreshing and revoking tokens: the operations whose credential is in the body."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta

from learnflow_core.access import EVERY_SCOPE, FAILED_CREDENTIALS, Actor, actor_for, permit
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.fields import IdText, PlainText
from learnflow_core.model import SECOND, Account, Mode, RefreshToken, User
from learnflow_core.ports import Context, Transaction
from learnflow_core.usecases import tokens
from learnflow_http import wire
from learnflow_http.auth import ACCESS_LIFETIME
from learnflow_http.call import Call
from learnflow_http.exchange import Exchange
from learnflow_http.services import Services

Credential = Annotated[str, Meta(min_length=1, max_length=4_096)]


class SignIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Email and password of a user (with the account where the email alone is ambiguous); or, with an API key as the
    credential of the request, the user for whom tokens are wanted. `mode` says which of a company's people sign in."""

    email: Annotated[PlainText, Meta(max_length=254)] | None = None
    password: Annotated[str, Meta(max_length=1_024)] | None = None
    account: IdText | None = None
    mode: Mode = "live"
    user_id: IdText | None = None


class Refresh(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The refresh token of a session."""

    refresh_token: Credential


class Revocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The token to be revoked: a refresh token ends its session, an access token itself only."""

    token: Credential


async def by_password_or_key(services: Services, exchange: Exchange, body: SignIn) -> Actor:
    """The actor who asks for tokens: a key that minds its users, or the user whose password this is.

    A credential of the request goes before the body, and must be a key's: a token begins no other session, because that
    would outlive it. A password is counted as failed before it is looked at, and given back when it was right: many
    guesses at the same time are as few as one after the other. Raises `invalid_credentials` whatever was wrong about
    the pair.
    """
    credential = exchange.credential()
    if credential is not None:
        exchange.actor = await services.authenticator.actor(credential, exchange.now)
        permit(exchange.actor, "tokens:write", frozenset())
        return exchange.actor
    if body.user_id is not None:
        raise LearnFlowError(Code.MISSING_TOKEN, "Minting tokens for a user needs an API key.")
    if body.email is None or body.password is None:
        missing = "email" if body.email is None else "password"
        raise LearnFlowError(Code.MISSING_PARAMETER, f"{missing} is needed.", param=missing)
    exchange.decision = await services.limiter.hit(exchange.failed_key, FAILED_CREDENTIALS)
    if not exchange.decision.allowed:
        raise LearnFlowError(Code.RATE_LIMIT_EXCEEDED)
    found = await services.storage.read(lambda tx: _find_login(tx, body))
    kept = found[0].password_hash if found else None
    if not await services.passwords.verify(body.password, kept) or found is None:
        raise LearnFlowError(Code.INVALID_CREDENTIALS)
    await services.limiter.refund(exchange.decision)
    exchange.decision = None
    user, account = found
    exchange.login = user
    return actor_for(account, mode=user.mode, scopes={EVERY_SCOPE}, user_id=user.id, role=user.role)


async def by_refresh_token(services: Services, exchange: Exchange, body: Refresh) -> Actor:
    """The user whose session this refresh token carries on; `invalid_token` for any other."""
    claims = services.signer.read(body.refresh_token, "refresh", exchange.now)
    session = await services.storage.read(lambda tx: tx.tokens.session(claims.family_id, claims.token_id))
    return services.authenticator.session_actor(session, exchange.now)


async def by_nobody(_services: Services, _exchange: Exchange, _body: msgspec.Struct) -> None:
    """No actor: anyone may do this, whatever else they send."""


async def create_token(services: Services, call: Call) -> wire.TokenPair:
    """Begin a session and answer its first tokens."""
    actor: Actor = call.actor
    login = call.login
    if login is not None:
        family = await services.storage.write(lambda tx: tokens.begin(tx, login, call.ctx))
    elif call.body.user_id is None:
        raise LearnFlowError(Code.MISSING_PARAMETER, "user_id is needed.", param="user_id")
    else:
        family = await services.storage.write(lambda tx: tokens.mint(tx, actor, call.body.user_id, call.ctx))
    return wire.TokenPair(
        access_token=_access_token(services, family.user_id, family.id, call.ctx),
        refresh_token=services.signer.sign(
            "refresh",
            user_id=family.user_id,
            family_id=family.id,
            token_id=call.ctx.new_id("tok"),
            issued_at=call.ctx.now,
        ),
        token_type="Bearer",  # noqa: S106 - the name of a scheme
        expires_in=ACCESS_LIFETIME // SECOND,
    )


async def refresh_token(services: Services, call: Call) -> wire.RefreshedToken:
    """Carry a session on with a new access token, and where rotation is on with a new refresh token."""
    rotation = services.settings.refresh_rotation
    claims = services.signer.read(call.body.refresh_token, "refresh", call.ctx.now)
    successor = None
    if rotation != "off":
        successor = await services.storage.write(
            lambda tx: _rotate(tx, claims.family_id, claims.token_id, rotation, call.ctx)
        )
        if successor is None:
            services.authenticator.forget()
            raise LearnFlowError(Code.INVALID_TOKEN)
    return wire.RefreshedToken(
        access_token=_access_token(services, claims.user_id, claims.family_id, call.ctx),
        token_type="Bearer",  # noqa: S106 - the name of a scheme
        expires_in=ACCESS_LIFETIME // SECOND,
        refresh_token=UNSET
        if successor is None
        else services.signer.sign(
            "refresh",
            user_id=claims.user_id,
            family_id=claims.family_id,
            token_id=successor.id,
            issued_at=successor.issued_at,
        ),
    )


async def revoke_token(services: Services, call: Call) -> wire.Empty:
    """End what the token stands for; a text that is no token of ours, or no longer one, has nothing to end."""
    claims = services.signer.read_any(call.body.token, call.ctx.now)
    if claims is not None and claims.use == "refresh":
        await services.storage.write(lambda tx: tokens.end_family(tx, claims.user_id, claims.family_id, call.ctx))
    elif claims is not None:
        await services.storage.write(
            lambda tx: tokens.end_token(tx, claims.user_id, claims.token_id, claims.expires_at, call.ctx)
        )
    return wire.Empty()


def _access_token(services: Services, user_id: str, family_id: str, ctx: Context) -> str:
    return services.signer.sign(
        "access", user_id=user_id, family_id=family_id, token_id=ctx.new_id("tok"), issued_at=ctx.now
    )


async def _find_login(tx: Transaction, body: SignIn) -> tuple[User, Account] | None:
    user = await tokens.find_login(tx, body.email or "", body.mode, body.account)
    account = await tx.accounts.get(user.account_id) if user else None
    return (user, account) if user and account else None


async def _rotate(
    tx: Transaction, family_id: str, token_id: str, rotation: tokens.Rotation, ctx: Context
) -> RefreshToken | None:
    session = tokens.check_session(await tx.tokens.session(family_id, token_id), ctx.now)
    return await tokens.rotate(tx, session, token_id, rotation, ctx)
