"""What a check of the books is: a question to the database, what to say of each row it answers, and what helps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from learnflow_core.ports import Context
from storage_backends.driver import DriverTransaction, Row
from storage_backends.repository.journals import Journals

Repair = Callable[[DriverTransaction, Journals, Row, Context], Awaitable[bool]]
"""Puts right what a row of a question tells of, which this transaction has just asked again; False where it finds that
it cannot, and has changed nothing."""


Rebuild = Callable[[DriverTransaction], Awaitable[None]]
"""Makes anew something that is kept only because it is quicker to read than what it follows from."""


class Remedy(NamedTuple):
    """What helps, in words: what `repair` does about one row, or `rebuild` about all that is wrong at once; without
    either, what a person has to do."""

    says: str
    repair: Repair | None = None
    rebuild: Rebuild | None = None

    @property
    def needs_nobody(self) -> bool:
        """Whether the doctor can do it."""
        return self.repair is not None or self.rebuild is not None


class Check(NamedTuple):
    """A question, one statement that answers a row for everything that is wrong, so sound books cost reading alone.

    `sentence` has a `{}` for each column of the row, the first of which (`id`, where there is a repair) tells what the
    row is about. `name` is what the audit says was repaired. `remedy` is one for all rows, or chosen by the row.
    """

    name: str
    sentence: str
    question: str
    remedy: Remedy | Callable[[Row], Remedy]

    def remedy_of(self, row: Row) -> Remedy:
        """What helps where the question answers this row."""
        return self.remedy if isinstance(self.remedy, Remedy) else self.remedy(row)
