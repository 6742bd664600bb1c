"""Reading the values that exports are full of: "Free", "$49.99", "1,234", "All Levels". What could mean two things is
refused rather than guessed.

Readers take the text of a cell that is not blank, and raise ValueError with the reason why it cannot be read.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

import msgspec

from learnflow_core.errors import LearnFlowError
from learnflow_core.fields import CategorySlug, ExternalId, Language, LongText, Title
from learnflow_core.model import SECOND, Instant, Level
from learnflow_core.money import CURRENCIES, Money, parse_amount
from learnflow_core.search import slug

_TRUTHS: Final = {"true": True, "yes": True, "y": True, "t": True, "1": True, "paid": True} | {
    "false": False,
    "no": False,
    "n": False,
    "f": False,
    "0": False,
    "free": False,
}
_LEVELS: Final[dict[str, Level]] = {
    "all": "all",
    "all levels": "all",
    "any": "all",
    "mixed": "all",
    "beginner": "beginner",
    "beginners": "beginner",
    "introductory": "beginner",
    "elementary": "beginner",
    "intermediate": "intermediate",
    "advanced": "advanced",
    "expert": "advanced",
}
_LANGUAGES: Final = {
    "arabic": "ar",
    "bengali": "bn",
    "chinese": "zh",
    "czech": "cs",
    "danish": "da",
    "dutch": "nl",
    "english": "en",
    "finnish": "fi",
    "french": "fr",
    "german": "de",
    "greek": "el",
    "hebrew": "he",
    "hindi": "hi",
    "hungarian": "hu",
    "indonesian": "id",
    "italian": "it",
    "japanese": "ja",
    "korean": "ko",
    "norwegian": "no",
    "persian": "fa",
    "polish": "pl",
    "portuguese": "pt",
    "romanian": "ro",
    "russian": "ru",
    "spanish": "es",
    "swedish": "sv",
    "tamil": "ta",
    "telugu": "te",
    "thai": "th",
    "turkish": "tr",
    "ukrainian": "uk",
    "urdu": "ur",
    "vietnamese": "vi",
}
_DOLLARS: Final = ("USD", "AUD", "CAD", "NZD", "SGD", "HKD", "TWD", "MXN", "ARS", "CLP", "COP")
_SYMBOLS: Final[dict[str, tuple[str, ...]]] = {
    "$": _DOLLARS,
    "US$": ("USD",),
    "A$": ("AUD",),
    "C$": ("CAD",),
    "R$": ("BRL",),
    "€": ("EUR",),
    "£": ("GBP",),
    "₹": ("INR",),
    "₩": ("KRW",),
    "₫": ("VND",),
    "₺": ("TRY",),
    "₴": ("UAH",),
    "zł": ("PLN",),
    "¥": ("JPY", "CNY"),
}
_FREE: Final = frozenset({"free", "gratis", "kostenlos", "gratuit"})
_MARKED_NUMBER: Final = re.compile(r"([^0-9.,'+-]*)([0-9](?:[0-9.,' \u00a0\u202f]*[0-9])?)([^0-9.,'+-]*)")
_GROUPING_SPACE: Final = re.compile(r"(?<=[0-9])[' \u00a0\u202f](?=[0-9]{3}(?![0-9]))")
_THREE_BEHIND_ONE_MARK: Final = re.compile(r"[0-9]{1,3}[.,][0-9]{3}")
_ONE_MARK_OR_NONE: Final = re.compile(r"[0-9]+(?:[.,][0-9]+)?")
_COMMAS_THEN_POINT: Final = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_POINTS_THEN_COMMA: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{3})+(?:,[0-9]+)?")
_COUNT: Final = re.compile(r"([0-9]{1,15}|[0-9]{1,3}(?:[,'\u00a0\u202f ][0-9]{3}){1,4})(?:\.0+)?")
_RATING: Final = re.compile(r"([0-5])(?:[.,]([0-9]{1,15}))?")
_TAG: Final = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*")
_SPACES: Final = re.compile(r"\s+")


def one_line(text: str) -> str:
    """The first line of a text, runs of white space as one space."""
    return _SPACES.sub(" ", text.strip().splitlines()[0]).strip()


def title(text: str) -> str:
    """A name that is shown in one line: a title, a person."""
    return _within(one_line(text), Title, "1 to 200 characters")


def external_id(text: str) -> str:
    """What the other catalogue calls the course."""
    return _within(text.strip(), ExternalId, "1 to 128 characters")


def category(text: str) -> str:
    """The slug of a category's name."""
    try:
        return _within(slug(one_line(text)), CategorySlug, "letters or digits")
    except LearnFlowError:
        raise ValueError(f"{_quoted(text)} makes no category: it needs letters or digits, and at most 64") from None


def description(text: str) -> str:
    """A long text."""
    return _within(text.strip(), LongText, "at most 20000 characters")


def language(text: str) -> str:
    """A BCP 47 tag, or the English name of a language."""
    tag = _LANGUAGES.get(text.strip().lower(), text.strip().replace("_", "-"))
    if not _TAG.fullmatch(tag):
        raise ValueError(f"{_quoted(text)} is no language tag (en, pt-BR)")
    return _within(tag, Language, "at most 35 characters")


