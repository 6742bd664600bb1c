"""What every test shares: the profiles of Hypothesis, and the programs that tests need from the machine."""

import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

from learnflow_core.limiter import MemoryLimiter, memory
from storage_backends.shared_memory import SharedMemoryLimiter
from storage_backends.valkey import AsyncLeasedValkeyLimiter, LeasedValkeyLimiter
from tests.limiting import Implementation, running_on
from tests.postgres import Postgres
from tests.servers import Valkey
from tests.valkey import held_asyncio_limiters, held_limiters
from tests.world import World, open_world

# A slow machine is no defect: Hypothesis finds wrong answers here, and benchmarks find slow ones.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("soak", settings.get_profile("default"), max_examples=5_000)
# Coverage asks which lines ran, and the same ones must run each time.
settings.register_profile("covered", settings.get_profile("default"), max_examples=20, derandomize=True)
settings.load_profile("default")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that runs the tests in the background has them ignore it, and the programs that they start would, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def missing(what: str) -> NoReturn:
    """Skip the test, or fail it where everything must run (LEARNFLOW_REQUIRE_ALL=1)."""
    if os.environ.get("LEARNFLOW_REQUIRE_ALL") == "1":
        pytest.fail(f"{what} is not on this machine, and LEARNFLOW_REQUIRE_ALL=1")
    pytest.skip(f"{what} is not on this machine")


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The machine's own Chromium, for tests that look at a page as a person does."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return Path(found)
    missing("Chromium")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A server with nothing in it yet."""
    async with open_world() as world:
        yield world


@pytest.fixture(scope="session")
def python_limiters() -> Implementation:
    return Implementation(memory.MemoryLimiter)


@pytest.fixture(scope="session")
def c_limiters() -> Implementation:
    """The accelerator; it is there when the project was installed with a C compiler at hand."""
    if MemoryLimiter.implementation != "c":
        missing("The limiter's accelerator")
    return Implementation(MemoryLimiter)


@pytest.fixture(scope="session")
def shared_memory_limiters() -> Implementation:
    """Small tables, whose buckets the tests count often."""
    return Implementation(partial(SharedMemoryLimiter, max_buckets=64, overflow_buckets=2))


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """A Valkey that tests share who are content with keys of their own."""
    with Valkey() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL that tests share who are content with databases of their own."""
    with Postgres() as server:
        yield server


@pytest.fixture(scope="session")
def valkey_limiters(valkey: Valkey) -> Iterator[Implementation]:
    with held_limiters(valkey) as made:
        yield made


@pytest.fixture(scope="session")
def valkey_asyncio_limiters(valkey: Valkey) -> Iterator[Implementation]:
    with held_asyncio_limiters(valkey) as made:
        yield made


@pytest.fixture(scope="session")
def valkey_leased_limiters(valkey: Valkey) -> Iterator[Implementation]:
    with held_limiters(valkey, LeasedValkeyLimiter) as made:
        yield made


@pytest.fixture(scope="session")
def valkey_leased_asyncio_limiters(valkey: Valkey) -> Iterator[Implementation]:
    with held_asyncio_limiters(valkey, AsyncLeasedValkeyLimiter) as made:
        yield made


@pytest.fixture(scope="module")
def implementation(request: pytest.FixtureRequest) -> Iterator[None]:
    """The limiter that a module's tests run on; see tests/limiting.py."""
    with running_on(request.getfixturevalue(f"{request.param}_limiters")):
        yield


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> AbstractAsyncContextManager[str]:
    """A new, empty database of each kind, by its URL."""
    if request.param == "sqlite":
        return nullcontext(f"sqlite:///{tmp_path}/school.db")
    made: AbstractAsyncContextManager[str] = request.getfixturevalue("postgres").database()
    return made


@pytest.fixture
async def url(database: AbstractAsyncContextManager[str]) -> AsyncIterator[str]:
    """The URL of a new, empty database of each kind."""
    async with database as url:
        yield url
