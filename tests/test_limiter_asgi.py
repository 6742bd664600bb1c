"""The limit in front of an ASGI app: nobody passes who is refused, and whoever passes finds the app as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.testclient import TestClient

from learnflow_core.limiter import MemoryLimiter, Quota, headers
from learnflow_core.limiter.asgi import RateLimitMiddleware
from learnflow_core.limiter.plans import PLANS
from tests.awaited import EVERY_KIND
from tests.limiting import SECOND, Clock, Plan, Requests, requests

THRICE = (Quota.per_minute(3), Quota.per_day(100))
NOW_UNIX_NS = 1_705_312_740 * SECOND
LIMIT_FIELDS = {
    b"x-ratelimit-limit",
    b"x-ratelimit-remaining",
    b"x-ratelimit-reset",
    b"ratelimit-policy",
    b"ratelimit",
}

Message = dict[str, Any]
PLAIN: list[Message] = [
    {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]},
    {"type": "http.response.body", "body": b"hello"},
]


class App:
    """An app that sends these messages, and keeps what it was called with."""

    def __init__(self, messages: list[Message] = PLAIN) -> None:
        self.messages = messages
        self.calls: list[tuple[Any, Any, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls.append((scope, receive, send))
        for message in self.messages:
            await send(message)


async def receive() -> Message:
    raise AssertionError("the middleware reads no body")


async def sent_by(app: Any, **scope: Any) -> list[Message]:
    """The messages that the app sends to such a request."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": "http", "path": "/", "client": ("192.0.2.1", 1)} | scope, receive, send)
    return sent


def ask(app: Any, **scope: Any) -> tuple[int, dict[str, str]]:
    """The status of a reply, and the fields that tell of a limit."""
    start, *_ = asyncio.run(sent_by(app, **scope))
    told = {
        name.decode(): value.decode() for name, value in start["headers"] if b"ratelimit" in name or b"retry" in name
    }
    return start["status"], told


def statuses(app: Any, times: int, **scope: Any) -> list[int]:
    return [ask(app, **scope)[0] for _ in range(times)]


fields = st.lists(st.tuples(st.binary(min_size=1, max_size=8), st.binary(max_size=8)), max_size=4)
streams = st.builds(
    lambda start, bodies, rest: [start, *bodies, *rest],
    st.fixed_dictionaries(
        {"type": st.just("http.response.start"), "status": st.integers(200, 599)},
        optional={"headers": fields, "trailers": st.booleans()},
    ),
    st.lists(
        st.fixed_dictionaries(
            {"type": st.just("http.response.body")}, optional={"body": st.binary(), "more_body": st.booleans()}
        ),
        max_size=5,
    ),
    st.lists(st.just({"type": "http.response.trailers", "headers": [(b"x", b"y")]}), max_size=1),
)
"""Replies of every shape that an app may send."""


@given(streams)
def test_a_reply_passes_message_by_message_and_gets_fields_beside_its_own(messages: list[Message]) -> None:
    app = App(messages)
    limited = RateLimitMiddleware(app, limiter=MemoryLimiter(clock=Clock()), quotas=THRICE, clock=lambda: NOW_UNIX_NS)
    start, *rest = asyncio.run(sent_by(limited))
    told = headers(MemoryLimiter(clock=Clock()).hit("", THRICE), NOW_UNIX_NS)
    own = messages[0].get("headers", [])
    assert start == {**messages[0], "headers": [*own, *((name.lower().encode(), v.encode()) for name, v in told)]}
    assert rest == messages[1:]
    assert all(passed is sent for passed, sent in zip(rest, messages[1:], strict=True))
    assert messages[0].get("headers", []) == own, "the app's own message stays as it is"


