"""What every simulated world begins with: two accounts with their keys, people, and courses of every kind."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from learnflow_core.access import Actor, actor_for
from learnflow_core.fields import Price
from learnflow_core.instants import timestamp
from learnflow_core.model import DAY, SECOND, Account, Plan
from learnflow_core.money import Money
from learnflow_core.ports import Context, Storage
from learnflow_core.usecases import accounts, api_keys, courses, enrollments, users
from payment_gateways.sandbox import SandboxGateway
from storage_backends import open_storage

NOW_NS = 1_705_311_000_000_000_000
"""2024-01-15T09:30:00Z, when every simulation begins."""

_NOW = NOW_NS // 1_000
LEARNERS = 12
STAFF = 6
LICENSES = 3
"""How many enrolments the account of the staff, which is on the Enterprise plan, may hold."""
ENDS_AFTER_S = (10, 25)
"""How long after the beginning the access ends of those who are in the last course already."""

COURSES: tuple[Mapping[str, Any], ...] = (
    {"cents": 4_999, "seats": 1},
    {"cents": 4_999, "seats": 2},
    {"cents": 4_999, "seats": 3},
    {"cents": 1_999, "seats": 5},
    {"cents": 4_999},
    {"cents": 0},
    {
        "cents": 4_999,
        "enrolls_from": timestamp(_NOW + 5 * SECOND),
        "enrolls_until": timestamp(_NOW + 30 * SECOND),
    },
    {"cents": 4_999, "seats": 2, "access_days": 1},
)


class School(NamedTuple):
    """The database file, and the names of what is in it; of each user, the key that may do everything for them."""

    file: bytes
    keys: Mapping[str, str]
    courses: tuple[str, ...]
    ending: frozenset[str]
    """Enrolments whose access ends soon."""

    @property
    def users(self) -> tuple[str, ...]:
        return tuple(self.keys)


@cache
def school() -> School:
    """The school, the same each time, made once in a process."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "school.db"
        keys, offered, ending = asyncio.run(_made(path))
        return School(path.read_bytes(), keys, offered, ending)


Made = tuple[Mapping[str, str], tuple[str, ...], frozenset[str]]


async def _made(path: Path) -> Made:
    storage = await open_storage(f"sqlite:///{path}")
    try:
        return await _filled(storage, Context(_NOW, Random("the school").randbytes))
    finally:
        await storage.close()


async def _filled(storage: Storage, ctx: Context) -> Made:
    acme = await _account(storage, "Acme", "professional", None, ctx)
    corp = await _account(storage, "Corp", "enterprise", LICENSES, ctx)
    keys = await _people(storage, acme, LEARNERS, ctx) | await _people(storage, corp, STAFF, ctx)
    offered = [
        await storage.write(partial(courses.create_course, actor=_owner(acme), new=_course(n), ctx=ctx))
        for n in range(len(COURSES))
    ]
    staff = list(keys)[LEARNERS:]
    ending = [
        await _enrolled(storage, _owner(corp), user, offered[-1].id, Context(began, ctx.random_bytes))
        for user, began in zip(staff, (_NOW - DAY + after_s * SECOND for after_s in ENDS_AFTER_S), strict=False)
    ]
    return keys, tuple(one.id for one in offered), frozenset(ending)


async def _account(storage: Storage, name: str, plan: Plan, licenses: int | None, ctx: Context) -> Account:
    return await storage.write(
        lambda tx: accounts.create_account(tx, name=name, plan=plan, per_minute=None, licenses=licenses, ctx=ctx)
    )


def _owner(account: Account) -> Actor:
    return actor_for(account, mode="live", scopes={"*"}, key_id="key_owner")


async def _people(storage: Storage, account: Account, number: int, ctx: Context) -> dict[str, str]:
    owner = _owner(account)
    key = await storage.write(
        lambda tx: api_keys.create_key(tx, owner, name="key", scopes=("*",), mode="live", expires_at=None, ctx=ctx)
    )
    people = [
        await storage.write(partial(users.create_user, actor=owner, new=_person(n), password_hash=None, ctx=ctx))
        for n in range(number)
    ]
    return {one.id: key.secret for one in people}


async def _enrolled(storage: Storage, owner: Actor, user_id: str, course_id: str, ctx: Context) -> str:
    new = enrollments.NewEnrollment(user_id=user_id, course_id=course_id)
    made = await enrollments.enroll(storage, {"live": SandboxGateway(storage)}, owner, new, ctx)
    return made.enrollment.id


def _person(n: int) -> users.NewUser:
    return users.NewUser(email=f"person{n}@acme.test", name=f"Person {n}")


def _course(n: int) -> courses.NewCourse:
    fields = dict(COURSES[n])
    price = Price.of(Money(fields.pop("cents"), "USD"))
    return courses.NewCourse(title=f"Course {n}", category="development", price=price, **fields)
