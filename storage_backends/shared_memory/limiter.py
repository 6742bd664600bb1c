"""The limiter over the shared table."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from fcntl import LOCK_EX, LOCK_UN, lockf
from typing import Final, NamedTuple, NoReturn
from weakref import WeakSet

from learnflow_core.limiter import Decision, Decisions, Quota, Refund, Reset
from learnflow_core.limiter.bucket import given_back, settled, take
from learnflow_core.limiter.checks import check, check_fits, check_key, check_keys
from learnflow_core.limiter.decision import BareDecision, PlainDecision
from learnflow_core.limiter.memory import checked_clock
from learnflow_core.limiter.turns import TURN, wait
from storage_backends.shared_memory.table import (
    ERA,
    ID_BYTES,
    KEY_BYTES,
    OVERFLOW_HITS,
    SHARED_WIDTH,
    inherited,
    named,
)

_LONG_AGO: Final = 2**62
"""Words count from so many nanoseconds before the clock's zero: one never written to is a bucket full for ages."""

_PLANS: Final = 1_024

Terms = Sequence[tuple[Quota, bytes]]


class _Receipt:
    """The proof that a decision was made here, and under which era."""

    __slots__ = ("era",)

    def __init__(self, era: int) -> None:
        self.era = era


class _Bucket(NamedTuple):
    """How a bucket stands, and the place to keep it at: `start` and `width` of its set, its word there and its id.

    Without a word there is no room for it. `is_shared` says that it would be kept with others', `owes_for_others` that
    the level is that of a shared bucket.
    """

    level: int
    start: int
    width: int
    word: int | None
    place_id: bytes
    is_shared: bool
    owes_for_others: bool


