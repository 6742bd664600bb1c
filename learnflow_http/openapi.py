"""The OpenAPI 3.1 document, made from the operations table and the Structs of requests and replies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from learnflow_core.access import SCOPES
from learnflow_core.errors import Code
from learnflow_core.pagination import MAX_LIMIT, MAX_PAGE
from learnflow_http import wire
from learnflow_http.errors import STATUS
from learnflow_http.examples import EXAMPLES
from learnflow_http.operations import OPERATIONS, Operation

VERSION = "1.0.0"

_REF = "#/components/schemas/{name}"

_ALWAYS = (
    Code.INVALID_REQUEST,
    Code.INVALID_PARAMETER,
    Code.INVALID_TOKEN,
    Code.INVALID_API_KEY,
    Code.ACCOUNT_SUSPENDED,
    Code.RATE_LIMIT_EXCEEDED,
    Code.INTERNAL_ERROR,
    Code.SERVICE_UNAVAILABLE,
)
_WITH_BODY = (
    Code.INVALID_JSON,
    Code.MISSING_PARAMETER,
    Code.UNKNOWN_PARAMETER,
    Code.PAYLOAD_TOO_LARGE,
    Code.UNSUPPORTED_MEDIA_TYPE,
)

_HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "X-Request-Id": ("Identifies this reply; equal to `error.request_id`.", {"type": "string"}),
    "X-RateLimit-Limit": ("The limit of the quota with the fewest requests left.", {"type": "integer"}),
    "X-RateLimit-Remaining": ("How many requests that quota still allows.", {"type": "integer"}),
    "X-RateLimit-Reset": ("The Unix second at which that quota is full again.", {"type": "integer"}),
    "RateLimit-Policy": ("Every quota (draft-ietf-httpapi-ratelimit-headers).", {"type": "string"}),
    "RateLimit": ("What every quota still allows (same draft).", {"type": "string"}),
}
_RETRY_AFTER = {"description": "Seconds to wait; then trying again can succeed.", "schema": {"type": "integer"}}

_STATUS_WORDS = {
    200: "Done.",
    201: "Created.",
    304: "Not modified: the client has this very representation.",
    400: "A parameter or the body is missing or invalid.",
    401: "There is no credential, or it is invalid or expired.",
    403: "The caller may not do this, or a rule of the business forbids it.",
    404: "There is no such resource, or the caller cannot see it.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "The rate limit is exceeded.",
    500: "Something went wrong on our side.",
    503: "The service cannot answer right now.",
}


def document(public_url: str | None = None) -> dict[str, Any]:
    """The whole document; `public_url` is where clients reach the server, if that is known."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "LearnFlow API",
            "version": VERSION,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": public_url or "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in OPERATIONS)],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "headers": {name: {"description": text, "schema": schema} for name, (text, schema) in _HEADERS.items()},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A secret API key (`sk_live_…`, `sk_test_…`) or an access token.",
                }
            },
        },
    }


def page_name(operation: Operation) -> str:
    """What the schema of a list's reply is called."""
    return f"{operation.reply.__name__}Page"


def codes(operation: Operation) -> list[Code]:
    """Every code an operation can be refused with."""
    found = [*_ALWAYS, *operation.errors]
    if operation.body is not None:
        found += _WITH_BODY
    if not operation.public and operation.sign_in is None:
        found += [Code.MISSING_TOKEN, Code.INSUFFICIENT_SCOPE, Code.FORBIDDEN]
    if operation.idempotent:
        found.append(Code.IDEMPOTENCY_KEY_REUSED)
    return sorted(set(found), key=list(Code).index)


def statuses(operation: Operation) -> set[int]:
    """Every status an operation answers with."""
    success = {operation.status} if isinstance(operation.status, int) else {200, 201}
    unchanged = {304} if operation.method == "GET" and not operation.secret else set()
    return success | unchanged | {STATUS[code] for code in codes(operation)}


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": _who(operation),
        "tags": [operation.tag],
        "parameters": list(_parameters(operation)),
        "responses": {str(status): _response(operation, status) for status in sorted(statuses(operation))},
        "security": [{}, {"bearer": []}] if operation.public or operation.sign_in else [{"bearer": []}],
    }
    if operation.body is not None:
        described["requestBody"] = {
            "required": any(field.required for field in msgspec.structs.fields(operation.body)),
            "content": {"application/json": {"schema": _ref(operation.body.__name__)}},
        }
    return described


