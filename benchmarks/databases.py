"""Catalogues of any size on the databases of this machine, as the project and as the peer keep them.

They stay in a folder, because to fill one with a million courses takes minutes. One is filled again when the code that
fills it has changed, or when filling it was broken off.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from benchmarks.catalogue_data import catalogue
from benchmarks.peers.fastapi_sqlalchemy import filling
from benchmarks.processes import ROOT
from learnflow_core.model import Account, Course
from learnflow_core.ports import Context, Storage, Transaction
from storage_backends import migrate, open_storage
from tests.postgres import Postgres, found_programs

FOLDER: Final = ROOT / ".benchmarks"
SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
ENGINES: Final = (SQLITE, POSTGRESQL)
ACCOUNT: Final = Account("acct_catalogue", "Catalogue", "starter", None, None, None, 0)
_BATCH: Final = 1_000
_PATIENCE_S: Final = 600.0

# Enough that a server of a million courses, of which there is one at a time, finds them in memory.
_SETTINGS: Final = ("shared_buffers=512MB", "max_wal_size=4GB")
_GENERATOR: Final = "benchmarks/catalogue_data.py"


class Engine(Protocol):
    """What keeps databases by their names."""

    pid: int | None
    """Of its server, where it has one."""

    def names(self) -> set[str]: ...
    def url(self, name: str) -> str: ...
    def make(self, name: str) -> None: ...
    def rename(self, name: str, new: str) -> None: ...
    def drop(self, name: str) -> None: ...


class _SqliteFiles:
    """A folder for each database, since it may have more files than one."""

    pid: int | None = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def names(self) -> set[str]:
        return {path.name for path in self._folder.iterdir()}

    def url(self, name: str) -> str:
        return f"sqlite:///{self._folder / name}/catalogue.db"

    def make(self, name: str) -> None:
        (self._folder / name).mkdir()

    def rename(self, name: str, new: str) -> None:
        (self._folder / name).rename(self._folder / new)

    def drop(self, name: str) -> None:
        shutil.rmtree(self._folder / name)


class _PostgresServer:
    def __init__(self, server: Postgres) -> None:
        self._server = server
        self.pid: int | None = server.pid

    def names(self) -> set[str]:
        rows = asyncio.run(self._server.run("SELECT datname FROM pg_database WHERE datname ~ '[0-9]'"))
        return {name for (name,) in rows}

    def url(self, name: str) -> str:
        return self._server.url(name)

    def make(self, name: str) -> None:
        asyncio.run(self._server.run(f"CREATE DATABASE {name} TEMPLATE template0"))

    def rename(self, name: str, new: str) -> None:
        # What its housekeeping would do soon, before anything is measured.
        asyncio.run(self._server.run("VACUUM ANALYZE", name))
        asyncio.run(self._server.run(f"ALTER DATABASE {name} RENAME TO {new}"))

    def drop(self, name: str) -> None:
        asyncio.run(self._server.run(f"DROP DATABASE {name} WITH (FORCE)"))


class Keeper(NamedTuple):
    """Who keeps a catalogue: how an empty database is filled, and the code that decides what is in it then."""

    fill: Callable[[str, int], Coroutine[Any, Any, None]]
    sources: tuple[str, ...]

    def edition(self) -> str:
        """What tells databases apart that were filled by different code."""
        digest = hashlib.sha256()
        for source in (_GENERATOR, *self.sources):
            path = ROOT / source
            for file in [path] if path.is_file() else sorted([*path.glob("*.py"), *path.glob("*.sql")]):
                digest.update(file.read_bytes())
        return digest.hexdigest()[:12]


class Databases:
    """The databases of some engines, made when they are asked for."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines

    @property
    def engines(self) -> tuple[str, ...]:
        """The names of what there is to measure on."""
        return tuple(self._engines)

    def server(self, engine: str) -> int | None:
        """The process id of the engine's own server."""
        return self._engines[engine].pid

    def ours(self, engine: str, courses: int) -> str:
        """The URL of a database of the project's with so many courses."""
        return self._kept(engine, "ours", courses)

    def peers(self, engine: str, courses: int) -> str:
        """The URL of one of the peer's with the same courses."""
        return filling.async_url(self._kept(engine, "peers", courses))

    def _kept(self, engine_name: str, keeper: str, courses: int) -> str:
        engine = self._engines[engine_name]
        kind = f"{keeper}_{courses}_"
        name, draft = f"{kind}{KEEPERS[keeper].edition()}", f"filling_{keeper}_{courses}"
        there = engine.names()
        if name not in there:
            for outdated in there:
                if outdated == draft or outdated.startswith(kind):
                    engine.drop(outdated)
            began = time.perf_counter()
            engine.make(draft)
            asyncio.run(KEEPERS[keeper].fill(engine.url(draft), courses))
            engine.rename(draft, name)
            took = time.perf_counter() - began
            print(f"{courses:,} courses kept on {engine_name} ({keeper}) in {took:.1f} s.", file=sys.stderr)
        return engine.url(name)


