"""Buckets in memory that processes share: where each one is, and whose turn it is to look.

The table is an array of sets of places. A key's buckets are in the one set that its digest chooses, so that nothing is
ever moved, and a place whose bucket is full again is free by that alone. A place has an id, 24 bytes of keyed
digests, and the bucket, one word.

A process may be killed at any instant. The kernel then lets go of its lock, and whoever comes next finds every word as
it was or as it was to be: a bucket is one aligned word, which the processor writes whole, and an id is written only
beside a bucket that is full. So there is nothing to repair, and there are no counts, chains or queues that could be.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable
from fcntl import LOCK_EX, LOCK_UN, lockf
from functools import partial
from hashlib import blake2b
from mmap import mmap
from typing import Final, ParamSpec, TypeVar
from weakref import WeakValueDictionary, finalize

from learnflow_core.limiter.turns import Turn

Sizes = tuple[int, int, int]
"""Sets of buckets, places in each of them, and sets of shared buckets."""

P = ParamSpec("P")
T = TypeVar("T")

ERA: Final = 6
"""The word that changes whenever refunds of what was decided before must end."""
OVERFLOW_HITS: Final = 7
"""The word that counts the decisions over shared buckets."""

KEY_BYTES: Final = 16
"""An id begins with the digest of the key: two keys of a billion are alike with a probability of 10^-21."""
NAME_BYTES: Final = 8
"""It ends with the digest of the quota's name and period, which no stranger chooses."""
ID_BYTES: Final = KEY_BYTES + NAME_BYTES

WIDTH: Final = 64
"""Places in a set. With as many buckets as the cap, a set has 32 on average, and hardly ever more than fit."""
SHARED_WIDTH: Final = 16
"""Places in a set of shared buckets: one for each name of a quota, since debts of a day are not those of a minute."""

_PLACE_BYTES: Final = ID_BYTES + 8
_HEAD_BYTES: Final = 4_096
_SECRET: Final = slice(32, 48)
_NAMES: Final = 8
"""The word from which on the head has, for each name and period of a quota, its digest and the longest debt."""
_MADE: Final = b"limits 1"
_OTHER_SIZES: Final = "the table was made for other numbers of buckets"


