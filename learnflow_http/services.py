"""Everything a running server is made of, built once in `learnflow_http.app` and handed on as an argument."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from learnflow_core.limiter import Limiter
from learnflow_core.model import Instant
from learnflow_core.ports import PaymentNewsReader, Storage
from learnflow_core.usecases.payments import Gateways
from learnflow_http.answers import Answers
from learnflow_http.auth import Authenticator, PasswordHasher, TokenSigner
from learnflow_http.exchange import BodyMemory, Network
from learnflow_http.metrics import Metrics
from learnflow_http.settings import Settings


class Services(NamedTuple):
    """What requests are answered with. `clock_ns` tells Unix time in nanoseconds; `random_bytes` is the system's
    chance. `stripe_events` is there when Stripe may post to us."""

    settings: Settings
    storage: Storage
    gateways: Gateways
    stripe_events: PaymentNewsReader | None
    answers: Answers
    limiter: Limiter
    authenticator: Authenticator
    signer: TokenSigner
    passwords: PasswordHasher
    bodies: BodyMemory
    metrics: Metrics
    trusted_proxies: tuple[Network, ...]
    clock_ns: Callable[[], int]
    random_bytes: Callable[[int], bytes]
    request_ids: Iterator[str]

    def now(self) -> Instant:
        """The present instant."""
        return self.clock_ns() // 1_000