@given(requests)
def test_the_app_is_called_exactly_when_the_limiter_allows_it_and_replies_tell_the_decision(
    case: tuple[Plan, Requests],
) -> None:
    plan, asked = case
    clock, app = Clock(), App()
    limiter, twin = MemoryLimiter(clock=clock), MemoryLimiter(clock=clock)
    limited = RateLimitMiddleware(
        app,
        limiter=limiter,
        quotas=plan,
        key="key",
        cost=lambda scope: scope["cost"],
        clock=lambda: NOW_UNIX_NS + clock(),
    )
    for wait, cost in asked:
        clock.now += wait
        calls = len(app.calls)
        decision = twin.hit("key", plan, cost)
        status, told = ask(limited, cost=cost)
        assert len(app.calls) - calls == decision.allowed
        assert status == (200 if decision else 429)
        assert told == {name.lower(): value for name, value in headers(decision, NOW_UNIX_NS + clock())}


@given(requests)
def test_a_client_that_waits_as_many_seconds_as_retry_after_says_passes_and_one_second_earlier_it_does_not(
    case: tuple[Plan, Requests],
) -> None:
    plan, asked = case
    clock = Clock()
    limited = RateLimitMiddleware(
        App(), limiter=MemoryLimiter(clock=clock), quotas=plan, cost=lambda scope: scope["cost"]
    )
    for wait, cost in asked:
        clock.now += wait
        status, told = ask(limited, cost=cost)
        if status == 429:
            seconds = int(told["retry-after"])
            if seconds > 1:
                clock.now += (seconds - 1) * SECOND
                assert ask(limited, cost=cost)[0] == 429
                clock.now += SECOND
            else:
                clock.now += seconds * SECOND
            assert ask(limited, cost=cost)[0] == 200


def test_the_app_gets_the_request_itself_and_the_decision_with_it() -> None:
    app = App()
    asyncio.run(sent_by(RateLimitMiddleware(app, limiter=MemoryLimiter(clock=Clock()), quotas=THRICE), path="/a"))
    [(scope, received, _send)] = app.calls
    assert received is receive
    assert (scope["path"], scope["learnflow.decision"].remaining) == ("/a", 2)


def test_a_handler_can_give_back_what_its_request_took() -> None:
    limiter = MemoryLimiter(clock=Clock())

    async def cached(scope: Any, receive: Any, send: Any) -> None:
        limiter.refund(scope["learnflow.decision"])
        await App()(scope, receive, send)

    assert statuses(RateLimitMiddleware(cached, limiter=limiter, quotas=THRICE), 10) == [200] * 10


def test_the_plain_refusal_is_a_complete_reply() -> None:
    limited = RateLimitMiddleware(App(), limiter=MemoryLimiter(clock=Clock()), quotas=THRICE, cost=3)
    asyncio.run(sent_by(limited))
    start, body = asyncio.run(sent_by(limited))
    assert (start["type"], start["status"]) == ("http.response.start", 429)
    own = dict(start["headers"])
    assert own.keys() == LIMIT_FIELDS | {b"retry-after", b"content-type", b"content-length"}
    assert own[b"retry-after"] == b"60"
    assert own[b"content-type"] == b"text/plain; charset=utf-8"
    assert (body, int(own[b"content-length"])) == (
        {"type": "http.response.body", "body": b"Too many requests\n"},
        len(body["body"]),
    )


def test_a_refusal_of_a_head_request_has_no_body() -> None:
    limited = RateLimitMiddleware(App(), limiter=MemoryLimiter(clock=Clock()), quotas=THRICE, cost=3)
    asyncio.run(sent_by(limited))
    start, body = asyncio.run(sent_by(limited, method="HEAD"))
    assert (start["status"], dict(start["headers"])[b"content-length"], body["body"]) == (429, b"18", b"")


