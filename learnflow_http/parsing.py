"""From the bytes of a request to the Structs that its operation takes, or to an error that says what is wrong where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final, Literal, get_args, get_origin

import msgspec
from msgspec.structs import FieldInfo

from learnflow_core.errors import Code, LearnFlowError

_BodyType = type[msgspec.Struct]

_MAX_NAME: Final = 100
_MAX_REASON: Final = 200
"""So many characters of a name, and of a reason that may quote a value, are sent back: both are as long as a client
likes, and no reason of our own is longer."""


def check_media_type(content_type: str | None) -> None:
    """Refuse a body that says it is something else than JSON in UTF-8 (`unsupported_media_type`)."""
    if content_type is None:
        return
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = {parameter.partition("=")[2].strip('"') for parameter in parameters if parameter.startswith("charset=")}
    if media_type != "application/json" or not charsets <= {"utf-8", "utf8"}:
        raise LearnFlowError(Code.UNSUPPORTED_MEDIA_TYPE)


def parse_body(raw: bytes, body_type: _BodyType) -> msgspec.Struct:
    """The body as `body_type`; an empty one is an object without fields.

    Raises `invalid_json`, `unknown_parameter`, `missing_parameter` or `invalid_parameter`, the last three with `param`.
    """
    raw = raw or b"{}"
    try:
        return msgspec.json.decode(raw, type=body_type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _check_json(raw)
        _explain(raw, body_type, "")
        message = "The body gives a name more than once, and not each time a value that is allowed."
        raise LearnFlowError(Code.INVALID_JSON, message) from error


def parse_query(pairs: Sequence[tuple[str, str]], query_type: _BodyType | None) -> tuple[dict[str, str], Any]:
    """The parameters by name, and those that `query_type` knows as that Struct.

    An unknown one is ignored. Raises `invalid_parameter` for a repeated one and for a value that is not allowed.
    """
    params: dict[str, str] = {}
    for name, value in pairs:
        if name in params:
            shown = name[:_MAX_NAME]
            raise LearnFlowError(Code.INVALID_PARAMETER, f"{shown} is given more than once.", param=shown)
        params[name] = value
    if query_type is None:
        return params, None
    for name, field in _fields(query_type).items():
        if name in params:
            _check_field(msgspec.json.encode(params[name]), field.type, name)
    return params, msgspec.convert(params, query_type)


@cache
def _fields(struct: _BodyType) -> Mapping[str, FieldInfo]:
    """The fields by the names that clients use. Cached, since reading them evaluates every annotation anew: 0.4 ms."""
    return {field.encode_name: field for field in msgspec.structs.fields(struct)}


def _check_json(raw: bytes) -> None:
    try:
        msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LearnFlowError(Code.INVALID_JSON) from error


def _explain(raw: bytes, struct: _BodyType, path: str) -> None:
    """Find what keeps `raw`, which is JSON, from being a `struct`, and raise it."""
    try:
        given = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError as error:
        where = path.rstrip(".")
        message = f"{where or 'The body'} must be a JSON object."
        raise LearnFlowError(Code.INVALID_PARAMETER, message, param=where or None) from error
    fields = _fields(struct)
    for name in given:
        if name not in fields:
            unknown = path + name[:_MAX_NAME]
            raise LearnFlowError(Code.UNKNOWN_PARAMETER, f"There is no field {unknown}.", param=unknown)
    for name, field in fields.items():
        if name in given:
            _check_field(bytes(given[name]), field.type, path + name)
        elif field.required:
            raise LearnFlowError(Code.MISSING_PARAMETER, f"{path}{name} is needed.", param=path + name)


def _check_field(raw: bytes, field_type: Any, param: str) -> None:
    """Only a part that does not fit is looked into, so that the whole costs the depth of a body times its size."""
    try:
        msgspec.json.decode(raw, type=field_type)
    except msgspec.ValidationError as error:
        for struct, is_item in _structs_in(field_type):
            if is_item:
                _check_items(raw, struct, param)
            elif raw != b"null":
                _explain(raw, struct, f"{param}.")
        allowed = ", ".join(_words_in(field_type))
        reason = f"{str(error)[:_MAX_REASON]}." + (f" It is one of: {allowed}." if allowed else "")
        raise LearnFlowError(Code.INVALID_PARAMETER, f"{param}: {reason}", param=param) from error


def _check_items(raw: bytes, struct: _BodyType, param: str) -> None:
    decode = msgspec.json.Decoder(struct).decode
    for index, item in enumerate(_items(raw)):
        try:
            decode(item)
        except msgspec.ValidationError:
            _explain(bytes(item), struct, f"{param}.{index}.")


def _items(raw: bytes) -> list[msgspec.Raw]:
    """The items of a list; of what is none, none."""
    try:
        return msgspec.json.decode(raw, type=list[msgspec.Raw])
    except msgspec.ValidationError:
        return []


def _words_in(field_type: Any) -> list[str]:
    """The words that a field may be, where it is one of a closed list."""
    if get_origin(field_type) is Literal:
        return list(get_args(field_type))
    is_list = get_origin(field_type) is tuple
    return [] if is_list else [word for part in get_args(field_type) for word in _words_in(part)]


def _structs_in(field_type: Any) -> list[tuple[_BodyType, bool]]:
    """The Structs that a field's type is made of, through unions and annotations, and whether each is a list's item."""
    if isinstance(field_type, type) and issubclass(field_type, msgspec.Struct):
        return [(field_type, False)]
    is_list = get_origin(field_type) is tuple
    return [(struct, is_list or is_item) for part in get_args(field_type) for struct, is_item in _structs_in(part)]
