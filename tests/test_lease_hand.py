"""What a process has in hand, step by step: what is used, what is told to the store, and what is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from learnflow_core.limiter import Quota
from learnflow_core.limiter.leases import (
    LEAST,
    SHARE,
    TERM_NS,
    USABLE_NS,
    Hand,
    Lease,
    LeasedDecision,
    Reply,
    Request,
    Settlement,
    Shared,
    block_for,
)

PLAN = (Quota.per_second(10), Quota.per_minute(300))
TENTH = TERM_NS // 10


def reply_to(
    request: Request,
    *,
    now_ns: int = 0,
    block: int = 0,
    known: Sequence[bool] | None = None,
    allowed: Sequence[bool] | None = None,
    full_at_ns: Sequence[int] = (0, 0),
    era: float = 0.0,
) -> Reply:
    known = [True] * len(request.settlements) if known is None else known
    allowed = [True] * len(request.costs) if allowed is None else allowed
    return Reply(now_ns, full_at_ns, known, allowed, block, era)


def leased(hand: Hand, name: str, block: int, asked_ns: int = 0) -> None:
    """Have a hand lease a block, asked for and answered in the same instant."""
    request = hand.renewal(name, block, asked_ns)
    hand.receive(PLAN, request, reply_to(request, now_ns=asked_ns, block=block), asked_ns)


class TestABlock:
    @pytest.mark.parametrize(
        ("used", "elapsed_ns", "block"),
        [
            (100, TERM_NS, 50),  # what half a term needs at that pace
            (100, TERM_NS // 2, 100),
            (10, 1, 40),  # and at most four times what was used
            (10, 0, 40),
            (LEAST * 2, TERM_NS, LEAST),
            (LEAST * 2 - 1, TERM_NS, 0),  # below the least it is none
            (0, 1, 0),
        ],
    )
    def test_is_for_half_a_term_at_the_pace_of_late(self, used: int, elapsed_ns: int, block: int) -> None:
        assert block_for(used, elapsed_ns) == block


class TestALease:
    def test_tells_what_is_left_and_gives_it_back_once(self) -> None:
        lease = Lease("a", 8, TERM_NS)
        assert (lease.left, lease.told, lease.marked, lease.low) == (8, 8, 8, 2)
        lease.left = 5
        assert lease.report() == Settlement("a", 5, final=False)
        assert (lease.left, lease.told) == (5, 5)
        assert lease.close() == Settlement("a", 5, final=True)
        assert (lease.left, lease.told, lease.marked) == (0, 0, 0)

    def test_takes_back_what_the_store_takes_to_be_in_hand(self) -> None:
        lease = Lease("a", 8, TERM_NS)
        lease.left = 5
        assert not lease.undo(4, 0)
        assert lease.left == 5
        assert lease.undo(3, TERM_NS - 1)
        assert lease.left == 8

    def test_takes_nothing_back_once_it_may_not_be_used(self) -> None:
        lease = Lease("a", 8, TERM_NS)
        lease.left = 5
        assert not lease.undo(1, TERM_NS)
        assert lease.left == 5


class TestAHand:
    def test_is_empty_at_first(self) -> None:
        hand = Hand()
        assert not hand.spend(1, 0)
        assert not hand.has(1, 0)
        assert (hand.leases, hand.aside) == ([], 0)
        assert hand.shared.levels((), 0, 0) == []
        assert (hand.shared.ahead_ns, hand.shared.outstanding, hand.shared.era) == (0, 0, 0.0)

    def test_uses_a_lease_to_the_last_token_and_to_the_last_instant(self) -> None:
        hand = Hand()
        leased(hand, "a", 3)
        assert hand.lease.stop_ns == USABLE_NS
        assert (hand.has(3, USABLE_NS - 1), hand.has(4, 0), hand.has(1, USABLE_NS)) == (True, False, False)
        assert [hand.spend(2, 0), hand.spend(2, 0), hand.spend(1, USABLE_NS - 1)] == [True, False, True]
        leased(hand, "b", 3)
        assert not hand.spend(1, USABLE_NS)

    def test_uses_one_lease_after_the_other(self) -> None:
        hand = Hand()
        leased(hand, "a", 3)
        leased(hand, "b", 4, asked_ns=TENTH)
        assert ([lease.id for lease in hand.leases], hand.aside) == (["a", "b"], 4)
        assert hand.has(4, 0)
        assert hand.spend(2, TENTH)
        assert hand.spend(4, TENTH)
        assert ([lease.id for lease in hand.leases], hand.aside) == (["b"], 0)
        closing = hand.closing("c", (2,), 5, 2 * TENTH)
        assert closing == Request("c", (Settlement("a", 1, True), Settlement("b", 0, True)), (2,), 5, 2 * TENTH, SHARE)
        assert (hand.leases, hand.aside) == ([], 0)

    def test_goes_on_being_used_while_another_block_is_asked_for(self) -> None:
        hand = Hand()
        leased(hand, "a", 8)
        hand.spend(5, 0)
        request = hand.renewal("b", 6, TENTH)
        assert request == Request("b", (Settlement("a", 3, False),), (), 6, TENTH)
        assert hand.lease.low == -1
        assert hand.spend(1, TENTH)
        hand.receive(PLAN, request, reply_to(request, now_ns=TENTH, block=6), 2 * TENTH)
        assert [(lease.id, lease.left) for lease in hand.leases] == [("a", 2), ("b", 6)]
        assert hand.leases[1].stop_ns == TENTH + USABLE_NS

    def test_asks_again_when_half_is_used_of_what_is_left_after_a_block_that_did_not_come(self) -> None:
        hand = Hand()
        leased(hand, "a", 9)
        request = hand.renewal("b", 6, TENTH)
        hand.receive(PLAN, request, reply_to(request, now_ns=TENTH), TENTH)
        assert hand.lease.low == 4
        assert [lease.id for lease in hand.leases] == ["a"]

    def test_does_not_take_in_a_block_that_came_too_late(self) -> None:
        hand = Hand()
        request = hand.renewal("a", 6, 0)
        hand.receive(PLAN, request, reply_to(request, block=6), USABLE_NS)
        assert hand.leases == []
        request = hand.renewal("a", 6, 0)
        hand.receive(PLAN, request, reply_to(request, block=6), USABLE_NS - 1)
        assert [lease.id for lease in hand.leases] == ["a"]

    def test_gives_back_what_may_not_be_used_any_more_and_keeps_the_rest(self) -> None:
        hand = Hand()
        leased(hand, "a", 3)
        leased(hand, "b", 4, asked_ns=TENTH)
        leased(hand, "c", 5, asked_ns=2 * TENTH)
        assert hand.giving_back("-", USABLE_NS - 1).settlements == ()
        assert hand.giving_back("-", USABLE_NS) == Request("-", (Settlement("a", 3, True),), (), 0, USABLE_NS)
        assert ([lease.id for lease in hand.leases], hand.aside) == (["b", "c"], 9)
        assert hand.giving_back("-", USABLE_NS + TENTH).settlements == (Settlement("b", 4, True),)
        assert ([lease.id for lease in hand.leases], hand.aside) == (["c"], 5)

    def test_gives_back_with_them_what_was_left_of_those_that_were_used_before(self) -> None:
        hand = Hand()
        leased(hand, "a", 3)
        leased(hand, "b", 4, asked_ns=TENTH)
        assert hand.spend(4, TENTH)
        assert hand.giving_back("-", TENTH).settlements == (Settlement("a", 3, True),)
        assert hand.giving_back("-", TENTH).settlements == ()

    def test_lets_go_of_what_the_store_has_nothing_of(self) -> None:
        hand = Hand()
        leased(hand, "a", 3)
        leased(hand, "b", 4)
        request = hand.renewal("c", 0, TENTH)
        hand.receive(PLAN, request, reply_to(request, known=[False, True]), TENTH)
        assert [(lease.id, lease.left) for lease in hand.leases] == [("a", 0), ("b", 4)]
        request = hand.renewal("d", 0, TENTH)
        hand.receive(PLAN, request, reply_to(request, known=[True, False]), TENTH)
        assert (hand.has(1, TENTH), hand.aside) == (False, 0)

    def test_measures_what_passed_with_and_without_a_lease_since_it_was_last_asked(self) -> None:
        hand = Hand()
        assert hand.pace(5) == (0, 0)
        leased(hand, "a", 8)
        hand.spend(3, 0)
        hand.count(4)
        assert hand.pace(12) == (7, 7)
        hand.spend(2, 0)
        request = hand.closing("b", (2, 1), 0, 0)
        hand.receive(PLAN, request, reply_to(request, allowed=[True, False]), 0)
        assert hand.pace(20) == (4, 8)
        assert hand.pace(21) == (0, 1)

    def test_counts_what_is_used_of_leases_that_are_ended_and_not_what_they_give_back(self) -> None:
        hand = Hand()
        leased(hand, "a", 3)
        leased(hand, "b", 4)
        hand.pace(0)
        hand.spend(1, 0)
        hand.spend(4, 0)
        hand.renewal("c", 0, 0)
        assert hand.pace(1) == (5, 1)

    def test_shows_the_buckets_as_the_store_left_them_with_what_was_taken(self) -> None:
        hand = Hand()
        request = hand.closing("a", (2, 3), 4, 100)
        hand.receive(
            PLAN,
            request,
            reply_to(request, now_ns=1_000, block=4, allowed=[True, False], full_at_ns=(5, 7), era=2.0),
            300,
        )
        shared, (second, minute) = hand.shared, PLAN
        assert (shared.ahead_ns, shared.outstanding, shared.era) == (700, 4, 2.0)
        assert shared.full_at_ns == [5 + 6 * second.interval_ns, 7 + 6 * minute.interval_ns]


class TestLevels:
    def test_are_the_stores_less_what_is_in_hand(self) -> None:
        second, minute = PLAN
        shared = Shared(0, [10 * second.interval_ns, 20 * minute.interval_ns], 3, 0.0)
        assert shared.levels(PLAN, 0, 2) == [8 * second.interval_ns, 18 * minute.interval_ns]

    def test_are_never_below_the_floor_of_what_was_outstanding(self) -> None:
        second, minute = PLAN
        shared = Shared(0, [second.interval_ns, minute.interval_ns], 3, 0.0)
        assert shared.levels(PLAN, 50, 2) == [50 + second.interval_ns, 50 + minute.interval_ns]


def test_a_decision_from_memory_shows_the_shared_buckets_by_the_clock_of_the_store_in_its_ticks() -> None:
    quota = Quota.per_second(10).in_ticks_of(1_000)
    decision = LeasedDecision()
    decision.key, decision.quotas, decision.cost, decision.receipt = "key", (quota,), 1, None
    decision.clock_ns, decision.in_hand = 1_234, 2
    decision.shared = Shared(5_678, [5 * quota.interval_ns], 3, 7.0)
    assert (decision.allowed, decision.now_ns, decision.era) == (True, 6_000, 7.0)
    assert decision.full_at_ns == [3 * quota.interval_ns]
