"""Payments, means of payment, and the sandbox's own books."""

from __future__ import annotations

from collections.abc import Sequence

from learnflow_core.model import Instant, Payment, PaymentMethod, SandboxCharge
from learnflow_core.pagination import Slice
from learnflow_core.ports import Paging
from storage_backends.driver import DriverTransaction
from storage_backends.repository.paging import Listing, part
from storage_backends.repository.sql import Table, Where, insert, insert_unless, money, update

PAYMENTS = Table("payments", Payment, amount=money("amount", "currency"))
METHODS = Table("payment_methods", PaymentMethod)
SANDBOX = Table("sandbox_charges", SandboxCharge, amount=money("amount", "currency"))

_METHODS_IN_ORDER = Listing(
    "payment_methods", METHODS.columns, METHODS.make, key=(("created_at", int), ("id", str)), falling=True
)


class Payments:
    """`learnflow_core.ports.Payments` in SQL."""

    def __init__(self, tx: DriverTransaction) -> None:
        self._tx = tx

    async def add(self, payment: Payment) -> None:
        await insert(self._tx, "payments", PAYMENTS.pack(payment))

    async def get(self, payment_id: str) -> Payment | None:
        return PAYMENTS.maybe(await self._tx.row(PAYMENTS.select("WHERE id = $1"), payment_id))

    async def put(self, payment: Payment) -> None:
        changed = PAYMENTS.pack(payment, only=("status", "updated_at", "due_at", "tries"))
        await update(self._tx, "payments", payment.id, changed)

    async def claim(self, now: Instant, limit: int, *, until: Instant) -> Sequence[Payment]:
        ahead = now + _AHEAD * (until - now)
        return [PAYMENTS.make(row) for row in await self._tx.rows(_CLAIM, now, limit, until, ahead)]

    async def unresolved(self, before: Instant, limit: int) -> int:
        row = await self._tx.row(_COUNT_UNRESOLVED, before, limit)
        assert row is not None, "an aggregate answers one row"
        return int(row[0])

    async def add_method(self, method: PaymentMethod) -> None:
        await insert(self._tx, "payment_methods", METHODS.pack(method))

    async def method(self, method_id: str) -> PaymentMethod | None:
        return METHODS.maybe(await self._tx.row(METHODS.select("WHERE id = $1"), method_id))

    async def method_with(self, user_id: str, token: str) -> PaymentMethod | None:
        wanted = "WHERE user_id = $1 AND token = $2 AND deleted_at IS NULL ORDER BY created_at, id LIMIT 1"
        return METHODS.maybe(await self._tx.row(METHODS.select(wanted), user_id, token))

    async def put_method(self, method: PaymentMethod) -> None:
        values = METHODS.pack(method, only=("deleted_at", "forgotten_at"))
        await update(self._tx, "payment_methods", method.id, values)

    async def delete_methods(self, user_id: str, now: Instant) -> None:
        statement = "UPDATE payment_methods SET deleted_at = $2 WHERE user_id = $1 AND deleted_at IS NULL"
        await self._tx.rows(statement, user_id, now)

    async def unforgotten(self, limit: int) -> Sequence[PaymentMethod]:
        wanted = METHODS.select(
            "WHERE deleted_at IS NOT NULL AND forgotten_at IS NULL ORDER BY deleted_at, id LIMIT $1"
        )
        return [METHODS.make(row) for row in await self._tx.rows(wanted, limit)]

    async def methods(self, user_id: str, paging: Paging) -> Slice[PaymentMethod]:
        where = Where().also("user_id = {}", user_id).also("deleted_at IS NULL")
        return await part(self._tx, _METHODS_IN_ORDER, paging, where)


class SandboxCharges:
    """`learnflow_core.ports.SandboxCharges` in SQL."""

    def __init__(self, tx: DriverTransaction) -> None:
        self._tx = tx

    async def add(self, charge: SandboxCharge) -> SandboxCharge:
        if await insert_unless(self._tx, "sandbox_charges", SANDBOX.pack(charge), "(key)"):
            return charge
        row = await self._tx.row(SANDBOX.select("WHERE key = $1"), charge.key)
        assert row is not None, "it was there before"
        return SANDBOX.make(row)


_AHEAD = 3
"""What is due so many leases from now was put off by a clock that is, or was, ahead."""

_IS_DUE = "(due_at <= $1 OR due_at > $4)"
# The condition stands outside as well: where another has claimed a row meanwhile, it is asked again of the row as it
# now is, and what the sub-select found is not.
_CLAIM = (
    f"UPDATE payments SET due_at = $3 WHERE {_IS_DUE} "  # noqa: S608 - nothing but our own names
    f"AND id IN (SELECT id FROM payments WHERE {_IS_DUE} ORDER BY tries, due_at, id LIMIT $2) "
    f"RETURNING {PAYMENTS.columns}"
)
_COUNT_UNRESOLVED = (
    "SELECT count(*) FROM (SELECT 1 FROM payments WHERE due_at IS NOT NULL AND updated_at < $1 LIMIT $2) AS found"
)