def level(text: str) -> Level:
    """One of the levels, under any of its usual names."""
    words = one_line(text).lower()
    found = _LEVELS.get(words) or _LEVELS.get(words.removesuffix(" level").removesuffix(" levels"))
    if found is None:
        raise ValueError(f"{_quoted(text)} is none of all, beginner, intermediate, advanced")
    return found


def truth(text: str) -> bool:
    """Yes or no."""
    found = _TRUTHS.get(text.strip().lower())
    if found is None:
        raise ValueError(f"{_quoted(text)} is neither true nor false")
    return found


def count(text: str) -> int:
    """A whole number, its thousands separated by commas, apostrophes or spaces, or by nothing."""
    match = _COUNT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{_quoted(text)} is no whole number")
    return int(re.sub(r"\D", "", match[1]))


def rating(text: str) -> int | None:
    """Hundredths of a rating from 0 to 5, rounded half up; 0 is how exports write that there is none."""
    match = _RATING.fullmatch(text.strip())
    decimals = "" if match is None else (match[2] or "").ljust(3, "0")
    if match is None or (found := int(match[1] + decimals[:2]) + (decimals[2] >= "5")) > 500:
        raise ValueError(f"{_quoted(text)} is no rating from 0 to 5")
    return found or None


def instant(text: str) -> Instant:
    """An ISO 8601 date or time; without an offset, it is UTC."""
    try:
        at = datetime.fromisoformat(text.strip())
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        if not text.strip().isdigit() and 1970 <= at.year <= 2200:
            return max(0, int(at.timestamp() * SECOND))
    except ValueError:
        pass
    raise ValueError(f"{_quoted(text)} is no date or time such as 2024-01-15 or 2024-01-15T09:30:00Z")


def currency(text: str) -> str:
    """The code of a currency."""
    code = text.strip().upper()
    if code not in CURRENCIES:
        raise ValueError(f"{_quoted(text)} is no currency of ISO 4217")
    return code


def price(text: str, *, paid: bool | None, stated: str | None, default: str) -> Money:
    """An amount, with or without a currency; "Free" is 0.

    `paid` is what another column says of the matter, and must agree. `stated` is the row's currency, which a symbol
    or code beside the amount must agree with; where neither names one, it is `default`.
    """
    free = text.strip().lower() in _FREE
    found = Money(0, stated or default) if free else _amount(text, stated, default)
    if paid is not None and paid != (found.amount_minor > 0):
        raise ValueError(f"{_quoted(text)}, but another column says that the course is {'paid' if paid else 'free'}")
    return found


def _amount(text: str, stated: str | None, default: str) -> Money:
    match = _MARKED_NUMBER.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{_quoted(text)} is no price")
    used = _currency_of(f"{match[1]} {match[3]}".split(), stated, default, text)
    number = _plain_number(match[2], CURRENCIES[used])
    if number is None:
        raise ValueError(f"{_quoted(text)} can be read in more than one way, or in none")
    try:
        return Money(parse_amount(number, used), used)
    except LearnFlowError as error:
        raise ValueError(f"{_quoted(text)} {error.message.removeprefix('price.amount ').rstrip('.')}") from None


def _currency_of(marks: list[str], stated: str | None, default: str, text: str) -> str:
    """The currency that every mark beside an amount allows."""
    used = stated
    for mark in marks:
        allowed = _SYMBOLS.get(mark) or ((mark.upper(),) if mark.upper() in CURRENCIES else ())
        used = used or (default if default in allowed else allowed[0] if len(allowed) == 1 else None)
        if used not in allowed:
            raise ValueError(f"{_quoted(text)}: {mark} does not stand for {used or default}")
    return used or default


def _plain_number(digits: str, decimals: int) -> str | None:
    """The number with a point before its decimals and nothing else between its digits; None when that is a guess.

    One mark with three digits behind it may separate thousands or decimals. In a currency of three decimals a point
    separates decimals, and in the others a comma separates thousands; the rest stays open.
    """
    digits = _GROUPING_SPACE.sub("", digits)
    if _THREE_BEHIND_ONE_MARK.fullmatch(digits):
        if ("," in digits) == (decimals == 3):
            return None
        digits = digits.replace(",", "")
    elif _ONE_MARK_OR_NONE.fullmatch(digits) or _POINTS_THEN_COMMA.fullmatch(digits):
        digits = (digits.replace(".", "") if digits.count(".") > 1 or "," in digits else digits).replace(",", ".")
    elif _COMMAS_THEN_POINT.fullmatch(digits):
        digits = digits.replace(",", "")
    else:
        return None
    return re.sub(r"^0+(?=[0-9])", "", digits)


def _within(text: str, kind: object, allowed: str) -> str:
    try:
        return str(msgspec.convert(text, kind))
    except msgspec.ValidationError:
        raise ValueError(f"must have {allowed}, not {len(text)}") from None


def _quoted(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= 60 else f"{text[:59]}…")
