"""PostgreSQL, on a real server: the suite of every backend, and what is PostgreSQL's own."""

from collections.abc import AsyncIterator

import pytest

from storage_backends import open_storage
from storage_backends.conformance import PersistentStorageConformance
from storage_backends.conformance.base import OpenStorage
from tests.postgres import Postgres


class TestInPostgreSQL(PersistentStorageConformance):
    @pytest.fixture
    async def open_storage(self, postgres: Postgres) -> AsyncIterator[OpenStorage]:
        async with postgres.database() as url:
            yield lambda: open_storage(url)
