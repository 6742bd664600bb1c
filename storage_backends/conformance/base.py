"""What every part of the suite stands on: an empty database for each test, and books that agree at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest_asyncio

from learnflow_core.ports import Storage

OpenStorage = Callable[[], Awaitable[Storage]]


class Suite:
    """A part of the suite. Who runs it defines the fixture `open_storage`, an `OpenStorage` on an empty database.

    Much of the suite changes records without a use case, so that the audit tells nothing of it; that alone is allowed.
    """

    @pytest_asyncio.fixture
    async def storage(self, open_storage: OpenStorage) -> AsyncIterator[Storage]:
        storage = await open_storage()
        yield storage
        findings = await said(storage)
        await storage.close()
        assert [finding for finding in findings if "the audit does not say" not in finding] == []


async def said(storage: Storage) -> list[str]:
    """What a check of the storage says is wrong."""
    return [finding.says for finding in await storage.check()]


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types down to the last field: 1 is not True here, and no enumeration is a string."""
    if type(left) is not type(right) or left != right:
        return False
    if isinstance(left, msgspec.Struct):
        return all(same(getattr(left, name), getattr(right, name)) for name in left.__struct_fields__)
    if isinstance(left, tuple | list):
        return all(map(same, left, right))
    return True