def test_a_refusal_of_ones_own_is_any_app_and_knows_the_decision() -> None:
    async def envelope(scope: Any, _receive: Any, send: Any) -> None:
        wait = scope["learnflow.decision"].retry_after_ns
        await send({"type": "http.response.start", "status": 503, "headers": [(b"x-wait", str(wait).encode())]})
        await send({"type": "http.response.body", "body": b"{}"})

    app = App()
    limited = RateLimitMiddleware(app, limiter=MemoryLimiter(clock=Clock()), quotas=THRICE, cost=2, refused=envelope)
    asyncio.run(sent_by(limited))
    start, body = asyncio.run(sent_by(limited))
    assert (start["status"], body["body"], len(app.calls)) == (503, b"{}", 1)
    assert dict(start["headers"]).items() >= {b"x-wait": b"20000000000", b"retry-after": b"20"}.items()


paths = st.lists(st.sampled_from(["", "a", "b", "ab", "é"]), max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(st.dictionaries(paths, st.integers(0, 9)), paths)
def test_a_request_costs_what_the_longest_path_in_the_table_says_that_it_lies_at_or_below(
    table: dict[str, int], path: str
) -> None:
    limiter = MemoryLimiter(clock=Clock())
    plan = (Quota.per_minute(10),)
    ask(RateLimitMiddleware(App(), limiter=limiter, quotas=plan, cost=table), path=path)
    fitting = [known for known in table if f"{path}/".startswith(f"{known.rstrip('/')}/")]
    longest = max((len(known.rstrip("/")) for known in fitting), default=None)
    expected = {table[known] for known in fitting if len(known.rstrip("/")) == longest} or {1}
    taken = 10 - (limiter.peek("192.0.2.1", plan).remaining or 0)
    assert taken in expected


@pytest.mark.parametrize(
    ("path", "cost"),
    [
        ("/export", 10),
        ("/export/", 10),
        ("/export/2024/may", 10),
        ("/exports", 1),
        ("/export/status", 0),
        ("/export/status/7", 0),
        ("/Export", 1),
        ("/v1/export", 1),
        ("/", 1),
        ("", 1),
    ],
)
def test_a_path_in_the_table_stands_for_what_lies_below_it(path: str, cost: int) -> None:
    limiter = MemoryLimiter(clock=Clock())
    plan = (Quota.per_minute(100),)
    table = {"/export": 10, "/export/status/": 0}
    status, _ = ask(RateLimitMiddleware(App(), limiter=limiter, quotas=plan, cost=table), path=path)
    assert status == 200
    assert limiter.peek("192.0.2.1", plan).remaining == 100 - cost


@pytest.mark.parametrize(
    ("path", "root"),
    [("/api/export", "/api"), ("/export", "/api"), ("/export", ""), ("/api/v1/export", "/api/v1"), ("/export", "/exp")],
)
def test_the_table_has_paths_below_where_the_app_is_mounted(path: str, root: str) -> None:
    limiter = MemoryLimiter(clock=Clock())
    plan = (Quota.per_minute(100),)
    limited = RateLimitMiddleware(App(), limiter=limiter, quotas=plan, cost={"/export": 10})
    ask(limited, path=path, root_path=root)
    assert limiter.peek("192.0.2.1", plan).remaining == 90


def test_a_request_that_costs_nothing_passes_unasked_and_untold() -> None:
    limiter = MemoryLimiter(clock=Clock())
    limited = RateLimitMiddleware(App(), limiter=limiter, quotas=THRICE, cost={"/healthz": 0})
    for _ in range(10):
        assert ask(limited, path="/healthz") == (200, {})
    assert len(limiter) == 0


def test_whoever_has_no_quota_is_not_told_of_any() -> None:
    assert ask(RateLimitMiddleware(App(), limiter=MemoryLimiter(), quotas=lambda _scope: ())) == (200, {})


def test_each_caller_can_have_a_key_and_a_plan_of_its_own() -> None:
    limited = RateLimitMiddleware(
        App(),
        limiter=MemoryLimiter(clock=Clock()),
        quotas=lambda scope: PLANS[scope["user"].partition(":")[0]],
        key=lambda scope: scope["user"],
    )
    assert ask(limited, user="starter:ada")[1]["x-ratelimit-limit"] == "30"
    assert ask(limited, user="professional:ben")[1]["x-ratelimit-remaining"] == "299"
    assert ask(limited, user="starter:ada")[1]["x-ratelimit-remaining"] == "28"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:DB8:0:0:ffff::", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("testclient", "testclient", True),
        ("testclient", "192.0.2.1", False),
    ],
)
def test_a_client_is_its_address_and_one_with_a_whole_network_is_the_network(one: str, other: str, same: bool) -> None:
    limited = RateLimitMiddleware(App(), limiter=MemoryLimiter(clock=Clock()), quotas=(Quota.per_minute(1),))
    assert ask(limited, client=(one, 1))[0] == 200
    assert ask(limited, client=(other, 2))[0] == (429 if same else 200)


