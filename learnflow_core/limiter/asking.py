"""What a call asks of a limiter, for the decorator and the middlewares: whose tokens, under which quotas, how many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import iscoroutine, iscoroutinefunction
from typing import TYPE_CHECKING, Any, Protocol

from learnflow_core.limiter import MemoryLimiter
from learnflow_core.limiter.checks import check_names, never_fits
from learnflow_core.limiter.decision import Decision, PlainDecision
from learnflow_core.limiter.quota import Quota

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    Quotas = Sequence[Quota] | Callable[..., Sequence[Quota]]

EXEMPT = PlainDecision("", (), 0, 0, (), allowed=True)
"""The decision about a call that costs nothing: no limiter was asked, and there is no limit to tell of."""

FORBIDDEN = b"Forbidden: the request costs more than its plan ever holds\n"
"""What the middlewares answer to a request that waiting cannot help."""

_AWAITED = "limiter: its answers have to be awaited, which only an async function or an ASGI app can do"


class NeverFitsError(ValueError):
    """A call costs more than one of its caller's quotas ever holds, so waiting cannot help. Nothing was taken."""


class Answers(Protocol):
    """What a limiter is asked here: as much of `Limiter` as limiting calls takes."""

    def hit(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Awaitable[Decision]:
        """Take `cost` tokens from each of the key's quotas, or none from any of them."""
        ...


class AnswersAtOnce(Protocol):
    """The same of a limiter whose answers are decisions, and not promises of them: it needs no event loop."""

    def hit(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Decision:
        """Take `cost` tokens from each of the key's quotas, or none from any of them."""
        ...


def asking(
    limiter: Answers,
    quotas: Quotas,
    key: str | Callable[..., str],
    cost: int | Mapping[str, int] | Callable[..., int],
    path_of: Callable[..., str] | None = None,
) -> Callable[..., Awaitable[Decision]]:
    """The function that takes what a call costs; where that is 0, it asks nobody and answers `EXEMPT`.

    `quotas`, `key` and `cost` hold for every call, or are plain functions of its arguments; where calls have a path,
    `cost` may be a table of paths. Raises TypeError or ValueError for what no call could be decided by: no limiter, a
    plan of none, a cost that no call could pay. A call that costs more than its own caller's quotas ever hold raises
    `NeverFitsError`, and asks nobody.
    """
    if isinstance(limiter, type) or not callable(getattr(limiter, "hit", None)):
        raise TypeError(f"limiter: an object with a method `hit` is needed, not {type(limiter).__name__}")
    if not isinstance(key, str) and not callable(key):
        raise TypeError(f"key: a str or a function is needed, not {type(key).__name__}")
    plan = quotas if callable(quotas) else _plan(quotas)
    if path_of and isinstance(cost, Mapping):
        _check_costs(plan, cost.values())
        cost = _by_path(cost, path_of)
    elif not callable(cost):
        _check_costs(plan, [cost])
    key_of, quotas_of, cost_of = _function("key", key), _function("quotas", plan), _function("cost", cost)

    def ask(*args: object, **kwargs: object) -> Awaitable[Decision]:
        tokens = cost_of(*args, **kwargs)
        if tokens == 0 and type(tokens) is int:
            return EXEMPT
        # A tuple, because what can be read but once would be no limit any more when the limiter reads it.
        asked = tuple(quotas_of(*args, **kwargs))
        if type(tokens) is int:  # whatever else it is, the limiter says what is wrong with it
            _check_fits(tokens, asked)
        return limiter.hit(key_of(*args, **kwargs), asked, tokens)

    return ask


def asking_at_once(
    limiter: Answers,
    quotas: Quotas,
    key: str | Callable[..., str],
    cost: int | Mapping[str, int] | Callable[..., int],
    path_of: Callable[..., str] | None = None,
) -> Callable[..., Decision]:
    """`asking` where nothing can be awaited: TypeError for a limiter that needs it, as soon as that can be seen."""
    # One whose `hit` is a plain function that gives a future has coroutines elsewhere.
    if any(iscoroutinefunction(getattr(limiter, name, None)) for name in ("hit", "hit_many", "refund")):
        raise TypeError(_AWAITED)
    ask = asking(limiter, quotas, key, cost, path_of)

    def ask_at_once(*args: object, **kwargs: object) -> Decision:
        answer = ask(*args, **kwargs)
        if isinstance(answer, Decision):
            return answer
        if iscoroutine(answer):
            answer.close()  # or Python would warn as well that nobody awaited it
        raise TypeError(_AWAITED)

    return ask_at_once


def _plan(quotas: Any) -> tuple[Quota, ...]:
    """The quotas of every call, as they are when the limit is written."""
    plan = tuple(quotas) if isinstance(quotas, Iterable) else (quotas,)
    if not plan:
        raise ValueError("quotas: none limit nobody; callers without a limit need a function that says who they are")
    if quotas is plan[0] or not all(isinstance(quota, Quota) for quota in plan):
        raise TypeError(f"quotas: a sequence of Quota is needed, not {quotas!r:.100}")
    check_names(plan)
    return plan


def _function(name: str, value: object) -> Callable[..., Any]:
    """A function of a call, for a value that may be one already."""
    if iscoroutinefunction(value):
        raise TypeError(f"{name}: a plain function is needed, not an async one")
    return value if callable(value) else lambda *_args, **_kwargs: value


def _by_path(costs: Mapping[str, int], path_of: Callable[..., str]) -> Callable[..., int]:
    """The cost of the longest path that the request's own begins with, by whole segments; 1 where none does."""
    for path in costs:
        if not path.startswith("/"):
            raise ValueError(f"cost: a path begins with a slash, unlike {path!r}")
    # What begins with another path sorts behind it: in reverse, the longest that fits is found first.
    known = sorted(((path.rstrip("/") + "/", cost) for path, cost in costs.items()), reverse=True)

    def cost_of(request: object) -> int:
        path = path_of(request) + "/"
        for beginning, cost in known:
            if path.startswith(beginning):
                return cost
        return 1

    return cost_of


def _check_costs(quotas: Quotas, costs: Iterable[object]) -> None:
    """Raise now what a limiter would raise for every call of such a cost."""
    limiter: Any = MemoryLimiter()
    for cost in costs:
        if type(cost) is not int or cost != 0:
            limiter.peek("", () if callable(quotas) else quotas, cost)


def _check_fits(cost: int, plan: tuple[Quota, ...]) -> None:
    for quota in plan:
        if cost > quota.burst:
            raise NeverFitsError(*never_fits(quota).args)
