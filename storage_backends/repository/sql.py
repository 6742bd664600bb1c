"""How records become rows and conditions become SQL: the names of columns are derived from the Structs, once.

Only names written in this package are ever put into SQL; what comes from outside travels as a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import count
from typing import Any, Generic, NamedTuple, TypeVar, get_args

import msgspec

from learnflow_core.model import Mode
from learnflow_core.money import Money
from storage_backends.driver import DriverTransaction, Row, Value

T = TypeVar("T", bound=msgspec.Struct)

MODES: tuple[Mode, ...] = get_args(Mode)


_TEXTS = msgspec.json.Decoder(tuple[str, ...])


class Codec(NamedTuple):
    """How one field is kept where a column cannot hold it as it is: in which columns, and the way in and out."""

    columns: tuple[str, ...]
    pack: Callable[[Any], tuple[Value, ...]]
    unpack: Callable[..., Any]


def flag(column: str) -> Codec:
    """A boolean as 0 or 1."""
    return Codec((column,), lambda value: (int(value),), bool)


def texts(column: str) -> Codec:
    """A tuple of strings as JSON."""
    return Codec((column,), lambda value: (json_text(value),), _TEXTS.decode)


def money(amount: str, currency: str) -> Codec:
    """Money as its minor units and its currency."""
    return Codec((amount, currency), lambda value: (value.amount_minor, value.currency), _money)


@lru_cache(maxsize=4_096)
def _money(amount: int, currency: str) -> Money:
    """The money of two columns; a catalogue has few prices, and each is an object that takes 1 µs to make."""
    return Money(amount, currency)


def json_text(values: Iterable[Any]) -> str:
    """A list as JSON, as `json_each` of both databases reads it."""
    return msgspec.json.encode(list(values)).decode()


def json_rows(parameter: str, *names: str) -> str:
    """A sub-select of rows with these columns, all of them texts, from one list of all their values on end."""
    columns = (f"MAX(CASE key % {len(names)} WHEN {at} THEN value END) AS {name}" for at, name in enumerate(names))
    return f"(SELECT {', '.join(columns)} FROM json_each(CAST({parameter} AS TEXT)) GROUP BY key / {len(names)})"  # noqa: S608


class Table(Generic[T]):
    """The columns in which records of one Struct are kept: those of its fields, by name, except where a codec says."""

    def __init__(self, name: str, record: type[T], **codecs: Codec) -> None:
        self._name = name
        self._fields = [(field, codecs.get(field)) for field in record.__struct_fields__]
        names = [codec.columns if codec else (field,) for field, codec in self._fields]
        self._names = [column for columns in names for column in columns]
        self.columns = ", ".join(self._names)
        self.qualified = ", ".join(f"{name}.{column}" for column in self._names)
        self.make: Callable[[Row], T] = _maker(record, self._fields)
        """The record that a row of its columns holds."""

    @property
    def width(self) -> int:
        """How many columns a record takes."""
        return len(self._names)

    def select(self, rest: str) -> str:
        """A SELECT of whole records; `rest` follows the table's name."""
        return f"SELECT {self.columns} FROM {self._name} {rest}"  # noqa: S608 - our own names

    def pack(self, record: T, only: Collection[str] | None = None) -> dict[str, Value]:
        """The record's columns with their values; of all its fields, or of some."""
        packed: dict[str, Value] = {}
        for field, codec in self._fields:
            if only is None or field in only:
                value = getattr(record, field)
                packed.update(zip(codec.columns, codec.pack(value), strict=True) if codec else ((field, value),))
        return packed

    def maybe(self, row: Row | None) -> T | None:
        """The record of a row, if there is one."""
        return None if row is None else self.make(row)


def _maker(record: type[T], fields: Iterable[tuple[str, Codec | None]]) -> Callable[[Row], T]:
    """`lambda row: record(row[0], unpack_price(row[1], row[2]), …)`, which takes a third of the time of a loop."""
    known: dict[str, Any] = {"record": record}
    at, values = count(), list[str]()
    for field, codec in fields:
        columns = ", ".join(f"row[{next(at)}]" for _ in (codec.columns if codec else (field,)))
        if codec:
            known[f"unpack_{field}"] = codec.unpack
        values.append(f"unpack_{field}({columns})" if codec else columns)
    made: Callable[[Row], T] = eval(f"lambda row: record({', '.join(values)})", known)  # noqa: S307 - our own names
    return made


class Where:
    """Conditions that must all hold, with the arguments they need. `{}` in a condition stands for its parameter."""

    def __init__(self) -> None:
        self._conditions: list[str] = []
        self.args: list[Value] = []

    def also(self, condition: str, *args: Value) -> Where:
        """Add a condition with its arguments, one for each `{}` (or `{0}`, where one is used twice)."""
        self._conditions.append(condition.format(*(self.parameter(arg) for arg in args)))
        return self

    def when(self, condition: str, arg: Value) -> Where:
        """Add a condition on a filter that is given, none where it is null."""
        return self if arg is None else self.also(condition, arg)

    def parameter(self, arg: Value) -> str:
        """The parameter that will stand for this argument."""
        self.args.append(arg)
        return f"${len(self.args)}"

    def copy(self) -> Where:
        """The same conditions, to be continued on their own."""
        other = Where()
        other._conditions, other.args = list(self._conditions), list(self.args)
        return other

    def within(self, condition: str) -> Where:
        """One condition that has all of these inside, where it says `{}`, and the same arguments."""
        self._conditions = [condition.format(self)]
        return self

    def __str__(self) -> str:
        return " AND ".join(self._conditions) or "1 = 1"


async def insert(tx: DriverTransaction, table: str, values: Mapping[str, Value]) -> None:
    """Keep a new row; `DuplicateError` when it, or a unique fact of it, exists."""
    await tx.rows(_insert(table, tuple(values)), *values.values())


async def insert_unless(tx: DriverTransaction, table: str, values: Mapping[str, Value], conflict: str = "") -> bool:
    """Keep a new row, unless it conflicts with another in what `conflict` names (empty: in any unique fact)."""
    statement = f"{_insert(table, tuple(values))} ON CONFLICT {conflict} DO NOTHING RETURNING 1"
    return await tx.row(statement, *values.values()) is not None


async def update(tx: DriverTransaction, table: str, row_id: str, values: Mapping[str, Value]) -> None:
    """Replace columns of the row with this id; LookupError when there is none, because callers have just read it."""
    if await tx.row(_update(table, tuple(values)), row_id, *values.values()) is None:
        raise LookupError(f"nothing in {table} has the id {row_id}")


@lru_cache(maxsize=256)
def _insert(table: str, columns: Sequence[str]) -> str:
    parameters = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({parameters})"  # noqa: S608 - our own names


@lru_cache(maxsize=256)
def _update(table: str, columns: Sequence[str]) -> str:
    changes = ", ".join(f"{column} = ${number}" for number, column in enumerate(columns, 2))
    return f"UPDATE {table} SET {changes} WHERE id = $1 RETURNING id"  # noqa: S608 - our own names
