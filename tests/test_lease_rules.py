"""Every rule of leases is needed: with all of them an adversary's schedule keeps the promise, without one it breaks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from fractions import Fraction

import pytest

from learnflow_core.limiter import Quota
from learnflow_core.limiter.leases import TERM_NS, Hand, Lease, Reply, Request
from tests.lease_model import Holder, IntegerRules, LocalClock, World, classic, integer

TEN = (Quota.per_second(10),)
TENTH = TERM_NS // 10
STOP = TERM_NS * 7 // 8
"""How long a holder may use a lease, as docs/leases.md has it."""

Schedule = Callable[[World, Holder], None]


def idle_then_burst(world: World, holder: Holder) -> None:
    world.exchange(holder, block=5)
    world.now += 6 * TENTH
    world.drain()


def idle_then_report(world: World, holder: Holder) -> None:
    world.exchange(holder, block=5)
    world.now += 6 * TENTH
    while world.spend(holder):
        pass
    world.exchange(holder)
    world.drain()


def use_just_before_the_end(world: World, holder: Holder) -> None:
    world.exchange(holder, block=5)
    world.now += STOP - 1
    while world.spend(holder):
        pass
    world.now += TERM_NS - STOP + 1
    world.drain()


def two_ends_far_apart(world: World, holder: Holder) -> None:
    world.exchange(holder, block=5)
    world.now += 9 * TENTH
    world.exchange(holder, block=5)
    world.now += STOP - 1
    while world.spend(holder):
        pass
    world.now += TERM_NS - STOP + 1
    world.drain()


def give_back_on_a_slow_way(world: World, holder: Holder) -> None:
    world.exchange(holder, block=5)
    way_back = world.ask(holder, close=True)
    world.arrive(way_back)
    world.drain()


def give_back_twice(world: World, holder: Holder) -> None:
    world.exchange(holder, costs=(5,), block=5)
    way_back = world.ask(holder, close=True)
    world.arrive(way_back)
    world.arrive(way_back)
    world.drain()


def long_under_way(world: World, holder: Holder) -> None:
    reply = world.arrive(world.ask(holder, block=5))
    world.now += 8 * TENTH
    world.land(reply)
    world.now += STOP - 1
    world.drain()


def use_after_the_end_by_a_slow_clock(world: World, holder: Holder) -> None:
    world.exchange(holder, block=5)
    world.now += TERM_NS + TENTH
    world.drain()


def use_after_a_sleep(world: World, holder: Holder) -> None:
    world.exchange(holder, block=5)
    world.sleep(16 * TENTH)
    world.drain()


def undo_what_was_told(world: World, holder: Holder) -> None:
    world.exchange(holder, block=5)
    world.spend(holder, 5)
    [made] = world.history
    world.exchange(holder)
    world.undo(holder, made)
    world.now += 5 * TENTH
    world.drain()


def two_of_one_name(world: World, holder: Holder) -> None:
    world.exchange(holder, block=5)
    way_back = world.ask(holder, close=True)
    world.now += 2 * TERM_NS
    world.exchange(world.holder(Holder(holder.name)), block=5)
    world.arrive(way_back)
    world.drain()


def lease_twice(world: World, holder: Holder) -> None:
    world.exchange(holder, costs=(3,))
    request = world.ask(holder, block=5)
    world.land(world.arrive(request))
    world.arrive(request)
    world.now += 8 * TENTH
    world.drain()


def fork(world: World, holder: Holder) -> None:
    world.exchange(holder, block=5)
    world.holder(Holder("child", holder.clock))
    world.drain()


SCHEDULES: list[Schedule] = [
    idle_then_burst,
    idle_then_report,
    use_just_before_the_end,
    two_ends_far_apart,
    give_back_on_a_slow_way,
    give_back_twice,
    long_under_way,
    use_after_the_end_by_a_slow_clock,
    use_after_a_sleep,
    undo_what_was_told,
    lease_twice,
    fork,
]


@pytest.mark.parametrize("rate", [Fraction(7, 8), Fraction(1), Fraction(2)])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_with_all_rules_the_promise_is_kept(schedule: Schedule, rate: Fraction) -> None:
    for new_store in (integer, classic):
        world = World(TEN, new_store(TEN))
        schedule(world, world.holder(Holder("a", LocalClock(rate, began=7))))
        assert world.keeps_the_promise()


@pytest.mark.parametrize(
    ("rules", "schedule"),
    [
        (IntegerRules(floor=False), idle_then_burst),
        (IntegerRules(floor_before_a_report=False), idle_then_report),
        (IntegerRules(floor_at_the_end=False), use_just_before_the_end),
        (IntegerRules(floor_for_each_end=False), two_ends_far_apart),
        (IntegerRules(only_known_leases=False), give_back_twice),
        (IntegerRules(one_lease_of_a_name=False), lease_twice),
    ],
)
def test_a_store_that_leaves_a_rule_out_breaks_the_promise(rules: IntegerRules, schedule: Schedule) -> None:
    world = World(TEN, integer(TEN, rules))
    schedule(world, world.holder(Holder("a")))
    assert not world.keeps_the_promise()


class StopsLate(Hand):
    """Counts the term from the reply's arrival."""

    def receive(self, quotas: Sequence[Quota], request: Request, reply: Reply, now_ns: int) -> None:
        super().receive(quotas, request._replace(asked_ns=now_ns), reply, now_ns)


