"""Where LearnFlow keeps its data: each backend fulfils `learnflow_core.ports.Storage` with one driver library.

A database is named by a URL, and its scheme names the backend. A third party adds a scheme by an entry point of the
group `learnflow.storage`, named for the scheme, that loads a `Backend`; `storage_backends.conformance` says what it
must do.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from learnflow_core.ports import Storage
    from storage_backends.driver import UnusableDatabaseError

__all__ = ["Backend", "UnusableDatabaseError", "migrate", "open_storage"]

_OURS = {
    "sqlite": "storage_backends.sqlite",
    "postgresql": "storage_backends.postgres",
    "postgres": "storage_backends.postgres",
}
_GROUP = "learnflow.storage"


class Backend(Protocol):
    """What stands behind a scheme. Both functions raise ValueError for a URL that names no database, and
    UnusableDatabaseError, with a message for an operator, for one that cannot be served."""

    async def open_storage(self, url: str, *, read_deadline_s: float) -> Storage:
        """Open a database; a read is interrupted (`service_unavailable`) after `read_deadline_s`."""

    async def migrate(self, url: str) -> list[str]:
        """Bring a database up to date; the names of what was done."""


async def open_storage(url: str, *, read_deadline_s: float = 10.0) -> Storage:
    """Open the database that `url` names; whoever opens it closes it.

    An embedded database is made and brought up to date by this, a shared one is not: `migrate` does that. Reads are
    interrupted (`service_unavailable`) after `read_deadline_s`. Raises as `Backend` does.
    """
    return await _backend(url).open_storage(url, read_deadline_s=read_deadline_s)


async def migrate(url: str) -> list[str]:
    """Bring the database that `url` names up to date; the names of the migrations that ran, none when it was.

    Forward only, each in a transaction; safe with several at once. Raises as `Backend` does.
    """
    return await _backend(url).migrate(url)


def _backend(url: str) -> Backend:
    scheme = url.partition(":")[0]
    backend: Any
    if scheme in _OURS:
        backend = _import(_OURS[scheme])
    else:
        from importlib.metadata import entry_points  # noqa: PLC0415 - takes 50 ms, for few

        others = {entry.name: entry for entry in entry_points(group=_GROUP)}
        if scheme not in others:
            schemes = ", ".join(f"{name}:" for name in sorted(_OURS.keys() | others.keys()))
            raise ValueError(f"database: {url!r} is no URL of a known kind; there is {schemes}")
        backend = others[scheme].load()
    found: Backend = backend
    return found


def _import(module: str) -> object:
    """A backend of ours, whose library may not have been installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        from storage_backends.driver import UnusableDatabaseError  # noqa: PLC0415 - see below

        message = "PostgreSQL needs the library asyncpg, which the extra learnflow[postgres] installs."
        raise UnusableDatabaseError(message) from error


def __getattr__(name: str) -> object:
    """Import the error when it is asked for: the limiter's store lives here too, and needs none of the models."""
    if name == "UnusableDatabaseError":
        from storage_backends.driver import UnusableDatabaseError  # noqa: PLC0415 - see above

        return UnusableDatabaseError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
