"""Bugs that were put in on purpose: `python -m tests.planted` shows that the tests notice each of them.

A bug is a small patch against the production code. Its head says what is wrong with it, and in lines that begin with
`Caught by:` which tests must fail; each of them passes without it.
"""