def _who(operation: Operation) -> str:
    if operation.sign_in is not None:
        return "The credential is in the body."
    if operation.public:
        return "Needs no credential."
    scope = f"A key needs the scope `{operation.scope}` ({SCOPES[operation.scope]})." if operation.scope else ""
    return f"{scope} Users: {', '.join(sorted(operation.roles))}.".strip()


def _parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", operation.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    if operation.query is not None:
        (_, components) = msgspec.json.schema_components([operation.query], ref_template=_REF)
        for name, schema in components[operation.query.__name__]["properties"].items():
            yield _query(name, _not_null(schema))
    if operation.paged:
        yield _query("page", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 1})
        yield _query("limit", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": MAX_LIMIT})
        yield _query(
            "cursor",
            {"type": "string", "description": "In place of `page`: empty to start, then `meta.next_cursor`."},
        )
    if operation.idempotent:
        yield {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "The same key and body within 24 hours have one effect and the same reply.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
        }


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema}


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A query parameter is absent rather than null."""
    kept = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    plain = {name: value for name, value in schema.items() if name not in ("anyOf", "default") or value is not None}
    if kept:
        plain = {**{name: value for name, value in plain.items() if name != "anyOf"}, **kept[0]}
    if None in plain.get("enum", ()):
        plain["enum"] = [value for value in plain["enum"] if value is not None]
    return plain


def _response(operation: Operation, status: int) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": _STATUS_WORDS[status],
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS},
    }
    if status in (429, 503):
        response["headers"]["Retry-After"] = _RETRY_AFTER
    if status == 304:
        return response
    if status < 400:
        response["content"] = {"application/json": {"schema": _shown(operation, status)}}
        return response
    names = [f"`{code.value}`" for code in codes(operation) if STATUS[code] == status]
    response["description"] += f" Codes: {', '.join(names)}."
    response["content"] = {"application/json": {"schema": _ref("Error")}}
    return response


def _shown(operation: Operation, status: int) -> dict[str, Any]:
    """What a success shows; a rehearsal of it shows something else."""
    shown = _ref(page_name(operation) if operation.paged else operation.reply.__name__)
    if operation.rehearsal is None or status != operation.rehearsal.status:
        return shown
    return {"anyOf": [shown, _ref(operation.rehearsal.reply.__name__)]}


def _schemas() -> dict[str, Any]:
    types: list[Any] = [wire.PageMeta, wire.CursorMeta]
    types += [struct for row in OPERATIONS for struct in (row.reply, row.body) if struct is not None]
    types += [row.rehearsal.reply for row in OPERATIONS if row.rehearsal is not None]
    (_, components) = msgspec.json.schema_components(list(dict.fromkeys(types)), ref_template=_REF)
    pages = {page_name(row): _page_schema(row) for row in OPERATIONS if row.paged}
    schemas = {**components, **pages, "Error": _error_schema()}
    for name, example in EXAMPLES.items():
        schemas[name]["examples"] = [example]
    return dict(sorted(schemas.items()))


def _page_schema(operation: Operation) -> dict[str, Any]:
    return {
        "title": page_name(operation),
        "type": "object",
        "properties": {
            "data": {"type": "array", "items": _ref(operation.reply.__name__), "maxItems": MAX_LIMIT},
            "meta": {"anyOf": [_ref("PageMeta"), _ref("CursorMeta")]},
        },
        "required": ["data", "meta"],
    }


def _error_schema() -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "title": "Error",
        "description": "What every error looks like.",
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "code": {"type": "string", "enum": [code.value for code in Code]},
                    "message": text,
                    "request_id": text,
                    "param": {**text, "description": "The parameter that is wrong."},
                    "details": {"type": "object", "description": "More, for programs."},
                    "doc_url": {**text, "description": "Where the code is explained."},
                },
                "required": ["code", "message", "request_id"],
            }
        },
        "required": ["error"],
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF.format(name=name)}


_DESCRIPTION = """Courses, users, enrolments that charge money, and certificates.

Authenticate with `Authorization: Bearer <credential>`: a secret API key, or an access token of a user. Lists are
`{data, meta}`, by `page` and `limit` or by `cursor` and `limit`. Every error has the same envelope and a stable
`code`, [each explained](/docs/errors). Every reply carries the rate limit of the caller; past it, a 429 says in
`Retry-After` when the next request passes.
"""
