"""The database: an engine for the process, a session for each request."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

# As many connections as there are requests at once: by default the sixth would be opened anew each time.
engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=20)
if engine.dialect.name == "sqlite":

    @event.listens_for(engine.sync_engine, "connect")
    def _set_pragmas(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA journal_mode=WAL")  # readers go on meanwhile, and a commit waits for the disk once
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA busy_timeout=30000")  # for the lock; by default a busy hour ends in errors
        cursor.close()


sessions = async_sessionmaker(engine, expire_on_commit=False)


async def get_session() -> AsyncIterator[AsyncSession]:
    """The session of one request."""
    async with sessions() as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]
