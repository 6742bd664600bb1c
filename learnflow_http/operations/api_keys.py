"""An account's API keys."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from learnflow_core.access import SCOPES
from learnflow_core.errors import Code
from learnflow_core.fields import Title
from learnflow_core.instants import instant
from learnflow_core.model import Mode
from learnflow_core.usecases import api_keys
from learnflow_http import wire
from learnflow_http.call import Call
from learnflow_http.operations.changes import Changes, updated_since
from learnflow_http.operations.row import ADMIN, Operation

ScopeName = Annotated[str, Meta(extra_json_schema={"enum": list(SCOPES)})]


class NewApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a new key is made of; scopes and mode default to the creator's."""

    name: Title
    scopes: Annotated[tuple[ScopeName, ...], Meta(min_length=1, max_length=20)] | None = None
    mode: Mode | None = None
    expires_at: Annotated[str | None, Meta(extra_json_schema={"format": "date-time"})] = None


async def _create_key(tx: Any, call: Call) -> Any:
    new: NewApiKey = call.body
    return await api_keys.create_key(
        tx,
        call.actor,
        name=new.name,
        scopes=new.scopes,
        mode=new.mode,
        expires_at=instant(new.expires_at, param="expires_at") if new.expires_at is not None else None,
        ctx=call.ctx,
    )


def _without_secret(shown: wire.ApiKeySecret) -> wire.ApiKeySecret:
    return msgspec.structs.replace(shown, secret=msgspec.UNSET)


API_KEYS = (
    Operation(
        method="GET",
        path="/v1/api-keys",
        name="listApiKeys",
        summary="List the account's API keys",
        tag="API keys",
        kind="read",
        run=lambda tx, call: api_keys.list_keys(tx, call.actor, call.paging, updated_since(call)),
        query=Changes,
        reply=wire.ApiKey,
        show=wire.api_key,
        paged=True,
        scope="*",
        roles=ADMIN,
    ),
    Operation(
        method="POST",
        path="/v1/api-keys",
        name="createApiKey",
        summary="Make an API key; its secret is in this reply and never again",
        tag="API keys",
        run=_create_key,
        reply=wire.ApiKeySecret,
        show=wire.api_key_secret,
        kept=_without_secret,
        status=201,
        body=NewApiKey,
        scope="*",
        roles=ADMIN,
        secret=True,
    ),
    Operation(
        method="POST",
        path="/v1/api-keys/{id}/rotate",
        name="rotateApiKey",
        summary="Replace an API key; the old secret works on for the overlap",
        tag="API keys",
        run=lambda tx, call: api_keys.rotate_key(tx, call.actor, call.path["id"], call.body, call.ctx),
        reply=wire.ApiKeySecret,
        show=wire.api_key_secret,
        kept=_without_secret,
        status=201,
        body=api_keys.KeyRotation,
        scope="*",
        roles=ADMIN,
        secret=True,
        revokes=True,
        errors=(Code.API_KEY_NOT_FOUND,),
    ),
    Operation(
        method="DELETE",
        path="/v1/api-keys/{id}",
        name="revokeApiKey",
        summary="Revoke an API key, and every token it minted",
        tag="API keys",
        run=lambda tx, call: api_keys.revoke_key(tx, call.actor, call.path["id"], call.ctx),
        reply=wire.ApiKey,
        show=wire.api_key,
        scope="*",
        roles=ADMIN,
        revokes=True,
        errors=(Code.API_KEY_NOT_FOUND,),
    ),
)
