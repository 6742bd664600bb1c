"""What the store runs: the arithmetic of `learnflow_core.limiter.bucket` in Lua, and a caller's buckets in one key.

A caller's state is one string: its era, then for each bucket that owes the length of its name, the name, the instant at
which it is full again and the longest debt that it can have by rights: that of the plans which took from it since it
was full. Then come its leases, if it has any, as `lease_scripts` has them. Numbers are doubles in both directions, in
whole microseconds. They are exact, since each is below 2^53, about 9.0e15: an instant of Unix time is below 7.3e15
until the year 2200, a debt is at most the `longest` of a quota, which is at most twice ten years or 6.4e14
(`MAX_PERIOD_NS`, and a limit of at most one token a tick), and no sum here has more than an instant and two of those.

The era is the instant at which the caller's history was last broken: by its first bucket, by a reset, or by a clock
that was found to have stepped back. A decision remembers the era it was made in, and a refund is good only in that
era; so it is not good either when the store forgot the caller, be it by a flush, a restart or an eviction.

Each script reads the server's clock in one line of its own, and writes at most once, at its end: a server that refuses
the write has done nothing. `ARGV[1]` has numbers, packed; the rest are the buckets' names.
"""

from __future__ import annotations

from hashlib import sha1
from typing import NamedTuple

from storage_backends.valkey.lease_scripts import END_LEASES, KEEP_LEASES, LEASE, LEASED

_READ = (
    """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local value = redis.call('GET', KEYS[1])
local era, full_at, longest_of, leases, leases_at = now, {}, {}, nil, nil
if value then
  era = struct.unpack('<d', value)
  local at, length = 9, #value
  local bucket, instant, longest
  while at <= length do
    bucket, instant, longest, at = struct.unpack('<Bc0dd', value, at)
    if bucket == '' then
      leases, leases_at = {}, at
      break
    end
    full_at[bucket] = instant
    longest_of[bucket] = longest
  end
end
local kept_until, changed = now + 1, false
"""
    + END_LEASES
)

_WRITE = (
    """
if changed then
  value = struct.pack('<d', era)
  for bucket, instant in pairs(full_at) do
    if instant > now then
      value = value .. struct.pack('<Bc0dd', #bucket, bucket, instant, longest_of[bucket])
      if instant > kept_until then kept_until = instant end
    end
  end
"""
    + KEEP_LEASES
    + """
  redis.call('SET', KEYS[1], value, 'PX', math.ceil((kept_until - now) / 1000))
end
"""
)

# A level further ahead than the bucket's longest debt has seen the clock step back, and is cut to that: see settled().
# What a plan that only looks, or is refused, promises is no reason to let a bucket keep more.
_DECIDE = """
local take, at = struct.unpack('<d', ARGV[1])
local passes, levels, debts, bounds = 1, {}, {}, {}
local debt, capacity, longest
for i = 2, #ARGV do
  debt, capacity, longest, at = struct.unpack('<ddd', ARGV[1], at)
  local level = full_at[ARGV[i]] or now
  if level > now then longest = math.max(longest, longest_of[ARGV[i]]) end
  if level < now then
    level = now
  elseif level > now + longest then
    level = now + longest
    full_at[ARGV[i]] = level
    changed = true
  end
  if level + debt - now > capacity then passes = 0 end
  levels[i - 1] = level
  debts[i - 1] = debt
  bounds[i - 1] = longest
end
if changed then era = math.max(now, era + 1) end
if passes * take == 1 then
  changed = true
  for i = 1, #levels do
    levels[i] = levels[i] + debts[i]
    full_at[ARGV[i + 1]] = levels[i]
    longest_of[ARGV[i + 1]] = bounds[i]
  end
end
"""

_DECIDED = """
return struct.pack('<ddd' .. ('d'):rep(#levels), passes, now, era, unpack(levels))
"""

# The arithmetic of given_back().
_REFUND = """
local era_then, taken_at, at = struct.unpack('<dd', ARGV[1])
if not value or era ~= era_then then return 0 end
local elapsed, debt = now - taken_at, nil
for i = 2, #ARGV do
  debt, at = struct.unpack('<d', ARGV[1], at)
  local level = full_at[ARGV[i]]
  if level and elapsed >= 0 and elapsed < debt then
    full_at[ARGV[i]] = level - (debt - elapsed)
    changed = true
  end
end
"""

# The era is kept for as long as a refund of what was owed so far could return anything.
_RESET = """
if not value then return 1 end
for bucket, instant in pairs(full_at) do kept_until = math.max(kept_until, instant) end
for i = 1, #ARGV do full_at[ARGV[i]] = nil end
era = math.max(now, era + 1)
changed = true
"""

_DONE = """
return 1
"""


class Script:
    """One script: its `text`, and the beginnings of the commands that run it, up to the number of keys.

    `by_digest` needs it to be in the server's cache and fails with NOSCRIPT otherwise; `by_text` puts it there.
    """

    __slots__ = ("by_digest", "by_text", "load", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        source = text.encode()
        digest = sha1(source, usedforsecurity=False).hexdigest().encode()
        self.by_digest = b"$7\r\nEVALSHA\r\n$40\r\n%b\r\n" % digest
        self.by_text = b"$4\r\nEVAL\r\n$%d\r\n%b\r\n" % (len(source), source)
        self.load = b"*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$%d\r\n%b\r\n" % (len(source), source)


class Scripts(NamedTuple):
    """The scripts of a limiter.

    `decide` takes from every bucket or from none, or only looks. Packed: 1 to take or 0 to look; for each bucket the
    debt, the capacity and the longest debt. It answers, packed: 1 or 0 for whether it passes; the store's clock; the
    era; for each bucket the instant at which it is full again.

    `refund` gives back what time has not. Packed: the era and the instant of the decision; for each bucket the debt. It
    answers 1 if the era is still that of the decision, else 0.

    `reset` fills the buckets and begins another era. `ARGV` has the buckets' names and nothing else. It answers 1.

    `lease` does what a `learnflow_core.limiter.leases.Request` asks for. Packed: the block, the share, and how many
    settlements, costs and buckets there are; for each bucket the interval, the capacity and the longest debt; for each
    settlement what is left, and 1 if it is final; the costs. `ARGV[2]` is the id of the lease to make, those that are
    settled follow, then the buckets' names. It answers, packed, the store's clock, the era, the block, and for each
    bucket the instant at which it was full again before the costs; then a digit for each settlement, whether the lease
    was known, and for each cost, whether it passes.
    """

    decide: Script
    refund: Script
    reset: Script
    lease: Script


SCRIPTS = Scripts(
    decide=Script(_READ + _DECIDE + _WRITE + _DECIDED),
    refund=Script(_READ + _REFUND + _WRITE + _DONE),
    reset=Script(_READ + _RESET + _WRITE + _DONE),
    lease=Script(_READ + LEASE + _WRITE + LEASED),
)
