"""A school whose payments are taken by Stripe: the whole server, and the local service in Stripe's place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, cast

import httpx2 as httpx

from learnflow_core.access import Actor
from learnflow_core.model import Mode, Payment, User
from learnflow_core.pagination import Page
from learnflow_core.ports import AuditQuery, PaymentGateway, Transaction
from learnflow_core.usecases.payment_methods import NewPaymentMethod, add_payment_method
from learnflow_core.usecases.payments import Gateways
from payment_gateways.stripe import StripeGateway
from payment_gateways.stripe.gateway import UNKNOWN_UNTIL
from tests.school import School
from tests.stripe_service import SECRET_KEY, WEBHOOK_SECRET, StripeService
from tests.world import NOW_NS, World, open_world

IMPATIENT_S = 1.0
"""How long a server waits for the service which is to wait in vain: also long on a machine that has much else to do."""
UNKNOWN_UNTIL_S = UNKNOWN_UNTIL // 1_000_000


class PayingSchool(School):
    """A school on Stripe, which is `service`. Means of payment are added through `patient`."""

    service: StripeService
    patient: PaymentGateway

    @property
    def owner(self) -> Actor:
        """Who may do everything."""
        return self.world.owner(self.account)

    @property
    def charges(self) -> int:
        """How often anybody was charged."""
        return self.service.ledger.count("charged").total()

    @property
    def kept(self) -> int:
        """For how many charges the money was kept."""
        return self.service.ledger.kept().total()

    @contextmanager
    def patience(self) -> Iterator[None]:
        """Wait for Stripe as long as it takes."""
        gateways = cast("dict[Mode, PaymentGateway]", self.world.services.gateways)
        usual, gateways["live"] = gateways["live"], self.patient
        try:
            yield
        finally:
            gateways["live"] = usual

    async def add(self, token: str, user: User | None = None) -> httpx.Response:
        """Ask for a means of payment to be added."""
        path = f"/v1/users/{(user or self.user).id}/payment-methods"
        return await self.world.ask("POST", path, self.key, {"token": token})

    async def method(self, card: str = "pm_card_visa", user: User | None = None) -> str:
        """The id of a means of payment that was added."""
        storage, new = self.world.services.storage, NewPaymentMethod(card)
        gateways: Gateways = {"live": self.patient}
        added = await add_payment_method(storage, gateways, self.owner, (user or self.user).id, new, self.world.ctx)
        return added.method.id

    async def pay(self, card: str = "pm_card_visa", **fields: Any) -> httpx.Response:
        """Enrol the learner in a new course, with a new means of payment."""
        return await self.enrol(await self.course(**fields), await self.method(card))

    async def post_event(self, body: bytes, signature: str) -> httpx.Response:
        """Post to the server what Stripe would."""
        headers = {"Stripe-Signature": signature}
        return await self.world.client.post("/webhooks/stripe", content=body, headers=headers)

    async def hear(self, body: bytes, signature: str) -> int:
        """Post a webhook; the status of the reply."""
        return (await self.post_event(body, signature)).status_code

    async def payment(self, enrollment_id: str) -> Payment:
        """The payment of an enrolment."""

        async def work(tx: Any) -> Payment:
            enrollment = await tx.enrollments.get(enrollment_id)
            return cast("Payment", await tx.payments.get(enrollment.payment_id))

        return await self.world.services.storage.read(work)

    async def books(self, payment_id: str) -> tuple[list[str], set[tuple[str, str]]]:
        """What the ledger has of a payment, and what the audit: which event, by whom."""

        async def work(tx: Transaction) -> tuple[list[str], set[tuple[str, str]]]:
            rows = await tx.audit.list(AuditQuery(payment_id), Page(1, 50))
            moved: list[str] = [entry.movement for entry in await tx.ledger.of(payment_id)]
            return moved, {(row.event.removeprefix("payment."), row.actor) for row in rows.items}

        return await self.world.services.storage.read(work)

    async def settle(self) -> None:
        """Let time pass until nothing can be under way any more, and sweep; then all books agree."""
        self.service.fail(None)
        await self.service.finish()
        with self.patience():
            for seconds in (11, UNKNOWN_UNTIL_S, 11):
                self.world.clock.advance(seconds)
                await self.world.sweep()
        assert list(await self.world.services.storage.check()) == []
        await self.assert_paid_is_enrolled()

    async def assert_paid_is_enrolled(self) -> None:
        """Nobody paid twice, nobody paid who has no place, and nobody has a place who did not pay."""
        kept = self.service.ledger.kept()
        assert set(kept.values()) <= {0, 1}
        found = [one for status in ("active", "completed") for one in await self.all_enrollments(status)]
        assert sorted(name for name, times in kept.items() if times) == sorted(found)
        assert await self.all_enrollments("pending") == []

    async def all_enrollments(self, status: str) -> list[str]:
        """The ids of all enrolments with this status."""
        found: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            params = {"cursor": cursor, "limit": "50", "status": status}
            reply = await self.world.client.get(
                "/v1/enrollments", params=params, headers={"Authorization": f"Bearer {self.key}"}
            )
            found += [one["id"] for one in reply.json()["data"]]
            cursor = reply.json()["meta"]["next_cursor"]
        return found


@asynccontextmanager
async def open_paying_school(*, timeout_s: float = 15.0) -> AsyncIterator[PayingSchool]:
    """A school on Stripe. Its server waits for Stripe no longer than this, and repeats no request by itself."""
    worlds: list[World] = []
    async with StripeService(clock=lambda: (worlds[0].clock() if worlds else NOW_NS) / 1e9) as service:
        world = open_world(
            payments="stripe",
            stripe_secret_key=SECRET_KEY,
            stripe_webhook_secrets=WEBHOOK_SECRET,
            stripe_api=service.url,
        )
        async with world as opened:
            worlds.append(opened)
            gateway = StripeGateway(SECRET_KEY, clock_ns=opened.clock, api=service.url, timeout_s=timeout_s, retries=0)
            async with aclosing(gateway):
                yield await _school(opened, service, gateway)


async def _school(world: World, service: StripeService, gateway: StripeGateway) -> PayingSchool:
    gateways = cast("dict[Mode, PaymentGateway]", world.services.gateways)
    patient, gateways["live"] = gateways["live"], gateway
    account = await world.account(plan="professional")
    school = PayingSchool(world, account, await world.key(account), await world.user(account, "ada@acme.test"))
    school.service, school.patient = service, patient
    return school
