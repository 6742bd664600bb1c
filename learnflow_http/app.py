"""The composition root: the one place that chooses the storage, the payment service and the limiter, and wires them
up."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec

from starlette.routing import Router
from starlette.types import ASGIApp

from learnflow_core.ids import new_ids
from learnflow_core.limiter import MemoryLimiter
from learnflow_core.ports import PaymentGateway, PaymentNewsReader, Storage
from learnflow_http.answers import Answers
from learnflow_http.auth import Authenticator, PasswordHasher, TokenSigner
from learnflow_http.counting import CountedGateway, payment_family, watch_connections, watch_store
from learnflow_http.exchange import BodyMemory
from learnflow_http.metrics import Metrics
from learnflow_http.pipeline import ANONYMOUS
from learnflow_http.routes import NotFound, routes
from learnflow_http.services import Services
from learnflow_http.setting_values import IN_MEMORY
from learnflow_http.settings import Settings, SettingsError, old_secret_for, secret_for
from learnflow_http.sweep import Sweeper, note_uses
from payment_gateways.sandbox import SandboxGateway
from storage_backends import UnusableDatabaseError, migrate, open_storage
from storage_backends.repository import RepositoryStorage
from storage_backends.shared_memory import SharedMemoryLimiter
from storage_backends.valkey import AsyncLeasedValkeyLimiter, AsyncValkeyLimiter

__all__ = [
    "LocalLimiter",
    "UnusableDatabaseError",
    "check_payments",
    "create_app",
    "limiter_for",
    "migrate",
    "open_services",
    "open_storage",
]

LocalLimiter = MemoryLimiter | SharedMemoryLimiter
"""Limiters that answer at once."""
AnyLimiter = LocalLimiter | AsyncValkeyLimiter


@asynccontextmanager
async def open_services(
    settings: Settings,
    *,
    limiter: AnyLimiter | None = None,
    metrics: Metrics | None = None,
    clock_ns: Callable[[], int] = time.time_ns,
    monotonic_ns: Callable[[], int] = time.monotonic_ns,
    random_bytes: Callable[[int], bytes] = os.urandom,
    opening: Callable[[str], Awaitable[Storage]] = open_storage,
) -> AsyncIterator[Services]:
    """Everything a server is made of, opened, and closed again at the end.

    The `limiter` is the one that the settings name, made here unless it is given because several processes share it.
    So are the `metrics`, which are then this process's to count in. `opening` opens the database that the settings
    name.
    """
    limiter = limiter_for(settings, monotonic_ns=monotonic_ns) if limiter is None else limiter
    if isinstance(limiter, AsyncValkeyLimiter):
        await limiter.peek("", ANONYMOUS)  # an address where nobody answers is logged now, not at the first request
    storage = await opening(settings.database)
    passwords = PasswordHasher()
    try:
        metrics = Metrics() if metrics is None else metrics
        _watch(metrics, storage, limiter)
        old = old_secret_for(settings)
        secrets = (secret_for(settings),) if old is None else (secret_for(settings), old)
        signer = TokenSigner(secrets, settings.jwt_issuer, settings.jwt_audience)
        payments, sandbox = payment_family(metrics), SandboxGateway(storage)
        async with _live_payments(settings, storage, clock_ns) as (live, stripe_events):
            yield Services(
                settings=settings,
                storage=storage,
                gateways={"live": CountedGateway(live, payments), "test": CountedGateway(sandbox, payments)},
                stripe_events=stripe_events,
                answers=Answers(storage, settings.cache_mb * 1_000_000, metrics, clock_ns),
                limiter=limiter,
                authenticator=Authenticator(storage, signer),
                signer=signer,
                passwords=passwords,
                bodies=BodyMemory(),
                metrics=metrics,
                trusted_proxies=tuple(ipaddress.ip_network(network) for network in settings.trusted_proxies),
                clock_ns=clock_ns,
                random_bytes=random_bytes,
                request_ids=new_ids("req", random_bytes),
            )
    finally:
        passwords.close()
        await storage.close()
        if isinstance(limiter, AsyncValkeyLimiter):
            await limiter.aclose()


@asynccontextmanager
async def _live_payments(
    settings: Settings, storage: Storage, clock_ns: Callable[[], int]
) -> AsyncIterator[tuple[PaymentGateway, PaymentNewsReader | None]]:
    """The payment service of the live mode, and who reads what it posts to us, if it may."""
    if settings.payments == "sandbox":
        yield SandboxGateway(storage), None
        return
    check_payments(settings)
    from payment_gateways.stripe import StripeEvents, StripeGateway  # noqa: PLC0415 - 0.5 s and an extra, for its users

    assert settings.stripe_secret_key is not None, "the settings have been checked"
    gateway = StripeGateway(settings.stripe_secret_key, clock_ns=clock_ns, api=settings.stripe_api)
    try:
        secrets = settings.stripe_webhook_secrets
        yield gateway, StripeEvents(secrets, gateway) if secrets else None
    finally:
        await gateway.aclose()


def check_payments(settings: Settings) -> None:
    """Say before serving that what the payment service takes is not installed (SettingsError)."""
    missing = [name for name in ("stripe", "httpx") if find_spec(name) is None]
    if settings.payments == "stripe" and missing:
        raise SettingsError(f"--payments stripe: {' and '.join(missing)} is not installed; the extra stripe brings it.")


def _watch(metrics: Metrics, storage: Storage, limiter: AnyLimiter) -> None:
    """Have the metrics tell what storage and limiter count themselves, where they do."""
    if isinstance(storage, RepositoryStorage) and storage.connections is not None:
        watch_connections(metrics, storage.connections)
    if isinstance(limiter, AsyncValkeyLimiter):
        watch_store(metrics, limiter.counts)


def limiter_for(settings: Settings, *, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> AnyLimiter:
    """The limiter that the settings name; SettingsError where they name none.

    One in memory is shared with processes that are forked later, where there are to be several. One behind a network
    connects when it is first asked.
    """
    if settings.limiter == IN_MEMORY:
        kind = MemoryLimiter if settings.workers == 1 else SharedMemoryLimiter
        return kind(clock=monotonic_ns, max_buckets=settings.limiter_max_buckets)
    shared = AsyncValkeyLimiter if settings.limiter_leases == "off" else AsyncLeasedValkeyLimiter
    try:
        return shared(
            settings.limiter,
            fallback=settings.limiter_fallback,
            processes=max(settings.limiter_processes, settings.workers),
            budget_ns=settings.limiter_budget_ms * 1_000_000,
            max_buckets=settings.limiter_max_buckets,
        )
    except (ValueError, OSError) as error:  # the URL, or a certificate that it names
        raise SettingsError(f"--limiter: {error}.") from error


def create_app(services: Services) -> ASGIApp:
    """The ASGI app that serves `services`. Its lifespan runs the sweep; whoever opened the services closes them."""

    @asynccontextmanager
    async def lifespan(_app: object) -> AsyncIterator[None]:
        sweeper = Sweeper(services, services.random_bytes(16).hex())
        task = asyncio.create_task(sweeper.sweep_for_ever())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await note_uses(services)  # nobody else knows them; what else is due, the next process does

    return Router(routes(services), redirect_slashes=False, default=NotFound(services), lifespan=lifespan)
