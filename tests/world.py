"""A whole server in this process, on a database in memory and a clock that tests hold, and the people who use it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx

from learnflow_core.access import Actor, actor_for
from learnflow_core.model import Account, Instant, Mode, Plan, Role, User
from learnflow_core.ports import Context
from learnflow_core.usecases import accounts, api_keys, tokens, users
from learnflow_http.app import create_app, open_services
from learnflow_http.services import Services
from learnflow_http.settings import load
from learnflow_http.sweep import Sweeper

NOW_NS = 1_705_311_000_000_000_000
"""2024-01-15T09:30:00Z, when every test begins."""


class Clock:
    """Unix time in nanoseconds, which passes when a test says so."""

    def __init__(self) -> None:
        self.now_ns = NOW_NS

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1_000_000_000)


class World:
    """A server with its clock: `client` speaks HTTP to it, the other methods do what an operator would."""

    def __init__(self, services: Services, clock: Clock, client: httpx.AsyncClient) -> None:
        self.services = services
        self.clock = clock
        self.client = client

    @property
    def now(self) -> Instant:
        return self.clock.now_ns // 1_000

    @property
    def ctx(self) -> Context:
        return Context(self.now, os.urandom, clock=lambda: self.now)

    async def account(
        self, name: str = "Acme", plan: Plan = "enterprise", per_minute: int | None = None, licenses: int | None = None
    ) -> Account:
        ctx = self.ctx
        return await self.services.storage.write(
            lambda tx: accounts.create_account(
                tx, name=name, plan=plan, per_minute=per_minute, licenses=licenses, ctx=ctx
            )
        )

    async def key(
        self, account: Account, scopes: Collection[str] = ("*",), mode: Mode = "live", expires_at: Instant | None = None
    ) -> str:
        owner, ctx = self.owner(account, mode), self.ctx
        made = await self.services.storage.write(
            lambda tx: api_keys.create_key(
                tx, owner, name="key", scopes=tuple(scopes), mode=mode, expires_at=expires_at, ctx=ctx
            )
        )
        return made.secret

    async def user(
        self,
        account: Account,
        email: str,
        *,
        role: Role = "learner",
        mode: Mode = "live",
        password: str | None = None,
    ) -> User:
        owner, ctx = self.owner(account, mode), self.ctx
        new = users.NewUser(email=email, name=email.partition("@")[0], role=role)
        password_hash = await self.services.passwords.hash(password) if password else None
        return await self.services.storage.write(lambda tx: users.create_user(tx, owner, new, password_hash, ctx))

    async def token(self, user: User, scopes: Collection[str] = ("*",)) -> str:
        """An access token of the user, as a sign-in with a password gives it."""
        ctx = self.ctx
        family = await self.services.storage.write(
            lambda tx: tokens.open_family(tx, user, scopes=frozenset(scopes), key_id=None, ctx=ctx)
        )
        return self.services.signer.sign(
            "access", user_id=user.id, family_id=family.id, token_id=ctx.new_id("tok"), issued_at=ctx.now
        )

    async def ask(
        self, method: str, path: str, credential: str | None = None, json: Any = None, **headers: str
    ) -> httpx.Response:
        """One request; keyword arguments are headers, with `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if credential is not None:
            named["Authorization"] = f"Bearer {credential}"
        return await self.client.request(method, path, json=json, headers=named)

    async def sweep(self) -> None:
        sweeper = Sweeper(self.services, "world")
        try:
            await sweeper.sweep_money()
            await sweeper.sweep_methods()
            await sweeper.sweep_own()
        finally:
            await sweeper.sweep_common()

    @staticmethod
    def owner(account: Account, mode: Mode = "live") -> Actor:
        """The actor of a key that may do everything."""
        return actor_for(account, mode=mode, scopes={"*"}, key_id="key_owner")


@asynccontextmanager
async def open_world(**options: object) -> AsyncIterator[World]:
    """A world on a database in memory; `options` are settings, by their names."""
    clock = Clock()
    settings = load({"database": "sqlite:///:memory:", **options}, {})
    async with open_services(settings, clock_ns=clock, monotonic_ns=clock) as services:
        transport = httpx.ASGITransport(app=create_app(services), client=("192.0.2.1", 50_000))
        async with httpx.AsyncClient(transport=transport, base_url="http://learnflow.test") as client:
            yield World(services, clock, client)
