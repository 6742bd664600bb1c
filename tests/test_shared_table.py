"""What holds for the table and the threads of one process, held against the table that processes share."""

from __future__ import annotations

from tests import test_limiter_concurrency, test_limiter_table
from tests.limiting import SHARED_MEMORY_LIMITER
from tests.test_limiter_concurrency import frequent_switches

__all__ = ["frequent_switches"]

pytestmark = SHARED_MEMORY_LIMITER

OF_ONE_PROCESS = {
    "test_a_limiter_is_true_however_many_it_keeps_and_has_no_copies",  # here it says another name
    "test_no_call_looks_at_more_than_two_buckets_for_each_new_one",  # here none looks at any
    "test_which_keys_share_a_bucket_differs_from_limiter_to_limiter_even_where_hashing_is_fixed",
    "test_a_child_forked_while_a_thread_decides_can_decide_and_knows_what_was_taken",  # here it takes from the same
    "test_a_clock_that_forks_goes_on_deciding_in_both_processes",
}

for module in (test_limiter_table, test_limiter_concurrency):
    globals().update(
        {name: test for name, test in vars(module).items() if name[:5] == "test_" and name not in OF_ONE_PROCESS}
    )
