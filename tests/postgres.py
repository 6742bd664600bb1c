"""A real PostgreSQL that tests start, fill, pause, kill and start again."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Any, Final, NoReturn, Self

import asyncpg

from storage_backends import migrate
from tests.servers import eventually

LOCALES: Final = {
    "c": "LC_COLLATE 'C' LC_CTYPE 'C'",
    # What an operator hands us sorts as a language does.
    "icu": "LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LC_COLLATE 'C' LC_CTYPE 'C'",
}

_QUICK: Final = ("fsync=off", "full_page_writes=off", "synchronous_commit=on")
_ALWAYS: Final = ("shared_buffers=32MB", "wal_level=minimal", "max_wal_senders=0", "log_statement=none")
_ROOM: Final = 1 << 30
_SUPERVISED: Final = '"$@" >server.log 2>&1 & echo $!; read _; { kill -QUIT $!; kill -CONT $!; } 2>&-; wait'


def found_programs() -> Path | None:
    """The folder of PostgreSQL's programs, where there is one: LEARNFLOW_TEST_POSTGRES, pg_config's or the path's, or
    Debian's newest."""
    if named := os.environ.get("LEARNFLOW_TEST_POSTGRES"):
        return Path(named)
    if config := shutil.which("pg_config"):
        told = Path(subprocess.run([config, "--bindir"], capture_output=True, text=True, check=True).stdout.strip())
        if (told / "initdb").exists():
            return told
    if initdb := shutil.which("initdb"):
        return Path(initdb).resolve().parent
    found = [program.parent for program in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(found, key=lambda folder: int(folder.parent.name), default=None)


def postgres_programs() -> Path:
    """The same, where there has to be one."""
    return found_programs() or _missing("A PostgreSQL server")


class Postgres:
    """A server of one's own, which listens at a Unix socket. `settings` are of the form `name=value`.

    Unless `durable`, it does not wait for the disk: a crash of the machine, which no test makes, could lose something.
    Everything is gone with it, unless `kept` names a folder: there the databases are, and are found again.
    """

    def __init__(self, *settings: str, durable: bool = False, kept: Path | None = None) -> None:
        # A short path, since a socket's has some 100 characters.
        self.folder = Path(mkdtemp(prefix="learnflow-pg-", dir=None if durable else _in_memory()))
        self._data = (kept or self.folder) / "data"
        self._kept = kept is not None
        self.programs = postgres_programs()
        self._settings = (*_ALWAYS, *(() if durable else _QUICK), *settings)
        self._supervisor: subprocess.Popen[str] | None = None
        self._numbers = count()
        self._templates: dict[str, str] = {}
        self.pid = 0
        try:
            self._make()
            self.start()
        except BaseException:
            self.close()
            raise

    def url(self, database: str = "postgres", **query: object) -> str:
        """The URL of one of its databases."""
        more = "".join(f"&{name}={value}" for name, value in query.items())
        return f"postgresql:///{database}?host={self.folder}&user=postgres{more}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        words = [str(self.programs / "postgres"), "-D", str(self._data), "-k", str(self.folder), "-h", ""]
        words += [word for setting in self._settings for word in ("-c", setting)]
        shell = ["sh", "-c", _SUPERVISED, "sh", *words]
        self._supervisor = subprocess.Popen(
            shell,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            **self._as_somebody(),
        )
        assert self._supervisor.stdout
        self.pid = int(self._supervisor.stdout.readline())
        eventually(self._answers)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """End it: SIGINT politely, SIGQUIT at once, SIGKILL as a crash does."""
        if self._supervisor is not None:
            family = [self.pid, *self._children()]
            os.kill(self.pid, how)
            # Its children end by themselves when they find it gone, and only then can it be started again.
            eventually(lambda: not any(map(_lives, family)))
            self._supervisor.communicate("\n", timeout=20)
            self._supervisor = None

    def pause(self) -> None:
        """Stop all of it: connections are accepted by the system, and nothing is answered."""
        for pid in (self.pid, *self._children()):
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in (self.pid, *self._children()):
            os.kill(pid, signal.SIGCONT)

    async def make(self, locale: str = "icu", *, template: bool = True) -> str:
        """A new database, and its name: one that is up to date, or (without `template`) one with nothing in it."""
        if template and locale not in self._templates:
            made = await self.make(locale, template=False)
            await migrate(self.url(made))
            self._templates[locale] = made
        name = f"school_{next(self._numbers)}"
        # Copying files is ten times as quick as the usual way, which writes all of them to the log.
        source = (
            f"TEMPLATE {self._templates[locale]} STRATEGY FILE_COPY"
            if template
            else f"TEMPLATE template0 {LOCALES[locale]}"
        )
        try:
            await self.run(f"CREATE DATABASE {name} {source}")
        except (asyncpg.FeatureNotSupportedError, asyncpg.PostgresSyntaxError):  # built without, or before 15
            _missing("A PostgreSQL with ICU")
        return name

    async def drop(self, name: str) -> None:
        await self.run(f"DROP DATABASE {name} WITH (FORCE)")

    @asynccontextmanager
    async def database(self, locale: str = "icu", *, template: bool = True) -> AsyncIterator[str]:
        """The URL of a new database (see `make`), which is gone afterwards."""
        name = await self.make(locale, template=template)
        yield self.url(name)
        await self.drop(name)

    async def run(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """What the server answers to a statement."""
        connection = await asyncpg.connect(self.url(database))
        try:
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self.stop(signal.SIGINT if self._kept else signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _make(self) -> None:
        if who := self._as_somebody():
            for folder in (self.folder, self._data.parent):
                os.chown(folder, who["user"], who["group"])
        if self._data.exists():
            return
        words = ["-D", str(self._data), "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C"]
        subprocess.run(
            [self.programs / "initdb", *words], cwd=self.folder, check=True, capture_output=True, **self._as_somebody()
        )

    @staticmethod
    def _as_somebody() -> dict[str, Any]:
        """As whom to run it: PostgreSQL refuses to be root's."""
        if os.getuid() != 0:
            return {}
        nobody = pwd.getpwnam("nobody")
        return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def _children(self) -> list[int]:
        found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text("ascii")
        return [int(pid) for pid in found.split()]

    def _answers(self) -> bool:
        if not (self.folder / ".s.PGSQL.5432").exists():
            return False
        try:
            asyncio.run(_greet(self.url()))
        except (asyncpg.PostgresError, OSError):
            return False
        return True


def _missing(what: str) -> NoReturn:
    from tests.conftest import missing  # noqa: PLC0415 - that module has fixtures which need this one

    missing(what)


def _in_memory() -> str | None:
    """A folder in memory, where making a database takes a quarter of the time, if there is one with room."""
    shared = Path("/dev/shm")  # noqa: S108 - a folder of one's own is made in it
    return str(shared) if shared.is_dir() and shutil.disk_usage(shared).free > _ROOM else None


async def _greet(url: str) -> None:
    connection = await asyncpg.connect(url, timeout=5)
    await connection.close()


def _lives(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    return False
