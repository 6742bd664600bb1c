"""Families of tokens, rotation, and replies kept under idempotency keys: what time makes worthless."""

from __future__ import annotations

from learnflow_core.model import DAY, Instant, RefreshToken, Reply, TokenFamily
from learnflow_core.ports import Session
from storage_backends.driver import DriverTransaction
from storage_backends.repository.accounts import ACCOUNTS
from storage_backends.repository.sql import Table, insert, insert_unless, texts
from storage_backends.repository.users import USERS

REPLIES_LAST: Instant = DAY
"""How long a reply is kept under its idempotency key."""

FAMILIES = Table("token_families", TokenFamily, scopes=texts("scopes"))
REFRESH_TOKENS = Table("refresh_tokens", RefreshToken)


class Tokens:
    """`learnflow_core.ports.Tokens` in SQL."""

    def __init__(self, tx: DriverTransaction) -> None:
        self._tx = tx

    async def add_family(self, family: TokenFamily) -> None:
        await insert(self._tx, "token_families", FAMILIES.pack(family))

    async def session(self, family_id: str, token_id: str) -> Session | None:
        row = await self._tx.row(_SESSION, family_id, token_id)
        if row is None:
            return None
        revoked, rest = row[0], row[1:]
        user, account = rest[FAMILIES.width :], rest[FAMILIES.width + USERS.width :]
        return Session(
            family=FAMILIES.make(rest[: FAMILIES.width]),
            user=USERS.make(user[: USERS.width]),
            account=ACCOUNTS.make(account),
            token_revoked=bool(revoked),
        )

    async def extend_family(self, family_id: str, expires_at: Instant) -> None:
        statement = "UPDATE token_families SET expires_at = $2 WHERE id = $1 AND expires_at < $2"
        await self._tx.rows(statement, family_id, expires_at)

    async def revoke_family(self, family_id: str, now: Instant) -> bool:
        statement = "UPDATE token_families SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL RETURNING 1"
        return await self._tx.row(statement, family_id, now) is not None

    async def revoke_of_user(self, user_id: str, now: Instant) -> None:
        statement = "UPDATE token_families SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL"
        await self._tx.rows(statement, user_id, now)

    async def revoke_of_key(self, key_id: str, now: Instant) -> None:
        statement = "UPDATE token_families SET revoked_at = $2 WHERE key_id = $1 AND revoked_at IS NULL"
        await self._tx.rows(statement, key_id, now)

    async def revoke_token(self, token_id: str, expires_at: Instant) -> bool:
        return await insert_unless(self._tx, "revoked_tokens", {"id": token_id, "expires_at": expires_at}, "(id)")

    async def refresh_token(self, token_id: str) -> RefreshToken | None:
        return REFRESH_TOKENS.maybe(await self._tx.row(REFRESH_TOKENS.select("WHERE id = $1"), token_id))

    async def put_refresh_token(self, token: RefreshToken) -> None:
        await self._tx.rows(_PUT_ROTATION, *REFRESH_TOKENS.pack(token).values())


class Replies:
    """`learnflow_core.ports.Replies` in SQL."""

    def __init__(self, tx: DriverTransaction) -> None:
        self._tx = tx

    async def get(self, scope: str, key: str) -> Reply | None:
        wanted = "SELECT fingerprint, status, body, claimed_at FROM replies WHERE scope = $1 AND key = $2"
        row = await self._tx.row(wanted, scope, key)
        if row is None:
            return None
        fingerprint, status, body, claimed_at = row
        return Reply(fingerprint, status, body.encode(), claimed_at)

    async def put(self, scope: str, key: str, reply: Reply) -> None:
        kept = (reply.fingerprint, reply.status, reply.body.decode(), reply.claimed_at)
        await self._tx.rows(_PUT_REPLY, scope, key, *kept)

    async def drop(self, scope: str, key: str) -> None:
        await self._tx.rows("DELETE FROM replies WHERE scope = $1 AND key = $2", scope, key)

    async def drop_naming(self, record_id: str) -> None:
        # No index helps with this, and none is worth having: it reads a day of replies when a person is erased.
        await self._tx.rows("DELETE FROM replies WHERE replace(body, CAST($1 AS TEXT), '') <> body", record_id)


async def purge(tx: DriverTransaction, now: Instant) -> None:
    """Forget expired families with their chains, expired revocations, and old replies."""
    await tx.rows(_PURGE_ROTATIONS, now)
    await tx.rows("DELETE FROM token_families WHERE expires_at <= $1", now)
    await tx.rows("DELETE FROM revoked_tokens WHERE expires_at <= $1", now)
    await tx.rows("DELETE FROM replies WHERE claimed_at <= $1", now - REPLIES_LAST)


_SESSION = (
    "SELECT CASE WHEN EXISTS (SELECT 1 FROM revoked_tokens WHERE revoked_tokens.id = $2) THEN 1 ELSE 0 END, "  # noqa: S608
    f"{FAMILIES.qualified}, {USERS.qualified}, {ACCOUNTS.qualified} FROM token_families "
    "JOIN users ON users.id = token_families.user_id JOIN accounts ON accounts.id = users.account_id "
    "WHERE token_families.id = $1"
)
_PUT_ROTATION = (
    "INSERT INTO refresh_tokens (id, family_id, parent_id, successor_id, issued_at, rotated_at, retired_at) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (id) DO UPDATE SET successor_id = excluded.successor_id, "
    "rotated_at = excluded.rotated_at, retired_at = excluded.retired_at"
)
_PUT_REPLY = (
    "INSERT INTO replies (scope, key, fingerprint, status, body, claimed_at) VALUES ($1, $2, $3, $4, $5, $6) "
    "ON CONFLICT (scope, key) DO UPDATE SET fingerprint = excluded.fingerprint, status = excluded.status, "
    "body = excluded.body, claimed_at = excluded.claimed_at"
)
_PURGE_ROTATIONS = (
    "DELETE FROM refresh_tokens WHERE family_id IN (SELECT id FROM token_families WHERE expires_at <= $1)"
)
