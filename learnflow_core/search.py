"""What a word is: the one place that turns text into the tokens both databases index, and a search into what to match.

An index stores each course's tokens as they are and parses nothing, so that every storage backend finds the same
courses. Tokens are words, and three markers that no text can forge, because no word holds their first character:
`=word` for a word of the title, `@category`, `~level`.

Words are folded, so that case and accents do not matter: compatibility forms are taken apart, the marks of scripts in
which they are accents or optional points dropped, and those of scripts in which they are vowels (Devanagari, Thai, …)
kept. Scripts written without spaces: each ideograph and kana is a word of its own, so that every part of a phrase is
found; a run of Thai, Lao, Khmer or Burmese is one word, found by its beginning.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

from learnflow_core.errors import Code, LearnFlowError

MAX_SEARCH_LENGTH: Final = 256
MAX_SEARCH_WORDS: Final = 16
MAX_WORD_LENGTH: Final = 64
"""Code points of a word; what is longer is cut, in texts and in searches alike."""
MAX_TOKENS: Final = 3000
"""Distinct tokens of a course. At most 257 bytes each, they fit into PostgreSQL's tsvector (1 MiB)."""

SLUG_PATTERN: Final = r"^[a-z0-9]+(-[a-z0-9]+)*$(?!\n)"
MAX_SLUG_LENGTH: Final = 64

# Accents, points and variation selectors of category Mn, the Arabic kashida, and the Devanagari nukta, which people
# write or leave out. Indic, Thai and other vowel signs are not here, nor the marks that make another kana.
_ACCENTS: Final = re.compile(
    "[\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670"
    "\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u0711\u0730-\u074a\u0898-\u089f\u08ca-\u08e1\u08e3-\u08ff\u093c"
    "\u180b-\u180d\u180f\u1ab0-\u1abd\u1abf-\u1ace\u1dc0-\u1dff\u20d0-\u20dc\u20e1\u20e5-\u20f0\u2cef-\u2cf1\u2de0-\u2dff"
    "\ua66f\ua674-\ua67d\ua69e\ua69f\ufb1e\ufe00-\ufe0f\ufe20-\ufe2f\U000e0100-\U000e01ef]+"
)
_TRADE_MARKS: Final = re.compile("[\u2120\u2122]")  # else NFKD makes letters of them: Scrum(TM) is not "scrumtm"
_IDEOGRAPH: Final = re.compile(
    "[\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U0001aff0-\U0001b16f\U00020000-\U000323af]"
)
_APOSTROPHES_AND_HYPHENS: Final = {"\u2019": "'", "\u02bc": "'", "\u2010": "-"}
# Letters that differ from another by an accent, though Unicode does not take them apart.
_ACCENTED: Final = {"\u0131": "i", "ł": "l", "ø": "o", "đ": "d", "ħ": "h", "æ": "ae", "œ": "oe"}
_ALIASES: Final = _APOSTROPHES_AND_HYPHENS | _ACCENTED
_LEFT_OVER_KANA_MARKS: Final = "\u3099\u309a"
_ZERO_WIDTH_SPACE: Final = "\u200b"  # of category Cf, but it stands between words

