"""What a limiter has in hand, without a server: who gets a hand, how large its blocks are, and when they go back."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest

from learnflow_core.limiter import Decision, Quota, Refund
from learnflow_core.limiter.leases import SHARE, TERM_NS, USABLE_NS, Lease, LeasedDecision, Request
from storage_backends.valkey import hands
from storage_backends.valkey.calls import TICK_NS, RefundCall
from storage_backends.valkey.exchange import CallerHand, Exchange
from storage_backends.valkey.hands import LOOK_NS, MAX_HANDS, QUIET_LOOKS, Hands
from storage_backends.valkey.recent import MAX_SEEN, SEEN_NS
from storage_backends.valkey.store import CHUNK, Store
from tests.lease_model import ModelStore, integer
from tests.limiting import Clock

PLAN = (Quota.per_minute(1_000_000), Quota.per_day(20_000_000))
SCARCE = (Quota.per_minute(12),)
MICROSECOND = 1_000


class Desk:
    """A limiter's hands, asking the model of a store as a client would, without delay; `asked` has the requests."""

    def __init__(self, plan: Sequence[Quota] = PLAN) -> None:
        self.plan = plan
        self.clock = Clock(TERM_NS)
        self.store = Store(
            "unix:///nowhere", fallback="closed", processes=1, budget_ns=25_000_000, prefix="", max_buckets=1
        )
        self.hands = Hands(self.store, self.renew)
        self.hands.clock = self.clock
        self.asked: list[Request] = []
        self.granted: list[tuple[int, Fraction]] = []
        self.kept: dict[str, ModelStore] = {}

    def kept_of(self, key: str) -> ModelStore:
        if key not in self.kept:
            self.kept[key] = integer([quota.in_ticks_of(TICK_NS) for quota in self.plan])
        return self.kept[key]

    def exchange(self, exchange: Exchange) -> list[tuple[object, Decision]]:
        self.asked.append(exchange.request)
        kept = self.kept_of(exchange.hand.key)
        reply = kept.run(exchange.request, self.clock.now)
        self.granted.append((reply.block, min(bucket.tokens for bucket in kept.buckets) + reply.block))
        return self.hands.take_in(exchange, reply)

    def renew(self, hand: CallerHand) -> None:
        exchange = self.hands.renewal(hand)
        if exchange:
            self.exchange(exchange)

    def hit(self, key: str = "key", cost: int = 1) -> LeasedDecision | None:
        """The decision, if it was made from memory."""
        decision = self.hands.take(key, self.plan, cost)
        if decision is None:
            call = self.store.calls.hit(key, self.plan, cost)
            hand = self.hands.find(call, key, self.plan)
            if hand is None:
                self.kept_of(key).run(Request("", (), (cost,), 0, 0), self.clock.now)
                return None
            assert self.hands.wait(hand, call, None) is None
            exchange = self.hands.closing(hand)
            assert exchange
            self.exchange(exchange)
        return decision

    def hits(self, times: int, apart_ns: int = 10 * MICROSECOND) -> int:
        """How many were decided from memory."""
        leased = 0
        for _ in range(times):
            leased += self.hit() is not None
            self.clock.now += apart_ns
        return leased

    def look(self) -> None:
        for exchange in self.hands.look():
            self.exchange(exchange)
            exchange.hand.turn.release()

    def pass_time(self, duration_ns: int) -> None:
        """Time passes, and the hands are looked at as often as a client does."""
        end = self.clock.now + duration_ns
        while self.clock.now < end:
            self.clock.now = min(end, self.clock.now + LOOK_NS // 2)
            self.look()

    def outstanding(self, key: str = "key") -> int:
        """How many tokens the store has leased."""
        kept = self.kept_of(key)
        kept.run(Request("", (), (), 0, 0), self.clock.now)
        return sum(debt for debt, _ in kept.buckets[0].leases.values()) // kept.buckets[0].quota.interval_ns


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_whoever_asks_often_is_decided_from_memory_and_the_store_is_asked_ever_less(desk: Desk) -> None:
    desk.hits(1_000)
    assert desk.hits(100_000) >= 99_990
    assert len(desk.asked) < 30


def test_a_block_is_what_half_a_term_needs(desk: Desk) -> None:
    desk.hits(100_000, apart_ns=100 * MICROSECOND)
    assert 4_000 < desk.asked[-1].block <= 5_000


def test_whoever_asks_less_than_four_times_a_second_gets_no_lease(desk: Desk) -> None:
    for _ in range(50):
        desk.pass_time(260_000_000)
        desk.hit()
    assert {request.block for request in desk.asked} <= {0}
    for _ in range(50):
        desk.pass_time(240_000_000)
        desk.hit()
    assert {request.block for request in desk.asked} > {0}


def test_of_what_is_scarce_nobody_gets_a_lease() -> None:
    desk = Desk(SCARCE)
    assert desk.hits(100) == 0
    assert desk.outstanding() == 0


def test_a_lease_is_at_most_an_eighth_of_what_is_there_and_in_hand_is_at_most_a_quarter_of_one_more() -> None:
    desk = Desk((Quota.per_day(1_000),))
    for _ in range(950):
        desk.hit()
        desk.clock.now += 10 * MICROSECOND
        assert sum(lease.left for hand in desk.hands.everyone() for lease in hand.leases) <= 1_000 / 8 + 1_000 / 32
    assert len([block for block, _ in desk.granted if block]) > 5
    assert all(block <= there / SHARE for block, there in desk.granted)


def test_a_running_low_asks_once_for_the_next_block_while_the_first_goes_on(desk: Desk) -> None:
    desk.hits(500)
    asked: list[Exchange | None] = []
    desk.hands._on_low = lambda hand: asked.append(desk.hands.renewal(hand))
    [hand] = desk.hands.everyone()
    while not asked:
        assert desk.hit()
        desk.clock.now += MICROSECOND
    while hand.lease.left > 1:
        assert desk.hit()
    assert len(asked) == 1
    assert asked[0]
    assert desk.hands.renewal(hand) is None, "another thread has asked"
    desk.exchange(asked[0])
    assert desk.hits(100, apart_ns=0) == 100


def test_without_a_reply_it_is_asked_again_at_half_and_not_for_each_token(desk: Desk) -> None:
    desk.hits(5_000)
    asked: list[Exchange] = []

    def lose(hand: CallerHand) -> None:
        exchange = desk.hands.renewal(hand)
        assert exchange
        asked.append(exchange)
        desk.hands.take_in(exchange, [])

    desk.hands._on_low = lose
    [hand] = desk.hands.everyone()
    while hand.lease.left:
        assert desk.hit()
        desk.clock.now += MICROSECOND
    assert 1 < len(asked) < 15


def test_what_is_not_used_is_given_back_soon(desk: Desk) -> None:
    desk.hits(5_000)
    assert desk.outstanding() > 1_000
    desk.pass_time((QUIET_LOOKS + 2) * LOOK_NS)
    assert desk.outstanding() == 0
    assert desk.clock.now < 2 * TERM_NS
    assert len(desk.hands) == 1
    desk.pass_time((QUIET_LOOKS + 3) * LOOK_NS)
    assert len(desk.hands) == 0
    assert not desk.hands._tables
    assert not desk.hands._given


def test_what_may_not_be_used_any_more_is_given_back_before_the_store_ends_it(desk: Desk) -> None:
    desk.hits(5_000)
    [hand] = desk.hands.everyone()
    stop_ns = max(lease.stop_ns for lease in hand.leases)
    while desk.clock.now < stop_ns - LOOK_NS:  # often enough not to be idle
        desk.pass_time(LOOK_NS)
        assert desk.hit()
    assert desk.outstanding() > 1_000
    desk.pass_time(stop_ns + (TERM_NS - USABLE_NS) - 1 - desk.clock.now)
    assert desk.outstanding() == 0
    assert any(settlement.final and settlement.left > 1_000 for settlement in desk.asked[-1].settlements)


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
def test_threads_use_every_token_once_and_put_back_what_they_undo(desk: Desk) -> None:
    desk.hits(20_000)
    desk.hands._on_low = lambda hand: None
    [hand] = desk.hands.everyone()
    before = sum(lease.left for lease in hand.leases)

    def take_and_undo(times: int) -> int:
        kept = 0
        for number in range(times):
            decision = desk.hands.take("key", PLAN, 1)
            if decision and (number % 2 or not desk.hands.undo(decision)):
                kept += 1
        return kept

    with ThreadPoolExecutor(8) as threads:
        kept = sum(threads.map(take_and_undo, [before // 8] * 8))
    assert kept > before / 4
    assert sum(lease.left for lease in hand.leases) == before - kept


@pytest.mark.usefixtures("hasty")
def test_what_is_given_back_while_threads_take_is_used_by_none_of_them(desk: Desk) -> None:
    desk.hits(500)
    desk.hands._on_low = lambda hand: None
    [hand] = desk.hands.everyone()
    granted = sum(lease.left for lease in hand.leases)
    done = threading.Event()

    def take() -> int:
        taken = 0
        while not done.is_set():
            taken += desk.hands.take("key", PLAN, 1) is not None
        return taken

    back = 0
    with ThreadPoolExecutor(4) as threads:
        takers = [threads.submit(take) for _ in range(4)]
        for number in range(3_000):
            for exchange in desk.hands.give_back_all():
                back += sum(settlement.left for settlement in exchange.request.settlements)
            with desk.hands._alone:
                hand.lease = Lease(f"lease {number}", 50, desk.clock.now + USABLE_NS)
                granted += 50
        for exchange in desk.hands.give_back_all():
            back += sum(settlement.left for settlement in exchange.request.settlements)
        done.set()
        taken = sum(taker.result() for taker in takers)
    assert taken > 100
    assert taken + back == granted


def test_nothing_is_used_after_its_time(desk: Desk) -> None:
    desk.hits(5_000)
    [hand] = desk.hands.everyone()
    desk.clock.now = hand.lease.stop_ns - 1
    assert desk.hit()
    assert USABLE_NS < TERM_NS
    desk.clock.now = max(lease.stop_ns for lease in hand.leases)
    assert desk.hit() is None


def test_callers_who_come_once_leave_nothing_and_those_who_come_twice_are_bounded(desk: Desk) -> None:
    for number in range(3 * MAX_SEEN):
        desk.hands.find(desk.store.calls.hit("", PLAN, 1), f"once {number}", PLAN)
    assert len(desk.hands) == 0
    assert len(desk.hands._recent) <= 2 * MAX_SEEN
    for number in range(MAX_HANDS + 1_000):
        for _ in range(2):
            desk.hands.find(desk.store.calls.hit("", PLAN, 1), f"twice {number}", PLAN)
    assert len(desk.hands) == MAX_HANDS
    desk.pass_time((QUIET_LOOKS + 3) * LOOK_NS)
    assert len(desk.hands) == 0


def test_a_caller_who_comes_again_after_a_while_is_rare(desk: Desk) -> None:
    call = desk.store.calls.hit("", PLAN, 1)
    for _ in range(5):
        assert desk.hands.find(call, "key", PLAN) is None
        desk.clock.now += 2 * SEEN_NS
    desk.clock.now -= SEEN_NS
    assert desk.hands.find(call, "key", PLAN)


def test_all_who_wait_are_decided_in_one_request_in_their_order() -> None:
    desk = Desk((Quota.per_minute(12),))
    desk.hits(2)
    [hand] = desk.hands.everyone()
    costs = (4, 9, 5, 1, 1)
    for number, cost in enumerate(costs):
        assert desk.hands.wait(hand, desk.store.calls.hit("key", desk.plan, cost), number) is None
    exchange = desk.hands.closing(hand)
    assert exchange
    assert exchange.request.costs == costs
    told = desk.exchange(exchange)
    assert [waiter for waiter, _ in told] == [0, 1, 2, 3, 4]
    assert [decision.allowed for _, decision in told] == [True, False, True, True, False]
    assert [decision.remaining for _, decision in told] == [6, 6, 1, 0, 0]
    assert desk.hands.closing(hand) is None


def test_the_line_is_served_by_so_many_at_a_time(desk: Desk) -> None:
    desk.hits(2)
    [hand] = desk.hands.everyone()
    for number in range(CHUNK + 5):
        desk.hands.wait(hand, desk.store.calls.hit("key", PLAN, 1), number)
    exchange = desk.hands.closing(hand)
    assert exchange
    assert len(exchange.request.costs) == CHUNK
    assert len(hand.waiting) == 5


def test_those_who_wait_behind_a_request_are_served_from_the_block_it_brings(desk: Desk) -> None:
    desk.hits(50)
    [hand] = desk.hands.everyone()
    call = desk.store.calls.hit("key", PLAN, 1)
    while desk.hands.wait(hand, call, "first"):
        pass
    exchange = desk.hands.closing(hand)
    assert exchange
    assert desk.hands.wait(hand, call, "behind") is None
    told = dict(desk.exchange(exchange))
    assert isinstance(told["behind"], LeasedDecision)
    assert not hand.waiting


def test_a_decision_is_undone_once_and_by_nobody_else(desk: Desk) -> None:
    desk.hits(500)
    [hand] = desk.hands.everyone()
    left = hand.lease.left
    decision = desk.hit()
    assert decision
    assert isinstance(Desk().hands.undo(decision), Refund)
    assert hand.lease.left == left - 1
    undone = [desk.hands.undo(decision) for _ in range(2)]
    assert [bool(one) for one in undone] == [True, False]
    assert hand.lease.left == left


def test_what_was_given_back_is_refunded_by_the_store(desk: Desk) -> None:
    desk.hits(500)
    decision = desk.hit()
    assert decision
    for back in desk.hands.give_back_all():
        desk.exchange(back)
    assert isinstance(desk.hands.undo(decision), RefundCall)
    refused = desk.hands.undo(decision)
    assert isinstance(refused, Refund)
    assert not refused


def test_a_fork_has_nothing_in_hand_no_name_of_its_parents_and_refunds_none_of_its_decisions(desk: Desk) -> None:
    desk.hits(500)
    decision = desk.hit()
    assert decision
    desk.hands._free.clear()  # another thread of the parent was deciding
    desk.hands.begin_anew()
    assert desk.hit() is None
    assert not isinstance(desk.hands.undo(decision), RefundCall)
    desk.hits(500)
    names = {request.lease.partition(".")[0] for request in desk.asked}
    assert len(names) == 2
    assert len({request.lease for request in desk.asked}) == len(desk.asked)


def test_an_equal_plan_has_the_same_hand_whatever_it_is_given_as(desk: Desk) -> None:
    desk.hits(500)
    for plan in ((*PLAN,), [*PLAN]):
        assert desk.hands.take("key", plan, 1) is None
        hand = desk.hands.find(desk.store.calls.hit("key", plan, 1), "key", plan)
        assert hand is desk.hands.everyone()[0]
        assert bool(desk.hands.take("key", plan, 1)) is isinstance(plan, tuple), "what can change is checked each time"


def test_two_plans_of_one_caller_have_hands_of_their_own_and_the_other_can_be_given_back(desk: Desk) -> None:
    desk.hits(500)
    [first] = desk.hands.everyone()
    call = desk.store.calls.hit("key", SCARCE, 1)
    hand = desk.hands.find(call, "key", SCARCE)
    assert hand is not None
    assert desk.hands.find(call, "key", SCARCE) is hand
    assert desk.hands.take("key", SCARCE, 1) is None
    assert desk.hit(), "who turns back to the first plan finds its hand"
    assert desk.hands.give_back("key", but=first) == []
    assert [back.hand for back in desk.hands.give_back("key", but=hand)] == [first]
    assert desk.hands.give_back("another") == []


@pytest.mark.parametrize("cost", [0, -1, True, 1.0, "1", None, 2_000_000])
def test_nonsense_is_not_decided_from_memory(desk: Desk, cost: int) -> None:
    desk.hits(500)
    assert desk.hands.take("key", PLAN, cost) is None


def test_a_peek_takes_nothing_and_cannot_be_refunded(desk: Desk) -> None:
    desk.hits(500)
    call = desk.store.calls.peek("key", PLAN, 3)
    seen = desk.hands.peek(call, "key")
    assert seen
    assert not desk.hands.undo(seen)
    again = desk.hands.peek(call, "key")
    assert again
    assert seen.remaining == again.remaining
    assert desk.hands.peek(call, "another") is None
    assert desk.hands.peek(desk.store.calls.peek("key", PLAN, 900_000), "key") is None


def test_the_figures_of_a_decision_are_those_of_a_peek_behind_it(desk: Desk) -> None:
    call = desk.store.calls.peek("key", PLAN, 1)
    aside = 0
    for _ in range(20_000):
        decision = desk.hit()
        seen = desk.hands.peek(call, "key")
        if decision and seen and decision.shared is seen.shared:
            assert decision.full_at_ns == seen.full_at_ns
            aside += desk.hands.everyone()[0].aside > 0
        desk.clock.now += 10 * MICROSECOND
    assert aside > 100


def test_decisions_from_memory_are_counted(desk: Desk) -> None:
    leased = desk.hits(1_000)
    desk.hands.peek(desk.store.calls.peek("key", PLAN, 1), "key")
    assert desk.store.counts.by_lease == leased


def test_the_clock_goes_on_and_never_back() -> None:
    readings = [hands.boot_clock() for _ in range(100)]
    assert readings == sorted(readings)
