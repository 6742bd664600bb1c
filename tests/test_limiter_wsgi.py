"""The limit in front of a WSGI app: the same as for ASGI, by the rules of PEP 3333."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from learnflow_core.limiter import MemoryLimiter, Quota, headers
from learnflow_core.limiter.plans import PLANS
from learnflow_core.limiter.wsgi import RateLimitMiddleware
from tests.awaited import CoroutineLimiter, FutureLimiter
from tests.limiting import SECOND, Clock, Plan, Requests, requests

THRICE = (Quota.per_minute(3), Quota.per_day(100))
NOW_UNIX_NS = 1_705_312_740 * SECOND
OWN = [("Content-Type", "text/plain"), ("X-Own", "kept")]

Fields = list[tuple[str, str]]
Reply = tuple[int, Fields, bytes]


def hello(_environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", OWN)
    return [b"hello ", b"world"]


def ask(app: Any, **environ: str) -> Reply:
    """What a server would send; it and the app are held to PEP 3333."""
    started: list[tuple[str, Fields]] = []

    def start_response(status: str, fields: Fields, _exc_info: object = None) -> Callable[[bytes], object]:
        started.append((status, fields))
        return ignore

    request: dict[str, Any] = {"REMOTE_ADDR": "192.0.2.1", "QUERY_STRING": "", **environ}
    setup_testing_defaults(request)
    reply: Any = validator(app)(request, start_response)
    body = b"".join(reply)
    reply.close()
    status, fields = started[-1]
    return int(status.split()[0]), fields, body


def ignore(*_arguments: object) -> Callable[[bytes], object]:
    """A server that does not listen."""
    return ignore


def limit_fields(reply: Reply) -> Fields:
    return [(name, value) for name, value in reply[1] if "RateLimit" in name or name == "Retry-After"]


@given(requests)
def test_the_app_is_called_exactly_when_the_limiter_allows_it_and_replies_tell_the_decision(
    case: tuple[Plan, Requests],
) -> None:
    plan, asked = case
    clock = Clock()
    limiter, twin = MemoryLimiter(clock=clock), MemoryLimiter(clock=clock)
    limited = RateLimitMiddleware(
        validator(hello),
        limiter=limiter,
        quotas=plan,
        key="key",
        cost=lambda environ: int(environ["HTTP_X_COST"]),
        clock=lambda: NOW_UNIX_NS + clock(),
    )
    for wait, cost in asked:
        clock.now += wait
        decision = twin.hit("key", plan, cost)
        reply = ask(limited, HTTP_X_COST=str(cost))
        assert (reply[0], reply[2]) == ((200, b"hello world") if decision else (429, b"Too many requests\n"))
        assert limit_fields(reply) == headers(decision, NOW_UNIX_NS + clock())
        assert not decision or reply[1][: len(OWN)] == OWN


@given(requests)
def test_a_client_that_waits_as_many_seconds_as_retry_after_says_passes(case: tuple[Plan, Requests]) -> None:
    plan, asked = case
    clock = Clock()
    limited = RateLimitMiddleware(
        hello, limiter=MemoryLimiter(clock=clock), quotas=plan, cost=lambda environ: int(environ["HTTP_X_COST"])
    )
    for wait, cost in asked:
        clock.now += wait
        reply = ask(limited, HTTP_X_COST=str(cost))
        if reply[0] == 429:
            clock.now += int(dict(reply[1])["Retry-After"]) * SECOND
            assert ask(limited, HTTP_X_COST=str(cost))[0] == 200


def test_the_plain_refusal_is_a_complete_reply() -> None:
    limited = RateLimitMiddleware(hello, limiter=MemoryLimiter(clock=Clock()), quotas=THRICE, cost=3)
    ask(limited)
    status, fields, body = ask(limited)
    assert (status, dict(fields)["Content-Length"], len(body)) == (429, "18", 18)
    assert dict(fields)["Content-Type"] == "text/plain; charset=utf-8"
    assert dict(fields)["Retry-After"] == "60"


def test_a_refusal_of_a_head_request_has_no_body() -> None:
    limited = RateLimitMiddleware(hello, limiter=MemoryLimiter(clock=Clock()), quotas=THRICE, cost=3)
    ask(limited)
    status, fields, body = ask(limited, REQUEST_METHOD="HEAD")
    assert (status, dict(fields)["Content-Length"], body) == (429, "18", b"")


def test_a_request_that_costs_more_than_its_callers_plan_ever_holds_is_forbidden_and_takes_nothing() -> None:
    limiter = MemoryLimiter(clock=Clock())
    limited = RateLimitMiddleware(hello, limiter=limiter, quotas=lambda _environ: THRICE, cost={"/exports": 4})
    text = b"Forbidden: the request costs more than its plan ever holds\n"
    own = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))]
    request = {"SCRIPT_NAME": "/api", "PATH_INFO": "/exports"}
    assert ask(limited, **request) == (403, own, text)
    assert ask(limited, **request, REQUEST_METHOD="HEAD") == (403, own, b"")
    assert len(limiter) == 0


def test_of_two_limits_the_inner_one_is_told_and_its_decision_is_found() -> None:
    limiter, found = MemoryLimiter(clock=Clock()), []

    def keep(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        found.append(environ["learnflow.decision"].key)
        return hello(environ, start_response)

    address, account = (Quota.per_minute(9, name="address"),), (Quota.per_minute(1, name="account"),)
    inside = RateLimitMiddleware(keep, limiter=limiter, quotas=account, key="account")
    limited = RateLimitMiddleware(inside, limiter=limiter, quotas=address, key="address")
    for status, fields in ((200, OWN), (429, [])):
        reply = ask(limited)
        assert reply[0] == status
        assert [name for name, _ in limit_fields(reply)].count("X-RateLimit-Limit") == 1
        assert dict(reply[1])["RateLimit"] == '"account";r=0;t=60'
        assert all(field in reply[1] for field in fields)
    assert (found, limiter.peek("address", address).remaining) == (["account"], 7)


def test_a_field_that_a_reply_has_already_is_not_told_again() -> None:
    def upstream(_environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [*OWN, ("x-ratelimit-limit", "5000")])
        return [b""]

    _, fields, _ = ask(RateLimitMiddleware(upstream, limiter=MemoryLimiter(), quotas=THRICE))
    assert [value for name, value in fields if name.lower() == "x-ratelimit-limit"] == ["5000"]


def test_the_app_and_a_refusal_of_ones_own_know_the_decision() -> None:
    limiter = MemoryLimiter(clock=Clock())

    def tell(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", OWN)
        return [str(environ["learnflow.decision"].remaining).encode()]

    def envelope(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("503 Service Unavailable", OWN)
        return [str(environ["learnflow.decision"].retry_after_ns).encode()]

    limited = RateLimitMiddleware(tell, limiter=limiter, quotas=THRICE, cost=2, refused=envelope)
    assert [(status, body) for status, _, body in (ask(limited), ask(limited))] == [(200, b"1"), (503, b"20000000000")]


@pytest.mark.parametrize(
    ("path", "cost"),
    [("/export", 10), ("/export/2024", 10), ("/exports", 1), ("/export/status", 0), ("/k\xc3\xb6ln", 7), ("/\xff", 1)],
)
def test_a_request_costs_what_the_table_says_of_its_path(path: str, cost: int) -> None:
    limiter = MemoryLimiter(clock=Clock())
    plan = (Quota.per_minute(100),)
    table = {"/export": 10, "/export/status": 0, "/köln": 7}
    reply = ask(
        RateLimitMiddleware(hello, limiter=limiter, quotas=plan, cost=table), SCRIPT_NAME="/api", PATH_INFO=path
    )
    assert limiter.peek("192.0.2.1", plan).remaining == 100 - cost
    assert bool(limit_fields(reply)) is (cost > 0)


@given(st.text())
def test_no_path_that_a_server_may_hand_on_is_an_error(path: str) -> None:
    limited = RateLimitMiddleware(hello, limiter=MemoryLimiter(), quotas=THRICE, cost={"/": 1, "/köln": 2})
    environ: dict[str, Any] = {"PATH_INFO": path}
    assert limited(environ, ignore) == [b"hello ", b"world"]


def test_each_caller_can_have_a_key_and_a_plan_of_its_own() -> None:
    limited = RateLimitMiddleware(
        hello,
        limiter=MemoryLimiter(clock=Clock()),
        quotas=lambda environ: PLANS[environ["HTTP_X_PLAN"]],
        key=lambda environ: environ["HTTP_X_USER"],
    )
    assert dict(ask(limited, HTTP_X_USER="ada", HTTP_X_PLAN="starter")[1])["X-RateLimit-Remaining"] == "29"
    assert dict(ask(limited, HTTP_X_USER="ben", HTTP_X_PLAN="enterprise")[1])["X-RateLimit-Remaining"] == "2999"
    assert dict(ask(limited, HTTP_X_USER="ada", HTTP_X_PLAN="starter")[1])["X-RateLimit-Remaining"] == "28"


def test_a_client_is_its_address_or_its_network_and_those_whose_address_no_one_knows_are_one() -> None:
    limited = RateLimitMiddleware(hello, limiter=MemoryLimiter(clock=Clock()), quotas=(Quota.per_minute(1),))
    addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.1", "2001:db8::1", "2001:db8::2", "", ""]
    assert [ask(limited, REMOTE_ADDR=address)[0] for address in addresses] == [200, 200, 429, 200, 429, 200, 429]
    unknown: dict[str, Any] = {"PATH_INFO": "/"}
    assert limited(unknown, ignore) == [b"Too many requests\n"]


def test_a_reply_that_is_started_again_after_an_error_keeps_the_fields_and_the_error() -> None:
    seen: list[Any] = []

    def failing(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", OWN)
        try:
            environ["missing"]
        except LookupError:
            start_response("500 Internal Server Error", OWN, sys.exc_info())
        return [b"sorry"]

    def start_response(status: str, fields: Fields, *exc_info: Any) -> Callable[[bytes], object]:
        seen.append((status, len(fields), exc_info and exc_info[0][0]))
        return ignore

    limited = RateLimitMiddleware(failing, limiter=MemoryLimiter(), quotas=THRICE)
    limited({"PATH_INFO": "/"}, start_response)
    assert seen == [("200 OK", 7, ()), ("500 Internal Server Error", 7, KeyError)]


def test_a_500_that_flask_makes_of_an_error_is_told_by_a_limit_in_front_of_it() -> None:
    app = Flask(__name__)
    app.logger.disabled = True
    app.add_url_rule("/", view_func=lambda: 1 // 0)  # type: ignore[arg-type]
    limited = RateLimitMiddleware(app.wsgi_app, limiter=MemoryLimiter(), quotas=THRICE)
    reply = ask(limited)
    assert (reply[0], len(limit_fields(reply))) == (500, 5)


def test_a_stream_is_handed_on_as_it_is() -> None:
    stream = iter([b"never read here"])
    limited = RateLimitMiddleware(lambda *_: stream, limiter=MemoryLimiter(), quotas=THRICE)
    assert limited({"PATH_INFO": "/"}, ignore) is stream


def test_a_limiter_whose_answers_have_to_be_awaited_is_an_error_as_soon_as_it_is_seen() -> None:
    limiter: Any = CoroutineLimiter()
    with pytest.raises(TypeError, match="limiter: its answers have to be awaited"):
        RateLimitMiddleware(hello, limiter=limiter, quotas=THRICE)


async def test_one_of_futures_is_an_error_at_the_first_request() -> None:
    limiter: Any = FutureLimiter()
    limited = RateLimitMiddleware(hello, limiter=limiter, quotas=THRICE)
    with pytest.raises(TypeError, match="limiter: its answers have to be awaited"):
        ask(limited)


@pytest.mark.parametrize("cost", [4, -1, True, None, {"/export": 4}, {"export": 1}])
def test_a_cost_that_no_request_could_pay_is_an_error_as_soon_as_it_is_written(cost: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="cost: "):
        RateLimitMiddleware(hello, limiter=MemoryLimiter(), quotas=THRICE, cost=cost)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limiter": None}, "limiter: an object with a method `hit` is needed, not NoneType"),
        ({"key": 5}, "key: a str or a function is needed, not int"),
        ({"quotas": []}, "quotas: none limit nobody"),
    ],
)
def test_what_no_request_could_be_decided_by_is_an_error_as_soon_as_it_is_written(
    options: dict[str, Any], message: str
) -> None:
    usual: dict[str, Any] = {"limiter": MemoryLimiter(), "quotas": THRICE}
    with pytest.raises((TypeError, ValueError), match=message):
        RateLimitMiddleware(hello, **usual | options)
