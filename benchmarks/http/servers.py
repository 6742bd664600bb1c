"""The servers that are compared: the project's, the peer, and the floor. None writes a line for each request."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks.floor import FixedReply
from benchmarks.peers.fastapi_sqlalchemy import filling
from benchmarks.processes import Server, running
from benchmarks.school import reader
from learnflow_http.auth import TokenSigner
from storage_backends import open_storage


class Servers:
    """Starts servers, whose logs are in a folder that is gone after the block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._secret = secrets.token_hex(32)
        self.signer = TokenSigner((self._secret.encode(),), "learnflow", "learnflow")

    def learnflow(self, database: str, *options: str) -> AbstractContextManager[Server]:
        """The project over a database that is up to date."""
        words = ("serve", "--database", database, "--log-format", "json", "--log-level", "warning")
        return running(self._log(), "benchmarks.served", *words, *options, LEARNFLOW_JWT_SECRET=self._secret)

    def peer(self, database: str) -> AbstractContextManager[Server]:
        """The peer over a database of its own."""
        app = "benchmarks.peers.fastapi_sqlalchemy.app:app"
        variables = {"DATABASE_URL": database, "SECRET_KEY": self._secret}
        return running(self._log(), "uvicorn", app, "--no-access-log", **variables)

    def floor(self, replies: Mapping[str, FixedReply]) -> AbstractContextManager[Server]:
        """What answers a request of each method with these bytes."""
        path = self._folder / f"replies-{secrets.token_hex(4)}.json"
        path.write_bytes(msgspec.json.encode(replies))
        return running(self._log(), "benchmarks.floor", str(path))

    async def token(self, database: str) -> str:
        """A token that the project accepts, of somebody new with two quotas that are never used up."""
        storage = await open_storage(database)
        try:
            return await reader(storage, self.signer)
        finally:
            await storage.close()

    def peers_token(self) -> str:
        """A token that the peer accepts."""
        return filling.token(self._secret)

    def _log(self) -> Path:
        return self._folder / f"{secrets.token_hex(4)}.log"


@contextmanager
def servers() -> Iterator[Servers]:
    """What starts servers, for the block."""
    with TemporaryDirectory(prefix="learnflow-benchmark-") as folder:
        yield Servers(Path(folder))
