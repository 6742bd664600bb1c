"""Instants as text: RFC 3339, as the API shows and reads them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import SECOND, Instant

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ZONED = Annotated[datetime, msgspec.Meta(tz=True)]


def timestamp(at: Instant) -> str:
    """An instant as RFC 3339, in UTC with a `Z` and whole seconds."""
    text: str = msgspec.to_builtins(datetime.fromtimestamp(at // SECOND, UTC))  # strftime takes six times as long
    return text


def instant(text: str, *, param: str) -> Instant:
    """The instant an RFC 3339 text names, whatever its offset; `invalid_parameter` for any other text."""
    try:
        at = msgspec.convert(text, _ZONED)
    except msgspec.ValidationError as error:
        message = f"{param} must be a time such as 2024-01-15T09:30:00Z (RFC 3339, with an offset or Z)."
        raise LearnFlowError(Code.INVALID_PARAMETER, message, param=param) from error
    return (at - _EPOCH) // timedelta(microseconds=1)
