"""What a storage backend is, as tests: who passes them can serve LearnFlow.

    from storage_backends.conformance import StorageConformance

    class TestMyStorage(StorageConformance):
        @pytest.fixture
        def open_storage(self, tmp_path):
            return lambda: my_backend.open_storage(f"mine://{tmp_path}/db", read_deadline_s=10)

`open_storage` opens the same database each time, empty at first; a backend that keeps data runs
`PersistentStorageConformance` too. Needs pytest, pytest-asyncio and Hypothesis.
"""

from __future__ import annotations

# ruff: noqa: E402 - the parts of the suite are imported when pytest knows that it is to explain their assertions
import pkgutil

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{part.name}" for part in pkgutil.iter_modules(__path__)))

from storage_backends.conformance.catalogue import Catalogue, Seats
from storage_backends.conformance.changes import Changes
from storage_backends.conformance.due import Due
from storage_backends.conformance.journals import Journals
from storage_backends.conformance.learning import Learning
from storage_backends.conformance.lists import Lists
from storage_backends.conformance.pages import Pages
from storage_backends.conformance.people import People
from storage_backends.conformance.promises import Books, Concurrency, Persistence, Transactions
from storage_backends.conformance.search import Search
from storage_backends.conformance.sessions import Sessions
from storage_backends.conformance.subjects import Subjects
from storage_backends.conformance.version import Versions

__all__ = ["PersistentStorageConformance", "StorageConformance"]


@pytest.mark.asyncio
class StorageConformance(
    People,
    Learning,
    Journals,
    Due,
    Sessions,
    Lists,
    Changes,
    Pages,
    Catalogue,
    Versions,
    Search,
    Seats,
    Transactions,
    Concurrency,
    Subjects,
    Books,
):
    """All that every backend promises."""


@pytest.mark.asyncio
class PersistentStorageConformance(StorageConformance, Persistence):
    """And what one promises that keeps its data."""
