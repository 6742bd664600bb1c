"""Forks: a child and its parent ask on connections of their own, and take from the same buckets."""

from __future__ import annotations

import subprocess
import sys

import pytest

from learnflow_core.limiter import Quota
from storage_backends.valkey import ValkeyLimiter
from tests.limiting import ROOT
from tests.servers import Valkey
from tests.valkey import PATIENT_NS

SHARED = """
import asyncio, os, signal, sys
from learnflow_core.limiter import Quota
from storage_backends.valkey import AsyncValkeyLimiter, ValkeyLimiter

plan = (Quota.per_day(1_000),)
options = dict(budget_ns=20_000_000_000, fallback="closed", prefix=sys.argv[2])

def sockets():
    '''The sockets this process has open, by what the system calls them.'''
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            pass
    return {link for link in found if link.startswith("socket:")}

def good(decisions):
    return all(decision.allowed and decision.fallback is None for decision in decisions)
"""
PROGRAMS = {
    "blocking": """
limiter = ValkeyLimiter(sys.argv[1], **options)
already = sockets()
decision = limiter.hit("key", plan)
own = sockets() - already
held = list(limiter._servers._only._all)  # as by a thread in the middle of a call
child = os.fork()
signal.alarm(30)
shares = bool(own & sockets())
fine = good([limiter.hit("key", plan) for _ in range(100)])
refunds = [bool(limiter.refund(made)) for made in (decision, limiter.hit("key", plan), decision)]
""",
    "asyncio": """
limiter = AsyncValkeyLimiter(sys.argv[1], **options)

async def hits(decision):
    fine = good([await limiter.hit("key", plan) for _ in range(100)])
    made = (decision, await limiter.hit("key", plan), decision)
    return fine, [bool(await limiter.refund(one)) for one in made]

async def main():
    already = sockets()
    decision = await limiter.hit("key", plan)
    own = sockets() - already
    child = os.fork()
    signal.alarm(30)
    shares = bool(own & sockets())
    fine, refunds = asyncio.run(hits(decision)) if child == 0 else await hits(decision)
    return own, child, shares, fine, refunds

own, child, shares, fine, refunds = asyncio.run(main())
""",
}
VERDICT = """
if child == 0:
    os._exit(0 if fine and not shares and refunds == [False, True, False] else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(len(own), shares, fine, refunds == [True, True, False], status, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("kind", PROGRAMS)
def test_parent_and_child_have_connections_of_their_own_share_the_buckets_and_refund_each_decision_once(
    kind: str, valkey: Valkey
) -> None:
    prefix = f"forks {kind}:"
    program = SHARED + PROGRAMS[kind] + VERDICT
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, valkey.url, prefix]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT)
    assert run.stdout.split() == ["1", "True", "True", "True", "0"], run.stderr
    with ValkeyLimiter(valkey.url, prefix=prefix, budget_ns=PATIENT_NS) as limiter:
        assert limiter.peek("key", (Quota.per_day(1_000),)).remaining == 1_000 - 200
