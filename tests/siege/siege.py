"""A siege from its first request to its settled books, and everything that must be true then."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from learnflow_core.access import actor_for
from learnflow_core.fields import Price
from learnflow_core.money import Money
from learnflow_core.ports import Context, Storage, Transaction
from learnflow_core.usecases import accounts, api_keys, courses, users
from storage_backends import migrate, open_storage
from tests.siege.clients import Client, Place, Told
from tests.siege.machines import Machine, PaymentProcess
from tests.siege.payments import ask

MACHINES = 2
CLIENTS = 24
SETTLED_S = 60.0
"""Within this time after the last request, nothing is under way any more."""

PLACES = "SELECT id, user_id, course_id, status FROM enrollments"
_UNDER_WAY = "SELECT id FROM payments WHERE status IN ('charging', 'refunding')"


class School(NamedTuple):
    """The key of an account, its learners, and what they can learn."""

    key: str
    users: list[str]
    courses: list[str]


class Town:
    """A database, the machines that serve it, and the payment service."""

    def __init__(self, storage: Storage, school: School, machines: list[Machine], payments: PaymentProcess) -> None:
        self.storage = storage
        self.school = school
        self.machines = machines
        self.payments = payments

    def client(self, random: Random) -> Client:
        """Somebody with the key of the account."""
        return Client(self.machines, self.school.key, random)

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What is in the database."""

        async def look(tx: Transaction) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in await tx._tx.rows(sql)]  # type: ignore[attr-defined]

        return await self.storage.read(look)

    async def settled_s(self) -> float:
        """How long it takes until nothing is under way."""
        began = time.monotonic()
        while await self.rows(_UNDER_WAY):
            assert time.monotonic() - began < SETTLED_S, await self.rows(_UNDER_WAY)
            await asyncio.sleep(0.2)
        return time.monotonic() - began

    async def violations(self, told: dict[Place, Told]) -> list[str]:
        """What is wrong with the books, our own, the payment service's and those of the clients taken together."""
        found = [f"the doctor: {one}" for one in await self.storage.check()]
        charged = Counter(
            charge["enrollment"]
            for charge in await ask(str(self.payments.socket), {"call": "books"})
            if charge["refusal"] is None and not charge["refunds"]
        )
        active: dict[Place, str] = {}
        for place, user, course, status in await self.rows(PLACES):
            if charged[place] != (status == "active"):
                found.append(f"{place} is {status}, and {charged[place]} charges are held for it")
            if status == "active":
                if Place(user, course) in active:
                    found.append(f"{user} is twice in {course}")
                active[Place(user, course)] = place
        for place, reply in told.items():
            if reply.status in (200, 201) and active.get(place) != reply.body["id"]:
                found.append(f"{place} was told of {reply.body['id']}, and has {active.get(place)}")
            elif reply.status not in (200, 201, 403):
                found.append(f"{place} was answered {reply}")
        return found + [log for machine in self.machines for log in _bugs(machine)]


@asynccontextmanager
async def town(
    url: str, folder: Path, *, learners: int, seats: Sequence[int | None], seed: int = 0
) -> AsyncIterator[Town]:
    """A town with its machines up: a course for each number of seats."""
    await migrate(url)
    storage = await open_storage(url)
    async with PaymentProcess(folder / "payments.sock", seed) as payments:
        school = await _school(storage, learners, seats)
        machines = [Machine(url, payments.socket, folder / f"{n}.log") for n in range(MACHINES)]
        try:
            for machine in machines:
                await machine.start()
            for machine in machines:
                await machine.is_up()
            yield Town(storage, school, machines, payments)
        finally:
            for machine in machines:
                await machine.kill()
            await storage.close()


async def enrol_all(town: Town, places: Sequence[Place], kills: int, random: Random) -> dict[Place, Told]:
    """Every place is asked for, by clients side by side, while machines are killed; what was told of each."""
    told: dict[Place, Told] = {}
    left = list(places)
    kill_at = sorted(random.sample(range(len(left)), kills), reverse=True)

    async def work(random: Random) -> None:
        client = town.client(random)
        while left:
            place = left.pop()
            key = f"{place.user}-{place.course}" if random.random() < 0.5 else None
            means = random.choice(("pm_visa_4242",) * 9 + ("pm_visa_0002",))
            told[place] = await client.enrol(place, means, key)

    async def besiege() -> None:
        while kill_at:
            if len(places) - len(left) > kill_at[-1]:
                kill_at.pop()
                machine = random.choice(town.machines)
                await machine.kill()
                await machine.start()
            await asyncio.sleep(random.uniform(0, 0.05))

    await asyncio.gather(besiege(), *(work(Random(random.random())) for _ in range(CLIENTS)))
    return told


def _bugs(machine: Machine) -> list[str]:
    """What a machine logged that no trouble from outside explains."""
    return [line[:1_000] for line in machine.log.splitlines() if "internal error" in line or "Traceback" in line]


async def _school(storage: Storage, learners: int, seats: Sequence[int | None]) -> School:
    ctx = Context(time.time_ns() // 1_000, Random("a siege").randbytes)

    async def made(tx: Transaction) -> School:
        account = await accounts.create_account(
            tx, name="Acme", plan="professional", per_minute=None, licenses=None, ctx=ctx
        )
        owner = actor_for(account, mode="live", scopes={"*"}, key_id="key_owner")
        key = await api_keys.create_key(tx, owner, name="key", scopes=("*",), mode="live", expires_at=None, ctx=ctx)
        people = [users.NewUser(email=f"learner{n}@acme.test", name=f"Learner {n}") for n in range(learners)]
        price = Price.of(Money(4_999, "USD"))
        offered = [
            courses.NewCourse(title=f"Course {n}", category="development", price=price, seats=number)
            for n, number in enumerate(seats)
        ]
        return School(
            key.secret,
            [(await users.create_user(tx, owner, one, None, ctx)).id for one in people],
            [(await courses.create_course(tx, owner, one, ctx)).id for one in offered],
        )

    return await storage.write(made)
