"""A state machine: whatever is called in whatever order, a limiter agrees with plain token buckets."""

from __future__ import annotations

from collections.abc import Sized
from fractions import Fraction

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from learnflow_core.limiter import Decision, Quota
from tests.limiting import (
    EVERY_LIMITER,
    ClassicBucket,
    Clock,
    new_limiter,
    quota_named,
    quotas,
    tick,
)

pytestmark = EVERY_LIMITER

KEYS = ("a", "b", "c")


class LimiterAgainstClassicBuckets(RuleBasedStateMachine):
    """Three keys under two quotas; every call is made to the limiter and, in its own terms, to the buckets."""

    taken = Bundle("taken")

    @initialize(minute=quotas, day=quota_named("day"))
    def start(self, minute: Quota, day: Quota) -> None:
        self.plans = [(minute, day), (minute,), (day,)]
        self.clock = Clock()
        self.limiter = new_limiter(self.clock)
        self.buckets = {(key, quota.name): ClassicBucket(quota) for key in KEYS for quota in (minute, day)}
        self.resets = dict.fromkeys(KEYS, 0)

    @rule(wait=st.sampled_from([0, 1, 7, 10**9, 10**11]) | st.integers(0, 500))
    def time_passes(self, wait: int) -> None:
        self.clock.now += wait * tick()
        for bucket in self.buckets.values():
            bucket.refill(self.clock.now)

    @rule(key=st.sampled_from(KEYS), which=st.integers(0, 2), share=st.integers(1, 12), target=taken)
    def hit(self, key: str, which: int, share: int) -> object:
        plan = self.plans[which]
        cost = min(share, *(quota.burst for quota in plan))
        buckets = [self.buckets[key, quota.name] for quota in plan]
        decision = self.limiter.hit(key, plan, cost)
        assert decision.allowed is all(bucket.tokens >= cost for bucket in buckets)
        if not decision.allowed:
            assert decision.retry_after_ns == max(bucket.missing_ns(cost) for bucket in buckets)
            return multiple()
        for bucket in buckets:
            bucket.tokens -= cost
        return decision, self.resets.copy()

    @rule(made=taken)
    def refund(self, made: tuple[Decision, dict[str, int]]) -> None:
        """A reset of the key ends its refunds; that of another key may, since a limiter need not tell them apart."""
        decision, resets = made
        refundable = decision.receipt is not None and resets[decision.key] == self.resets[decision.key]
        refunded = bool(self.limiter.refund(decision))
        assert refunded is refundable or (resets != self.resets and not refunded)
        if refunded:
            for quota in decision.quotas:
                flowed_back = Fraction(self.clock.now - decision.now_ns, quota.interval_ns)
                bucket = self.buckets[decision.key, quota.name]
                bucket.tokens += max(Fraction(0), decision.cost - flowed_back)
                bucket.refill(self.clock.now)

    @rule(key=st.sampled_from(KEYS), which=st.integers(0, 2))
    def reset(self, key: str, which: int) -> None:
        self.limiter.reset(key, self.plans[which])
        self.resets[key] += 1
        for quota in self.plans[which]:
            self.buckets[key, quota.name].tokens = Fraction(quota.burst)

    @invariant()
    def they_agree_on_every_key(self) -> None:
        for key in KEYS:
            for state in self.limiter.peek(key, self.plans[0]).states:
                bucket = self.buckets[key, state.name]
                assert state.remaining == int(bucket.tokens)
                assert state.reset_after_ns == bucket.missing_ns(bucket.quota.burst)
                assert state.next_token_ns == (state.remaining + 1 - bucket.tokens) * bucket.quota.interval_ns

    @invariant()
    def it_keeps_no_more_buckets_than_there_are(self) -> None:
        if isinstance(self.limiter, Sized):
            assert len(self.limiter) <= len(self.buckets)
        assert getattr(self.limiter, "overflow_hits", 0) == 0


def test_whatever_is_called_in_whatever_order_a_limiter_agrees_with_plain_token_buckets() -> None:
    run_state_machine_as_test(LimiterAgainstClassicBuckets)
