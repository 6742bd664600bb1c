"""Who is asking: passwords, access and refresh tokens, API keys, and the actor they lead to.

Secrets are recognised by their digest or signature; nothing here keeps one in the clear but verified access tokens,
and every table is bounded. What a credential depends on is looked up again when it was last looked at
longer than `FRESH_FOR` ago, so that a revocation reaches every process within that time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Generic, Literal, NamedTuple, TypeVar

import argon2
import jwt
import msgspec

from learnflow_core.access import Actor, actor_for
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.ids import api_key_digest, api_key_mode
from learnflow_core.model import SECOND, Account, ApiKey, Instant
from learnflow_core.ports import Session, Storage
from learnflow_core.usecases.tokens import REFRESH_LIFETIME, check_session

FRESH_FOR: Instant = SECOND // 2
"""How long what was looked up about a credential is believed."""

ACCESS_LIFETIME: Instant = 3_600 * SECOND
SKEW: Instant = 60 * SECOND
"""How far the clocks of the machines that sign and verify may be apart."""

REMEMBERED = 10_000
"""How many credentials each table remembers; beyond that the one remembered longest goes first."""

MAX_WAITING = 200
"""How many passwords wait for their turn: some seconds' worth of work."""

TokenUse = Literal["access", "refresh"]
LIFETIMES: dict[TokenUse, Instant] = {"access": ACCESS_LIFETIME, "refresh": REFRESH_LIFETIME}
T = TypeVar("T")


class Claims(msgspec.Struct, frozen=True):
    """What a verified token says: what it is for, whose it is, its family, its own id, and when it ends."""

    use: TokenUse
    user_id: str
    family_id: str
    token_id: str
    expires_at: Instant


class _Payload(msgspec.Struct, frozen=True):
    """The claims of a token (RFC 7519); times are whole seconds."""

    iss: str
    aud: str
    sub: str
    iat: int
    exp: int
    jti: str
    token_use: TokenUse
    fam: str


class TokenSigner:
    """Makes and verifies tokens: JWTs signed with HS256 (RFC 7519, RFC 8725).

    The first secret signs; all of them verify, so that a secret can be changed without ending sessions. Time is handed
    in: PyJWT checks the signature, and the lifetimes are checked here.
    """

    def __init__(self, secrets: tuple[bytes, ...], issuer: str, audience: str) -> None:
        self._secrets = secrets
        self._issuer = issuer
        self._audience = audience
        self._verified: _Remembered[Claims] = _Remembered()

    def sign(self, use: TokenUse, *, user_id: str, family_id: str, token_id: str, issued_at: Instant) -> str:
        """The token with these claims; the same claims give the same token. Lives one hour, or 30 days to refresh."""
        payload = _Payload(
            iss=self._issuer,
            aud=self._audience,
            sub=user_id,
            iat=issued_at // SECOND,
            exp=(issued_at + LIFETIMES[use]) // SECOND,
            jti=token_id,
            token_use=use,
            fam=family_id,
        )
        return jwt.encode(msgspec.structs.asdict(payload), self._secrets[0], algorithm="HS256")

    def read(self, token: str, use: TokenUse, now: Instant) -> Claims:
        """The claims of a token that is ours, of this use, and not expired; else `invalid_token`."""
        claims = self.read_any(token, now)
        if claims is None or claims.use != use:
            raise LearnFlowError(Code.INVALID_TOKEN)
        return claims

    def read_any(self, token: str, now: Instant) -> Claims | None:
        """The claims of a token of any use, if it is ours, not expired, and does not come from the future."""
        claims = self._verified.get(token)
        if claims is None:
            claims = self._verify(token)
            if claims is not None:
                self._verified.put(token, claims)
        if claims is None or not 0 < claims.expires_at - now <= LIFETIMES[claims.use] + SKEW:
            return None
        return claims

    def _verify(self, token: str) -> Claims | None:
        payload = self._payload(token)
        if (
            payload is None
            or (payload.iss, payload.aud) != (self._issuer, self._audience)
            or not 0 < payload.exp - payload.iat <= LIFETIMES[payload.token_use] // SECOND
        ):
            return None
        return Claims(payload.token_use, payload.sub, payload.fam, payload.jti, payload.exp * SECOND)

    def _payload(self, token: str) -> _Payload | None:
        for secret in self._secrets:
            try:
                verified = jwt.decode_complete(
                    token,
                    secret,
                    algorithms=["HS256"],
                    options={
                        "verify_aud": False,
                        "verify_iss": False,
                        "verify_exp": False,
                        "verify_iat": False,
                        "verify_nbf": False,
                        "verify_sub": False,
                        "verify_jti": False,
                    },
                )
                if verified["header"] == {"alg": "HS256", "typ": "JWT"}:
                    return msgspec.convert(verified["payload"], _Payload)
            except (jwt.InvalidTokenError, ValueError, RecursionError):
                continue
        return None


