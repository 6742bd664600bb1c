"""Whatever people do and the payment service fails to say, in whatever order: money, seats and books come out right."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Iterable, Mapping
from random import Random
from types import MappingProxyType
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from learnflow_core.access import Actor, actor_for
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import DAY, LIVE_STATUSES, SECOND, Enrollment, Instant, Payment, User
from learnflow_core.money import Money
from learnflow_core.pagination import Page
from learnflow_core.ports import Context, EnrollmentQuery
from learnflow_core.usecases import enrollments, payments, places, users
from learnflow_core.usecases.enrollments import NewEnrollment, ProgressChange
from storage_backends import open_storage
from storage_backends.conformance.samples import account, course, keep, user

T = TypeVar("T")

STARTED: Instant = 1_705_311_000 * SECOND
REFUND_WINDOW = 2 * DAY
COURSES = ("crs_plenty", "crs_one", "crs_day", "crs_free")
PEOPLE = ("usr_1", "usr_2", "usr_3")
METHODS = MappingProxyType({"pm_pays": "pays", "pm_declines": "declines"})
EXPECTED = {
    Code.SERVICE_UNAVAILABLE,
    Code.CARD_DECLINED,
    Code.COURSE_FULL,
    Code.USER_NOT_FOUND,
}
TOO_LATE = {Code.ENROLLMENT_NOT_ACTIVE, Code.REFUND_WINDOW_CLOSED}
"""What else somebody may be told who leaves, or does anything else with a place."""


class Service:
    """A payment service with books of its own: the first that is said of a key stays so. It may be silent before it
    does what it is asked, or after."""

    builtin_methods: Mapping[str, str] = METHODS

    def __init__(self) -> None:
        self.charged: dict[str, bool] = {}
        self.asked: dict[str, tuple[str, Money, int]] = {}
        self.refunded: set[str] = set()
        self.silent: str | None = None

    async def keep(self, token: str, user: User) -> str:
        return token

    async def forget(self, token: str) -> None:
        pass

    async def charge(self, payment: Payment) -> Code | None:
        await self._hear()
        question = (payment.token, payment.amount, payment.course_version)
        assert self.asked.setdefault(payment.id, question) == question, "the same key asks the same"
        paid = self.charged.setdefault(payment.id, payment.token == "pays")
        self._answer()
        return None if paid else Code.CARD_DECLINED

    async def refund(self, payment: Payment) -> None:
        await self._hear()
        assert self.charged.get(payment.id), "nothing goes back that did not come"
        self.refunded.add(payment.id)
        self._answer()

    async def _hear(self) -> None:
        await asyncio.sleep(0)
        if self.silent == "before":
            raise LearnFlowError(Code.SERVICE_UNAVAILABLE)

    def _answer(self) -> None:
        if self.silent == "after":
            raise LearnFlowError(Code.SERVICE_UNAVAILABLE)


class Saga(RuleBasedStateMachine):
    """A school with few seats and a payment service that is often silent."""

    def __init__(self) -> None:
        super().__init__()
        self.chance = Random("saga")  # ids of one run are those of the next
        self.runner = asyncio.Runner()
        self.now = STARTED
        self.service = Service()
        self.wished: set[str] = set()
        self.storage = self.run(open_storage("sqlite://"))
        price = Money(4_999, "USD")
        courses = [
            course("crs_plenty", price=price),
            course("crs_one", price=price, seats=1),
            course("crs_day", price=price, seats=2, access_days=1),
            course("crs_free", seats=2, access_days=3),
        ]
        self.run(keep(self.storage, account(), *courses, *map(user, PEOPLE)))
        self.school: Actor = actor_for(account(), mode="live", scopes={"*"})

    def run(self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        return self.runner.run(awaited())

    def attempt(self, *works: Awaitable[Any], expected: Collection[Code] = ()) -> None:
        """Do things at the same time; each may be refused, for reasons that there are."""

        async def together() -> list[Any]:
            return await asyncio.gather(*works, return_exceptions=True)

        for outcome in self.runner.run(together()):
            if isinstance(outcome, LearnFlowError):
                assert outcome.code in EXPECTED or outcome.code in expected, outcome
            elif isinstance(outcome, BaseException):
                raise outcome

    @property
    def ctx(self) -> Context:
        return Context(self.now, self.chance.randbytes)

    @property
    def gateways(self) -> payments.Gateways:
        return {"live": self.service, "test": self.service}

    def places(self) -> list[Enrollment]:
        everywhere = EnrollmentQuery("live")
        return self.run(self.storage.read(lambda tx: tx.enrollments.list(everywhere, Page(1, 1_000)))).items

    def enrol(self, person: str, wanted: str, method: str) -> Awaitable[Any]:
        new = NewEnrollment(person, wanted, method)
        return enrollments.enroll(self.storage, self.gateways, self.school, new, self.ctx)

    def leave(self, place: Enrollment) -> Awaitable[Any]:
        return enrollments.leave(self.storage, self.gateways, self.school, place.id, REFUND_WINDOW, self.ctx)

    @rule(
        who=st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=3),
        wanted=st.sampled_from(COURSES),
        method=st.sampled_from(["pm_pays", "pm_pays", "pm_declines"]),
    )
    def people_enrol_at_once(self, who: list[str], wanted: str, method: str) -> None:
        self.attempt(*(self.enrol(person, wanted, method) for person in who))

    @rule(which=st.integers(0, 20), and_enrols=st.booleans())
    def somebody_leaves(self, which: int, and_enrols: bool) -> None:
        if found := self.places():
            place = found[which % len(found)]
            again = [self.enrol(place.user_id, place.course_id, "pm_pays")] if and_enrols else []
            self._wish_to_leave([place])
            self.attempt(self.leave(place), *again, expected=TOO_LATE)

    @rule(which=st.integers(0, 20), progress=st.sampled_from([50, 100]))
    def somebody_progresses(self, which: int, progress: int) -> None:
        if found := self.places():
            place, ctx, change = found[which % len(found)], self.ctx, ProgressChange(progress)
            self.attempt(
                self.storage.write(lambda tx: enrollments.set_progress(tx, self.school, place.id, change, ctx)),
                expected=TOO_LATE,
            )

    @rule(person=st.sampled_from(PEOPLE))
    def somebody_is_deleted(self, person: str) -> None:
        ctx = self.ctx
        self._wish_to_leave(place for place in self.places() if place.user_id == person)
        self.attempt(self.storage.write(lambda tx: users.delete_user(tx, self.school, person, REFUND_WINDOW, ctx)))

    def _wish_to_leave(self, found: Iterable[Enrollment]) -> None:
        self.wished |= {place.id for place in found if place.status == "pending"}

    @rule(silent=st.sampled_from([None, "before", "after"]))
    def the_payment_service_is_heard_or_not(self, silent: str | None) -> None:
        self.service.silent = silent

    @rule(seconds=st.sampled_from([1, 11, 60, 3_600, 86_400, 200_000]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @rule(several=st.integers(1, 3))
    def sweeps_come(self, several: int) -> None:
        self.attempt(*(payments.finish_unresolved(self.storage, self.gateways, self.ctx) for _ in range(several)))
        ctx = self.ctx
        self.attempt(self.storage.write(lambda tx: places.expire_overdue(tx, ctx, 10)))

    @invariant()
    def the_books_agree(self) -> None:
        assert list(self.run(self.storage.check())) == []

    @invariant()
    def nobody_pays_twice_for_one_place(self) -> None:
        """Of the charges that were paid and not given back, at most one is for a place that its user still has, or that
        is about to become one."""
        held: dict[tuple[str, str], int] = {}
        for place in self.places():
            key = place.payment_id or ""
            if self.service.charged.get(key) and key not in self.service.refunded and place.status in LIVE_STATUSES:
                at = place.user_id, place.course_id
                held[at] = held.get(at, 0) + 1
        assert all(number == 1 for number in held.values())

    def teardown(self) -> None:
        """In the end the payment service answers, and everything is settled."""
        self.service.silent = None
        for _ in range(3):
            self.now += 400 * SECOND
            self.sweeps_come(several=1)
        self.the_books_agree()
        for place in self.places():
            assert place.status != "pending"
            assert place.id not in self.wished or place.status in ("cancelled", "refunded")
            key = place.payment_id
            if key is not None:
                has_paid = self.service.charged.get(key, False) and key not in self.service.refunded
                assert has_paid == (place.status in ("active", "completed", "expired") or self._was_kept(place))
        assert self.service.charged.keys() <= {place.payment_id for place in self.places()}
        self.run(self.storage.close())
        self.runner.close()

    def _was_kept(self, place: Enrollment) -> bool:
        """Whether its user was deleted after the refund window: nobody else is cancelled who has paid."""
        return (
            place.status == "cancelled"
            and place.updated_at - place.enrolled_at > REFUND_WINDOW
            and bool(self.service.charged.get(place.payment_id or ""))
        )


test_the_saga = Saga.TestCase
test_the_saga.settings = settings(max_examples=settings().max_examples // 2, stateful_step_count=25)
