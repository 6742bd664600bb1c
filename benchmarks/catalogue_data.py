"""Catalogues of any size: courses whose words, students, prices and dates are spread as in real ones.

Words follow Zipf's law, and `python` stands in 22 % of the titles; 15 % of the courses have no students, and a few have
most of them. The same seed and number make the same course in a catalogue of any size.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import accumulate
from typing import Final, get_args

from learnflow_core.model import DAY, Course, Level
from learnflow_core.money import Money

COMMONEST: Final = "python"
"""The word that stands in 22 % of the titles."""

CATEGORIES: Final = tuple(
    f"{field}-{number}"
    for number in range(1, 5)
    for field in ("development", "business", "design", "music", "health", "science", "languages", "writing", "cooking")
)
_SYLLABLES: Final = (
    "pro gram ming da ta sci ence mar ket ing de sign web ap pli ca tion sys tem se cu ri ty net work ma chine learn "
    "mo del busi ness fi nance pho to gra phy mu sic lan guage his ry the cloud ser ver ro bot vi sion au dio"
)
_VOCABULARY: Final = 40_000
_SHARE_OF_COMMONEST: Final = 0.22
_WITHOUT_STUDENTS: Final = 0.15
_MOST_STUDENTS: Final = 2_000_000
_SHARES_OF_CATEGORIES: Final = tuple(accumulate(1 / rank for rank in range(1, len(CATEGORIES) + 1)))
_SHARES_OF_LEVELS: Final = (50, 28, 16, 6)
_PRICES: Final = (0, 0, 999, 1_299, 1_999, 2_499, 4_999, 8_999, 19_999)
_FIRST_DAY: Final = 16_000 * DAY
_DAYS: Final = 4_000


def catalogue(count: int, *, account_id: str, seed: int = 1) -> Iterator[Course]:
    """The courses number 0 to `count` - 1 of the account, all published."""
    vocabulary = Vocabulary(seed)
    for number in range(count):
        yield _course(number, account_id, vocabulary, random.Random(f"{seed} {number}"))


class Vocabulary:
    """Distinct words that look like words; of rank r, one in proportion to 1 / (r + 2)."""

    words: list[str]
    """The commonest first; without `COMMONEST`, which is commoner."""

    def __init__(self, seed: int = 1) -> None:
        chance = random.Random(f"{seed} words")
        syllables = _SYLLABLES.split()
        found: dict[str, None] = {}
        while len(found) < _VOCABULARY:
            word = "".join(chance.choices(syllables, k=chance.choice((2, 2, 3, 3, 4))))
            found |= {} if word == COMMONEST else {word: None}
        self.words = list(found)
        self._shares = list(accumulate(1 / rank for rank in range(3, _VOCABULARY + 3)))

    def some(self, count: int, chance: random.Random) -> list[str]:
        """So many of them, drawn as they stand in titles."""
        return chance.choices(self.words, cum_weights=self._shares, k=count)


def _course(number: int, account_id: str, vocabulary: Vocabulary, chance: random.Random) -> Course:
    title = vocabulary.some(chance.randint(3, 8), chance)
    if chance.random() < _SHARE_OF_COMMONEST:
        title[chance.randrange(len(title))] = COMMONEST
    students = _students(chance)
    created_at = _FIRST_DAY + chance.randrange(_DAYS) * DAY + chance.randrange(86_400) * 1_000_000
    level: Level = chance.choices(get_args(Level), _SHARES_OF_LEVELS)[0]
    return Course(
        id=f"crs_{chance.getrandbits(60):015x}",
        account_id=account_id,
        created_by=None,
        title=" ".join(title).capitalize(),
        instructor=" ".join(vocabulary.some(2, chance)).title(),
        category=chance.choices(CATEGORIES, cum_weights=_SHARES_OF_CATEGORIES)[0],
        level=level,
        price=Money(chance.choice(_PRICES), "USD"),
        rating=None if students < 20 else 300 + int(200 * chance.betavariate(5, 2)),
        total_students=students,
        students_base=students,
        description=f"{' '.join(vocabulary.some(12, chance)).capitalize()}.",
        language="en",
        curriculum=(),
        status="published",
        seats=None,
        prerequisites=(),
        external_id=f"generated-{number}",
        created_at=created_at,
        updated_at=created_at,
    )


def _students(chance: random.Random) -> int:
    """None for some, few for most and very many for a few: a Pareto distribution."""
    if chance.random() < _WITHOUT_STUDENTS:
        return 0
    return min(_MOST_STUDENTS, int(8 * chance.paretovariate(0.7)))
