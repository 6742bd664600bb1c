"""How a payment service can misbehave: what is done of a request before something goes wrong, and what then does."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

How = Literal["silent", "reset", "status", "garbage", "slow"]


@dataclass(frozen=True)
class Fault:
    """`done`: the request is carried out before it goes wrong, or `later`, when the client has gone. `status` is the
    reply's; `stored` says that it stands under the idempotency key from then on, as Stripe has it of its own 500s."""

    how: How
    done: Literal["before", "never", "later"]
    status: int = 0
    stored: bool = False


FAULTS = MappingProxyType(
    {
        "times out after charging": Fault("silent", "before"),
        "times out before charging": Fault("silent", "never"),
        "charges after the time is out": Fault("silent", "later"),
        "500 after charging, for good": Fault("status", "before", 500, stored=True),
        "500 before charging, for good": Fault("status", "never", 500, stored=True),
        "503 after charging": Fault("status", "before", 503),
        "502 before charging": Fault("status", "never", 502),
        "reset after charging": Fault("reset", "before"),
        "reset before charging": Fault("reset", "never"),
        "too many requests": Fault("status", "never", 429),
        "the same key in use": Fault("status", "never", 409),
        "malformed JSON after charging": Fault("garbage", "before"),
        "a slow answer": Fault("slow", "before"),
    }
)
"""What can go wrong with a request, by name."""
