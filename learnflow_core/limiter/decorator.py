"""A limit on a function: each call takes its cost first, and is not made when that is refused."""

from __future__ import annotations

from functools import wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from learnflow_core.limiter.asking import asking, asking_at_once
from learnflow_core.limiter.fields import seconds_up

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from learnflow_core.limiter.asking import Answers, AnswersAtOnce
    from learnflow_core.limiter.decision import Decision
    from learnflow_core.limiter.quota import Quota

P = ParamSpec("P")
R = TypeVar("R")


class LimitExceeded(Exception):  # noqa: N818 - a refusal is the limiter doing what it is for, and no error of it
    """A call was refused, and not made. `decision` says by which quota, and when the call would pass."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(decision)
        self.decision = decision

    def __str__(self) -> str:
        told = self.decision.binding
        assert told, "a call without quotas is not refused"
        seconds = seconds_up(told.retry_after_ns)
        return f"rate limit exceeded: {told.name!r} lets {told.limit} pass; retry in {seconds} s"


@overload
def limited(
    limiter: AnswersAtOnce,
    quotas: Sequence[Quota] | Callable[..., Sequence[Quota]],
    *,
    key: str | Callable[..., str] | None = None,
    cost: int | Callable[..., int] = 1,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


@overload
def limited(
    limiter: Answers,
    quotas: Sequence[Quota] | Callable[..., Sequence[Quota]],
    *,
    key: str | Callable[..., str] | None = None,
    cost: int | Callable[..., int] = 1,
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Callable[P, Coroutine[Any, Any, R]]]: ...


def limited(
    limiter: Answers,
    quotas: Sequence[Quota] | Callable[..., Sequence[Quota]],
    *,
    key: str | Callable[..., str] | None = None,
    cost: int | Callable[..., int] = 1,
) -> Callable[..., Any]:
    """A decorator: each call of the function, plain or async, first takes `cost` tokens from each of a key's quotas.

    `quotas`, `key` and `cost` hold for every call, or are functions of its arguments, so that each caller may have a
    bucket and a plan of its own. Without a `key`, all calls share one bucket, named for where the function is defined:
    so do those of functions that are made by one function again and again, and of all lambdas of a module, as they
    have one name. A call that costs 0 asks no limiter. What was taken stays taken when the function raises.

    A call that is refused raises `LimitExceeded`, and the function is not called. (That of a generator is refused when
    it is made, before its first step.) An async function awaits the limiter's answer, so a limiter that blocks is not
    for it. A plain function needs one that answers at once: TypeError where the answers have to be awaited, when it is
    decorated if that can be seen by then. Raises TypeError or ValueError for what no call could be decided by: no
    limiter, no quotas, a cost that no call could pay; and TypeError for a callable without a name, such as a
    `functools.partial`, that is given no `key`. A call that costs more than its caller's plan ever holds is a
    ValueError, since waiting cannot help.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        whose = _name(function) if key is None else key

        if iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__):
            awaited = asking(limiter, quotas, whose, cost)

            @wraps(function)
            async def limited_coroutine(*args: Any, **kwargs: Any) -> Any:
                _admit(await awaited(*args, **kwargs))
                return await function(*args, **kwargs)

            return limited_coroutine

        decided = asking_at_once(limiter, quotas, whose, cost)

        @wraps(function)
        def limited_function(*args: Any, **kwargs: Any) -> Any:
            _admit(decided(*args, **kwargs))
            return function(*args, **kwargs)

        return limited_function

    return decorate


def _name(function: Callable[..., Any]) -> str:
    """Where a function is defined: the key of the bucket that all its calls share."""
    name = getattr(function, "__qualname__", None)
    if name is None:
        raise TypeError(f"key: one is needed, for a {type(function).__name__} has no name that could stand for it")
    return f"{function.__module__}.{name}"


def _admit(decision: Decision) -> None:
    if not decision.allowed:
        raise LimitExceeded(decision)
