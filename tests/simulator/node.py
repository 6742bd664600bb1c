"""A node: one process after the other that serves the application, and may die at any step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from random import Random
from typing import Any, NamedTuple

import msgspec

from learnflow_core.ports import Storage
from learnflow_core.usecases.payments import Gateways
from learnflow_http.app import create_app, open_services
from learnflow_http.settings import load
from tests.simulator.database import Database
from tests.simulator.loop import SECOND_NS, Process, SimulatedLoop, within
from tests.simulator.payments import PaymentService, SimulatedGateway, SimulatedNews
from tests.simulator.trace import Trace

SECRET = "s" * 32
DOWN_S = (0.1, 5.0)
"""How long a dead process is away, at least and at most."""
AHEAD_S = (0, 0, 5, -5)
"""How far the clock of a machine is ahead of the others'."""


class LostError(Exception):
    """A request without a reply: whether anything was done is not known."""


class Reply(NamedTuple):
    """A reply, its body decoded."""

    status: int
    body: Any


class Node:
    """A machine on which a process serves; when it dies another is started, which knows nothing but the database."""

    def __init__(
        self,
        name: str,
        loop: SimulatedLoop,
        random: Random,
        database: Database,
        service: PaymentService,
        trace: Trace,
        committed: Callable[[], None],
    ) -> None:
        self.name = name
        self.deaths = 0
        self._loop = loop
        self._random = random
        self._database = database
        self._service = service
        self._trace = trace
        self._committed = committed
        self._ahead_ns = random.choice(AHEAD_S) * SECOND_NS
        self._app: Any = None
        self._open: dict[asyncio.Future[Reply], None] = {}  # in their order, which a set of objects does not have
        self._process = Process(name)
        self.start()

    def start(self) -> None:
        """Start a process."""
        process = self._process = Process(self.name)
        self._trace.note(f"{self.name} starts")
        self._loop.create_task(self._serve(process), context=within(process))

    def crash(self, process: Process) -> None:
        """The process dies, here and now: nothing of it goes on, and who waits for it sees the connection end."""
        if not process.alive:
            return
        process.alive = False
        self.deaths += 1
        self._app = None
        self._trace.note(f"{self.name} dies")
        self._database.drop(process)
        for reply in list(self._open):
            _lose(reply)
        self._loop.call_later(self._random.uniform(*DOWN_S), self.start, context=Context())

    async def ask(self, method: str, path: str, key: str, body: bytes, fields: dict[str, str]) -> Reply:
        """One request of a client; `LostError` when no reply comes."""
        if self._app is None:
            raise LostError
        reply: asyncio.Future[Reply] = self._loop.create_future()
        self._open[reply] = None
        exchange = self._exchange(self._app, _scope(method, path, key, fields), body, reply)
        self._loop.create_task(exchange, context=within(self._process))
        try:
            return await reply
        finally:
            del self._open[reply]

    async def _serve(self, process: Process) -> None:
        """What the program does: open everything, run the application with its sweep."""
        settings = load({"database": "sqlite:///simulated.db", "jwt_secret": SECRET}, {})

        async def opening(_url: str) -> Storage:
            return self._database.open(process, self.crash, self._committed)

        async with open_services(
            settings,
            clock_ns=lambda: self._loop.now_ns + self._ahead_ns,
            monotonic_ns=lambda: self._loop.now_ns,
            random_bytes=self._random.randbytes,
            opening=opening,
        ) as services:
            gateway = SimulatedGateway(services.storage, self._service)
            gateways: Gateways = {"live": gateway, "test": gateway}
            app = create_app(services._replace(gateways=gateways, stripe_events=SimulatedNews()))
            await app({"type": "lifespan"}, *_lifespan(lambda: setattr(self, "_app", app), self._loop))

    async def _exchange(self, app: Any, scope: dict[str, Any], body: bytes, reply: asyncio.Future[Reply]) -> None:
        status = 0

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not reply.done():
                reply.set_result(Reply(status, msgspec.json.decode(message["body"])))

        await app(scope, receive, send)


def _lifespan(started: Callable[[], None], loop: SimulatedLoop) -> tuple[Any, Any]:
    """The two ends of ASGI's lifespan protocol: it starts, and nobody ever stops it kindly."""
    told = False

    async def receive() -> dict[str, str]:
        nonlocal told
        if told:
            await loop.create_future()
        told = True
        return {"type": "lifespan.startup"}

    async def send(_message: dict[str, str]) -> None:
        started()

    return receive, send


def _scope(method: str, path: str, key: str, fields: dict[str, str]) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json", **fields}
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("192.0.2.1", 50_000),
        "server": ("learnflow.test", 80),
    }


def _lose(reply: asyncio.Future[Reply]) -> None:
    if not reply.done():
        reply.set_exception(LostError())