def test_clients_whose_address_no_one_knows_are_one() -> None:
    limited = RateLimitMiddleware(App(), limiter=MemoryLimiter(clock=Clock()), quotas=(Quota.per_minute(2),))
    assert [ask(limited, client=client)[0] for client in (None, (), ("", 0))] == [200, 200, 429]


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_what_is_not_http_passes_untouched(kind: str) -> None:
    app, limiter = App([{"type": f"{kind}.anything"}]), MemoryLimiter(clock=Clock())
    limited = RateLimitMiddleware(app, limiter=limiter, quotas=(Quota.per_minute(1),))
    for _ in range(3):
        assert asyncio.run(sent_by(limited, type=kind)) == app.messages
    assert len(limiter) == 0
    assert "learnflow.decision" not in app.calls[0][0]


@pytest.mark.parametrize("make", EVERY_KIND)
def test_any_limiter_whose_answer_can_be_awaited_serves(make: Callable[..., Any]) -> None:
    async def two() -> list[int]:
        limited = RateLimitMiddleware(App(), limiter=make(clock=Clock()), quotas=(Quota.per_minute(1),))
        return [(await sent_by(limited))[0]["status"] for _ in range(2)]

    assert asyncio.run(two()) == [200, 429]


def test_many_requests_at_once_pass_exactly_as_often_as_the_limit_says() -> None:
    async def burst(app: Any) -> list[int]:
        return [sent[0]["status"] for sent in await asyncio.gather(*(sent_by(app) for _ in range(500)))]

    for make in EVERY_KIND:
        limited = RateLimitMiddleware(App(), limiter=make(clock=Clock()), quotas=(Quota.per_minute(300),))
        assert sorted(asyncio.run(burst(limited))) == [200] * 300 + [429] * 200


def test_a_field_that_a_reply_has_already_is_not_told_again() -> None:
    own = [(b"X-RateLimit-Limit", b"5000"), (b"ratelimit", b'"upstream";r=1')]
    app = App([{**PLAIN[0], "headers": own}, PLAIN[1]])
    start, _ = asyncio.run(sent_by(RateLimitMiddleware(app, limiter=MemoryLimiter(), quotas=THRICE)))
    assert start["headers"][:2] == own
    assert {name for name, _ in start["headers"][2:]} == LIMIT_FIELDS - {b"x-ratelimit-limit", b"ratelimit"}


def both(inner_cost: dict[str, int]) -> tuple[MemoryLimiter, Plan, Any]:
    """An app within two limits: ten for an address, and three for an account."""
    limiter = MemoryLimiter(clock=Clock())
    address, account = (Quota.per_minute(10, name="address"),), (Quota.per_minute(3, name="account"),)
    inside = RateLimitMiddleware(App(), limiter=limiter, quotas=account, key="account", cost=inner_cost)
    return limiter, address, RateLimitMiddleware(inside, limiter=limiter, quotas=address, key="address")