class PasswordHasher:
    """Argon2id with OWASP's small profile (19 MiB, two passes, one lane), on few threads so that many sign-ins at once
    take their turn instead of the machine's memory.

    New passwords have a thread of their own: whoever sets many keeps nobody from signing in. A turn that is too far
    away is refused (`service_unavailable`).
    """

    def __init__(self) -> None:
        self._argon2 = _argon2()
        self._hashing = _Turns(1)
        self._verifying = _Turns(2)
        self._nobody = _hash_of_nobody()

    async def hash(self, password: str) -> str:
        """The hash to keep of a password."""
        return await self._hashing.run(lambda: self._argon2.hash(password))

    async def verify(self, password: str, kept: str | None) -> bool:
        """Whether `kept` is of this password. Takes as long for nobody's hash (None) as for somebody's."""
        return await self._verifying.run(lambda: self._matches(password, kept or self._nobody)) and kept is not None

    def close(self) -> None:
        """Let the threads go."""
        self._hashing.close()
        self._verifying.close()

    def _matches(self, password: str, kept: str) -> bool:
        try:
            return self._argon2.verify(kept, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False


def _argon2() -> argon2.PasswordHasher:
    return argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


@cache
def _hash_of_nobody() -> str:
    """What stands in for the hash of somebody who does not exist: to look at it takes as long."""
    return _argon2().hash("the password of nobody")


class _Turns:
    """Work on a few threads, and a queue that has an end."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._waiting = 0

    async def run(self, work: Callable[[], T]) -> T:
        if self._waiting >= MAX_WAITING:
            raise LearnFlowError(Code.SERVICE_UNAVAILABLE, retry_after_s=1)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class Authenticator:
    """Leads a credential to its actor."""

    def __init__(self, storage: Storage, signer: TokenSigner) -> None:
        self._storage = storage
        self._signer = signer
        self._used: dict[str, Instant] = {}
        self.forget()

    def known(self, credential: str, now: Instant) -> Actor | None:
        """The actor at once, where what it depends on was looked up a moment ago."""
        known = self._actors.get(_name(credential))
        if known is None or not known.since <= now < known.until:
            return None
        if known.actor.key_id is not None:
            self._used[known.actor.key_id] = now
        return known.actor

    async def actor(self, credential: str, now: Instant) -> Actor:
        """The actor of an API key or an access token.

        Raises `invalid_api_key`, `invalid_token`, `account_suspended`.
        """
        actor = self.known(credential, now)
        if actor is None:
            actors = self._actors
            look_up = self._key_actor if credential.startswith("sk_") else self._token_actor
            known = await look_up(credential, now)
            actors.put(_name(credential), known)
            actor = known.actor
        return actor

    def session_actor(self, session: Session | None, now: Instant) -> Actor:
        """The actor of a session whose tokens are good; else as `actor`."""
        good = check_session(session, now)
        return actor_for(
            good.account,
            mode=good.user.mode,
            scopes=good.family.scopes,
            user_id=good.user.id,
            role=good.user.role,
        )

    def forget(self) -> None:
        """Look everything up again at its next use: something was revoked or changed in this process.

        The tables are new ones, so that a look-up under way, which may have seen what was before, is not remembered.
        """
        self._keys: _Remembered[tuple[Instant, tuple[ApiKey, Account] | None]] = _Remembered()
        self._sessions: _Remembered[tuple[Instant, Session | None]] = _Remembered()
        self._actors: _Remembered[_Known] = _Remembered()

    def take_used(self) -> list[tuple[str, Instant]]:
        """Which keys were used since the last call, and when last."""
        used, self._used = self._used, {}
        return list(used.items())

    async def _key_actor(self, secret: str, now: Instant) -> _Known:
        if api_key_mode(secret) is None:
            raise LearnFlowError(Code.INVALID_API_KEY)
        digest = api_key_digest(secret)
        looked_at, found = await _fresh(
            self._keys, digest, now, lambda: self._storage.read(lambda tx: tx.api_keys.by_digest(digest))
        )
        if found is None:
            raise LearnFlowError(Code.INVALID_API_KEY)
        key, account = found
        if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
            raise LearnFlowError(Code.INVALID_API_KEY)
        self._used[key.id] = now
        actor = actor_for(account, mode=key.mode, scopes=key.scopes, key_id=key.id)
        return _Known.of(actor, looked_at, *(() if key.expires_at is None else (key.expires_at,)))

    async def _token_actor(self, token: str, now: Instant) -> _Known:
        claims = self._signer.read(token, "access", now)
        looked_at, session = await _fresh(
            self._sessions,
            claims.token_id,
            now,
            lambda: self._storage.read(lambda tx: tx.tokens.session(claims.family_id, claims.token_id)),
        )
        actor = self.session_actor(session, now)
        assert session is not None, "who has an actor has a session"
        return _Known.of(actor, looked_at, claims.expires_at, session.family.expires_at)


class _Known(NamedTuple):
    """An actor, and from when until when it is that of its credential."""

    since: Instant
    until: Instant
    actor: Actor

    @classmethod
    def of(cls, actor: Actor, looked_at: Instant, *ends: Instant) -> _Known:
        return cls(looked_at, min((looked_at + FRESH_FOR, *ends)), actor)


def _name(credential: str) -> str:
    """What a credential is remembered by: a key by its digest, a token by itself.

    A name that begins like a key is of a key, so no credential has another's name: above all, no digest is one.
    """
    return f"sk_{api_key_digest(credential)}" if credential.startswith("sk_") else credential


class _Remembered(Generic[T]):
    """A bounded table: at `REMEMBERED` entries, the one remembered longest makes room."""

    def __init__(self) -> None:
        self._entries: dict[str, T] = {}

    def get(self, key: str) -> T | None:
        return self._entries.get(key)

    def put(self, key: str, value: T) -> None:
        self._entries.pop(key, None)
        if len(self._entries) >= REMEMBERED:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = value


async def _fresh(
    table: _Remembered[tuple[Instant, T]], key: str, now: Instant, look_up: Callable[[], Awaitable[T]]
) -> tuple[Instant, T]:
    """What the table remembers under a key and when that was looked up: anew when it is too old, or from the future."""
    remembered = table.get(key)
    if remembered is not None and 0 <= now - remembered[0] < FRESH_FOR:
        return remembered
    value = await look_up()
    table.put(key, (now, value))
    return now, value
