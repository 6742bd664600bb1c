"""The protocol: replies are read whatever pieces they come in, and what is no reply is seen as such."""

from __future__ import annotations

import math
from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_core.limiter.leases import Request
from storage_backends.valkey.calls import Calls, ValkeyDecision
from storage_backends.valkey.lease_calls import LeaseCall
from storage_backends.valkey.resp import MAX_BULK, MAX_DEPTH, MAX_LINE, ErrorReply, ProtocolError, command, parse
from tests.limiting import MINUTE_AND_DAY


def encoded(reply: Any) -> bytes:
    """A reply as a server writes it."""
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    if isinstance(reply, str):
        return b"-%b\r\n" % reply.encode()
    return b"*%d\r\n" % len(reply) + b"".join(map(encoded, reply))


def plain(reply: Any) -> Any:
    if isinstance(reply, ErrorReply):
        return f"{reply.code} {reply.rest}"
    return [plain(item) for item in reply] if isinstance(reply, list) else reply


errors = st.from_regex(r"[A-Z]{2,12} [a-z '0-9:.]{0,40}", fullmatch=True)
leaves = st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=40) | errors
replies = st.recursive(leaves, lambda inner: st.lists(inner, max_size=5), max_leaves=20)


def depth(reply: Any) -> int:
    return 1 + max(map(depth, reply), default=0) if isinstance(reply, list) else 0


@given(replies.filter(lambda reply: depth(reply) <= MAX_DEPTH), st.binary(max_size=8))
def test_a_reply_is_read_to_its_end_and_no_further(reply: Any, following: bytes) -> None:
    data = encoded(reply)
    found = parse(b"before" + data + following, len(b"before"))
    assert found is not None
    assert plain(found[0]) == reply
    assert found[1] == len(b"before" + data)


@given(replies.filter(lambda reply: depth(reply) <= MAX_DEPTH))
def test_of_a_reply_that_has_not_arrived_as_a_whole_nothing_is_read(reply: Any) -> None:
    data = encoded(reply)
    assert all(parse(data[:end]) is None for end in range(len(data)))


def test_of_a_decision_that_has_not_arrived_as_a_whole_nothing_is_read() -> None:
    call = Calls("limiter:").hit("key", MINUTE_AND_DAY, 1)
    data = b"$40\r\n" + pack("<5d", 1, 10, 5, 30, 70) + b"\r\n"
    for following in (b"", b"$40"):
        found = call.read(b"before" + data + following, len(b"before"), "key")
        assert found is not None
        decision, end = found
        assert isinstance(decision, ValkeyDecision)
        assert (decision.allowed, decision.now_ns, decision.full_at_ns) == (True, 10_000, [30_000, 70_000])
        assert end == len(b"before" + data)
    assert all(call.read(data[:end], 0, "key") is None for end in range(len(data)))
    with pytest.raises(ProtocolError):
        call.read(data[:-2] + b"..", 0, "key")


@pytest.mark.parametrize("figure", [math.nan, math.inf, -math.inf, -1.0, -1e-300, 2.0**53, 1e300])
@pytest.mark.parametrize("place", range(5))
def test_a_decision_with_a_figure_that_none_has_is_garbage(place: int, figure: float) -> None:
    figures = [1.0, 10, 5, 30, 70]
    figures[place] = figure
    call = Calls("limiter:").hit("key", MINUTE_AND_DAY, 1)
    with pytest.raises(ProtocolError):
        call.read(b"$40\r\n" + pack("<5d", *figures) + b"\r\n", 0, "key")


@pytest.mark.parametrize("figure", [math.nan, math.inf, -math.inf, -1.0, 2.0**53, 1e300])
@pytest.mark.parametrize("place", range(5))
def test_an_answer_about_leases_with_a_figure_that_none_has_is_garbage(place: int, figure: float) -> None:
    figures = [10.0, 5, 100, 30, 70]
    calls = Calls("limiter:")
    call = LeaseCall(b"limiter:", calls.scripts.lease, MINUTE_AND_DAY, Request("id", (), (1,), 100, 0))
    reply = b"$41\r\n%b1\r\n"
    assert call.read(reply % pack("<5d", *figures), 0, "key")
    figures[place] = figure
    with pytest.raises(ProtocolError):
        call.read(reply % pack("<5d", *figures), 0, "key")


@given(st.lists(st.integers(0, 2**53 - 1), min_size=4, max_size=4), st.booleans())
def test_a_decision_has_every_figure_that_the_store_can_tell(figures: list[int], allowed: bool) -> None:
    call = Calls("limiter:").hit("key", MINUTE_AND_DAY, 1)
    found = call.read(b"$40\r\n" + pack("<5d", allowed, *figures) + b"\r\n", 0, "key")
    assert found is not None
    decision = found[0]
    assert isinstance(decision, ValkeyDecision)
    assert [decision.now_ns, *decision.full_at_ns] == [figure * 1_000 for figure in (figures[0], *figures[2:])]


@given(st.binary(max_size=60))
def test_whatever_arrives_is_a_reply_or_the_beginning_of_one_or_an_error(data: bytes) -> None:
    try:
        found = parse(data)
    except ProtocolError:
        return
    assert found is None or 0 < found[1] <= len(data)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"H",
        b"\r\n",
        b"\x15\x03\x01\x00\x02",
        b"$3\r\nabcd\r\n",
        b"$-2\r\n",
        b"$+3\r\nabc\r\n",
        b"$ 3\r\nabc\r\n",
        b"$1_0\r\n",
        b"$\r\n\r\n",
        b":\r\n",
        b":1.5\r\n",
        b":--1\r\n",
        b":" + b"9" * 20 + b"\r\n",
        b"*-2\r\n",
        b"*99999999999\r\n",
        b"$%d\r\n" % (MAX_BULK + 1),
        b"*1\r\n" * (MAX_DEPTH + 1) + b":1\r\n",
        b"+" + b"a" * MAX_LINE,
        b"%1\r\n+a\r\n+b\r\n",
    ],
    ids=repr,
)
def test_garbage_is_seen_as_soon_as_it_is_there(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse(data)


@given(st.lists(st.binary() | st.text(), min_size=1))
def test_a_command_is_a_list_of_strings(words: list[bytes | str]) -> None:
    expected = [word.encode() if isinstance(word, str) else word for word in words]
    data = command(*words)
    assert parse(data) == (expected, len(data))


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"NOSCRIPT No matching script. Please use EVAL.", "NOSCRIPT"),
        (b"OOM command not allowed when used memory > 'maxmemory'. script: f00, on @user_script:5.", "OOM"),
        (
            b"ERR Error running script (call to f_0a): @user_script:29: @user_script: 29: -READONLY You can't",
            "READONLY",
        ),
        (b"ERR Error running script (call to f_0a): @user_script:9: attempt to index a nil value", "ERR"),
        (b"ERR", "ERR"),
        (b"", ""),
        (b"\xff\xfe x", "\ufffd\ufffd"),
    ],
)
def test_an_error_has_the_code_of_its_cause(line: bytes, code: str) -> None:
    found = parse(b"-" + line + b"\r\n")
    assert found is not None
    assert isinstance(found[0], ErrorReply)
    assert found[0].code == code


def test_an_error_does_not_show_what_it_names() -> None:
    error = ErrorReply(b"ERR unknown command 'EVALSHA', with args beginning with: 'limiter:sk_live_secret'")
    assert "secret" not in repr(error)
