"""Migrations: forward only, each in one transaction, each the same file for ever.

A migration is a file of SQL that both databases read (`0001_foundation.sql`, in PostgreSQL's words), and where needed
one of the same number for a single database (`0001_foundation.sqlite.sql`); a backend that is not of this package has
those in a folder of its own. The database remembers which it had, with a digest of what they said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final, Protocol

from storage_backends.driver import Row, UnusableDatabaseError, Value

_KEPT = """
    CREATE TABLE IF NOT EXISTS migrations (
        number BIGINT NOT NULL PRIMARY KEY, name TEXT COLLATE "C" NOT NULL, digest TEXT COLLATE "C" NOT NULL
    );
"""


class Session(Protocol):
    """A connection of its own, on which a database is brought up to date."""

    dialect: str
    """The word in the names of the files that this database alone reads."""

    async def rows(self, sql: str, *args: Value) -> Sequence[Row]:
        """Run one statement."""

    async def common(self, ddl: str) -> None:
        """Run statements that are written in the common words."""

    async def own(self, ddl: str) -> None:
        """Run statements that are written for this database."""

    def alone(self) -> AbstractAsyncContextManager[None]:
        """A transaction, undone when it is left by an exception, which overlaps with no other such."""


@dataclass(frozen=True)
class Migration:
    """One step of the schema; `own` is empty where a database needs nothing of its own."""

    number: int
    name: str
    common: str
    own: str

    @property
    def digest(self) -> str:
        """What tells whether a file has been changed after it was applied."""
        return hashlib.sha256(f"{self.common}\0{self.own}".encode()).hexdigest()


_OURS: Final = files("storage_backends") / "migrations"


def known(dialect: str, folder: Traversable = _OURS) -> list[Migration]:
    """Every migration of this program, in order, with what `folder` has for this dialect alone."""
    common, own = _texts(_OURS), _texts(folder)
    names = sorted(name.removesuffix(".sql") for name in common if name.count(".") == 1)
    return [
        Migration(int(name[:4]), name, common[f"{name}.sql"], own.get(f"{name}.{dialect}.sql", "")) for name in names
    ]


def _texts(folder: Traversable) -> dict[str, str]:
    return {file.name: file.read_text("utf-8") for file in folder.iterdir() if file.name.endswith(".sql")}


async def upgrade(session: Session, migrations: Sequence[Migration]) -> list[str]:
    """Apply what the database has not had; the names of what was applied. Safe with several at once.

    Raises UnusableDatabaseError when the database has had what this program does not know, or in another wording.
    """
    await session.common(_KEPT)
    applied: list[str] = []
    while pending(migrations, await _had(session)):
        async with session.alone():
            # Looked at again: until the transaction began, another process may have been faster.
            for migration in pending(migrations, await _had(session))[:1]:
                await _apply(session, migration)
                applied.append(migration.name)
    return applied


def pending(migrations: Sequence[Migration], had: Mapping[int, str]) -> list[Migration]:
    """Those that a database which had these (numbers and digests) still needs; see `upgrade` for what is refused."""
    ours = {migration.number: migration for migration in migrations}
    unknown = sorted(had.keys() - ours.keys())
    if unknown:
        raise UnusableDatabaseError(
            f"The database has migration {unknown[-1]:04}, which this program does not know: a newer version was here. "
            "Use that version, or restore a backup from before."
        )
    changed = [ours[number].name for number, digest in sorted(had.items()) if ours[number].digest != digest]
    if changed:
        raise UnusableDatabaseError(
            f"The database had another {changed[0]} than this program's: migrations are only added, never changed."
        )
    return [migration for migration in migrations if migration.number not in had]


async def _apply(session: Session, migration: Migration) -> None:
    await session.common(migration.common)
    await session.own(migration.own)
    kept = "INSERT INTO migrations (number, name, digest) VALUES ($1, $2, $3)"
    await session.rows(kept, migration.number, migration.name, migration.digest)


async def _had(session: Session) -> dict[int, str]:
    return dict(await session.rows("SELECT number, digest FROM migrations ORDER BY number"))