class StopsWithTheStore(Hand):
    """Uses a lease for the whole term."""

    def receive(self, quotas: Sequence[Quota], request: Request, reply: Reply, now_ns: int) -> None:
        super().receive(quotas, request._replace(asked_ns=request.asked_ns + TERM_NS - STOP), reply, now_ns)


class GivesBackAndKeeps(Hand):
    """Goes on using what is on its way back."""

    def closing(self, lease_id: str, costs: tuple[int, ...], block: int, now_ns: int) -> Request:
        kept = Lease(self.lease.id, self.lease.left, self.lease.stop_ns)
        request = super().closing(lease_id, costs, block, now_ns)
        self.lease = kept
        return request


class ForgetsWhatItTold(Hand):
    """Undoes decisions that the store has heard of."""

    def renewal(self, lease_id: str, block: int, now_ns: int) -> Request:
        told = self.lease.told
        request = super().renewal(lease_id, block, now_ns)
        self.lease.told = told
        return request


SLOW = LocalClock(Fraction(7, 8))
STANDS_IN_SLEEP = LocalClock(stands_in_sleep=True)


@pytest.mark.parametrize(
    ("hand", "clock", "schedule"),
    [
        (StopsLate, LocalClock(), long_under_way),
        (StopsWithTheStore, SLOW, use_after_the_end_by_a_slow_clock),
        (Hand, STANDS_IN_SLEEP, use_after_a_sleep),
        (GivesBackAndKeeps, LocalClock(), give_back_on_a_slow_way),
        (ForgetsWhatItTold, LocalClock(), undo_what_was_told),
        (Hand, LocalClock(), two_of_one_name),
    ],
)
def test_a_holder_that_leaves_a_rule_out_breaks_the_promise(
    hand: type[Hand], clock: LocalClock, schedule: Schedule
) -> None:
    world = World(TEN, integer(TEN))
    schedule(world, world.holder(Holder("a", clock, hand())))
    assert not world.keeps_the_promise()


def test_a_fork_that_keeps_its_leases_breaks_the_promise() -> None:
    world = World(TEN, integer(TEN))
    parent = world.holder(Holder("a"))
    world.exchange(parent, block=5)
    world.holder(Holder("child", parent.clock, copy.deepcopy(parent.hand)))
    world.drain()
    assert not world.keeps_the_promise()


def test_ends_out_of_order_only_take_too_much() -> None:
    passed = []
    for rules in (IntegerRules(), IntegerRules(ends_in_order=False)):
        world = World(TEN, integer(TEN, rules))
        holder = world.holder(Holder("a"))
        two_ends_far_apart(world, holder)
        assert world.keeps_the_promise()
        passed.append(len(world.history))
    in_order, out_of_order = passed
    assert out_of_order < in_order
