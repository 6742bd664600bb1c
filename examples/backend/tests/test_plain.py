"""The backend does what LearnFlow asks of one, found as a user's program finds it, and what it says of itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from learnflow_plain.driver import PlainDriver

from learnflow_core.ports import Storage
from storage_backends import UnusableDatabaseError, migrate, open_storage
from storage_backends.conformance import PersistentStorageConformance, StorageConformance
from storage_backends.driver import OverdueError

FOR_EVER = "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


class TestInAFile(PersistentStorageConformance):
    """All that is promised of a backend that keeps data."""

    @pytest.fixture
    def open_storage(self, tmp_path: Path) -> Callable[[], Awaitable[Storage]]:
        return lambda: open_storage(f"plain:///{tmp_path}/school.db")


class TestInMemory(StorageConformance):
    """All that is promised of one whose data ends with it."""

    @pytest.fixture
    def open_storage(self) -> Callable[[], Awaitable[Storage]]:
        return lambda: open_storage("plain://")


@pytest.mark.asyncio
async def test_a_read_that_takes_too_long_is_interrupted_unless_it_is_patient() -> None:
    driver = PlainDriver(sqlite3.connect(":memory:", isolation_level=None), read_deadline_s=0.01)
    with pytest.raises(OverdueError):
        await driver.read(lambda tx: tx.rows(FOR_EVER))
    counted = FOR_EVER.replace("FROM c)", "FROM c LIMIT 1000000)")
    assert await driver.read(lambda tx: tx.row(counted), patient=True) == (1_000_000,)
    await driver.close()


@pytest.mark.asyncio
async def test_what_cannot_be_served_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names no file"):
        await open_storage("plain://school.db")
    (tmp_path / "text.db").write_text("no database at all, but a text that is long enough to be looked at" * 20)
    for do in (open_storage, migrate):
        with pytest.raises(UnusableDatabaseError, match="file is not a database"):
            await do(f"plain:///{tmp_path}/text.db")