class SharedMemoryLimiter:
    """Token buckets in memory that processes of one machine share; every method answers at once, from any thread.

    Without a `path` they are shared with the processes that this one forks later. With one, they are in that file, and
    shared with every process of the same user that names it; keep it where nothing goes to a disk and a restart of the
    machine removes it, such as `/dev/shm`. The file has its whole size from the start. Whoever writes to it changes
    the limits, and a process that opens it in another way and closes it may let go of the lock.

    Decisions are exact under threads and processes: one is made after the other. A process that is killed takes
    nothing with it, whatever it was doing: the others go on, and at worst the request that it was deciding has taken
    its tokens, from some of its quotas or from all. One that is stopped (SIGSTOP) in the middle of a decision holds the
    others up.

    Keys are kept as digests of 128 bits under a secret of the table's own, so they may be as long as they like, and
    nobody can find two that share a bucket. There is room for `max_buckets` buckets that owe; above that, unknown keys
    share `overflow_buckets` more for each name and period of a quota, as in `MemoryLimiter`, and `overflow_hits`
    counts the decisions over shared ones, those of all processes. Chance may bring that about a little earlier, for
    one key in ten thousand; and one key has room for 64. A bucket that owes is never forgotten; with more than 16 names
    of quotas in use when the table is full, unknown keys may be refused.

    Refunds are for the process that made the decision. `clock` must be one that all the processes share, as
    `time.monotonic_ns` is on Linux and macOS; else it is as in `MemoryLimiter`. The slowest plan of a name and period,
    which bounds the wait after a clock stepped back, is that of all processes.

    Raises OSError for a file that is not to be had, ValueError for one that was made with other numbers.
    """

    implementation = "shared memory"

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        max_buckets: int = 100_000,
        overflow_buckets: int = 4_096,
    ) -> None:
        self._clock = checked_clock(clock)
        self._clock()
        for name, value in (("max_buckets", max_buckets), ("overflow_buckets", overflow_buckets)):
            if type(value) is not int:
                raise TypeError(f"{name}: an int is needed, not {type(value).__name__}")
        if max_buckets < 1 or overflow_buckets < 1:
            raise ValueError("max_buckets, overflow_buckets: each must be at least 1")
        sizes = (max_buckets, overflow_buckets)
        self._table = inherited(*sizes) if path is None else named(path, *sizes)
        self._plan: tuple[Sequence[Quota], Terms] = ((), ())
        self._plans: dict[int, tuple[Sequence[Quota], Terms]] = {}
        self._receipt = _Receipt(self._table.words[ERA])
        _limiters.add(self)

    def __bool__(self) -> bool:
        return True

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a SharedMemoryLimiter cannot be copied or pickled: processes share it by a fork, or by its path"
        )

    @property
    def overflow_hits(self) -> int:
        """How many decisions were about shared buckets, in all processes."""
        return self._table.words[OVERFLOW_HITS]

    def __len__(self) -> int:
        """How many buckets owe, shared ones too. It looks at the whole table: for tests, and once in a while."""
        return self._table.owing(self._clock() + _LONG_AGO)

    def hit(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Decision:  # noqa: C901, PLR0912, PLR0915 - calls cost time
        """Take `cost` tokens from each of the key's quotas, or none from any of them; see `Limiter`."""
        if type(cost) is not int or cost < 1:
            check(key, quotas, cost)
        if type(key) is not str:
            key = check_key(key)
        plan = self._plan
        quotas, terms = plan if quotas is plan[0] else self._learn(key, quotas, cost)
        digest = self._digest(key)
        table = self._table
        fd, words, memory = table.fd, table.words, table.memory
        free, taken = table.turn.free, None
        try:
            while taken is None:  # as in Turn.alone(); it, find() and write() are written out, since calls cost time
                try:
                    del free[TURN]; taken = free  # fmt: skip  # noqa: E702
                except KeyError:
                    wait(free)
            lockf(fd, LOCK_EX)
            instant = self._clock()
            now = instant + _LONG_AGO
            start = table.start(digest)
            end = start + table.width * ID_BYTES
            ids, first = memory[start:end], end // 8
            places, after = [], []
            for quota, name in terms:
                at = ids.find(digest + name)
                if at < 0:
                    return self._hit_carefully(key, digest, quotas, terms, cost, instant)
                place = first + at // ID_BYTES
                full_at = words[place]
                if full_at <= now:  # it may be another's by the next time, so it is no better than none
                    if words[OVERFLOW_HITS]:
                        return self._hit_carefully(key, digest, quotas, terms, cost, instant)
                    full_at = now
                full_at += cost * quota.interval_ns
                if full_at - now > quota.capacity_ns:
                    return self._hit_carefully(key, digest, quotas, terms, cost, instant)
                places.append(place)
                after.append(full_at)
            for place, full_at in zip(places, after):  # noqa: B905 - of one length
                words[place] = full_at
            decision = BareDecision()
            decision.key = key
            decision.quotas = quotas
            decision.cost = cost
            decision.now_ns = instant
            decision.full_at_ns = [full_at - _LONG_AGO for full_at in after]
            decision.allowed = True
            decision.receipt = self._receipt if self._receipt.era == words[ERA] else self._current_receipt()
            return decision
        finally:
            if taken is not None:
                try:
                    lockf(fd, LOCK_UN)
                finally:
                    free[TURN] = True

    def hit_many(self, keys: Iterable[str], quotas: Sequence[Quota], cost: int = 1) -> Decisions:
        """One `hit` for each of the keys, in their order; see `Limiter`. If one is no str, none is made."""
        asked = check_keys(keys)
        quotas = tuple(quotas)
        check("", quotas, cost)
        return Decisions([SharedMemoryLimiter.hit(self, key, quotas, cost) for key in asked])

    def peek(self, key: str, quotas: Sequence[Quota], cost: int = 1) -> Decision:
        """What `hit` would answer now, without taking anything; see `Limiter`."""
        key, quotas = check_key(key), tuple(quotas)
        check(key, quotas, cost)
        return self._table.alone(self._peek, key, quotas, cost)

    def refund(self, decision: Decision) -> Refund:
        """Give back what an allowed decision of this limiter, made in this process, took, once; as `MemoryLimiter`.

        A reset of any key by any process, and a clock found to have stepped back, end the refunds of decisions before.
        """
        return self._table.alone(self._refund, decision)

    def reset(self, key: str, quotas: Sequence[Quota]) -> Reset:
        """Fill the key's buckets. What it owes in a shared bucket stays owed, since others owe it too."""
        return self._table.alone(self._reset, check_key(key), tuple(quotas))

    def _digest(self, key: str) -> bytes:
        digest = self._table.key_digest.copy()
        digest.update(key.encode("utf-8", "surrogatepass"))
        return digest.digest()

    def _learn(self, key: str, quotas: Sequence[Quota], cost: int) -> tuple[Sequence[Quota], Terms]:
        """Check what is asked, and remember a tuple by identity: those in use need not be checked at each decision."""
        plan = self._plans.get(id(quotas))
        if plan is None or plan[0] is not quotas:
            given, quotas = quotas, tuple(quotas)
            check(key, quotas, cost)
            plan = quotas, self._terms(quotas)
            self._table.alone(self._note, plan[1])
            if given is not quotas:  # what can change is checked each time
                return plan
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            self._plans[id(quotas)] = plan
        self._plan = plan
        return plan

    def _terms(self, quotas: Sequence[Quota]) -> Terms:
        return [(quota, self._table.name_digest(quota.bucket)) for quota in quotas]

    def _note(self, terms: Terms) -> None:
        for quota, name in terms:
            self._table.note_longest(name, quota.longest_ns)

    def _hit_carefully(
        self, key: str, digest: bytes, quotas: Sequence[Quota], terms: Terms, cost: int, instant: int
    ) -> Decision:
        """Decide for a key that has not a bucket of its own for every quota, or refuse."""
        check_fits(quotas, cost)
        table = self._table
        buckets, after = self._consider(digest, terms, cost, instant + _LONG_AGO)
        if any(bucket.is_shared if after else bucket.owes_for_others for bucket in buckets):
            table.words[OVERFLOW_HITS] += 1  # before any shared bucket is there, which is then looked for
        if after is None:
            return PlainDecision(key, quotas, cost, instant, [each.level - _LONG_AGO for each in buckets], False)
        for bucket, full_at in zip(buckets, after, strict=True):
            assert bucket.word is not None, "who has no room is refused"
            table.write(bucket.start, bucket.width, bucket.word, bucket.place_id, full_at)
        full_at_ns = [full_at - _LONG_AGO for full_at in after]
        return PlainDecision(key, quotas, cost, instant, full_at_ns, True, self._current_receipt())

    def _consider(self, digest: bytes, terms: Terms, cost: int, now: int) -> tuple[list[_Bucket], list[int] | None]:
        """A key's buckets, brought to where they can be now, and what a taking would leave of them, if it may be."""
        buckets: list[_Bucket] = []
        after: list[int] = []
        for quota, name in terms:
            bucket = self._bucket(digest, quota, name, now, [each.word for each in buckets])
            buckets.append(bucket)
            full_at = take(bucket.level, now, cost * quota.interval_ns, quota.capacity_ns)
            if full_at is not None and bucket.word is not None:
                after.append(full_at)
        return buckets, after if len(after) == len(buckets) else None

    def _bucket(self, digest: bytes, quota: Quota, name: bytes, now: int, among: list[int | None]) -> _Bucket:
        """A key's bucket: its own, or the shared one that stands for it as long as it has none, or a full one."""
        table = self._table
        longest = table.longest(name) or 2 * quota.period_ns  # no plan of that period can owe more than twice as much
        start, width, own_id = table.start(digest), table.width, digest + name
        own = table.find(start, width, own_id)
        if own is not None and table.words[own] > now:
            return _Bucket(self._settled(own, now, longest), start, width, own, own_id, False, False)
        shared_start, shared_id = table.shared_start(digest), bytes(KEY_BYTES) + name
        shared = table.find(shared_start, SHARED_WIDTH, shared_id) if table.words[OVERFLOW_HITS] else None
        level = now if shared is None else self._settled(shared, now, longest)
        room = table.free_place(start, width, now, among) if own is None or own in among else own
        if room is not None:
            return _Bucket(level, start, width, room, own_id, False, level > now)
        if shared is None:
            shared = table.free_place(shared_start, SHARED_WIDTH, now, among)
            level = now if shared is not None else now + quota.longest_ns
        return _Bucket(level, shared_start, SHARED_WIDTH, shared, shared_id, True, level > now)

    def _settled(self, word: int, now: int, longest: int) -> int:
        words = self._table.words
        level = settled(words[word], now, longest)
        if now < level < words[word]:
            words[ERA] += 1
            words[word] = level
        return level

    def _peek(self, key: str, quotas: Sequence[Quota], cost: int) -> Decision:
        instant = self._clock()
        buckets, after = self._consider(self._digest(key), self._terms(quotas), cost, instant + _LONG_AGO)
        levels = [bucket.level - _LONG_AGO for bucket in buckets]
        return PlainDecision(key, quotas, cost, instant, levels, after is not None)

    def _refund(self, decision: Decision) -> Refund:
        if not isinstance(decision, BareDecision) or decision.receipt is not self._current_receipt():
            return Refund(False)
        now, digest = self._clock() + _LONG_AGO, self._digest(decision.key)
        decision.receipt = None
        for quota, place in self._own(digest, decision.quotas):
            debt = decision.cost * quota.interval_ns
            words = self._table.words
            words[place] = given_back(words[place], now, debt, decision.now_ns + _LONG_AGO)
        return Refund(True)

    def _reset(self, key: str, quotas: Sequence[Quota]) -> Reset:
        now = self._clock() + _LONG_AGO
        self._table.words[ERA] += 1
        for _, place in self._own(self._digest(key), quotas):
            self._table.words[place] = min(now, self._table.words[place])
        return Reset()

    def _own(self, digest: bytes, quotas: Sequence[Quota]) -> Iterator[tuple[Quota, int]]:
        """The places of a key's own buckets, where it has any."""
        start, width = self._table.start(digest), self._table.width
        for quota, name in self._terms(quotas):
            place = self._table.find(start, width, digest + name)
            if place is not None:
                yield quota, place

    def _current_receipt(self) -> _Receipt:
        era = self._table.words[ERA]
        if self._receipt.era != era:
            self._receipt = _Receipt(era)
        return self._receipt


_limiters: WeakSet[SharedMemoryLimiter] = WeakSet()


def _end_refunds() -> None:
    """What a process decided before a fork, it may refund itself; the child, which knows of it too, may not."""
    for limiter in _limiters:
        limiter._receipt = _Receipt(limiter._receipt.era)  # noqa: SLF001 - this module's own class


os.register_at_fork(after_in_child=_end_refunds)
