"""Entity tags and conditional requests (RFC 9110, sections 8.8.3 and 13.1.2)."""

from __future__ import annotations

import hashlib


def entity_tag(body: bytes) -> str:
    """The strong tag of a representation: a digest of its bytes."""
    return f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def is_not_modified(if_none_match: str | None, tag: str) -> bool:
    """Whether the client has this very representation: one of its tags matches, by the weak comparison, or is `*`."""
    if if_none_match is None:
        return False
    return any(given.strip().removeprefix("W/") in (tag, "*") for given in if_none_match.split(","))
