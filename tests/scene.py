"""What tests about HTTP set up before they ask: courses, places in them, and a payment service that can be watched.

Everything is made by the use cases themselves, so it is as it would be had somebody asked for it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import httpx2 as httpx
import pytest

from learnflow_core.access import actor_for
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.fields import Price
from learnflow_core.ids import api_key_digest
from learnflow_core.model import Account, ApiKey, Certificate, Course, Enrollment, Mode, Payment, User
from learnflow_core.money import Money
from learnflow_core.ports import PaymentGateway
from learnflow_core.usecases import courses, enrollments
from learnflow_core.usecases.enrollments import Enrolled, NewEnrollment, ProgressChange
from tests.world import World

PAYS = "pm_visa_4242"
"""The sandbox's payment method that pays."""

RATE_LIMIT_FIELDS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit-Policy", "RateLimit")


def told(reply: httpx.Response) -> tuple[int, str, str | None]:
    """What a refusal says: its status, its code, and the parameter that is wrong, if it is one."""
    error = reply.json()["error"]
    return reply.status_code, error["code"], error.get("param")


async def refusal(asked: Awaitable[object]) -> LearnFlowError:
    """The error with which a use case refuses."""
    with pytest.raises(LearnFlowError) as refused:
        await asked
    return refused.value


async def reason(asked: Awaitable[object]) -> tuple[Code, str | None]:
    """The code with which a use case refuses, and the parameter that is wrong, if it is one."""
    error = await refusal(asked)
    return error.code, error.param


def links(reply: httpx.Response) -> dict[str, str]:
    """The targets of a reply's `Link` field, by relation."""
    found = re.findall(r'<([^>]*)>; rel="(\w+)"', reply.headers["Link"])
    return {relation: target for target, relation in found}


async def course(
    world: World,
    account: Account,
    *,
    by: User | None = None,
    cents: int = 4_999,
    price: Money | None = None,
    **fields: Any,
) -> Course:
    """A course of the account at this price or for this many US cents, made by its key, or by the user."""
    actor, ctx = world.owner(account), world.ctx
    if by is not None:
        actor = actor_for(account, mode=by.mode, scopes={"*"}, user_id=by.id, role=by.role)
    new = courses.NewCourse(
        **{"title": "Complete Web Development Bootcamp", "category": "development", **fields},
        price=Price.of(price or Money(cents, "USD")),
    )
    return await world.services.storage.write(lambda tx: courses.create_course(tx, actor, new, ctx))


async def enrolled(world: World, account: Account, user: User, course: Course) -> Enrollment:
    """The user's place in the course, paid for where it costs money."""
    new = NewEnrollment(user_id=user.id, course_id=course.id, payment_method_id=PAYS)
    owner = world.owner(account, user.mode)
    done: Enrolled = await enrollments.enroll(world.services.storage, world.services.gateways, owner, new, world.ctx)
    return done.enrollment


async def completed(world: World, account: Account, user: User, course: Course) -> Certificate:
    """The certificate of a user who has completed the course."""
    enrollment = await enrolled(world, account, user, course)
    owner, ctx = world.owner(account, user.mode), world.ctx
    done = await world.services.storage.write(
        lambda tx: enrollments.set_progress(tx, owner, enrollment.id, ProgressChange(100), ctx)
    )
    certificate = await world.services.storage.read(lambda tx: tx.certificates.get(done.certificate_id or ""))
    assert certificate is not None
    return certificate


async def key_of(world: World, secret: str) -> ApiKey:
    """The API key that has this secret."""
    found = await world.services.storage.read(lambda tx: tx.api_keys.by_digest(api_key_digest(secret)))
    assert found is not None
    return found[0]


class WatchedGateway:
    """A payment service that says what another says, keeps who was charged how often, and can lose its answers.

    `paid` has the payments that were charged, each once; `asked` every charge that was asked for. While `away`, it
    answers `service_unavailable`: `before` charging, or `after` it, as when the reply is lost.
    """

    def __init__(self, inner: PaymentGateway) -> None:
        self.inner = inner
        self.builtin_methods: Mapping[str, str] = inner.builtin_methods
        self.asked: list[str] = []
        self.refunds: list[str] = []
        self.paid: set[str] = set()
        self.away: Callable[[], Exception] | None = None
        self.away_when = "after"

    async def keep(self, token: str, user: User) -> str:
        return await self.inner.keep(token, user)

    async def forget(self, token: str) -> None:
        await self.inner.forget(token)

    async def charge(self, payment: Payment) -> Code | None:
        self.asked.append(payment.id)
        if self.away is not None and self.away_when == "before":
            raise self.away()
        refusal = await self.inner.charge(payment)
        if refusal is None:
            self.paid.add(payment.id)
        if self.away is not None:
            raise self.away()
        return refusal

    async def refund(self, payment: Payment) -> None:
        if self.away is not None:
            raise self.away()
        self.refunds.append(payment.id)
        await self.inner.refund(payment)


def watch_payments(world: World, mode: Mode = "live") -> WatchedGateway:
    """Put a watched payment service in the place of the world's own."""
    gateway = WatchedGateway(world.services.gateways[mode])
    cast("dict[Mode, PaymentGateway]", world.services.gateways)[mode] = gateway
    return gateway


async def books(world: World) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, to be compared with what it is later."""
    driver = cast("Any", world.services.storage)._driver

    async def read(tx: Any) -> dict[str, list[tuple[Any, ...]]]:
        names = await tx.rows("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'course_index%'")
        return {name: sorted(await tx.rows(f"SELECT * FROM {name}"), key=repr) for (name,) in names}  # noqa: S608

    found: dict[str, list[tuple[Any, ...]]] = await driver.read(read)
    return found
