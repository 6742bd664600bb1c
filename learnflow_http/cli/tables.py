"""Reading tables that other programs exported, CSV and JSON Lines: a row that cannot be read never stops the rest.

Rows carry the number of the physical line they start in. Memory does not grow with the file: a row has at most 1 MiB.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

import msgspec

MAX_ROW: Final = 1 << 20
"""Characters of a row."""

DELIMITERS: Final = ",;\t|"

_IN_WORDS: Final = {"unexpected end of data": "opens a quote that is never closed"}
_PEEKED: Final = 100  # JSON objects whose keys are the table's columns
_UNDECODED: Final = re.compile("[\udc80-\udcff]")
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")


class TableError(Exception):
    """A file that is no table at all; the text tells a person why."""


class Row(NamedTuple):
    """A row: the number of the line it starts in, and the texts of its cells by the names of their columns."""

    line: int
    cells: dict[str, str]


class BadRow(NamedTuple):
    """A row that cannot be read, and why."""

    line: int
    reason: str


class Table(NamedTuple):
    """The columns' names, and the rows, to be walked once. `position` tells how many bytes have been read."""

    columns: Sequence[str]
    rows: Iterator[Row | BadRow]
    position: Callable[[], int]


def read_table(path: Path, file: TextIO, recognised: Callable[[str], bool]) -> Table:
    """The table in a file that `open_text` opened: JSON Lines by its name (.jsonl, .ndjson), else CSV.

    CSV: RFC 4180 with a header; the delimiter is the one that gives the header most columns that are `recognised`.
    JSON Lines: an object a line; an object within it has columns of its own (`price.amount`). Raises TableError.
    """
    lines = _Lines(file)
    is_json = path.suffix.lower() in {".jsonl", ".ndjson"}
    columns, rows = _json_table(lines) if is_json else _csv_table(lines, recognised)
    return Table(columns, rows, file.buffer.tell)


def open_text(path: Path) -> TextIO:
    """The file as UTF-8, with or without a byte order mark; what is not UTF-8 is found line by line."""
    with path.open("rb") as file:
        if file.read(2) in _UTF_16:
            raise TableError("The file is UTF-16; save it as UTF-8 (iconv -f UTF-16 -t UTF-8).")
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


class _BadLineError(csv.Error):
    """A line that cannot be part of any row."""


class _Lines:
    """The physical lines of a file. Those of the row at hand can be taken back, to be read again."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._again: deque[str] = deque()
        self._row: list[str] = []
        self._size = 0
        self._number = 0

    def begin_row(self) -> int:
        """A new row begins with the next line, whose number this is."""
        self._row.clear()
        self._size = 0
        return self._number + 1

    def take_back(self) -> None:
        """Give the row's lines after its first one once more."""
        self._again.extendleft(reversed(self._row[1:]))
        self._number -= max(len(self._row) - 1, 0)

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._file.readline(MAX_ROW)
        if not line:
            raise StopIteration
        self._number += 1
        self._row.append(line)
        self._size += len(line)
        if self._size >= MAX_ROW:
            self._skip_to_end(line)
            raise _BadLineError(f"is longer than {MAX_ROW} characters")
        if "\0" in line:
            raise _BadLineError("has a NUL character")
        if not line.isascii() and (found := _UNDECODED.search(line)):
            byte = ord(found[0]) - 0xDC00
            raise _BadLineError(f"is not UTF-8 (byte 0x{byte:02x}, character {found.start() + 1} of the line)")
        return line

    def _skip_to_end(self, line: str) -> None:
        while line and not line.endswith(("\n", "\r")):
            line = self._file.readline(MAX_ROW)


def _csv_table(lines: _Lines, recognised: Callable[[str], bool]) -> tuple[Sequence[str], Iterator[Row | BadRow]]:
    try:
        first = next(line for line in lines if line.strip())
    except StopIteration:
        raise TableError("The file is empty.") from None
    except csv.Error as error:
        raise TableError(f"The header {error}.") from error
    readings = [(delimiter, _header(first, delimiter)) for delimiter in DELIMITERS]
    delimiter, columns = max(readings, key=lambda reading: (sum(map(recognised, reading[1])), len(reading[1])))
    named = [name for name in columns if name]
    if twice := [name for name in named if named.count(name) > 1]:
        raise TableError(f"Two columns are called {twice[0]!r}.")
    return columns, _csv_rows(lines, delimiter, columns)


def _header(line: str, delimiter: str) -> list[str]:
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=delimiter))]
    except csv.Error:
        return []


def _csv_rows(lines: _Lines, delimiter: str, columns: Sequence[str]) -> Iterator[Row | BadRow]:
    """A row that cannot be read is most often a quote that is never closed, and what follows it is sound: after such a
    row, reading goes on with the line after its first."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        number = lines.begin_row()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            lines.take_back()
            yield BadRow(number, _IN_WORDS.get(str(error), str(error)))
            continue
        while len(cells) > len(columns) and not cells[-1]:
            cells.pop()
        if len(cells) == len(columns):
            if any(cells):
                yield Row(number, dict(zip(columns, cells, strict=True)))
        elif cells:
            lines.take_back()
            yield BadRow(number, f"has {len(cells)} fields where the header has {len(columns)}")


def _json_table(lines: _Lines) -> tuple[Sequence[str], Iterator[Row | BadRow]]:
    rows = _json_rows(lines)
    peeked = list(itertools.islice(rows, _PEEKED))
    columns = dict.fromkeys(name for row in peeked if isinstance(row, Row) for name in row.cells)
    if not columns:
        raise TableError("The file has no JSON object in its first lines.")
    return list(columns), itertools.chain(peeked, rows)


def _json_rows(lines: _Lines) -> Iterator[Row | BadRow]:
    decoder = msgspec.json.Decoder(dict[str, Any], float_hook=str)  # no number passes through binary floating point
    while True:
        number = lines.begin_row()
        try:
            line = next(lines)
            if line.strip():
                yield Row(number, dict(_flat(decoder.decode(line))))
        except StopIteration:
            return
        except (ValueError, RecursionError, csv.Error) as error:
            yield BadRow(number, str(error) if isinstance(error, csv.Error) else "is no JSON object")


def _flat(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in data.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", text) for inner, text in _flat(value))
        elif value is not None:
            yield name, value if isinstance(value, str) else msgspec.json.encode(value).decode()
