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
limiter.hit("key", plan)
own = sockets() - already
child = os.fork()
signal.alarm(30)
shares = bool(own & sockets())
fine = good([limiter.hit("key", plan) for _ in range(100)])
""",
    "asyncio": """
limiter = AsyncValkeyLimiter(sys.argv[1], **options)

async def hits():
    return good([await limiter.hit("key", plan) for _ in range(100)])

async def main():
    already = sockets()
    await limiter.hit("key", plan)
    own = sockets() - already
    child = os.fork()
    signal.alarm(30)
    shares = bool(own & sockets())
    fine = asyncio.run(hits()) if child == 0 else await hits()
    return own, child, shares, fine

own, child, shares, fine = asyncio.run(main())
""",
}
VERDICT = """
if child == 0:
    os._exit(0 if fine and not shares else 1)
print(len(own), shares, fine, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("kind", PROGRAMS)
def test_parent_and_child_have_connections_of_their_own_and_share_the_buckets(kind: str, valkey: Valkey) -> None:
    prefix = f"forks {kind}:"
    program = SHARED + PROGRAMS[kind] + VERDICT
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, valkey.url, prefix]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT)
    assert run.stdout.split() == ["1", "True", "True", "0"], run.stderr
    with ValkeyLimiter(valkey.url, prefix=prefix, budget_ns=PATIENT_NS) as limiter:
        assert limiter.peek("key", (Quota.per_day(1_000),)).remaining == 1_000 - 201
