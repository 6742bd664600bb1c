"""The package: light to import, and its names are there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import learnflow_core.limiter as package
from tests.limiting import ROOT


def test_importing_the_limiter_loads_nothing_slow() -> None:
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import learnflow_core.limiter; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "learnflow_core.limiter.memory" in loaded
    assert not loaded & {"asyncio", "dataclasses", "enum", "hashlib", "re", "threading", "typing"}


def test_every_public_name_is_there_and_no_other() -> None:
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Limter'"):
        package.Limter  # noqa: B018 - asking for it is the test
