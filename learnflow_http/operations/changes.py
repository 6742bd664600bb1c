"""Asking a list for what has changed: one filter, the same for every list that has it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from learnflow_core.instants import instant
from learnflow_core.model import Instant
from learnflow_http.call import Call


class Changes(msgspec.Struct, frozen=True):
    """What a list can be asked for that knows when its items changed."""

    updated_since: Annotated[
        str | None,
        Meta(
            description="Only what changed at this instant or later, in the order of the changes.",
            extra_json_schema={"format": "date-time"},
        ),
    ] = None


def updated_since(call: Call) -> Instant | None:
    """The instant since when changes are asked for, if they are."""
    text: str | None = call.query.updated_since
    return None if text is None else instant(text, param="updated_since")
