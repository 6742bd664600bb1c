"""What is promised: so many tokens in such a period."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would take longer than the rest of the package
if TYPE_CHECKING:
    from typing import NoReturn

SECOND_NS = 1_000_000_000
MAX_LIMIT = 999_999_999_999_999
"""The highest limit: the largest integer that an HTTP structured field can carry (RFC 9651, section 3.3.1)."""
MAX_PERIOD_NS = 3_653 * 86_400 * SECOND_NS
"""The longest period, ten years: sums of instants and debts stay within 64 bits, and 53 bits in microseconds."""


class Quota:
    """A token bucket's terms: at most `burst` tokens at once, refilled at `limit` tokens in each `period_ns`.

    `name` tells a caller's quotas apart. It appears in HTTP fields, so it is 1 to 64 printable ASCII characters
    without quote and backslash. `burst` is at most `limit`, and `limit` unless given; a smaller one makes the plan
    smoother. In any span of length t at most `burst + t * limit / period_ns` tokens are taken.

    A bucket belongs to a key, a name and a period: `bucket` has the latter two. Plans of one name and period, that of
    a caller who changed it or two that are in use at once, look at the same bucket, each with its own limit and burst.

    `interval_ns` is what one token is worth in time, rounded up to the tick (a nanosecond), so that the promise errs
    on the strict side only; `capacity_ns` is what `burst` tokens are worth, and `longest_ns` what `limit` tokens are:
    the period or, by the rounding, up to `limit` ticks more, so that plans of one bucket can differ in it. A store
    whose clock ticks in coarser units decides by `in_ticks_of`, whose durations are whole ticks of `tick_ns` each.
    `policy` is the quota as a member of the HTTP field RateLimit-Policy, built once because every reply carries it.

    Immutable, equal by value. Raises TypeError for a value of the wrong type (a bool is not a number here), and
    ValueError for one that makes no sense.
    """

    __slots__ = (
        "bucket",
        "burst",
        "capacity_ns",
        "interval_ns",
        "limit",
        "longest_ns",
        "name",
        "period_ns",
        "policy",
        "tick_ns",
    )

    name: str
    limit: int
    period_ns: int
    burst: int
    bucket: str
    interval_ns: int
    capacity_ns: int
    longest_ns: int
    policy: str
    tick_ns: int

    def __init__(self, name: str, limit: int, period_ns: int, burst: int | None = None, tick_ns: int = 1) -> None:
        name = _checked_name(name)
        limit = _checked("limit", limit, MAX_LIMIT)
        period_ns = _checked("period_ns", period_ns, MAX_PERIOD_NS)
        burst = limit if burst is None else _checked("burst", burst, limit)
        tick_ns = _checked("tick_ns", tick_ns, SECOND_NS)
        if limit * tick_ns > period_ns:
            raise ValueError(f"limit: {limit} tokens in {period_ns} ns are more than one in each tick of {tick_ns} ns")
        interval_ns = -(-period_ns // (limit * tick_ns)) * tick_ns
        window = "" if period_ns % SECOND_NS else f";w={period_ns // SECOND_NS}"
        for field, value in (
            ("name", name),
            ("limit", limit),
            ("period_ns", period_ns),
            ("burst", burst),
            ("bucket", f"{name}\0{period_ns}"),
            ("interval_ns", interval_ns),
            ("capacity_ns", burst * interval_ns),
            ("longest_ns", limit * interval_ns),
            ("policy", f'"{name}";q={limit}{window}'),
            ("tick_ns", tick_ns),
        ):
            object.__setattr__(self, field, value)

    @classmethod
    def per_second(cls, limit: int, *, burst: int | None = None, name: str = "second") -> Quota:
        """`limit` tokens a second."""
        return cls(name, limit, SECOND_NS, burst)

    @classmethod
    def per_minute(cls, limit: int, *, burst: int | None = None, name: str = "minute") -> Quota:
        """`limit` tokens a minute."""
        return cls(name, limit, 60 * SECOND_NS, burst)

    @classmethod
    def per_hour(cls, limit: int, *, burst: int | None = None, name: str = "hour") -> Quota:
        """`limit` tokens an hour."""
        return cls(name, limit, 3_600 * SECOND_NS, burst)

    @classmethod
    def per_day(cls, limit: int, *, burst: int | None = None, name: str = "day") -> Quota:
        """`limit` tokens in 86,400 seconds, whatever the calendar says."""
        return cls(name, limit, 86_400 * SECOND_NS, burst)

    def in_ticks_of(self, tick_ns: int) -> Quota:
        """The same promise, kept by a store whose clock ticks every `tick_ns`: a token's worth is rounded up to them.

        Raises ValueError where the limit is more than one token a tick.
        """
        return self if tick_ns == self.tick_ns else Quota(self.name, self.limit, self.period_ns, self.burst, tick_ns)

    def _terms(self) -> tuple[str, int, int, int, int]:
        return self.name, self.limit, self.period_ns, self.burst, self.tick_ns

    def __eq__(self, other: object) -> bool:
        return self._terms() == other._terms() if isinstance(other, Quota) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._terms())

    def __repr__(self) -> str:
        tick = "" if self.tick_ns == 1 else f", tick_ns={self.tick_ns}"
        return f"Quota(name={self.name!r}, limit={self.limit}, period_ns={self.period_ns}, burst={self.burst}{tick})"

    def __reduce__(self) -> tuple[type[Quota], tuple[str, int, int, int, int]]:
        return Quota, self._terms()

    def __setattr__(self, field: str, value: object) -> NoReturn:
        raise AttributeError(f"a Quota cannot be changed: {field}")

    def __delattr__(self, field: str) -> NoReturn:
        raise AttributeError(f"a Quota cannot be changed: {field}")


def _checked_name(name: object) -> str:
    """Its text, whatever a class derived from str makes of it: that is what replies carry."""
    if not isinstance(name, str):
        raise TypeError(f"name: a str is needed, not {type(name).__name__}")
    text = str.__str__(name)
    plain = text.isascii() and text.isprintable() and not set('"\\') & set(text)
    if not (plain and 1 <= len(text) <= 64):
        raise ValueError(f'name: 1 to 64 printable ASCII characters other than " and \\ are needed, not {text!r:.100}')
    return text


def _checked(field: str, value: object, highest: int) -> int:
    """The number itself, whatever a class derived from int makes of it."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{field}: an int is needed, not {type(value).__name__}")
    number = int.__int__(value)
    if not 1 <= number <= highest:
        raise ValueError(f"{field}: it must be from 1 to {highest}")
    return number
