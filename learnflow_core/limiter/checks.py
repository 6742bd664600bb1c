"""What every limiter refuses before it asks its store: arguments that make no sense."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would take longer than the rest of the package
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from learnflow_core.limiter.quota import Quota


def check(key: str, quotas: Sequence[Quota], cost: int) -> None:
    """Raise TypeError for an argument of the wrong type, ValueError for one that makes no sense; see `Limiter`."""
    check_key(key)
    if type(cost) is not int:
        raise TypeError(f"cost: an int is needed, not {type(cost).__name__}")
    if cost < 1:
        raise ValueError("cost: it must be at least 1; what was taken is given back by a refund")
    check_names(quotas)
    check_fits(quotas, cost)


def check_key(key: str) -> str:
    """The key's text, whatever a class derived from str makes of it; TypeError for a key that is no str."""
    if not isinstance(key, str):
        raise TypeError(f"key: a str is needed, not {type(key).__name__}")
    return str.__str__(key)


def check_keys(keys: Iterable[str]) -> list[str]:
    """The texts of all keys; TypeError if one is no str, and for a single str, whose letters are hardly meant."""
    if isinstance(keys, str):
        raise TypeError("keys: an iterable of keys is needed, not a str")
    return [check_key(key) for key in [*keys]]


def check_names(quotas: Sequence[Quota]) -> None:
    """Raise ValueError for two quotas of one name: nobody could tell their figures apart."""
    if len({quota.name for quota in quotas}) < len(quotas):
        raise ValueError("quotas: each needs a name of its own")


def check_fits(quotas: Sequence[Quota], cost: int) -> None:
    """Raise ValueError for a cost that is more than one of the quotas holds at once."""
    for quota in quotas:
        if cost > quota.burst:
            raise never_fits(quota)


def never_fits(quota: Quota) -> ValueError:
    """The error for a cost that is more than the quota holds at once."""
    return ValueError(f"cost: {quota!r} never holds as much, so waiting cannot help")
