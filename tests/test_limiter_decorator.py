"""A limit on a function: refused calls are not made, and the function stays what it was."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_core.limiter import LimitExceeded, MemoryLimiter, Quota, limited
from learnflow_core.limiter.plans import PLANS
from storage_backends.valkey import AsyncValkeyLimiter
from tests.awaited import EVERY_KIND, CoroutineLimiter, FutureLimiter
from tests.limiting import SECOND, Clock, Plan, Requests, requests

ONCE = (Quota.per_minute(1),)
THRICE = (Quota.per_minute(3), Quota.per_day(100))


def left(limiter: MemoryLimiter, key: str, plan: Plan = THRICE) -> int | None:
    return limiter.peek(key, plan).remaining


@given(requests)
def test_a_function_is_called_exactly_when_the_limiter_allows_it(case: tuple[Plan, Requests]) -> None:
    plan, asked = case
    clock = Clock()
    limiter, twin = MemoryLimiter(clock=clock), MemoryLimiter(clock=clock)
    calls: list[int] = []
    call = limited(limiter, plan, key="key", cost=lambda cost: cost)(calls.append)
    for wait, cost in asked:
        clock.now += wait
        made = len(calls)
        with suppress(LimitExceeded):
            call(cost)
        assert len(calls) - made == twin.hit("key", plan, cost).allowed


@given(requests)
def test_a_refused_call_passes_at_the_instant_it_is_told_and_not_a_nanosecond_earlier(
    case: tuple[Plan, Requests],
) -> None:
    plan, asked = case
    clock = Clock()
    call = limited(MemoryLimiter(clock=clock), plan, key="key", cost=lambda cost: cost)(lambda _cost: None)
    for wait, cost in asked:
        clock.now += wait
        try:
            call(cost)
        except LimitExceeded as refusal:
            clock.now += refusal.decision.retry_after_ns - 1
            with pytest.raises(LimitExceeded):
                call(cost)
            clock.now += 1
            call(cost)


def test_a_refusal_says_which_quota_and_when_to_retry() -> None:
    call = limited(MemoryLimiter(clock=Clock()), (Quota.per_day(100), Quota.per_minute(3)), cost=2)(lambda: None)
    call()
    with pytest.raises(LimitExceeded) as refused:
        call()
    assert str(refused.value) == "rate limit exceeded: 'minute' lets 3 pass; retry in 20 s"
    assert refused.value.decision.retry_after_ns == 20 * SECOND


def test_without_a_key_all_calls_of_a_function_share_one_bucket_and_other_functions_have_their_own() -> None:
    limiter = MemoryLimiter(clock=Clock())

    @limited(limiter, ONCE)
    def first(_caller: str) -> None: ...

    @limited(limiter, ONCE)
    def second(_caller: str) -> None: ...

    first("ada")
    second("ada")
    for again in (first, second):
        with pytest.raises(LimitExceeded):
            again("ben")


def test_so_do_all_functions_of_one_name_as_closures_and_lambdas_are() -> None:
    limiter = MemoryLimiter(clock=Clock())

    def maker(user: str) -> Callable[[], str]:
        @limited(limiter, ONCE)
        def fetch() -> str:
            return user

        return fetch

    ada, ben = maker("ada"), maker("ben")
    ada()
    with pytest.raises(LimitExceeded):
        ben()


class Fetcher:
    """A callable that has no name of its own."""

    async def __call__(self, user: str) -> str:
        return f"for {user}"


def test_what_has_no_name_needs_a_key() -> None:
    limit: Any = limited(MemoryLimiter(), ONCE)
    for nameless in (partial(print, "x"), Fetcher()):
        with pytest.raises(TypeError, match=f"key: one is needed, for a {type(nameless).__name__} has no name"):
            limit(nameless)


async def test_with_a_key_any_callable_is_limited_plain_or_async() -> None:
    limiter = MemoryLimiter(clock=Clock())
    plain = limited(limiter, ONCE, key="plain")(partial(int, base=2))
    assert plain("101") == 5
    with pytest.raises(LimitExceeded):
        plain("101")
    fetch: Any = limited(CoroutineLimiter(clock=Clock()), ONCE, key=lambda user: user)(Fetcher())
    assert await fetch("ada") == "for ada"
    with pytest.raises(LimitExceeded):
        await fetch("ada")


def test_functions_under_one_key_share_its_bucket() -> None:
    limiter = MemoryLimiter(clock=Clock())
    first, second = (limited(limiter, ONCE, key="exports")(lambda: None) for _ in range(2))
    first()
    with pytest.raises(LimitExceeded):
        second()


def test_key_plan_and_cost_can_follow_from_the_arguments() -> None:
    limiter = MemoryLimiter(clock=Clock())

    @limited(
        limiter,
        lambda user, *_args, **_kwargs: PLANS[user["plan"]],
        key=lambda user, *_args, **_kwargs: user["id"],
        cost=lambda _user, rows, **_kwargs: rows,
    )
    def export(user: dict[str, str], rows: int, *, header: bool = True) -> str:
        return f"{user['id']}: {rows} rows, {header=}"

    ada, ben = {"id": "ada", "plan": "starter"}, {"id": "ben", "plan": "professional"}
    assert export(ada, 30, header=False) == "ada: 30 rows, header=False"
    assert export(ben, 200) == "ben: 200 rows, header=True"
    with pytest.raises(LimitExceeded, match="'minute' lets 30 pass; retry in 2 s"):
        export(ada, 1)
    assert left(limiter, "ben", PLANS["professional"]) == 100


def test_a_plan_is_what_it_was_when_it_was_written() -> None:
    plan = [Quota.per_minute(1)]
    call = limited(MemoryLimiter(clock=Clock()), plan)(lambda: None)
    plan.clear()
    call()
    with pytest.raises(LimitExceeded):
        call()


def test_a_method_has_its_object_among_the_arguments() -> None:
    limiter = MemoryLimiter(clock=Clock())

    class Mailbox:
        def __init__(self, owner: str) -> None:
            self.owner = owner

        @limited(limiter, ONCE, key=lambda self, *_args: self.owner)
        def send(self, letter: str) -> str:
            return f"{self.owner}: {letter}"

    ada = Mailbox("ada")
    assert (ada.send("hello"), Mailbox("ben").send("hello")) == ("ada: hello", "ben: hello")
    with pytest.raises(LimitExceeded):
        ada.send("again")


def test_a_call_that_costs_nothing_asks_no_limiter() -> None:
    limiter = MemoryLimiter(clock=Clock())
    call = limited(limiter, ONCE, key="key", cost=lambda cost: cost)(lambda cost: cost)
    assert [call(0) for _ in range(3)] == [0, 0, 0]
    assert len(limiter) == 0


def test_what_a_call_took_stays_taken_when_the_function_raises() -> None:
    limiter = MemoryLimiter(clock=Clock())
    call = limited(limiter, THRICE, key="key")(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        call()
    assert left(limiter, "key") == 2


def test_a_generator_is_refused_when_it_is_made() -> None:
    @limited(MemoryLimiter(clock=Clock()), ONCE)
    def count() -> Iterator[int]:
        yield from range(3)

    assert list(count()) == [0, 1, 2]
    with pytest.raises(LimitExceeded):
        count()


@pytest.mark.parametrize("make", EVERY_KIND)
async def test_an_async_function_awaits_whatever_limiter_there_is(make: Callable[..., Any]) -> None:
    @limited(make(clock=Clock()), THRICE, key=lambda caller: caller, cost=2)
    async def greet(caller: str) -> str:
        return f"hello {caller}"

    assert [await greet("ada"), await greet("ben")] == ["hello ada", "hello ben"]
    refused = greet("ada")  # nothing is asked before it is awaited
    with pytest.raises(LimitExceeded):
        await refused


def test_a_limiter_of_coroutines_on_a_plain_function_is_an_error_as_soon_as_it_is_written() -> None:
    limit: Any = limited(CoroutineLimiter(), ONCE)
    with pytest.raises(TypeError, match="limiter: its answers have to be awaited"):
        limit(lambda: None)


def test_so_is_a_shared_limiter_of_an_event_loop() -> None:
    limit: Any = limited(AsyncValkeyLimiter("valkey://127.0.0.1"), ONCE)
    with pytest.raises(TypeError, match="limiter: its answers have to be awaited"):
        limit(lambda: None)


async def test_a_limiter_of_futures_on_a_plain_function_is_an_error_at_its_first_call() -> None:
    limit: Any = limited(FutureLimiter(), ONCE)
    called: list[str] = []
    call = limit(called.append)
    with pytest.raises(TypeError, match="limiter: its answers have to be awaited"):
        call("once")
    assert not called


def test_coroutines_that_come_unforeseen_are_an_error_and_leave_no_warning() -> None:
    class Shared:
        def hit(self, *args: Any) -> Any:
            return CoroutineLimiter().hit(*args)

    call = limited(Shared(), ONCE)(lambda: None)
    with pytest.raises(TypeError, match="limiter: its answers have to be awaited"):
        call()


def test_a_limited_function_is_still_the_same_to_those_who_look_at_it() -> None:
    def plain(rows: int, *, header: bool = True) -> str:
        """Write rows."""
        return f"{rows} {header}"

    async def waiting(rows: int) -> int:
        return rows

    limit = limited(MemoryLimiter(), ONCE)
    assert (limit(plain).__name__, limit(plain).__doc__) == ("plain", "Write rows.")
    assert inspect.signature(limit(plain)) == inspect.signature(plain)
    assert inspect.signature(limit(waiting)) == inspect.signature(waiting)
    assert inspect.iscoroutinefunction(limit(waiting))
    assert not inspect.iscoroutinefunction(limit(plain))


@pytest.mark.parametrize(
    ("cost", "error"),
    [(2, ValueError), (-1, ValueError), (True, TypeError), (False, TypeError), (0.0, TypeError), (None, TypeError)],
)
def test_a_cost_that_no_call_could_pay_is_an_error_as_soon_as_it_is_written(cost: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="cost: "):
        limited(MemoryLimiter(), ONCE, cost=cost)(lambda: None)


@given(st.sampled_from([-1, 2, True, False, 0.0, float("nan"), None, "1"]))
def test_a_cost_that_makes_no_sense_is_an_error_of_the_call_and_takes_nothing(cost: Any) -> None:
    limiter = MemoryLimiter(clock=Clock())
    call = limited(limiter, ONCE, key="key", cost=lambda: cost)(lambda: None)
    with pytest.raises((TypeError, ValueError), match="cost: "):
        call()
    assert left(limiter, "key", ONCE) == 1


def test_a_call_that_costs_more_than_its_callers_plan_ever_holds_is_an_error_of_that_call_and_takes_nothing() -> None:
    limiter = MemoryLimiter(clock=Clock())
    call = limited(limiter, lambda _rows: THRICE, key="key", cost=lambda rows: rows)(lambda rows: rows)
    with pytest.raises(ValueError, match=r"cost: Quota\(name='minute'.* never holds as much, so waiting cannot help"):
        call(4)
    assert (call(3), left(limiter, "key")) == (3, 0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"limiter": None}, TypeError, "limiter: an object with a method `hit` is needed, not NoneType"),
        ({"limiter": MemoryLimiter}, TypeError, "limiter: an object with a method `hit` is needed, not type"),
        ({"key": 5}, TypeError, "key: a str or a function is needed, not int"),
        ({"quotas": []}, ValueError, "quotas: none limit nobody"),
        ({"quotas": ONCE[0]}, TypeError, r"quotas: a sequence of Quota is needed, not Quota\(name='minute'"),
    ],
)
def test_what_no_call_could_be_decided_by_is_an_error_where_the_decorator_is_written(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    usual: dict[str, Any] = {"limiter": MemoryLimiter(), "quotas": ONCE}
    decorate: Any = limited(**usual | options)
    with pytest.raises(error, match=message):
        decorate(lambda: None)
