"""A decision as HTTP header fields. Pure; the caller brings the wall clock."""

from __future__ import annotations

from learnflow_core.limiter.bucket import tokens
from learnflow_core.limiter.decision import binding
from learnflow_core.limiter.quota import SECOND_NS

TYPE_CHECKING = False  # importing typing would take longer than the rest of the package
if TYPE_CHECKING:
    from learnflow_core.limiter.decision import Decision


def seconds_up(duration_ns: int) -> int:
    """A duration, or an instant, in whole seconds, rounded up: whoever waits that long has waited long enough."""
    return -(-duration_ns // SECOND_NS)


def headers(decision: Decision, now_unix_ns: int) -> list[tuple[str, str]]:
    """The fields that tell a client of a decision; none when it is unlimited.

    - `X-RateLimit-Limit`, `-Remaining`, `-Reset`: the binding quota, and the Unix second at which it is full again.
    - `RateLimit-Policy`: every quota's limit `q`, and its period `w` where that is whole seconds.
    - `RateLimit`: what every quota has left, `r`, and for how many seconds no more than that can be taken, `t`: until
      its next token. draft-ietf-httpapi-ratelimit-headers-11 calls `t` the effective window (section 4.1.2), which
      is not the time until the quota is full, and asks that Retry-After not be earlier (section 6).
    - `Retry-After` (RFC 9110, section 10.2.3), on a denial only: in that many seconds the same request passes.

    `now_unix_ns` is the wall clock when the decision was made, or a little later. Seconds are rounded up.
    """
    states = decision.states
    told = binding(states)
    if told is None:
        return []
    fields = [
        ("X-RateLimit-Limit", str(told.limit)),
        ("X-RateLimit-Remaining", str(told.remaining)),
        ("X-RateLimit-Reset", str(seconds_up(now_unix_ns + told.reset_after_ns))),
        ("RateLimit-Policy", ", ".join([quota.policy for quota in decision.quotas])),
        ("RateLimit", ", ".join([f'"{s.name}";r={s.remaining};t={seconds_up(s.next_token_ns)}' for s in states])),
    ]
    if not decision.allowed:
        fields.append(("Retry-After", str(seconds_up(told.retry_after_ns))))
    return fields


def header_lines(decision: Decision, now_unix_ns: int) -> bytes:
    """What `headers` says of a decision that is allowed, as lines of HTTP/1.1, in less than half the time.

    It makes no `QuotaState`; of quotas that let a request pass, the one to tell of is the one with the fewest left.
    """
    now_ns = decision.now_ns
    policies, left = [], []
    limit = fewest = owes = 0
    for quota, full_at in zip(decision.quotas, decision.full_at_ns):  # noqa: B905 - of one length by construction
        owed = full_at - now_ns
        remaining, next_token_ns = tokens(owed, quota.interval_ns, quota.capacity_ns)
        if not limit or remaining < fewest or (remaining == fewest and owed > owes):
            limit, fewest, owes = quota.limit, remaining, owed
        policies.append(quota.policy)
        left.append(f'"{quota.name}";r={remaining};t={seconds_up(next_token_ns)}')
    if not limit:
        return b""
    return (
        f"x-ratelimit-limit: {limit}\r\nx-ratelimit-remaining: {fewest}\r\n"
        f"x-ratelimit-reset: {seconds_up(now_unix_ns + owes)}\r\n"
        f"ratelimit-policy: {', '.join(policies)}\r\nratelimit: {', '.join(left)}\r\n"
    ).encode("ascii")
