"""How much of a thing is tried: little in `make test`, much in `make soak`."""

from __future__ import annotations

from hypothesis import settings

SOAKING = settings().max_examples >= settings.get_profile("soak").max_examples


def amount(quick: int, *, soak: int) -> int:
    """How many of something a test does."""
    return soak if SOAKING else quick
