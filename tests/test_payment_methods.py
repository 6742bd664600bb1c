"""Means of payment: each person's own, added once, and forgotten by the payment service when they are deleted."""

from __future__ import annotations

import pytest

from learnflow_core.access import Actor, actor_for
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import DAY, Account, PaymentMethod, User
from learnflow_core.pagination import Page
from learnflow_core.usecases import payment_methods
from learnflow_core.usecases.payment_methods import Added, NewPaymentMethod
from learnflow_core.usecases.users import delete_user
from tests.scene import reason, watch_payments
from tests.world import World


class Wallet:
    """What a person can pay with, and a payment service that says what it was told to forget."""

    def __init__(self, world: World, account: Account, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.account = account
        self.user = user
        self.forgotten: list[str] = []
        self.fails: dict[str, Code] = {}
        monkeypatch.setattr(watch_payments(world), "forget", self._forget)

    async def _forget(self, token: str) -> None:
        if token in self.fails:
            raise LearnFlowError(self.fails[token])
        self.forgotten.append(token)

    @property
    def owner(self) -> Actor:
        return self.world.owner(self.account)

    async def add(self, token: str, *, by: Actor | None = None) -> Added:
        services = self.world.services
        return await payment_methods.add_payment_method(
            services.storage,
            services.gateways,
            by or self.owner,
            self.user.id,
            NewPaymentMethod(token),
            self.world.ctx,
        )

    async def delete(self, method_id: str, *, by: Actor | None = None, of: User | None = None) -> PaymentMethod:
        actor, user, ctx = by or self.owner, of or self.user, self.world.ctx
        return await self.world.services.storage.write(
            lambda tx: payment_methods.delete_payment_method(tx, actor, user.id, method_id, ctx)
        )

    async def listed(self, *, by: Actor | None = None) -> list[PaymentMethod]:
        actor = by or self.owner
        found = await self.world.services.storage.read(
            lambda tx: payment_methods.list_payment_methods(tx, actor, self.user.id, Page(1, 50))
        )
        return found.items

    async def forget(self, **options: int) -> int:
        services = self.world.services
        return await payment_methods.forget_deleted(services.storage, services.gateways, self.world.ctx, **options)


@pytest.fixture
async def wallet(world: World, monkeypatch: pytest.MonkeyPatch) -> Wallet:
    account = await world.account()
    return Wallet(world, account, await world.user(account, "ada@acme.test"), monkeypatch)


def person(wallet: Wallet, user: User) -> Actor:
    return actor_for(wallet.account, mode=user.mode, scopes={"*"}, user_id=user.id, role=user.role)


async def test_what_is_added_twice_is_there_once(wallet: Wallet) -> None:
    first = await wallet.add("tok_visa_4242")
    wallet.world.clock.advance(1)
    again = await wallet.add("tok_visa_4242")
    assert (first.created, again.created) == (True, False)
    assert first.method == again.method
    assert await wallet.listed() == [first.method]
    assert (first.method.user_id, first.method.deleted_at, first.method.forgotten_at) == (wallet.user.id, None, None)


@pytest.mark.parametrize(
    "number",
    ["4242424242424242", "4242 4242 4242 4242", "tok-4242-4242.4242 4242", "378282246310005", "501800000009",
     "630490 0177402924002"],
)  # fmt: skip
async def test_the_number_of_a_card_is_kept_nowhere(wallet: Wallet, number: str) -> None:
    assert await reason(wallet.add(number)) == (Code.INVALID_PARAMETER, "token")
    assert await wallet.listed() == []


@pytest.mark.parametrize("number", ["4242424242424241", "18", "50100000004", "40000000000000000002", "tok_visa_4242"])
def test_what_fails_the_check_or_is_too_short_or_too_long_is_no_number_of_a_card(number: str) -> None:
    assert not payment_methods._holds_card_number(number)


async def test_a_method_is_of_the_person_alone_and_of_the_accounts_keys(wallet: Wallet) -> None:
    method = (await wallet.add("tok_visa_4242")).method
    admin = await wallet.world.user(wallet.account, "root@acme.test", role="admin")
    other = await wallet.world.user(wallet.account, "bob@acme.test")
    for stranger, code in ((admin, Code.FORBIDDEN), (other, Code.USER_NOT_FOUND)):
        actor = person(wallet, stranger)
        assert await reason(wallet.listed(by=actor)) == (code, None)
        assert await reason(wallet.add("tok_visa_4242", by=actor)) == (code, None)
        assert await reason(wallet.delete(method.id, by=actor)) == (code, None)
    assert await wallet.listed(by=person(wallet, wallet.user)) == [method]
    assert await reason(wallet.delete(method.id, of=other)) == (Code.PAYMENT_METHOD_NOT_FOUND, None)
    assert await reason(wallet.delete("pm_nobodys")) == (Code.PAYMENT_METHOD_NOT_FOUND, None)


async def test_what_is_deleted_twice_was_deleted_the_first_time(wallet: Wallet) -> None:
    method = (await wallet.add("tok_visa_4242")).method
    deleted = await wallet.delete(method.id)
    assert deleted.deleted_at == wallet.world.now
    wallet.world.clock.advance(1)
    assert await wallet.delete(method.id) == deleted
    assert await wallet.listed() == []


async def test_what_is_deleted_is_forgotten_by_the_payment_service_once(wallet: Wallet) -> None:
    for token in ("tok_visa_4242", "tok_visa_0002", "tok_visa_9995"):
        await wallet.delete((await wallet.add(token)).method.id)
        wallet.world.clock.advance(1)
    kept = (await wallet.add("tok_visa_4242")).method
    assert [await wallet.forget(batch=2), await wallet.forget(batch=2), await wallet.forget()] == [2, 1, 0]
    assert wallet.forgotten == ["tok_visa_0002", "tok_visa_9995"], "what was added again is still needed"
    assert await wallet.listed() == [kept]


async def test_what_is_not_forgotten_now_waits_and_nothing_waits_for_it(wallet: Wallet) -> None:
    for token in ("tok_visa_4242", "tok_visa_0002", "tok_visa_9995"):
        await wallet.delete((await wallet.add(token)).method.id)
        wallet.world.clock.advance(1)
    wallet.fails["tok_visa_4242"] = Code.SERVICE_UNAVAILABLE
    assert await wallet.forget(batch=2) == 1
    assert wallet.forgotten == ["tok_visa_0002"]
    wallet.fails["tok_visa_4242"] = Code.INVALID_REQUEST
    assert await reason(wallet.forget()) == (Code.INVALID_REQUEST, None)
    assert wallet.forgotten == ["tok_visa_0002", "tok_visa_9995"], "a refusal keeps nothing else waiting either"
    wallet.fails.clear()
    assert await wallet.forget() == 1
    assert wallet.forgotten == ["tok_visa_0002", "tok_visa_9995", "tok_visa_4242"]


async def test_what_the_payment_service_kept_for_somebody_deleted_meanwhile_is_forgotten(
    wallet: Wallet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def keep_slowly(token: str, user: User) -> str:
        storage, ctx = wallet.world.services.storage, wallet.world.ctx
        await storage.write(lambda tx: delete_user(tx, wallet.owner, user.id, DAY, ctx))
        return token

    monkeypatch.setattr(wallet.world.services.gateways["live"], "keep", keep_slowly)
    assert await reason(wallet.add("tok_visa_4242")) == (Code.USER_NOT_FOUND, None)
    assert await wallet.forget() == 1
    assert wallet.forgotten == ["tok_visa_4242"]
