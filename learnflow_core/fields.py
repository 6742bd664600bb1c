r"""The kinds of text and number that commands are made of: length, form and range, each stated once.

The constraints are checked by msgspec when a command is decoded, and stand in the served schema. No text contains NUL,
which one of the databases cannot store. Clients check the served patterns too, in other languages, so each pattern
accepts the same texts in Python as in ECMAScript: `(?!\n)` after `$` makes Python's `$` mean the end, and what only
one of the two takes for `\s` is named beside it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import Meta

from learnflow_core.money import Money, format_amount, parse_amount
from learnflow_core.search import MAX_SLUG_LENGTH, SLUG_PATTERN

_BLANK = r"\s\u0000-\u001f\u0085\ufeff"
_VISIBLE = rf"^[^\u0000]*[^{_BLANK}][^\u0000]*$(?!\n)"
_NO_NUL = r"^[^\u0000]*$(?!\n)"

Title = Annotated[str, Meta(min_length=1, max_length=200, pattern=_VISIBLE)]
PlainText = Annotated[str, Meta(pattern=_NO_NUL)]
LongText = Annotated[str, Meta(max_length=20_000, pattern=_NO_NUL)]
CategorySlug = Annotated[str, Meta(min_length=1, max_length=MAX_SLUG_LENGTH, pattern=SLUG_PATTERN)]
Language = Annotated[str, Meta(max_length=35, pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$(?!\n)")]
"""A BCP 47 tag, by its form (RFC 5646)."""
ExternalId = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\u0000-\u001f]+$(?!\n)")]
Email = Annotated[str, Meta(max_length=254, pattern=rf"^[^@{_BLANK}]{{1,64}}@[^@{_BLANK}]{{1,189}}$(?!\n)")]
Password = Annotated[str, Meta(min_length=10, max_length=256, pattern=_NO_NUL)]
IdText = Annotated[str, Meta(min_length=1, max_length=80, pattern=r"^[^\u0000]+$(?!\n)")]
"""An id as a client sends it: what it names is looked up, not guessed from its form."""
Seats = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Seconds = Annotated[int, Meta(ge=0, le=864_000)]
Days = Annotated[int, Meta(ge=1, le=36_500)]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
"""An instant as a client writes it (RFC 3339); `learnflow_core.instants.instant` reads it."""
Percent = Annotated[int, Meta(ge=0, le=100)]

Amount = Annotated[
    msgspec.Raw,
    Meta(extra_json_schema={"type": "number", "minimum": 0, "description": "The exact decimal amount."}),
]
"""A JSON number by its own digits, so that no amount ever passes through binary floating point."""


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An amount of money as JSON shows it: `{"amount": 49.99, "currency": "USD"}` (ISO 4217)."""

    amount: Amount
    currency: str

    @classmethod
    def of(cls, money: Money) -> Price:
        """The price that shows `money`, with all the decimals of its currency."""
        return _shown(money.amount_minor, money.currency)

    def money(self) -> Money:
        """The money this price names; `invalid_parameter` when it is negative, too exact or of no known currency."""
        return Money(parse_amount(bytes(self.amount).decode(), self.currency), self.currency)


@lru_cache(maxsize=4_096)
def _shown(amount_minor: int, currency: str) -> Price:
    """A price; lists show the same few again and again."""
    return Price(msgspec.Raw(format_amount(amount_minor, currency).encode()), currency)
