"""Connections to one PostgreSQL, made when needed and lent to one caller at a time, who waits within bounds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

from storage_backends.driver import Connections, unavailable
from storage_backends.postgres_transaction import FAILURES

Connection = Any
"""An `asyncpg.Connection`; the library has no types."""

PATIENCE_S: Final = 5.0
"""How long a caller waits for a connection, be it for one that is lent or for one that is made."""
IDLE_S: Final = 60.0
"""How long a connection may lie unused: longer ones are held for nothing, and may have been dropped on the way."""
FULL_S: Final = 1.0
"""How long a server that had no connection left is not asked for another, while callers can share those there are."""
MEND_S: Final = 2.0
"""How long a connection has for being rolled back before it is given up."""

_NONE_LEFT: Final = "53300"

_log: Final = logging.getLogger("storage_backends.postgres")


class Pool:
    """At most `size` connections, which `connect` makes. Of one event loop.

    Those who wait are served in the order they came. The log has one line when connecting fails, and one when it
    succeeds again.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        size: int,
        *,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._size = size
        self._patience_s = patience_s
        self._clock = clock
        self._places = 0  # connections that are idle, lent or being made
        self._idle: deque[tuple[Connection, float]] = deque()
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._mending: set[asyncio.Task[None]] = set()
        self._all_back: asyncio.Event | None = None
        self._full_until = 0.0
        self._away = False

    def connections(self) -> Connections:
        """How it is used now; a connection that is being made is in use."""
        idle = len(self._idle)
        return Connections(self._places - idle, idle, len(self._waiting))

    async def take(self) -> Connection:
        """A connection to be given back; `LearnFlowError(service_unavailable)` when there is none in time."""
        if self._all_back is not None:
            raise unavailable()
        connection = self._fresh_one()
        if connection is not None:
            return connection
        try:
            async with asyncio.timeout(self._patience_s):
                return await self._made_or_given_back()
        except TimeoutError as error:
            raise unavailable() from error

    def adopt(self, connection: Connection) -> None:
        """Take a connection that `connect` made for another purpose."""
        self._places += 1
        self.give(connection)

    def give(self, connection: Connection) -> None:
        """Take back a connection on which no transaction is open, or one that is closed."""
        if connection.is_closed():
            self._leave()
        elif not self._hand(connection):
            self._idle.append((connection, self._clock()))
            self._let_go_of_the_oldest()
        self._look_whether_all_are_back()

    def mend(self, connection: Connection) -> None:
        """Take back a connection in whatever state it is, even in the middle of a statement; nobody waits for this."""
        task = asyncio.get_running_loop().create_task(self._mend(connection))
        self._mending.add(task)
        task.add_done_callback(self._mending.discard)

    async def close(self) -> None:
        """Lend none any more, wait until all are back from those who were first, and close them."""
        if self._all_back is not None:
            return
        self._all_back = asyncio.Event()
        self._look_whether_all_are_back()
        await self._all_back.wait()
        while self._idle:
            connection, _ = self._idle.pop()
            self._places -= 1
            await closed(connection)

    def _fresh_one(self) -> Connection | None:
        oldest = self._clock() - IDLE_S
        while self._idle:
            connection, since = self._idle.pop()
            if since > oldest and not connection.is_closed():
                return connection
            connection.terminate()
            self._places -= 1
        return None

    async def _made_or_given_back(self) -> Connection:
        while True:
            if self._places < self._size and not self._known_to_be_full():
                connection = await self._made()
            else:
                connection = await self._given_back()
            if connection is not None:
                return connection

    def _known_to_be_full(self) -> bool:
        return self._places > 0 and self._clock() < self._full_until

    async def _made(self) -> Connection | None:
        """A new connection; None when the server has none left, and those that we have must do."""
        self._places += 1
        try:
            connection = await self._connect()
        except FAILURES as error:
            self._tell_of(error)
            if getattr(error, "sqlstate", None) == _NONE_LEFT and self._places > 1:
                self._full_until = self._clock() + FULL_S
                self._places -= 1
                return None
            self._leave()
            raise unavailable() from error
        except BaseException:
            self._leave()
            raise
        self._tell_of(None)
        return connection

    async def _given_back(self) -> Connection | None:
        """A connection that was lent; None when one was closed, and leaves room for another."""
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                if turn in self._waiting:  # else it has been passed over already
                    self._waiting.remove(turn)
            elif (connection := turn.result()) is not None:
                self.give(connection)
            else:
                self._hand(None)
            self._look_whether_all_are_back()
            raise

    def _hand(self, connection: Connection | None) -> bool:
        """Give to who has waited longest, if anybody waits."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return True
        return False

    def _leave(self) -> None:
        """A connection is no more: who waits may make another."""
        self._places -= 1
        self._hand(None)
        self._look_whether_all_are_back()

    def _let_go_of_the_oldest(self) -> None:
        while self._idle and self._idle[0][1] < self._clock() - IDLE_S:
            self._idle.popleft()[0].terminate()
            self._places -= 1

    async def _mend(self, connection: Connection) -> None:
        try:
            await connection.execute("ROLLBACK", timeout=MEND_S)
        except FAILURES:
            connection.terminate()
        finally:
            self.give(connection)

    def _look_whether_all_are_back(self) -> None:
        if self._all_back is not None and self._places == len(self._idle) and not self._waiting:
            self._all_back.set()

    def _tell_of(self, error: Exception | None) -> None:
        if error is not None and not self._away:
            _log.warning("no connection to the database: %s", str(error) or type(error).__name__)
        elif error is None and self._away:
            _log.warning("the database can be reached again")
        self._away = error is not None


async def closed(connection: Connection) -> None:
    """Close a connection as politely as the server lets it."""
    try:
        await connection.close(timeout=MEND_S)
    except FAILURES:
        connection.terminate()
