"""People of an account."""

from __future__ import annotations

from collections.abc import Sequence

from learnflow_core.model import Instant, Mode, User
from learnflow_core.pagination import Slice
from learnflow_core.ports import Paging
from storage_backends.driver import DriverTransaction, DuplicateError, Value
from storage_backends.repository.paging import Listing, part
from storage_backends.repository.sql import Table, Where, insert_unless, update

USERS = Table("users", User)

_IN_ORDER = Listing("users", USERS.columns, USERS.make, key=(("created_at", int), ("id", str)), falling=True)


class Users:
    """`learnflow_core.ports.Users` in SQL."""

    def __init__(self, tx: DriverTransaction) -> None:
        self._tx = tx

    async def add(self, user: User) -> bool:
        return await insert_unless(self._tx, "users", _columns(user))

    async def get(self, user_id: str) -> User | None:
        return USERS.maybe(await self._tx.row(USERS.select("WHERE id = $1"), user_id))

    async def put(self, user: User) -> bool:
        try:
            async with self._tx.savepoint():
                await update(self._tx, "users", user.id, _columns(user))
        except DuplicateError:
            return False
        return True

    async def by_email(self, folded_email: str, mode: Mode, account_id: str | None) -> Sequence[User]:
        where = Where().also("mode = {}", mode).also("email_key = {}", folded_email).when("account_id = {}", account_id)
        rows = await self._tx.rows(USERS.select(f"WHERE {where} ORDER BY account_id LIMIT 2"), *where.args)
        return [USERS.make(row) for row in rows]

    async def list(
        self, account_id: str, mode: Mode, paging: Paging, updated_since: Instant | None = None
    ) -> Slice[User]:
        where = Where().also("account_id = {}", account_id).also("mode = {}", mode)
        if updated_since is None:
            where.also("deleted_at IS NULL")
        return await part(self._tx, _IN_ORDER, paging, where, updated_since=updated_since)


def _columns(user: User) -> dict[str, Value]:
    return {**USERS.pack(user), "email_key": user.email_key}
