"""Amounts in Stripe's units: exact, or not at all."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_core.money import CURRENCIES, MAX_AMOUNT_MINOR, Money
from payment_gateways.stripe.amounts import smallest_units

STRIPE_DECIMALS = {"JPY": 0, "KRW": 0, "MGA": 0, "KWD": 3, "BHD": 3, "ISK": 2, "UGX": 2, "USD": 2, "HUF": 2, "TWD": 2}


@pytest.mark.parametrize(
    ("minor", "currency", "units"),
    [
        (1_099, "USD", 1_099),
        (500, "JPY", 500),
        (5_120, "KWD", 5_120),
        (5_124, "KWD", None),
        (5, "ISK", 500),
        (5, "UGX", 500),
        (500, "MGA", 5),
        (550, "MGA", None),
        (1_045, "HUF", 1_045),
        (80_045, "TWD", 80_045),
        (1_234, "LYD", None),
        (1_230, "LYD", 123),
        (12_345, "CLF", None),
    ],
)
def test_the_examples_of_the_documents(minor: int, currency: str, units: int | None) -> None:
    assert smallest_units(Money(minor, currency)) == units


@given(st.integers(1, MAX_AMOUNT_MINOR), st.sampled_from(sorted(STRIPE_DECIMALS)))
def test_what_is_charged_is_what_it_costs_to_the_last_unit(minor: int, currency: str) -> None:
    units = smallest_units(Money(minor, currency))
    cost = Fraction(minor, 10 ** CURRENCIES[currency])
    exact = cost * 10 ** STRIPE_DECIMALS[currency]
    if units is not None:
        assert units == exact
    else:
        assert exact.denominator > 1 or (STRIPE_DECIMALS[currency] == 3 and exact % 10)


@given(st.integers(1, MAX_AMOUNT_MINOR), st.sampled_from(sorted(CURRENCIES)))
def test_two_amounts_of_a_currency_are_never_charged_alike(minor: int, currency: str) -> None:
    units, more = smallest_units(Money(minor, currency)), smallest_units(Money(minor + 1, currency))
    assert units is None or units != more
