"""SQLite, in a file and in memory: the suite of every backend, and what is SQLite's own."""

from pathlib import Path

import pytest

from storage_backends import open_storage
from storage_backends.conformance import PersistentStorageConformance, StorageConformance
from storage_backends.conformance.base import OpenStorage


class TestInAFile(PersistentStorageConformance):
    @pytest.fixture
    def open_storage(self, tmp_path: Path) -> OpenStorage:
        return lambda: open_storage(f"sqlite:///{tmp_path / 'learnflow.db'}")


class TestInMemory(StorageConformance):
    @pytest.fixture
    def open_storage(self) -> OpenStorage:
        return lambda: open_storage("sqlite://")
