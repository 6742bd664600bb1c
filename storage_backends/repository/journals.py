"""The ledger and the audit. What a transaction adds to either is written at its end, all of it in one round trip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain

from learnflow_core.audit import AuditRow
from learnflow_core.ledger import Balance, Entry
from learnflow_core.model import Instant, Mode
from learnflow_core.pagination import Slice
from learnflow_core.ports import AuditQuery, Paging
from storage_backends.driver import DriverTransaction, Value
from storage_backends.repository.paging import Listing, part
from storage_backends.repository.sql import Table, Where, money

LEDGER = Table("ledger", Entry, amount=money("amount", "currency"))
AUDIT = Table("audit", AuditRow)

_LATEST_FIRST = Listing("audit", AUDIT.columns, AUDIT.make, key=(("at", int), ("id", str)), falling=True)
_AT_ONCE = 9
"""So many rows are in one INSERT: a statement takes at most 99 parameters everywhere."""


class Journals:
    """The ledger and the audit of a transaction, which are written when it ends, or before they are read."""

    def __init__(self, tx: DriverTransaction) -> None:
        # Neither knows this: what is in a circle, and one for each transaction, is left to the garbage collector.
        self._added = _Added(tx)
        self.ledger = Ledger(tx, self._added)
        self.audit = Audit(tx, self._added)

    async def flush(self) -> None:
        """Write what was added."""
        await self._added.flush()


class _Added:
    """The rows that a transaction has added to either, and has not yet written."""

    def __init__(self, tx: DriverTransaction) -> None:
        self._tx = tx
        self._pending: dict[str, list[Mapping[str, Value]]] = {}

    def add(self, table: str, row: Mapping[str, Value]) -> None:
        self._pending.setdefault(table, []).append(row)

    async def flush(self) -> None:
        if not self._pending:
            return
        pending, self._pending = self._pending, {}
        statements = [
            _insert(table, rows[start : start + _AT_ONCE])
            for table, rows in pending.items()
            for start in range(0, len(rows), _AT_ONCE)
        ]
        await self._tx.together(*statements)


class Ledger:
    """`learnflow_core.ports.Ledger` in SQL."""

    def __init__(self, tx: DriverTransaction, added: _Added) -> None:
        self._tx = tx
        self._added = added

    async def add(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._added.add("ledger", LEDGER.pack(entry))

    async def of(self, record_id: str) -> Sequence[Entry]:
        await self._added.flush()
        return [LEDGER.make(row) for row in await self._tx.rows(_OF, record_id)]

    async def balances(self, mode: Mode, account_id: str | None) -> Sequence[Balance]:
        await self._added.flush()
        where = Where().also("mode = {}", mode).when("account_id = {}", account_id)
        return [Balance(*row) for row in await self._tx.rows(_BALANCES.format(where), *where.args)]


class Audit:
    """`learnflow_core.ports.Audit` in SQL."""

    def __init__(self, tx: DriverTransaction, added: _Added) -> None:
        self._tx = tx
        self._added = added

    async def add(self, row: AuditRow) -> None:
        self._added.add("audit", AUDIT.pack(row))

    async def list(self, query: AuditQuery, paging: Paging) -> Slice[AuditRow]:
        await self._added.flush()
        where = Where().when("object_id = {}", query.object_id).when("account_id = {}", query.account_id)
        return await part(self._tx, _LATEST_FIRST, paging, where.when("at >= {}", query.since))

    async def purge(self, before: Instant, limit: int) -> int:
        return len(await self._tx.rows(_PURGE, before, limit))


def _insert(table: str, rows: Sequence[Mapping[str, Value]]) -> tuple[str, Sequence[Value]]:
    return _statement(table, tuple(rows[0]), len(rows)), list(chain.from_iterable(row.values() for row in rows))


@lru_cache(maxsize=64)
def _statement(table: str, columns: tuple[str, ...], rows: int) -> str:
    width = len(columns)
    values = (", ".join(f"${row * width + column}" for column in range(1, width + 1)) for row in range(rows))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({'), ('.join(values)})"  # noqa: S608 - our own names


_PURGE = (
    "DELETE FROM audit WHERE (at, id) IN (SELECT at, id FROM audit WHERE at < $1 ORDER BY at, id LIMIT $2) RETURNING 1"
)
_OF = (
    f"SELECT {LEDGER.qualified} FROM ledger JOIN payments ON payments.id = payment_id "  # noqa: S608 - our own names
    "WHERE payments.id = $1 OR payments.enrollment_id = $1 ORDER BY ledger.at, payment_id, "
    "CASE movement WHEN 'charged' THEN 1 WHEN 'refunding' THEN 2 ELSE 3 END"
)
_BALANCES = """
    SELECT account_id, currency, side, CAST(SUM(debited) AS BIGINT), CAST(SUM(credited) AS BIGINT) FROM (
        SELECT account_id, currency, debit AS side, amount AS debited, 0 AS credited FROM ledger WHERE {0}
        UNION ALL SELECT account_id, currency, credit, 0, amount FROM ledger WHERE {0}
    ) AS sides GROUP BY account_id, currency, side ORDER BY account_id, currency, side
"""
