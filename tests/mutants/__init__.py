"""Small changes to the core, each of which is wrong: `python -m tests.mutants` shows how many of them the tests notice.

`changes` makes them from the code, `covering` knows which tests run which lines, and `trial` runs those tests on one.
A change that no test can notice, because it makes no difference, stands in `equivalent.toml` with the reason.
"""
