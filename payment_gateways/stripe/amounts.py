"""Amounts as Stripe writes them: whole numbers of what it takes for a currency's smallest unit.

That is not always ISO 4217's (https://docs.stripe.com/currencies, "Minor units in API amounts" and "Special cases").
"""

from __future__ import annotations

from typing import Final

from learnflow_core.money import CURRENCIES, Money

_WITHOUT_DECIMALS: Final = frozenset({
    "BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"
})  # fmt: skip

_IN_TENS: Final = frozenset(["BHD", "JOD", "KWD", "OMR", "TND"])
"""Three decimals, of which the last is always 0."""

_POWERS: Final = (1, 10, 100, 1_000, 10_000)


def smallest_units(money: Money) -> int | None:
    """The amount in Stripe's unit of its currency; None for one that Stripe cannot write (1.50 MGA, 5.124 KWD).

    Whether Stripe takes the currency, and so small or so large an amount, only Stripe knows: it depends on the account.
    """
    currency = money.currency
    units, rest = divmod(money.amount_minor * _POWERS[_decimals(currency)], _POWERS[CURRENCIES[currency]])
    if rest or (currency in _IN_TENS and units % 10):
        return None
    return units


def _decimals(currency: str) -> int:
    if currency in _WITHOUT_DECIMALS:
        return 0
    if currency in _IN_TENS:
        return 3
    return 2  # ISK and UGX too, which have none any more: 5 UGX are 500
