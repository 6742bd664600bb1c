"""Bodies made from the Structs that take them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import msgspec

from learnflow_http.operations import Operation


def bodies_with_nul(operation: Operation) -> Iterator[dict[str, Any]]:
    """A body for each text of the operation's own, nested ones too, in which only that text is wrong."""
    if operation.body is None:
        return
    good = sample(operation.body)
    for path in texts(operation.body):
        body = json.loads(json.dumps(good))
        inner = body
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = "a\0b"
        yield body


def sample(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """A body with every field of a Struct."""
    return {field.encode_name: sample_of(field.type, field.name) for field in msgspec.structs.fields(struct)}


EXAMPLES = {
    "email": "new@acme.test",
    "password": "correct horse battery",
    "language": "en",
    "category": "development",
    "amount": 1,
    "currency": "USD",
    "prerequisites": [],
    "scopes": ["users:read"],
    "expires_at": "2030-01-01T00:00:00Z",
    "mode": "live",
}


def sample_of(kind: Any, name: str) -> Any:
    if name in EXAMPLES:
        return EXAMPLES[name]
    for struct in structs(kind):
        return [sample(struct)] if is_list(kind) else sample(struct)
    choices = [choice for part in parts(kind) if type(choice := part) is str]
    if choices:
        return choices[0]
    return 1 if int in parts(kind) else "text"


def texts(struct: type[msgspec.Struct]) -> Iterator[tuple[Any, ...]]:
    """Where in a body the free texts are."""
    for field in msgspec.structs.fields(struct):
        inner = list(structs(field.type))
        for nested in inner:
            for path in texts(nested):
                yield (field.encode_name, 0, *path) if is_list(field.type) else (field.encode_name, *path)
        if not inner and str in parts(field.type):
            yield (field.encode_name, 0) if is_list(field.type) and EXAMPLES.get(field.name) else (field.encode_name,)


def parts(kind: Any) -> Iterator[Any]:
    """What a type is made of, through unions, sequences, literals and annotations."""
    if get_origin(kind) is None and not hasattr(kind, "__metadata__"):
        yield kind
    for part in get_args(kind):
        yield from parts(part)


def structs(kind: Any) -> Iterator[type[msgspec.Struct]]:
    for part in parts(kind):
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            yield part


def is_list(kind: Any) -> bool:
    return get_origin(kind) is tuple or any(is_list(part) for part in get_args(kind))
