"""A school as tests of enrolling ask it: its key, a learner, and a payment service that is watched."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx

from learnflow_core.model import Account, Course, Plan, User
from learnflow_core.usecases import users
from learnflow_core.usecases.users import NewUser
from tests import scene
from tests.scene import PAYS
from tests.world import World

DAY_S = 86_400


class School:
    """An account on Professional with its key, a learner, and a payment service that is watched."""

    def __init__(self, world: World, account: Account, key: str, user: User) -> None:
        self.world = world
        self.account = account
        self.key = key
        self.user = user
        self.gateway = scene.watch_payments(world)

    async def course(self, **fields: Any) -> Course:
        return await scene.course(self.world, self.account, **fields)

    async def enrol(
        self,
        course: Course | str,
        method: str | None = PAYS,
        *,
        user: User | str | None = None,
        credential: str | None = None,
    ) -> httpx.Response:
        who = user or self.user
        body = {
            "user_id": who if isinstance(who, str) else who.id,
            "course_id": course if isinstance(course, str) else course.id,
        }
        if method is not None:
            body["payment_method_id"] = method
        return await self.world.ask("POST", "/v1/enrollments", credential or self.key, body)

    async def change(self, course: Course, **changes: Any) -> None:
        reply = await self.world.ask("PATCH", f"/v1/courses/{course.id}", self.key, changes)
        assert reply.status_code == 200, reply.text

    async def cancel(self, enrollment_id: str) -> httpx.Response:
        return await self.world.ask("POST", f"/v1/enrollments/{enrollment_id}/cancel", self.key)

    async def progress(self, enrollment_id: str, progress: Any) -> httpx.Response:
        body = {"progress": progress}
        return await self.world.ask("PATCH", f"/v1/enrollments/{enrollment_id}", self.key, body)

    async def enrollments(self, **filters: str) -> list[dict[str, Any]]:
        reply = await self.world.client.get(
            "/v1/enrollments", params=filters, headers={"Authorization": f"Bearer {self.key}"}
        )
        found: list[dict[str, Any]] = reply.json()["data"]
        return found

    async def students(self, course: Course) -> int:
        await self.world.sweep()
        return int((await self.world.ask("GET", f"/v1/courses/{course.id}")).json()["total_students"])

    async def crowd(self, number: int) -> list[User]:
        owner, ctx = self.world.owner(self.account), self.world.ctx
        people = [NewUser(email=f"{n}@crowd.test", name=f"Person {n}") for n in range(number)]
        return await self.world.services.storage.write(
            lambda tx: _all(users.create_user(tx, owner, new, None, ctx) for new in people)
        )


async def _all(made: Any) -> list[User]:
    return [await one for one in made]


async def school_on(world: World, plan: Plan, licenses: int | None = None) -> School:
    account = await world.account(plan=plan, licenses=licenses)
    return School(world, account, await world.key(account), await world.user(account, "ada@acme.test"))


def told(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]
