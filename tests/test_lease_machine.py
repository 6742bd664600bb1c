"""A state machine in which everything goes wrong that can: no more passes than promised, and the store is as the model.

Whoever has a store that decides by leases runs it against the same adversary, by a subclass of `Adversary`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from fractions import Fraction

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from learnflow_core.limiter import Quota
from learnflow_core.limiter.leases import TERM_NS, USABLE_NS, Request
from tests.lease_model import Buckets, Holder, LocalClock, Message, Pass, World, classic, integer

TICK = 1_000
RATES = [Fraction(7, 8), Fraction(999, 1000), Fraction(1), Fraction(4, 3)]


def plans() -> st.SearchStrategy[tuple[Quota, ...]]:
    """Periods from far below a lease's term to far above it; a tick is that of a shared store."""

    def quota_named(name: str) -> st.SearchStrategy[Quota]:
        return st.integers(1, 20).flatmap(
            lambda limit: st.builds(
                Quota,
                st.just(name),
                st.just(limit),
                st.sampled_from([100_000_000, 999_999_999, TERM_NS, 7 * TERM_NS, 60 * TERM_NS]),
                st.none() | st.integers(1, limit),
                st.just(TICK),
            )
        )

    return st.tuples(quota_named("minute")) | st.tuples(quota_named("minute"), quota_named("day"))


class Adversary(RuleBasedStateMachine):
    """Three processes, one store; requests and replies are late, lost and doubled, and everyone takes what there is."""

    requests = Bundle("requests")
    replies = Bundle("replies")
    passes = Bundle("passes")

    def new_store(self, plan: Sequence[Quota]) -> Buckets:
        return integer(plan)

    @initialize(plan=plans(), rates=st.tuples(*[st.sampled_from(RATES)] * 3), steady=st.booleans())
    def start(self, plan: tuple[Quota, ...], rates: tuple[Fraction, ...], steady: bool) -> None:
        self.steady = steady
        self.reference = classic(plan)
        self.could_ever_pass: dict[str, int] = {}
        self.world = World(plan, self.new_store(plan))
        for name, rate in zip("abc", rates, strict=True):
            self.world.holder(Holder(name, LocalClock(rate)))

    @rule(
        wait=st.sampled_from([TICK, USABLE_NS - TICK, USABLE_NS, TERM_NS - USABLE_NS, TERM_NS])
        | st.integers(0, 2 * TERM_NS // TICK).map(TICK.__mul__)
    )
    def time_passes(self, wait: int) -> None:
        self.world.now += wait

    @rule(tokens=st.integers(1, 20))
    def as_much_time_passes_as_so_many_tokens_are_worth(self, tokens: int) -> None:
        self.world.now += tokens * self.world.plan[0].interval_ns

    @rule(before=st.sampled_from([TERM_NS - USABLE_NS, TICK, 0, -TICK]), spend=st.booleans())
    def time_passes_until_a_lease_is_near_its_end(self, before: int, spend: bool) -> None:
        ends = [end - self.world.step for _, end in self.reference.buckets[0].leases.values()]
        self.world.now = max(self.world.now, min(ends, default=0) - before)
        if spend:
            for who in range(len(self.world.holders)):
                self.spend_everything(who)

    @rule(
        who=st.integers(0, 2),
        costs=st.lists(st.integers(1, 4), max_size=3).map(tuple),
        block=st.integers(0, 20),
        close=st.booleans(),
        target=requests,
    )
    def ask(self, who: int, costs: tuple[int, ...], block: int, close: bool) -> Message:
        return self.world.ask(self.world.holders[who], costs, block, close=close)

    @rule(who=st.integers(0, 2), target=requests)
    def give_back(self, who: int) -> Message:
        return self.world.give_back(self.world.holders[who])

    @rule(request=requests, target=replies)
    def a_request_arrives_for_the_first_time_or_again(self, request: Message) -> Message:
        reply = self.world.arrive(request)
        meant = self.reference.run(request.request, self.world.now + self.world.step)
        # Whoever looks at the clock but does not write cannot see each of its steps.
        assert reply.reply == meant or not self.steady
        return reply

    @rule(reply=consumes(replies))
    def a_reply_lands(self, reply: Message) -> None:
        self.world.land(reply)

    @rule(
        who=st.integers(0, 2),
        costs=st.lists(st.integers(1, 4), max_size=3).map(tuple),
        block=st.integers(0, 20),
        close=st.booleans(),
    )
    def exchange(self, who: int, costs: tuple[int, ...], block: int, close: bool) -> None:
        request = self.ask(who, costs, block, close)
        self.a_reply_lands(self.a_request_arrives_for_the_first_time_or_again(request))

    @rule(who=st.integers(0, 2), cost=st.integers(1, 4), target=passes)
    def spend(self, who: int, cost: int) -> object:
        return self.world.history[-1] if self.world.spend(self.world.holders[who], cost) else multiple()

    @rule(who=st.integers(0, 2))
    def spend_everything(self, who: int) -> None:
        while self.world.spend(self.world.holders[who]):
            pass

    @rule(who=st.integers(0, 2), made=consumes(passes))
    def undo(self, who: int, made: Pass) -> None:
        self.world.undo(self.world.holders[who], made)

    @rule(who=st.integers(0, 2))
    def crash(self, who: int) -> None:
        dead = self.world.holders[who]
        self.world.holders[who] = Holder(f"{dead.name}'", dead.clock)

    @precondition(lambda self: not self.steady)
    @rule()
    def the_store_is_restarted_empty(self) -> None:
        self.world.flush()
        self.reference.flush()

    @precondition(lambda self: not self.steady)
    @rule(step=st.sampled_from([-TERM_NS, TERM_NS]) | st.integers(-(10**7), 10**7).map(TICK.__mul__))
    def the_clock_of_the_store_steps(self, step: int) -> None:
        self.world.step_clock(step)

    @rule()
    def everyone_takes_what_there_is(self) -> None:
        for who in range(len(self.world.holders)):
            self.spend_everything(who)
        self.exchange(0, (1,) * 20, 0, close=False)

    @invariant()
    def the_promise_is_kept(self) -> None:
        assert self.world.keeps_the_promise()

    @precondition(lambda self: self.steady)
    @invariant()
    def what_may_be_used_is_of_leases_that_stand(self) -> None:
        settled = copy.deepcopy(self.reference)
        settled.run(Request("", (), (), 0, 0), self.world.now)
        for name, tokens in self.world.usable().items():
            assert all(tokens <= bucket.leases.get(name, (0, 0))[0] for bucket in settled.buckets)

    @precondition(lambda self: self.steady)
    @invariant()
    def what_could_pass_at_once_is_no_more_than_full_buckets_and_grows_by_refilling_only(self) -> None:
        settled = copy.deepcopy(self.reference)
        settled.run(Request("", (), (), 0, 0), self.world.now)
        passed = sum(made.cost for made in self.world.history if isinstance(made, Pass))
        for bucket in settled.buckets:
            unused = sum(self.world.unused(name) for name in bucket.leases)
            could_pass = int((bucket.tokens + unused) * bucket.quota.interval_ns)
            assert could_pass <= bucket.quota.capacity_ns
            ever = could_pass + passed * bucket.quota.interval_ns - self.world.now
            assert ever <= self.could_ever_pass.get(bucket.quota.name, ever)
            self.could_ever_pass[bucket.quota.name] = ever


TestModelStore = Adversary.TestCase
