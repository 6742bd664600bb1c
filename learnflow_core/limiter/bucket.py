"""The arithmetic of one bucket, as pure functions over integers: the only place where it is written.

A token bucket is kept as one integer, `full_at`: the instant at which it is full again (the generic cell rate
algorithm of ITU-T I.371, in its virtual-scheduling form). A token is worth an `interval` of time and a full bucket
its `capacity`; taking tokens moves `full_at` ahead by their `debt`, and time passing pays it back. What a bucket
owes, `owed`, is the time from now to `full_at`.

Every argument is a whole number of one unit, the tick of the store that asks (1 ns in memory), so nothing is ever
rounded here, and an instant that is told is the true one.
"""

from __future__ import annotations


def take(full_at: int, now: int, debt: int, capacity: int) -> int | None:
    """The bucket after `debt` was taken at `now`, or None when it holds less than that; then it stays as it is."""
    after = (full_at if full_at > now else now) + debt  # noqa: FURB136 - max() would double the price
    return after if after - now <= capacity else None


def settled(full_at: int, now: int, longest: int) -> int:
    """The same bucket, brought to where it can be at `now`: full, or owing at most `longest`.

    `longest` is of the bucket, which plans share: the greatest `longest_ns` of those that take from it. By the plan
    that asks alone, another one's honest debt would be cut. One that owes more has seen its clock step back. It owes
    `longest` from now on: that grants nothing, and no one waits longer than one filling.
    """
    if full_at < now:
        return now
    latest = now + longest
    return full_at if full_at < latest else latest  # noqa: FURB136 - as in take()


def tokens(owed: int, interval: int, capacity: int) -> tuple[int, int]:
    """How many whole tokens a settled bucket has, and how long until it has (or could have had) one more.

    None as long as it owes more than the capacity, as it can after a change to a plan with a smaller one.
    """
    if owed > capacity:
        return 0, owed - capacity + interval
    whole, part = divmod(capacity - owed, interval)
    return whole, interval - part


def wait(owed: int, debt: int, capacity: int) -> int:
    """How long until `debt` can be taken from a settled bucket: then it passes, one tick earlier it does not."""
    return max(0, owed + debt - capacity)


def given_back(full_at: int, now: int, debt: int, taken_at: int) -> int:
    """The bucket after a `debt` that was taken at `taken_at` is forgiven, as far as time has not paid it.

    What has flowed in since is kept from the gift: without the debt it might have overflowed, and returning it would
    let more pass than the quota promises. So the gift shrinks from the whole debt to nothing while time pays the
    debt, and a clock that stepped back gives nothing. This holds in whatever order refunds and takings come: of all
    debts forgiven so far, the part not yet paid is still in the bucket. An instant that has passed is a full bucket,
    so none is ever fuller than full.
    """
    elapsed = now - taken_at
    return full_at - max(0, debt - elapsed) if elapsed >= 0 else full_at
