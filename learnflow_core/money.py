"""Money: whole minor units and an ISO 4217 code inside, an exact decimal number outside. No float anywhere."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from learnflow_core.errors import Code, LearnFlowError

_CODES_BY_EXPONENT: Final = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: """
        AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW
        CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF
        IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK
        MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP
        SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG
        YER ZAR ZMW ZWG
    """,
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}

CURRENCIES: Final = {code: exponent for exponent, codes in _CODES_BY_EXPONENT.items() for code in codes.split()}
"""The decimals of every active currency of ISO 4217 (as of January 2026), metals and test codes left out."""

MAX_AMOUNT_MINOR: Final = 10**12
"""The highest amount, in minor units of whichever currency."""

_SORT_FACTORS: Final[dict[str, int]] = {code: 10 ** (4 - exponent) for code, exponent in CURRENCIES.items()}
_MAX_DIGITS: Final = len(str(MAX_AMOUNT_MINOR))
_NUMBER: Final = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?)([0-9]+))?")  # RFC 8259, section 6


@dataclass(frozen=True, slots=True)
class Money:
    """An amount that is known to be good: 0 to MAX_AMOUNT_MINOR minor units of a currency in CURRENCIES."""

    amount_minor: int
    currency: str


def parse_amount(text: str, currency: str) -> int:
    """The minor units that a JSON number's text says, exactly; `49.990`, `4.999e1` and `-0` are good.

    Raises INVALID_PARAMETER with `price.currency` for a code not in CURRENCIES, and with `price.amount` for what is
    no JSON number, negative, finer than the currency's decimals or above MAX_AMOUNT_MINOR. The work grows with
    the length of the text alone, not with the number it writes (`1E+999999`).
    """
    decimals = _exponent(currency)
    digits, exponent = _digits_and_exponent(text)
    exponent += decimals
    if not digits:
        return 0
    if exponent < 0:
        raise _bad_amount(f"has more decimals than {currency} allows ({decimals})")
    if len(digits) + exponent <= _MAX_DIGITS and (minor := int(digits + "0" * exponent)) <= MAX_AMOUNT_MINOR:
        return minor
    raise _bad_amount(f"must be at most {format_amount(MAX_AMOUNT_MINOR, currency)} {currency}")


def format_amount(minor: int, currency: str) -> str:
    """The amount as a JSON number with all decimals of the currency: `49.99`, `50.00`, `500` JPY, `1.500` KWD.

    `parse_amount` gives the same minor units back. Raises KeyError for an unknown currency, ValueError below 0.
    """
    if minor < 0:
        raise ValueError(f"an amount is never negative: {minor}")
    decimals = CURRENCIES[currency]
    if decimals == 0:
        return str(minor)
    digits = str(minor).zfill(decimals + 1)
    return f"{digits[:-decimals]}.{digits[-decimals:]}"


def sort_key(money: Money) -> int:
    """The face value in ten-thousandths, an integer below 2 ** 63: 1 USD sorts beside 1 JPY, no rate is applied."""
    return money.amount_minor * _SORT_FACTORS[money.currency]


def _exponent(currency: str) -> int:
    exponent = CURRENCIES.get(currency)
    if exponent is None:
        raise LearnFlowError(
            Code.INVALID_PARAMETER,
            "price.currency must be the code of an active ISO 4217 currency, such as USD.",
            param="price.currency",
        )
    return exponent


def _digits_and_exponent(text: str) -> tuple[str, int]:
    """The number as digits * 10 ** exponent, without a zero at either end; no digits at all for 0."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise _bad_amount("must be a JSON number")
    sign, whole, fraction, exponent_sign, exponent_digits = match.groups(default="")
    digits = (whole + fraction).lstrip("0")
    if sign and digits:
        raise _bad_amount("must not be negative")
    significant = digits.rstrip("0")
    # Past 18 digits an exponent is beyond anything that the digits of a text in memory could make up for.
    exponent = int(exponent_sign + (exponent_digits.lstrip("0")[:18] or "0"))
    return significant, exponent - len(fraction) + len(digits) - len(significant)


def _bad_amount(reason: str) -> LearnFlowError:
    return LearnFlowError(Code.INVALID_PARAMETER, f"price.amount {reason}.", param="price.amount")
