"""Leases in the store: what every script does about them, and the one that makes them. docs/leases.md has the rules.

In a caller's state they follow the buckets, behind a name of no length: for each lease its end, its id, how many
buckets it is of, and for each of those the length of its name, the name, and the debt of the tokens outstanding.
"""

from __future__ import annotations

from typing import Final

from learnflow_core.limiter.leases import LEAST, TERM_NS

# An end further ahead than a term has seen the clock step back. The floor is raised before less is held, at the instant
# at which it is less. What is held is owed by rights, also by a bucket of which a reset left nothing else.
END_LEASES: Final = """
if leases then
  local held, standing, at = {}, {}, leases_at
  local function raise(instant)
    for bucket, debt in pairs(held) do
      full_at[bucket] = math.max(full_at[bucket] or 0, instant + debt)
      longest_of[bucket] = math.max(longest_of[bucket] or 0, debt)
    end
  end
  while at <= #value do
    local lease, count, bucket, debt = {debts = {}}, nil, nil, nil
    lease.ends, lease.id, count, at = struct.unpack('<dBc0H', value, at)
    if lease.ends > now + TERM then
      lease.ends = now + TERM
      changed = true
    end
    for _ = 1, count do
      bucket, debt, at = struct.unpack('<Bc0d', value, at)
      lease.debts[bucket] = debt
      held[bucket] = (held[bucket] or 0) + debt
    end
    leases[#leases + 1] = lease
  end
  table.sort(leases, function(one, other) return one.ends < other.ends end)
  for _, lease in ipairs(leases) do
    if lease.ends > now then
      standing[#standing + 1] = lease
    else
      raise(lease.ends)
      for bucket, debt in pairs(lease.debts) do held[bucket] = held[bucket] - debt end
    end
  end
  raise(now)
  leases = standing
end
""".replace("TERM", str(TERM_NS // 1_000))

# A caller is kept until the floor of the last end has passed.
KEEP_LEASES: Final = """
  if leases and #leases > 0 then
    local records, held, last = {}, {}, now
    for place, lease in ipairs(leases) do
      local debts = {}
      for bucket, debt in pairs(lease.debts) do
        held[bucket] = (held[bucket] or 0) + debt
        debts[#debts + 1] = struct.pack('<Bc0d', #bucket, bucket, debt)
      end
      records[place] = struct.pack('<dBc0H', lease.ends, #lease.id, lease.id, #debts) .. table.concat(debts)
      last = math.max(last, lease.ends)
    end
    for _, debt in pairs(held) do kept_until = math.max(kept_until, last + debt) end
    value = value .. struct.pack('<Bdd', 0, 0, 0) .. table.concat(records)
  end
"""

# What a `learnflow_core.limiter.leases.Request` asks for, in its order.
LEASE: Final = """
local block, share, told, asked, buckets, at = struct.unpack('<ddddd', ARGV[1])
leases = leases or {}
local intervals, capacities, bounds = {}, {}, {}
for i = 1, buckets do
  local bucket, longest = ARGV[2 + told + i], nil
  intervals[bucket], capacities[bucket], longest, at = struct.unpack('<ddd', ARGV[1], at)
  full_at[bucket] = math.max(full_at[bucket] or now, now)
  if full_at[bucket] > now then longest = math.max(longest, longest_of[bucket]) end
  bounds[bucket] = longest
  if full_at[bucket] > now + longest then
    full_at[bucket] = now + longest
    changed = true
  end
end
if changed then era = math.max(now, era + 1) end

local function place_of(id)
  for place, lease in ipairs(leases) do
    if lease.id == id then return place end
  end
end

local known, allowed = {}, {}
for i = 1, told do
  local left, final
  left, final, at = struct.unpack('<dd', ARGV[1], at)
  local place = place_of(ARGV[2 + i])
  known[i] = place and '1' or '0'
  if place then
    changed = true
    local debts = leases[place].debts
    for bucket, interval in pairs(intervals) do
      debts[bucket] = math.min(debts[bucket], left * interval)
      if final == 1 then full_at[bucket] = full_at[bucket] - debts[bucket] end
    end
    if final == 1 then table.remove(leases, place) end
  end
end

local levels = {}
for i = 1, buckets do levels[i] = full_at[ARGV[2 + told + i]] end

local function room_for(tokens)
  for bucket, interval in pairs(intervals) do
    if full_at[bucket] + tokens * interval - now > capacities[bucket] then return false end
  end
  return true
end

local function debts_of(tokens)
  changed = true
  local debts = {}
  for bucket, interval in pairs(intervals) do
    debts[bucket] = tokens * interval
    full_at[bucket] = full_at[bucket] + debts[bucket]
    longest_of[bucket] = bounds[bucket]
  end
  return debts
end

for i = 1, asked do
  local cost
  cost, at = struct.unpack('<d', ARGV[1], at)
  local fits = room_for(cost)
  allowed[i] = fits and '1' or '0'
  if fits then debts_of(cost) end
end

for bucket, interval in pairs(intervals) do
  local there = math.floor((capacities[bucket] - (full_at[bucket] - now)) / interval)
  block = math.min(block, math.floor(there / share))
end
if block < LEAST or place_of(ARGV[2]) then
  block = 0
else
  leases[#leases + 1] = {id = ARGV[2], ends = now + TERM, debts = debts_of(block)}
end
""".replace("LEAST", str(LEAST)).replace("TERM", str(TERM_NS // 1_000))

LEASED: Final = """
return struct.pack('<ddd' .. ('d'):rep(#levels), now, era, block, unpack(levels))
  .. table.concat(known) .. table.concat(allowed)
"""
