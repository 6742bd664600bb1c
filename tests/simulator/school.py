"""What every simulated world begins with: an account with its key, people, and courses of every kind."""

from __future__ import annotations

import asyncio
from functools import cache, partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import NamedTuple

from learnflow_core.access import actor_for
from learnflow_core.fields import Price
from learnflow_core.money import Money
from learnflow_core.ports import Context, Storage
from learnflow_core.usecases import accounts, api_keys, courses, users
from storage_backends import open_storage

NOW_NS = 1_705_311_000_000_000_000
"""2024-01-15T09:30:00Z, when every simulation begins."""

LEARNERS = 12
SEATS = (1, 2, 3, 5, None, None)
CENTS = (4_999, 4_999, 4_999, 1_999, 4_999, 0)


class School(NamedTuple):
    """The database file, and the names of what is in it."""

    file: bytes
    key: str
    users: tuple[str, ...]
    courses: tuple[str, ...]


@cache
def school() -> School:
    """The school, the same each time, made once in a process."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "school.db"
        key, people, offered = asyncio.run(_made(path))
        return School(path.read_bytes(), key, people, offered)


async def _made(path: Path) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    storage = await open_storage(f"sqlite:///{path}")
    try:
        return await _filled(storage, Context(NOW_NS // 1_000, Random("the school").randbytes))
    finally:
        await storage.close()


async def _filled(storage: Storage, ctx: Context) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    account = await storage.write(
        lambda tx: accounts.create_account(
            tx, name="Acme", plan="professional", per_minute=None, licenses=None, ctx=ctx
        )
    )
    owner = actor_for(account, mode="live", scopes={"*"}, key_id="key_owner")
    key = await storage.write(
        lambda tx: api_keys.create_key(tx, owner, name="key", scopes=("*",), mode="live", expires_at=None, ctx=ctx)
    )
    learners = [
        await storage.write(partial(users.create_user, actor=owner, new=_learner(n), password_hash=None, ctx=ctx))
        for n in range(LEARNERS)
    ]
    offered = [
        await storage.write(partial(courses.create_course, actor=owner, new=_course(n), ctx=ctx))
        for n in range(len(SEATS))
    ]
    return key.secret, tuple(one.id for one in learners), tuple(one.id for one in offered)


def _learner(n: int) -> users.NewUser:
    return users.NewUser(email=f"learner{n}@acme.test", name=f"Learner {n}")


def _course(n: int) -> courses.NewCourse:
    price = Price.of(Money(CENTS[n], "USD"))
    return courses.NewCourse(title=f"Course {n}", category="development", price=price, seats=SEATS[n])
