"""The simulated world: its seeds violate nothing, and come again exactly as they were."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.amount import amount
from tests.simulator.world import simulate

AT_ONCE = 10
"""Seeds of one test, so that several run side by side."""
SEEDS = range(0, amount(60, soak=2_000), AT_ONCE)


@pytest.mark.parametrize("first", SEEDS)
def test_whatever_happens_nobody_pays_twice_or_for_nothing_and_nothing_that_was_told_is_lost(first: int) -> None:
    found = [outcome for outcome in map(simulate, range(first, first + AT_ONCE)) if outcome.violations]
    told = [f"python -m tests.simulator --seed {outcome.seed} --trace: {outcome.violations}" for outcome in found]
    assert told == []


def test_the_storms_are_real() -> None:
    outcomes = [simulate(seed) for seed in range(10)]
    assert sum(outcome.deaths for outcome in outcomes) > 5
    assert sum(outcome.charges for outcome in outcomes) > 20
    assert sum("heard nothing" in line for outcome in outcomes for line in outcome.trace) > 50
    assert sum("the disk" in line for outcome in outcomes for line in outcome.trace) > 20


@pytest.mark.parametrize("seed", [3, 147])
def test_the_same_seed_is_the_same_to_the_last_statement(seed: int) -> None:
    assert len({digest(seed, hash_seed) for hash_seed in ("1", "2")}) == 1


def test_another_seed_is_another_world() -> None:
    assert simulate(1).digest != simulate(2).digest


def digest(seed: int, hash_seed: str) -> str:
    """The digest of a seed in a process of its own, in which sets have an order of their own."""
    told = subprocess.run(
        [sys.executable, "-m", "tests.simulator", "--seed", str(seed)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.splitlines()[-1]