class Table:
    """The memory itself, which every limiter on it shares with those of other processes.

    `memory` has its bytes, and `words` the same as 64-bit integers. Who looks or writes takes two turns: `turn`, which
    keeps this process's other threads out, and a lock on the file, which keeps other processes out.
    """

    def __init__(self, fd: int, sizes: Sizes) -> None:
        """Take over a file and make it a table, unless it is one. Raises ValueError for one of other sizes."""
        self.fd = fd
        self._close = finalize(self, os.close, fd)
        self.sizes = sizes
        self.sets, self.width, self._shared_sets = sizes
        self.set_bytes = self.width * _PLACE_BYTES
        self._shared_bytes = SHARED_WIDTH * _PLACE_BYTES
        self._shared_from = _HEAD_BYTES + self.sets * self.set_bytes
        size = self._shared_from + self._shared_sets * self._shared_bytes
        lockf(fd, LOCK_EX)
        try:
            is_made = os.pread(fd, 8, 0) == _MADE
            if not is_made:  # nor is one whose maker was killed
                os.ftruncate(fd, 0)
                _reserve(fd, size)
                os.pwrite(fd, b"".join([bytes(8), *(_in_words(n) for n in sizes), os.urandom(16)]), 0)
                os.pwrite(fd, _MADE, 0)
            elif os.pread(fd, 24, 8) != b"".join(map(_in_words, sizes)):
                raise ValueError(_OTHER_SIZES)
            self.memory = mmap(fd, size)
        finally:
            lockf(fd, LOCK_UN)
        self.words = memoryview(self.memory).cast("Q")
        self.key_digest = blake2b(key=self.memory[_SECRET], digest_size=KEY_BYTES)
        self.turn = Turn()

    def name_digest(self, name: str) -> bytes:
        """The end of an id: of a quota's name and period."""
        return blake2b(name.encode(), key=self.memory[_SECRET], digest_size=NAME_BYTES).digest()

    def note_longest(self, name: bytes, longest: int) -> None:
        """Remember the longest debt that a plan can make under a quota's name and period. For who has the turn.

        Beyond the names that the head has room for, nothing is remembered.
        """
        number = int.from_bytes(name, sys.byteorder)
        for at in range(_NAMES, _HEAD_BYTES // 8, 2):
            if self.words[at] == number:
                self.words[at + 1] = max(self.words[at + 1], longest)
                return
            if not self.words[at]:
                self.words[at + 1] = longest
                self.words[at] = number  # the last, so that who is killed before it has noted nothing
                return

    def longest(self, name: bytes) -> int | None:
        """The longest debt of all plans, of every process, that were noted under this name and period."""
        number = int.from_bytes(name, sys.byteorder)
        for at in range(_NAMES, _HEAD_BYTES // 8, 2):
            if self.words[at] == number:
                return self.words[at + 1]
            if not self.words[at]:
                break
        return None

    def start(self, digest: bytes) -> int:
        """Where the set of the key with this digest begins."""
        number: int = int.from_bytes(digest[:8], "little") % self.sets
        return _HEAD_BYTES + number * self.set_bytes

    def shared_start(self, digest: bytes) -> int:
        """Where the shared set begins that stands in for this key."""
        number: int = int.from_bytes(digest[8:], "little") % self._shared_sets
        return self._shared_from + number * self._shared_bytes

    def find(self, start: int, width: int, place_id: bytes) -> int | None:
        """The word of the place in a set that has this id."""
        # It would take two digests that continue each other to find one between two places.
        at = self.memory.find(place_id, start, start + width * ID_BYTES)
        return None if at < 0 else (start + width * ID_BYTES) // 8 + (at - start) // ID_BYTES

    def free_place(self, start: int, width: int, now: int, among: list[int | None]) -> int | None:
        """The word of a place in a set whose bucket is full, and which is not among some."""
        first = (start + width * ID_BYTES) // 8
        for place in range(first, first + width):
            if self.words[place] <= now and place not in among:
                return place
        return None

    def write(self, start: int, width: int, place: int, place_id: bytes, full_at: int) -> None:
        """Keep a bucket at a place that is its own already, or free: then that stays free until the bucket is there."""
        at = start + (place - (start + width * ID_BYTES) // 8) * ID_BYTES
        if self.memory[at : at + ID_BYTES] != place_id:
            self.memory[at : at + ID_BYTES] = place_id
        self.words[place] = full_at

    def owing(self, now: int) -> int:
        """How many buckets are not full. It looks at every place."""
        total = 0
        for start, end, width in (
            (_HEAD_BYTES, self._shared_from, self.width),
            (self._shared_from, len(self.memory), SHARED_WIDTH),
        ):
            for at in range(start, end, width * _PLACE_BYTES):
                first = (at + width * ID_BYTES) // 8
                total += sum(word > now for word in self.words[first : first + width])
        return total

    def alone(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a step answers that has the table to itself."""
        return self.turn.alone(self._locked, partial(step, *args, **kwargs))

    def _locked(self, step: Callable[[], T]) -> T:
        try:
            lockf(self.fd, LOCK_EX)
            return step()
        finally:
            lockf(self.fd, LOCK_UN)


def inherited(max_buckets: int, shared_sets: int) -> Table:
    """A table without a name, for this process and those that it forks. Memory is taken where it is written to."""
    if sys.platform == "linux":
        fd = os.memfd_create("learnflow-limits")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    return Table(fd, _sizes(max_buckets, shared_sets))


def named(path: str | os.PathLike[str], max_buckets: int, shared_sets: int) -> Table:
    """The table in a file, made when there is none. Raises OSError for a file that is not to be had, or not ours.

    A process has a file once: its lock is the process's, and closing a second descriptor would let go of it.
    """
    sizes = _sizes(max_buckets, shared_sets)
    with _opening:
        table = _named.get(_identity(path))
        if table is None:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            if os.fstat(fd).st_uid != os.geteuid():
                os.close(fd)
                raise PermissionError(f"{path}: it belongs to another user")
            _named[_identity(fd)] = table = Table(fd, sizes)
        elif table.sizes != sizes:
            raise ValueError(_OTHER_SIZES)
        return table


def _sizes(max_buckets: int, shared_sets: int) -> Sizes:
    """Up to 64 buckets are one set. More get twice as many places, since keys choose their sets by chance."""
    if max_buckets <= WIDTH:
        return 1, max_buckets, shared_sets
    return -(-2 * max_buckets // WIDTH), WIDTH, shared_sets


def _identity(file: str | os.PathLike[str] | int) -> tuple[int, int]:
    try:
        found = os.stat(file)  # noqa: PTH116 - a descriptor has no Path
    except FileNotFoundError:
        return 0, 0
    return found.st_dev, found.st_ino


def _in_words(number: int) -> bytes:
    return number.to_bytes(8, sys.byteorder)


def _reserve(fd: int, size: int) -> None:
    """Give a file its size. Where it has a name and a full disk is an error (ENOSPC), that is now and not later a
    signal that kills."""
    os.ftruncate(fd, size)
    if os.fstat(fd).st_nlink and sys.platform == "linux":
        os.posix_fallocate(fd, 0, size)


_opening = threading.Lock()
_named: WeakValueDictionary[tuple[int, int], Table] = WeakValueDictionary()


def _release() -> None:
    """Another thread may have been opening a table at the fork; in the child it would never come to its end."""
    global _opening  # noqa: PLW0603 - a lock cannot be released by who does not have it
    _opening = threading.Lock()


os.register_at_fork(after_in_child=_release)