def database_options(parser: argparse.ArgumentParser, courses: tuple[int, ...]) -> None:
    """Add the options that say on what is measured, and at which numbers of courses unless told otherwise."""
    parser.add_argument(
        "--courses",
        type=numbers,
        default=courses,
        metavar="N,…",
        help=f"in the catalogue (default: {','.join(map(str, courses))})",
    )
    parser.add_argument(
        "--databases",
        nargs="+",
        choices=ENGINES,
        default=ENGINES,
        metavar="DATABASE",
        help=f"{', '.join(ENGINES)} (default: those that are here)",
    )
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="where databases are kept for the next run (default: .benchmarks)"
    )


@contextmanager
def databases(given: argparse.Namespace) -> Iterator[Databases]:
    """Those that the options name and this machine has, for the block."""
    folder = given.folder.resolve()
    with ExitStack() as stack:
        engines: dict[str, Engine] = {}
        if SQLITE in given.databases:
            engines[SQLITE] = _SqliteFiles(folder / "sqlite")
        if POSTGRESQL in given.databases and found_programs() is not None:
            (folder / "postgresql").mkdir(parents=True, exist_ok=True)
            server = stack.enter_context(Postgres(*_SETTINGS, kept=folder / "postgresql"))
            engines[POSTGRESQL] = _PostgresServer(server)
        if missing := [name for name in given.databases if name not in engines]:
            print(f"Not on this machine, and left out: {', '.join(missing)}.", file=sys.stderr)
        yield Databases(engines)


async def fill(storage: Storage, count: int) -> None:
    """Make a catalogue of so many courses, and the account that has them, in a database without any."""
    await storage.write(_add_account)
    courses = catalogue(count, account_id=ACCOUNT.id)
    while batch := list(islice(courses, _BATCH)):
        await storage.write(partial(_add, batch=batch))
        while await storage.tally():
            pass


async def _add_account(tx: Transaction) -> None:
    await tx.accounts.add(ACCOUNT)
    made = Context(ACCOUNT.created_at, os.urandom).event("account.created", ACCOUNT.id, ACCOUNT.id, ACCOUNT.plan)
    await tx.audit.add(made)


async def _add(tx: Transaction, batch: list[Course]) -> None:
    await tx.courses.add_all(batch)


async def _fill_ours(url: str, count: int) -> None:
    await migrate(url)
    storage = await open_storage(url, read_deadline_s=_PATIENCE_S)
    try:
        await fill(storage, count)
    finally:
        await storage.close()


async def _fill_peers(url: str, count: int) -> None:
    await filling.fill(filling.async_url(url), catalogue(count, account_id=ACCOUNT.id))


KEEPERS: Final = {
    "ours": Keeper(
        _fill_ours, ("storage_backends/migrations", "storage_backends/repository", "learnflow_core/search.py")
    ),
    "peers": Keeper(
        _fill_peers,
        ("benchmarks/peers/fastapi_sqlalchemy/models.py", "benchmarks/peers/fastapi_sqlalchemy/filling.py"),
    ),
}


def numbers(text: str) -> tuple[int, ...]:
    """Some numbers above zero, separated by commas."""
    found = tuple(sorted({int(number) for number in text.split(",")}))
    if found[0] < 1:
        raise argparse.ArgumentTypeError("every number is above zero")
    return found