def test_of_two_limits_the_inner_one_is_told_and_its_refusals_cost_what_the_outer_one_took() -> None:
    limiter, address, limited = both({"/exports": 2})
    scope: dict[str, Any] = {"type": "http", "path": "/exports"}
    replies = [asyncio.run(sent_by(limited, **scope))[0] for _ in range(2)]
    for reply, status in zip(replies, (200, 429), strict=True):
        names = [name for name, _ in reply["headers"]]
        assert reply["status"] == status
        assert [names.count(name) for name in LIMIT_FIELDS] == [1] * 5
        assert dict(reply["headers"])[b"ratelimit"] == b'"account";r=1;t=20'
    assert limiter.peek("address", address).remaining == 8


def test_of_two_limits_the_outer_one_is_told_where_it_refuses_and_where_the_inner_one_is_not_asked() -> None:
    _, _, limited = both({"/": 1, "/healthz": 0})
    told = [ask(limited, path="/healthz") for _ in range(11)]
    assert [status for status, _ in told] == [200] * 10 + [429]
    assert {fields["x-ratelimit-limit"] for _, fields in told} == {"10"}
    assert told[-1][1]["retry-after"] == "6"


def test_within_two_limits_a_handler_finds_the_decision_of_the_inner_one() -> None:
    app = App()
    usual: dict[str, Any] = {"limiter": MemoryLimiter(), "quotas": THRICE}
    ask(RateLimitMiddleware(RateLimitMiddleware(app, **usual, key="inner"), **usual, key="outer"))
    [(scope, *_)] = app.calls
    assert scope["learnflow.decision"].key == "inner"


def unhandled(_request: Any) -> Any:
    raise LookupError("broken")


def test_a_500_that_starlette_makes_of_an_error_is_told_by_a_limit_around_the_app_and_not_by_one_within() -> None:
    options: dict[str, Any] = {"limiter": MemoryLimiter(), "quotas": THRICE}
    routes = [Route("/", unhandled)]
    within = Starlette(routes=routes, middleware=[Middleware(RateLimitMiddleware, **options)])
    around = RateLimitMiddleware(Starlette(routes=routes), **options)
    for app, told in ((within, set()), (around, LIMIT_FIELDS)):
        reply = TestClient(app, raise_server_exceptions=False).get("/")
        assert reply.status_code == 500
        assert {name.encode() for name in reply.headers} & LIMIT_FIELDS == told


def test_what_the_app_raises_is_raised() -> None:
    async def broken(_scope: Any, _receive: Any, _send: Any) -> None:
        raise LookupError("broken")

    with pytest.raises(LookupError, match="broken"):
        asyncio.run(sent_by(RateLimitMiddleware(broken, limiter=MemoryLimiter(), quotas=THRICE)))