# In folded text, whatever is not one of these punctuation marks is part of a word.
_W: Final = r"[^ .+#'\-]"
_WORD: Final = re.compile(
    rf"((?:(?<!{_W})\.(?![0-9]))?)"  # the dot of .NET, but not a decimal one
    rf"({_W}(?:{_W}|(?<=[0-9])\.(?=[0-9])|'(?={_W}))*)"  # 3.8 and master's are one word
    rf"(\+\+|[+#]|)(?=([^ .+#'\-0-9]|))"  # C++, C# and A+, but html+css are two words: so the letter that follows
)
_PART: Final = re.compile(rf"(\.?)({_W}+)([+#]?)")
_COMPOUND: Final = re.compile(rf"(?<!{_W}){_W}+(?:(?:'|(?<![0-9])[.-](?![0-9])){_W}+)+")
_SLUG_WORD: Final = re.compile(r"[^ .#\-]+")
_SHARP: Final = re.compile(rf"(?<={_W})#")
_JOINTS: Final = str.maketrans("", "", ".-'")


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A course matches when it has every one of `words`, and a word that starts with `prefix` (which is never empty).

    `words` are distinct, in the order they were typed, and `prefix` is the last word typed.
    """

    words: tuple[str, ...]
    prefix: str


def words(text: str) -> list[str]:
    """The words of a text in order, repeated as they are; none for a text without letters, digits or symbols.

    Letters, digits and the marks among them make a word, with a `.` before a letter (.NET), `+`, `++` or `#` after
    (C++, C#), a `.` between digits (3.8); an apostrophe inside is left out. Each symbol (emoji) is a word.
    """
    return [_word(*match) for match in _WORD.findall(_fold(text))]


def parse_search(text: str) -> SearchQuery | None:
    """What a person asks for who types `text`; None when it has no word. No character is an operator.

    Raises INVALID_PARAMETER (`search`) above MAX_SEARCH_LENGTH characters or MAX_SEARCH_WORDS words; ideographs and
    kana, which are words for the index only, do not count.
    """
    if len(text) > MAX_SEARCH_LENGTH:
        raise _refusal("search", f"must have at most {MAX_SEARCH_LENGTH} characters")
    found = words(text)
    if not found:
        return None
    if sum(not _IDEOGRAPH.match(word) for word in found) > MAX_SEARCH_WORDS:
        raise _refusal("search", f"must have at most {MAX_SEARCH_WORDS} words")
    *whole, prefix = found
    return SearchQuery(tuple(dict.fromkeys(whole)), prefix)


def course_tokens(title: str, instructor: str, description: str, category: str, level: str) -> str:
    """The distinct tokens of a course, sorted and joined with spaces: its words, `=word`, `@category` and `~level`.

    `category` is a slug and `level` one of the levels. Past MAX_TOKENS the end of the description is not indexed.
    """
    title_words = chain.from_iterable((word, f"={word}") for word in _index_words(title))
    others = chain.from_iterable(map(_index_words, (instructor, category, description)))
    tokens = dict.fromkeys(chain((f"@{category}", f"~{level}"), title_words, others))
    return " ".join(sorted(islice(tokens, MAX_TOKENS)))


def matches(tokens: str, query: SearchQuery) -> bool:
    """Whether a course with these tokens is found: what every index must agree with."""
    return _holds(tokens.split(" "), query, marker="")


def title_matches(tokens: str, query: SearchQuery) -> bool:
    """Whether the title alone holds every word of the query; implies `matches`."""
    return _holds(tokens.split(" "), query, marker="=")


def slug(text: str) -> str:
    """The slug of a category's name: `Business Finance` is `business-finance`, `C++` is `c-plus-plus`.

    It matches SLUG_PATTERN, and is its own slug. A name with letters beyond ASCII after folding is written in Punycode
    (RFC 3492), distinct though not readable. Raises INVALID_PARAMETER (`category`) for a name without letters or
    digits, and for one whose slug would be longer than MAX_SLUG_LENGTH.
    """
    spelled = _SHARP.sub(" sharp ", _fold(text).replace("'", "").replace("+", " plus "))
    name = "-".join(_SLUG_WORD.findall(spelled))
    if not name.isascii():
        name = re.sub("-+", "-", name.encode("punycode").decode("ascii")).strip("-")
    if not name or len(name) > MAX_SLUG_LENGTH:
        raise _refusal("category", f"must have letters or digits, and make a slug of at most {MAX_SLUG_LENGTH}")
    return name


class _Characters(dict[int, str]):
    """What each character of a text becomes; a translation table that fills itself with what it is asked for.

    Letters, digits and marks stay, ideographs and symbols stand alone, format characters vanish, the punctuation that
    words may hold stays, and everything else separates. At its cap it computes instead of remembering.
    """

    _CAP: Final = 20_000

    def __missing__(self, code_point: int) -> str:
        becomes = self._becomes(chr(code_point))
        if len(self) < self._CAP:
            self[code_point] = becomes
        return becomes

    @staticmethod
    def _becomes(character: str) -> str:
        category = unicodedata.category(character)
        if character in _ALIASES:
            return _ALIASES[character]
        if category == "So" or _IDEOGRAPH.match(character):
            return f" {character} "
        if character in _LEFT_OVER_KANA_MARKS or category == "Me":
            return ""
        if category == "Cf":
            return " " if character == _ZERO_WIDTH_SPACE else ""
        return character if category[0] in "LNM" or character in ".+#'-" else " "


_CHARACTERS: Final = _Characters()


def _fold(text: str) -> str:
    """Words and the punctuation they may hold; every other character has become a space or nothing."""
    if text.isascii():
        return text.lower().translate(_CHARACTERS)
    decomposed = unicodedata.normalize("NFKD", _TRADE_MARKS.sub(" ", text).casefold())
    composed = unicodedata.normalize("NFC", _ACCENTS.sub("", decomposed))
    return composed.casefold().translate(_CHARACTERS)


def _index_words(text: str) -> Iterator[str]:
    """The words of a text, and the other forms by which people look for them; repeated as they are.

    Node.js is found by `node`, `js`, `.js` and `nodejs`; e-commerce by `ecommerce`, master's by `master`, Security+ by
    `security` (but C++ not by `c`, which is another language, save as the start of a word).
    """
    folded = _fold(text)
    for dot, body, suffix, letter in _WORD.findall(folded):
        yield _word(dot, body, suffix, letter)
        yield _word(dot, body, suffix, "")  # the html+ of one who has html+css still to type
    for dot, part, suffix in _PART.findall(folded):
        if len(part) > 1 or not suffix:
            yield _cut(part)
        if dot and not part[0].isdecimal():
            yield _cut(dot + part)
    for compound in _COMPOUND.findall(folded):
        yield _cut(compound.translate(_JOINTS))


def _word(dot: str, body: str, suffix: str, letter_after: str) -> str:
    kept = "" if letter_after and suffix != "++" else suffix
    return _cut(dot + body.replace("'", "") + kept)


def _cut(word: str) -> str:
    return word[:MAX_WORD_LENGTH].rstrip(".")


def _holds(tokens: Iterable[str], query: SearchQuery, marker: str) -> bool:
    held = set(tokens)
    whole = all(marker + word in held for word in query.words)
    return whole and any(token.startswith(marker + query.prefix) for token in held)


def _refusal(param: str, reason: str) -> LearnFlowError:
    return LearnFlowError(Code.INVALID_PARAMETER, f"{param} {reason}.", param=param)
