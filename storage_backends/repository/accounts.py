"""Accounts with their licences, and API keys."""

from __future__ import annotations

from collections.abc import Sequence

from learnflow_core.model import Account, ApiKey, Instant, Mode
from learnflow_core.pagination import Slice
from learnflow_core.ports import Paging
from storage_backends.driver import DriverTransaction
from storage_backends.repository.paging import Listing, part
from storage_backends.repository.sql import MODES, Table, Where, insert, texts, update

ACCOUNTS = Table("accounts", Account)
API_KEYS = Table("api_keys", ApiKey, scopes=texts("scopes"))

_ALL = Listing("accounts", ACCOUNTS.columns, ACCOUNTS.make, key=(("created_at", int), ("id", str)), falling=False)
_KEYS = Listing("api_keys", API_KEYS.columns, API_KEYS.make, key=(("created_at", int), ("id", str)), falling=True)

# ruff: noqa: S608 - nothing but our own names is put into these
_TAKE_LICENSE = {
    mode: f"UPDATE accounts SET {mode}_licenses = {mode}_licenses + 1 "
    f"WHERE id = $1 AND (licenses IS NULL OR {mode}_licenses < licenses) RETURNING id"
    for mode in MODES
}
_LICENSES_TAKEN = {mode: f"SELECT {mode}_licenses FROM accounts WHERE id = $1" for mode in MODES}
_RETURN_LICENSE = {mode: f"UPDATE accounts SET {mode}_licenses = {mode}_licenses - 1 WHERE id = $1" for mode in MODES}


class Accounts:
    """`learnflow_core.ports.Accounts` in SQL."""

    def __init__(self, tx: DriverTransaction) -> None:
        self._tx = tx

    async def add(self, account: Account) -> None:
        await insert(self._tx, "accounts", ACCOUNTS.pack(account))

    async def get(self, account_id: str) -> Account | None:
        return ACCOUNTS.maybe(await self._tx.row(ACCOUNTS.select("WHERE id = $1"), account_id))

    async def put(self, account: Account) -> None:
        changed = ACCOUNTS.pack(account, only=("name", "plan", "per_minute", "licenses", "suspended_at"))
        await update(self._tx, "accounts", account.id, changed)

    async def list(self, paging: Paging) -> Slice[Account]:
        return await part(self._tx, _ALL, paging, Where())

    async def licenses_taken(self, account_id: str, mode: Mode) -> int:
        row = await self._tx.row(_LICENSES_TAKEN[mode], account_id)
        assert row is not None, "callers have just read the account"
        return int(row[0])

    async def take_license(self, account_id: str, mode: Mode) -> bool:
        return await self._tx.row(_TAKE_LICENSE[mode], account_id) is not None

    async def return_license(self, account_id: str, mode: Mode) -> None:
        await self._tx.rows(_RETURN_LICENSE[mode], account_id)


class ApiKeys:
    """`learnflow_core.ports.ApiKeys` in SQL."""

    def __init__(self, tx: DriverTransaction) -> None:
        self._tx = tx

    async def add(self, key: ApiKey) -> None:
        await insert(self._tx, "api_keys", API_KEYS.pack(key))

    async def get(self, key_id: str) -> ApiKey | None:
        return API_KEYS.maybe(await self._tx.row(API_KEYS.select("WHERE id = $1"), key_id))

    async def by_digest(self, digest: str) -> tuple[ApiKey, Account] | None:
        row = await self._tx.row(_BY_DIGEST, digest)
        if row is None:
            return None
        return API_KEYS.make(row[: API_KEYS.width]), ACCOUNTS.make(row[API_KEYS.width :])

    async def put(self, key: ApiKey) -> None:
        await update(
            self._tx, "api_keys", key.id, API_KEYS.pack(key, only=("name", "expires_at", "revoked_at", "updated_at"))
        )

    async def list(
        self, account_id: str, mode: Mode | None, paging: Paging, updated_since: Instant | None = None
    ) -> Slice[ApiKey]:
        where = Where().also("account_id = {}", account_id).when("mode = {}", mode)
        return await part(self._tx, _KEYS, paging, where, updated_since=updated_since)

    async def touch(self, used: Sequence[tuple[str, Instant]]) -> None:
        # In the order of the ids, so that two processes that do this at once wait for each other rather than for ever.
        for key_id, at in sorted(used):
            await self._tx.rows(_TOUCH, key_id, at)


_BY_DIGEST = (
    f"SELECT {API_KEYS.qualified}, {ACCOUNTS.qualified} FROM api_keys "
    "JOIN accounts ON accounts.id = api_keys.account_id WHERE api_keys.digest = $1"
)
_TOUCH = "UPDATE api_keys SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)"
