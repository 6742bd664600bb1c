"""Enrolling with a payment service of one's own: `python examples/embed_saga.py` loses an answer, and charges once.

Needs the extra `server`. The storage is any that passes `storage_backends.conformance`; this one is SQLite in memory.
"""

import asyncio
import os
from collections.abc import Mapping

from learnflow_core.access import Actor, actor_for
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.fields import Price
from learnflow_core.model import DAY, SECOND, Instant, Payment, User
from learnflow_core.money import Money, format_amount
from learnflow_core.ports import Context, Storage
from learnflow_core.usecases import accounts, courses, enrollments, payments, rehearsal, users
from learnflow_core.usecases.enrollments import NewEnrollment
from storage_backends import open_storage

COURSE = courses.NewCourse(title="Knots and Splices", category="sailing", price=Price.of(Money(4_999, "USD")), seats=1)


class Harbourmaster:
    """A payment service that puts everything on the slate of a boat; fulfils `learnflow_core.ports.PaymentGateway`.

    The slate is its own, and knows each payment by its id. So asking again writes nothing twice, also when the first
    answer was lost: that is all the saga needs of it.
    """

    builtin_methods: Mapping[str, str] = {"pm_slate": "slate"}

    def __init__(self) -> None:
        self.slate: dict[str, Money] = {}
        self.wiped: set[str] = set()
        self.is_heard = True

    async def keep(self, token: str, user: User) -> str:
        return token

    async def forget(self, token: str) -> None:
        pass

    async def charge(self, payment: Payment) -> Code | None:
        self.slate.setdefault(payment.id, payment.amount)
        if not self.is_heard:
            raise LearnFlowError(Code.SERVICE_UNAVAILABLE)
        return None

    async def refund(self, payment: Payment) -> None:
        self.wiped.add(payment.id)

    def told(self) -> str:
        due = [amount for key, amount in self.slate.items() if key not in self.wiped]
        return ", ".join(f"{format_amount(one.amount_minor, one.currency)} {one.currency}" for one in due) or "-"


class Clock:
    """The domain reads no clock: whoever embeds it says when things happen."""

    def __init__(self) -> None:
        self.now: Instant = 1_705_311_000 * SECOND

    def __call__(self) -> Context:
        return Context(self.now, os.urandom)

    def pass_by(self, seconds: int) -> None:
        self.now += seconds * SECOND


async def set_up(storage: Storage, ctx: Context) -> tuple[Actor, str, list[User]]:
    account = await storage.write(
        lambda tx: accounts.create_account(
            tx, name="Harbour School", plan="starter", per_minute=None, licenses=None, ctx=ctx
        )
    )
    school = actor_for(account, mode="live", scopes={"*"})
    course = await storage.write(lambda tx: courses.create_course(tx, school, COURSE, ctx))
    people = []
    for name in ("Ada", "Ben"):
        new = users.NewUser(f"{name}@example.com", name)
        people.append(await storage.write(lambda tx, new=new: users.create_user(tx, school, new, None, ctx)))  # type: ignore[misc]
    return school, course.id, people


async def main() -> None:
    storage, clock, harbour = await open_storage("sqlite://"), Clock(), Harbourmaster()
    gateways: payments.Gateways = {"live": harbour, "test": harbour}
    school, course_id, (ada, ben) = await set_up(storage, clock())

    async def enrol(user: User) -> None:
        wanted = NewEnrollment(user.id, course_id, "pm_slate")
        try:
            place = await enrollments.enroll(storage, gateways, school, wanted, clock())
            print(f"{user.name}: {place.enrollment.status}; slate: {harbour.told()}")
        except LearnFlowError as refusal:
            print(f"{user.name}: {refusal.code}; slate: {harbour.told()}")

    harbour.is_heard = False
    await enrol(ada)
    await enrol(ada)
    harbour.is_heard = True
    for seconds in (1, 10):
        clock.pass_by(seconds)
        number = await payments.finish_unresolved(storage, gateways, clock())
        print(f"the sweep after {seconds} s: {number} carried on; slate: {harbour.told()}")
    await enrol(ada)

    wanted = NewEnrollment(ben.id, course_id, "pm_slate")
    foretold = await storage.read(lambda tx: rehearsal.rehearse(tx, gateways, school, wanted, clock()))
    against = [verdict.refusal.code.value for verdict in foretold.verdicts if verdict.refusal is not None]
    print(f"Ben would be {foretold.outcome}: {', '.join(against)}")

    found = await storage.read(lambda tx: tx.enrollments.live(ada.id, course_id))
    assert found is not None
    left = await enrollments.leave(storage, gateways, school, found.id, 14 * DAY, clock())
    print(f"Ada: {left.status}; slate: {harbour.told()}")
    await enrol(ben)
    print("the books:", await storage.check() or "agree")
    await storage.close()


asyncio.run(main())
