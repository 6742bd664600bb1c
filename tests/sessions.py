"""Sessions as tests begin them, try them, end them, and forge their tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx

from learnflow_core.model import Account, Mode, Role, User
from learnflow_core.usecases import accounts
from learnflow_http.app import create_app
from learnflow_http.auth import Authenticator
from tests.world import World

PASSWORD = "correct horse battery"


DAY_S = 86_400


async def somebody(
    world: World, account: Account, email: str = "ada@acme.test", role: Role = "learner", mode: Mode = "live"
) -> User:
    return await world.user(account, email, role=role, mode=mode, password=PASSWORD)


async def sign_in(world: World, email: str = "ada@acme.test", **more: str) -> dict[str, Any]:
    body = {"email": email, "password": PASSWORD, **more}
    reply = await world.ask("POST", "/v1/auth/token", json=body)
    assert reply.status_code == 200, reply.text
    tokens: dict[str, Any] = reply.json()
    return tokens


async def signed_in(world: World) -> dict[str, Any]:
    """The tokens of a learner who has just signed in."""
    await somebody(world, await world.account())
    return await sign_in(world)


async def mint(world: World, key: str, user: User) -> dict[str, Any]:
    reply = await world.ask("POST", "/v1/auth/token", key, {"user_id": user.id})
    assert reply.status_code == 200, reply.text
    tokens: dict[str, Any] = reply.json()
    return tokens


async def refresh(world: World, token: str) -> httpx.Response:
    return await world.ask("POST", "/v1/auth/refresh", json={"refresh_token": token})


async def revoke(world: World, token: str) -> httpx.Response:
    return await world.ask("POST", "/v1/auth/revoke", json={"token": token})


async def works(world: World, token: str) -> bool:
    """Whether an access token is let in; if not, because it is invalid."""
    reply = await world.ask("GET", "/v1/users/me", token)
    assert reply.status_code == 200 or told(reply) == (401, "invalid_token"), reply.text
    return reply.status_code == 200


async def carries_on(world: World, refresh_token: str) -> bool:
    """Whether a refresh token is taken; if not, because it is invalid."""
    reply = await refresh(world, refresh_token)
    assert reply.status_code == 200 or told(reply) == (401, "invalid_token"), reply.text
    return reply.status_code == 200


def told(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


def claims(token: str) -> dict[str, Any]:
    """What a token says, unverified."""
    payload: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    return payload


HEADER = {"alg": "HS256", "typ": "JWT"}


def signed(
    world: World, payload: dict[str, Any] | bytes, header: dict[str, Any] = HEADER, secret: str | None = None
) -> str:
    """A token of this header and payload, truly signed: with the world's own secret, unless another is given."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    text = b".".join(map(segment, (json.dumps(header).encode(), body)))
    key = world.services.signer._secrets[0] if secret is None else secret.encode()
    digest = {"HS384": hashlib.sha384, "HS512": hashlib.sha512}.get(str(header.get("alg")), hashlib.sha256)
    return (text + b"." + segment(hmac.digest(key, text, digest))).decode()


def segment(part: bytes) -> bytes:
    return base64.urlsafe_b64encode(part).rstrip(b"=")


@asynccontextmanager
async def another_process(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """A server beside the world's own, on the same database, with a memory of its own."""
    services = world.services
    beside = services._replace(authenticator=Authenticator(services.storage, services.signer))
    transport = httpx.ASGITransport(app=create_app(beside), client=("192.0.2.2", 50_000))
    async with httpx.AsyncClient(transport=transport, base_url="http://learnflow.test") as client:
        yield client


async def next_token(world: World, token: str) -> str:
    reply = await refresh(world, token)
    assert reply.status_code == 200, reply.text
    successor: str = reply.json()["refresh_token"]
    return successor


async def suspend(world: World, account: Account, *, suspended: bool = True) -> None:
    ctx = world.ctx
    await world.services.storage.write(lambda tx: accounts.set_suspended(tx, account.id, suspended=suspended, ctx=ctx))
