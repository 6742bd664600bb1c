"""An account's users and their payment methods."""

from __future__ import annotations

from typing import Any

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import DAY
from learnflow_core.usecases import payment_methods, users, visible
from learnflow_http import wire
from learnflow_http.call import Call
from learnflow_http.operations.changes import Changes, updated_since
from learnflow_http.operations.row import ADMIN, Operation
from learnflow_http.services import Services


async def _own_user(tx: Any, call: Call) -> Any:
    if call.actor.user_id is None:
        raise LearnFlowError(Code.USER_NOT_FOUND, "An API key acts for its account, and is no user.")
    return await visible.get_user(tx, call.actor, call.actor.user_id)


async def _hash_password(services: Services, body: Any) -> str | None:
    return await services.passwords.hash(body.password) if isinstance(body.password, str) else None


async def _delete_user(services: Services, call: Call) -> Any:
    window = services.settings.refund_window_days * DAY
    return await services.storage.write(lambda tx: users.delete_user(tx, call.actor, call.path["id"], window, call.ctx))


USERS = (
    Operation(
        method="GET",
        path="/v1/users",
        name="listUsers",
        summary="List the account's users",
        tag="Users",
        kind="read",
        run=lambda tx, call: tx.users.list(call.actor.account_id, call.actor.mode, call.paging, updated_since(call)),
        query=Changes,
        reply=wire.User,
        show=wire.user,
        paged=True,
        scope="users:read",
        roles=ADMIN,
    ),
    Operation(
        method="POST",
        path="/v1/users",
        name="createUser",
        summary="Create a user",
        tag="Users",
        prepare=_hash_password,
        run=lambda tx, call: users.create_user(tx, call.actor, call.body, call.prepared, call.ctx),
        reply=wire.User,
        show=wire.user,
        status=201,
        body=users.NewUser,
        scope="users:write",
        roles=ADMIN,
        errors=(Code.EMAIL_TAKEN,),
    ),
    Operation(
        method="GET",
        path="/v1/users/me",
        name="getMe",
        summary="Read the user whose token this is",
        tag="Users",
        kind="read",
        run=_own_user,
        reply=wire.User,
        show=wire.user,
        errors=(Code.USER_NOT_FOUND,),
    ),
    Operation(
        method="GET",
        path="/v1/users/{id}",
        name="getUser",
        summary="Read a user",
        tag="Users",
        kind="read",
        run=lambda tx, call: visible.get_user(tx, call.actor, call.path["id"]),
        reply=wire.User,
        show=wire.user,
        scope="users:read",
        errors=(Code.USER_NOT_FOUND,),
    ),
    Operation(
        method="PATCH",
        path="/v1/users/{id}",
        name="changeUser",
        summary="Change a user; a new password ends every session",
        tag="Users",
        prepare=_hash_password,
        run=lambda tx, call: users.change_user(tx, call.actor, call.path["id"], call.body, call.prepared, call.ctx),
        reply=wire.User,
        show=wire.user,
        body=users.UserChanges,
        scope="users:write",
        revokes=True,
        errors=(Code.USER_NOT_FOUND, Code.EMAIL_TAKEN),
    ),
    Operation(
        method="DELETE",
        path="/v1/users/{id}",
        name="deleteUser",
        summary="Erase a user's personal data, and keep the books",
        tag="Users",
        kind="saga",
        run=_delete_user,
        reply=wire.User,
        show=wire.user,
        scope="users:write",
        roles=ADMIN,
        revokes=True,
        errors=(Code.USER_NOT_FOUND,),
    ),
    Operation(
        method="GET",
        path="/v1/users/{id}/payment-methods",
        name="listPaymentMethods",
        summary="List a user's payment methods",
        tag="Users",
        kind="read",
        run=lambda tx, call: payment_methods.list_payment_methods(tx, call.actor, call.path["id"], call.paging),
        reply=wire.PaymentMethod,
        show=wire.payment_method,
        paged=True,
        scope="users:write",
        errors=(Code.USER_NOT_FOUND,),
    ),
    Operation(
        method="POST",
        path="/v1/users/{id}/payment-methods",
        name="addPaymentMethod",
        summary="Add a payment method by the payment service's token",
        tag="Users",
        kind="saga",
        run=lambda services, call: payment_methods.add_payment_method(
            services.storage, services.gateways, call.actor, call.path["id"], call.body, call.ctx
        ),
        reply=wire.PaymentMethod,
        show=lambda added: wire.payment_method(added.method),
        status=lambda added: 201 if added.created else 200,
        body=payment_methods.NewPaymentMethod,
        scope="users:write",
        errors=(
            Code.USER_NOT_FOUND,
            Code.INVALID_PAYMENT_METHOD,
            Code.CARD_DECLINED,
            Code.INSUFFICIENT_FUNDS,
            Code.AUTHENTICATION_REQUIRED,
        ),
    ),
    Operation(
        method="DELETE",
        path="/v1/users/{id}/payment-methods/{method_id}",
        name="deletePaymentMethod",
        summary="Delete a payment method",
        tag="Users",
        run=lambda tx, call: payment_methods.delete_payment_method(
            tx, call.actor, call.path["id"], call.path["method_id"], call.ctx
        ),
        reply=wire.PaymentMethod,
        show=wire.payment_method,
        scope="users:write",
        errors=(Code.USER_NOT_FOUND, Code.PAYMENT_METHOD_NOT_FOUND),
    ),
)
