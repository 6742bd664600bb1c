"""`learnflow serve`, `migrate` and `openapi`."""

from __future__ import annotations

import asyncio
import ctypes
import ipaddress
import logging
import os
import socket
from contextlib import suppress
from typing import Final

import click
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from learnflow_core.limiter import headers
from learnflow_http import logs, openapi
from learnflow_http.app import LocalLimiter, check_payments, create_app, limiter_for, open_services
from learnflow_http.app import migrate as migrate_database
from learnflow_http.cli import demo as demo_data
from learnflow_http.cli.common import (
    explained_database,
    option,
    print_json,
    run,
    with_database,
    with_settings,
)
from learnflow_http.edge import AtOnce, Edge, Headers, Limits, never, server
from learnflow_http.edge.supervisor import Link, Supervisor, apart
from learnflow_http.exchange import client_address
from learnflow_http.metrics import Metrics
from learnflow_http.pipeline import ANONYMOUS
from learnflow_http.services import Services
from learnflow_http.settings import SETTINGS, Settings, is_loopback, secret_for
from learnflow_http.shortcut import Shortcut

logger = logging.getLogger("learnflow.cli")

_M_ARENA_MAX: Final = -8  # of <malloc.h>


class Application:
    """The ASGI app together with what it is made of, which lives as long as the app's lifespan and in its event loop.

    A `limiter` and `metrics` are ones that other processes share; without them, they are made. With `demo`, the demo's
    data is seen to before the first request, and `tour` then tells how to use it.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        limiter: LocalLimiter | None = None,
        metrics: Metrics | None = None,
        demo: bool = False,
    ) -> None:
        self.tour: demo_data.Tour | None = None
        self._settings = settings
        self._limiter = limiter
        self._metrics = metrics
        self._demo = demo
        self._services: Services | None = None
        self._app: ASGIApp | None = None
        self._shortcut: AtOnce = never

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        assert self._app is not None, "a server begins with the lifespan"
        await self._app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app's lifespan within that of the services: who is told that it has ended, finds them closed."""
        held: list[Message] = []

        async def send_or_hold(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                held.append(message)
            else:
                await send(message)

        async with open_services(self._settings, limiter=self._limiter, metrics=self._metrics) as services:
            if self._demo:
                self.tour = await demo_data.prepare(services)
            self._services, self._app = services, create_app(services)
            if isinstance(services.limiter, LocalLimiter):
                self._shortcut = Shortcut(services, services.limiter)
            await self._app(scope, receive, send_or_hold)
        for message in held:
            await send(message)

    def at_once(self, target: bytes, fields: Headers, address: str) -> tuple[int, bytes, bytes] | None:
        """The reply to a GET, where it needs no waiting."""
        return self._shortcut(target, fields, address)

    def headers_for(self, address: str) -> list[tuple[bytes, bytes]]:
        """The rate limit of an address, for a reply given below the app; none where telling it takes waiting."""
        if self._services is None or not isinstance(self._services.limiter, LocalLimiter):
            return []
        client = client_address(address, None, ())
        decision = self._services.limiter.peek(f"address:{client}", ANONYMOUS)
        told = headers(decision, self._services.clock_ns())
        return [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in told]


@click.command()
@option("--demo", is_flag=True, help="Add a demo catalogue, demo people and keys; listens on this machine only.")
@with_settings(*SETTINGS)
def serve(settings: Settings, *, demo: bool) -> None:
    """Serve the API until Ctrl-C or SIGTERM."""
    beyond = not is_loopback(settings.host)
    if demo and beyond:
        raise click.UsageError(f"--demo: its keys and people are for this machine alone, not for {settings.host}.")
    logs.configure(settings.log_format, settings.log_level, pid=os.getpid() if settings.workers > 1 else None)
    _share_one_heap()
    secret_for(settings)
    check_payments(settings)  # here and in the next lines: what is wrong, is said before serving
    limiter = limiter_for(settings)
    _check_database(settings)
    if beyond and not _is_paid(settings):
        logger.warning(
            "A SANDBOX TAKES THE PAYMENTS: no money moves, and whoever reaches this server enrols for free",
            extra={"host": settings.host, "payments": settings.payments},
        )

    try:
        sockets = server.listen(settings.host, settings.port)
        if settings.workers == 1:
            _serve_alone(settings, sockets, demo=demo)
        else:
            shared = limiter if isinstance(limiter, LocalLimiter) else None
            _supervise(settings, shared, sockets, demo=demo)
    except server.ServeError as error:
        raise click.ClickException(str(error)) from error


def _is_paid(settings: Settings) -> bool:
    """Whether money moves: not in the sandbox, nor in the test mode of Stripe."""
    return settings.payments == "stripe" and "_live_" in (settings.stripe_secret_key or "")


def _share_one_heap() -> None:
    """Have all threads take memory from one heap, where the C library (glibc) gives each its own.

    Threads that read make the answers, which the event loop keeps and lets go: heaps of their own stay full of holes,
    6 MB of 48 in a worker. What the one costs in waiting is little where Python's lock lets one thread run anyway.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _check_database(settings: Settings) -> None:
    """Say before serving what is wrong with the database, and bring it up to date."""

    def check() -> str:
        run(settings, lambda storage: storage.read(lambda tx: tx.accounts.get("")))
        return ""

    check() if settings.workers == 1 else apart(check)


def _serve_alone(settings: Settings, sockets: list[socket.socket], *, demo: bool) -> None:
    """Serve in this process."""
    app = Application(settings, demo=demo)

    def tell(addresses: list[str]) -> None:
        _tell(addresses, "" if app.tour is None else app.tour.text(addresses[0]))

    server.serve_at(sockets, app, edge=_edge(settings, app), on_started=tell)


def _supervise(settings: Settings, limiter: LocalLimiter | None, sockets: list[socket.socket], *, demo: bool) -> None:
    """Serve in processes of their own, which this one minds. What is done once is done before there are any.

    The limiter is the one that they share by memory; one behind a network is each worker's own.
    """
    addresses = [server.url(each) for each in sockets]
    metrics = Metrics(settings.workers + 1)  # one comes before another leaves

    def work(link: Link) -> None:
        logs.configure(settings.log_format, settings.log_level, pid=os.getpid())
        metrics.be_worker(link.number)
        app = Application(settings, limiter=limiter, metrics=metrics)
        edge = _edge(settings, app)
        server.serve_at(sockets, app, edge=edge, on_started=lambda _: link.serves(), lifeline=link.lifeline)
        metrics.end()

    tour = apart(lambda: asyncio.run(_tour(settings, addresses[0]))) if demo else ""
    supervisor = Supervisor(work, workers=settings.workers, sockets=sockets, stop_s=Limits().stop_s)
    supervisor.run(on_started=lambda: _tell(addresses, tour))


def _edge(settings: Settings, app: Application) -> Edge:
    return Edge(
        Limits(connections=settings.max_connections, connections_per_client=settings.max_connections_per_address),
        proxies=[ipaddress.ip_network(network) for network in settings.trusted_proxies],
        headers_for=app.headers_for,
        at_once=app.at_once,
    )


async def _tour(settings: Settings, address: str) -> str:
    async with open_services(settings) as services:
        return (await demo_data.prepare(services)).text(address)


def _tell(addresses: list[str], tour: str) -> None:
    logger.info("serving", extra={"addresses": " ".join(addresses)})
    if tour:
        click.echo(tour)


@click.command()
@with_database
def migrate(settings: Settings) -> None:
    """Make the database, or bring it up to date, and print what that took."""
    with explained_database():
        applied = asyncio.run(migrate_database(settings.database))
    for name in applied:
        click.echo(name)
    click.echo("The database is up to date.", err=True)


@click.command("openapi")
@with_settings("public_url")
def print_openapi(settings: Settings) -> None:
    """Print the OpenAPI 3.1 document."""
    print_json(openapi.document(settings.public_url))
