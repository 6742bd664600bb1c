"""Means of payment: the payment service keeps them, and we keep its word for each.

The service is asked outside our transactions. To add one, it comes first: what it did not take is not kept here. To
delete one, it comes last: what is deleted here is charged no more, and the sweep has the service forget it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

import msgspec

from learnflow_core.access import Actor
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.fields import IdText
from learnflow_core.model import Mode, PaymentMethod, User
from learnflow_core.pagination import Slice
from learnflow_core.ports import Context, Paging, PaymentGateway, Storage, Transaction
from learnflow_core.usecases.visible import get_user


class NewPaymentMethod(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The payment service's token for a means of payment; the number of a card is refused."""

    token: IdText


class Added(msgspec.Struct, frozen=True):
    """A means of payment, and whether this very request added it."""

    method: PaymentMethod
    created: bool


async def list_payment_methods(tx: Transaction, actor: Actor, user_id: str, paging: Paging) -> Slice[PaymentMethod]:
    """The means of payment that were added for a user."""
    user = await _payer(tx, actor, user_id)
    return await tx.payments.methods(user.id, paging)


async def add_payment_method(
    storage: Storage,
    gateways: Mapping[Mode, PaymentGateway],
    actor: Actor,
    user_id: str,
    new: NewPaymentMethod,
    ctx: Context,
) -> Added:
    """Have the payment service keep a means of payment; one that is kept for the user already is answered as it is.

    A card number is `invalid_parameter`, and not kept. Raises what `PaymentGateway.keep` does. Of a user who is deleted
    meanwhile, nothing is added: the sweep has the payment service forget it.
    """
    user = await storage.read(lambda tx: _payer(tx, actor, user_id))
    if _holds_card_number(new.token):
        raise LearnFlowError(
            Code.INVALID_PARAMETER,
            "Card numbers are not taken: send the token that the payment service made of it.",
            param="token",
        )
    token = await gateways[user.mode].keep(new.token, user)
    kept = ctx.later()
    added = await storage.write(lambda tx: _add(tx, user.id, token, kept))
    if added.method.deleted_at is not None:
        raise LearnFlowError(Code.USER_NOT_FOUND)
    return added


async def delete_payment_method(
    tx: Transaction, actor: Actor, user_id: str, method_id: str, ctx: Context
) -> PaymentMethod:
    """Forget a means of payment; deleting twice changes nothing."""
    user = await _payer(tx, actor, user_id)
    method = await tx.payments.method(method_id)
    if method is None or method.user_id != user.id:
        raise LearnFlowError(Code.PAYMENT_METHOD_NOT_FOUND)
    if method.deleted_at is not None:
        return method
    deleted = msgspec.structs.replace(method, deleted_at=ctx.now)
    await tx.payments.put_method(deleted)
    return deleted


async def forget_deleted(
    storage: Storage, gateways: Mapping[Mode, PaymentGateway], ctx: Context, *, batch: int = 20
) -> int:
    """Have the payment services forget what was deleted here; how many means of payment that were.

    What was added again since, under the same token, is kept. Safe with several at once, and to repeat: what a service
    does not answer for stays for the next time, and keeps none of the others waiting. The first of its refusals is
    raised at the end.
    """
    done, refusals = 0, list[LearnFlowError]()
    for method, mode in await storage.read(lambda tx: _deleted(tx, batch)):
        try:
            if await storage.read(partial(_successor, method=method)) is None:
                await gateways[mode].forget(method.token)
            await storage.write(partial(_forgotten, method=method, ctx=ctx.later()))
            done += 1
        except LearnFlowError as error:
            if error.code is not Code.SERVICE_UNAVAILABLE:
                refusals.append(error)
    if refusals:
        raise refusals[0]
    return done


async def _successor(tx: Transaction, method: PaymentMethod) -> PaymentMethod | None:
    return await tx.payments.method_with(method.user_id, method.token)


async def _forgotten(tx: Transaction, method: PaymentMethod, ctx: Context) -> None:
    await tx.payments.put_method(msgspec.structs.replace(method, forgotten_at=ctx.now))


async def _deleted(tx: Transaction, limit: int) -> list[tuple[PaymentMethod, Mode]]:
    found = []
    for method in await tx.payments.unforgotten(limit):
        user = await tx.users.get(method.user_id)
        assert user is not None, "the schema ties a method to its user"
        found.append((method, user.mode))
    return found


async def _add(tx: Transaction, user_id: str, token: str, ctx: Context) -> Added:
    """Keep a method. That of somebody who was deleted meanwhile is deleted as well, so that the service forgets it."""
    existing = await tx.payments.method_with(user_id, token)
    if existing is not None:
        return Added(existing, False)
    user = await tx.users.get(user_id)
    assert user is not None, "users are never deleted from the books"
    method = PaymentMethod(
        id=ctx.new_id("pm"),
        user_id=user_id,
        token=token,
        created_at=ctx.now,
        deleted_at=None if user.deleted_at is None else ctx.now,
        forgotten_at=None,
    )
    await tx.payments.add_method(method)
    return Added(method, True)


async def _payer(tx: Transaction, actor: Actor, user_id: str) -> User:
    """The user whose means of payment the actor may see to: people see to their own, whatever their role."""
    user = await get_user(tx, actor, user_id)
    if actor.user_id not in (None, user.id):
        raise LearnFlowError(Code.FORBIDDEN, "Payment methods are each user's own.")
    return user


def _holds_card_number(token: str) -> bool:
    """Whether the number of a card stands in it, in groups or not: 12 to 19 digits (ISO/IEC 7812) that pass Luhn."""
    runs = re.findall(r"\d+", re.sub(r"(?<=\d)[ .-]+(?=\d)", "", token))
    return any(12 <= len(run) <= 19 and _passes_luhn(run) for run in runs)


def _passes_luhn(digits: str) -> bool:
    doubled = (int(digit) * (2 - position % 2) for position, digit in enumerate(reversed(digits), 1))
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0