@pytest.mark.parametrize(
    ("cost", "error", "message"),
    [
        (4, ValueError, r"cost: Quota\(name='minute'.* never holds as much"),
        (-1, ValueError, "cost: it must be at least 1"),
        (True, TypeError, "cost: an int is needed, not bool"),
        (None, TypeError, "cost: an int is needed, not NoneType"),
        ({"/export": 4}, ValueError, r"cost: Quota\(name='minute'.* never holds as much"),
        ({"/export": 1.0}, TypeError, "cost: an int is needed, not float"),
        ({"/export": False}, TypeError, "cost: an int is needed, not bool"),
        ({"export": 1}, ValueError, "cost: a path begins with a slash, unlike 'export'"),
    ],
)
def test_a_cost_that_no_request_could_pay_is_an_error_as_soon_as_it_is_written(
    cost: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        RateLimitMiddleware(App(), limiter=MemoryLimiter(), quotas=THRICE, cost=cost)


def test_under_plans_that_depend_on_the_caller_a_cost_is_checked_as_far_as_it_can_be() -> None:
    for cost in (-1, {"/export": -1}):
        with pytest.raises(ValueError, match="cost: it must be at least 1"):
            RateLimitMiddleware(App(), limiter=MemoryLimiter(), quotas=lambda _scope: THRICE, cost=cost)
    RateLimitMiddleware(App(), limiter=MemoryLimiter(), quotas=lambda _scope: THRICE, cost=4)


@given(st.lists(st.integers(1, 8), max_size=20))
def test_a_request_that_costs_more_than_its_callers_plan_ever_holds_is_forbidden_and_takes_nothing(
    asked: list[int],
) -> None:
    app, clock = App(), Clock()
    limiter, twin = MemoryLimiter(clock=clock), MemoryLimiter(clock=clock)
    limited = RateLimitMiddleware(
        app, limiter=limiter, quotas=lambda _scope: THRICE, key="key", cost=lambda scope: scope["cost"]
    )
    for cost in asked:
        calls = len(app.calls)
        status, told = ask(limited, cost=cost)
        if cost > 3:
            assert (status, told, len(app.calls)) == (403, {}, calls)
        else:
            assert status == (200 if twin.hit("key", THRICE, cost) else 429)
    assert limiter.peek("key", THRICE).remaining == twin.peek("key", THRICE).remaining


def test_whom_a_path_costs_too_much_is_told_so_and_not_to_retry_while_others_pass() -> None:
    limited = RateLimitMiddleware(
        App(),
        limiter=MemoryLimiter(),
        quotas=lambda scope: PLANS[scope["plan"]],
        key=lambda scope: scope["plan"],
        cost={"/exports": 100},
    )
    assert ask(limited, path="/exports", plan="professional")[0] == 200
    start, body = asyncio.run(sent_by(limited, path="/exports", plan="starter"))
    assert (start["status"], body["body"]) == (403, b"Forbidden: the request costs more than its plan ever holds\n")
    assert dict(start["headers"]).keys() == {b"content-type", b"content-length"}
    assert int(dict(start["headers"])[b"content-length"]) == len(body["body"])
    _, body = asyncio.run(sent_by(limited, path="/exports", plan="starter", method="HEAD"))
    assert body["body"] == b""


def test_a_plan_that_can_be_read_only_once_limits_all_the_same() -> None:
    plan: Any = lambda _scope: iter(THRICE)  # noqa: E731
    assert statuses(RateLimitMiddleware(App(), limiter=MemoryLimiter(clock=Clock()), quotas=plan), 4) == [
        *[200] * 3,
        429,
    ]


async def looked_up(_scope: Any) -> Any:
    raise AssertionError("nobody calls it")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"limiter": None}, TypeError, "limiter: an object with a method `hit` is needed, not NoneType"),
        ({"limiter": MemoryLimiter}, TypeError, "limiter: an object with a method `hit` is needed, not type"),
        ({"key": None}, TypeError, "key: a str or a function is needed, not NoneType"),
        ({"key": 5}, TypeError, "key: a str or a function is needed, not int"),
        ({"quotas": ()}, ValueError, "quotas: none limit nobody"),
        ({"quotas": []}, ValueError, "quotas: none limit nobody"),
        ({"quotas": None}, TypeError, "quotas: a sequence of Quota is needed, not None"),
        ({"quotas": THRICE[0]}, TypeError, r"quotas: a sequence of Quota is needed, not Quota\(name='minute'"),
        ({"quotas": ["30/minute"]}, TypeError, r"quotas: a sequence of Quota is needed, not \['30/minute'\]"),
        ({"quotas": [THRICE[0]] * 2, "cost": lambda _scope: 1}, ValueError, "quotas: each needs a name of its own"),
        ({"quotas": looked_up}, TypeError, "quotas: a plain function is needed, not an async one"),
        ({"key": looked_up}, TypeError, "key: a plain function is needed, not an async one"),
        ({"cost": looked_up}, TypeError, "cost: a plain function is needed, not an async one"),
    ],
)
def test_what_no_request_could_be_decided_by_is_an_error_as_soon_as_it_is_written(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    usual: dict[str, Any] = {"limiter": MemoryLimiter(), "quotas": THRICE}
    with pytest.raises(error, match=message):
        RateLimitMiddleware(App(), **usual | options)
