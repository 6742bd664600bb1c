"""Search: what a word is, in every script and however it is typed; and that a course is found by what it says."""

# Characters that look like others are what is tested here:
# ruff: noqa: RUF001

from __future__ import annotations

import contextlib
import re
import sys
import unicodedata

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from learnflow_core import search
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.search import (
    MAX_SLUG_LENGTH,
    MAX_TOKENS,
    SLUG_PATTERN,
    SearchQuery,
    course_tokens,
    matches,
    parse_search,
    slug,
    title_matches,
    words,
)

anything = st.text() | st.text("\ud800\udfff\0 aé.")  # lone surrogates too
# Text in which the punctuation that words may hold stands where it hurts.
scraps = st.sampled_from(
    [*"abCé39.+#-'’=@~&|!*:(\"\\ß字ガ🚀हिİı", "ASP.NET", "C++", "c#", "3.8", "l'art", "\u0301", "\u200d", "­"]
)
texts = st.lists(scraps | st.characters(), max_size=25).map("".join) | st.lists(scraps, max_size=25).map("".join)
levels = st.sampled_from(["all", "beginner", "intermediate", "advanced"])


def refused(text: str) -> LearnFlowError:
    with pytest.raises(LearnFlowError) as caught:
        parse_search(text)
    assert (caught.value.code, caught.value.param) == (Code.INVALID_PARAMETER, "search")
    return caught.value


def tokens_of(title: str, description: str = "") -> str:
    return course_tokens(title, "", description, "development", "all")


def finds(text: str, title: str) -> bool:
    query = parse_search(text)
    assert query is not None
    return matches(tokens_of(title), query)


def short_enough(text: str) -> bool:
    """Whether a person may search for it; the words of longer texts are searched for in parts."""
    return len(text) <= search.MAX_SEARCH_LENGTH and len(words(text)) <= search.MAX_SEARCH_WORDS


# --- what a word is ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Complete Web Development Bootcamp", ["complete", "web", "development", "bootcamp"]),
        ("C++, C# and .NET (F#)", ["c++", "c#", "and", ".net", "f#"]),
        ("C++/CLI C++17 C+++ C++Builder", ["c++", "cli", "c++", "17", "c++", "c++", "builder"]),
        ("C#8 1+1", ["c#", "8", "1+", "1"]),
        ("ASP.NET node.js", ["asp", "net", "node", "js"]),
        ("html+css CompTIA A+, Security+", ["html", "css", "comptia", "a+", "security+"]),
        ("Python 3.8.1, .5 and 10.", ["python", "3.8.1", "5", "and", "10"]),
        ("Master's, L’Oréal, 'quoted'", ["masters", "loreal", "quoted"]),
        ("e-commerce snake_case Q&A", ["e", "commerce", "snake", "case", "q", "a"]),
        ("Crème brûlée, Łódź, smørrebrød, œuvre", ["creme", "brulee", "lodz", "smorrebrod", "oeuvre"]),
        ("Straße STRASSE ﬁnance ＡＢＣ １２", ["strasse", "strasse", "finance", "abc", "12"]),
        ("İstanbul IŞIK ışık", ["istanbul", "isik", "isik"]),
        ("ΣΊΣΥΦΟΣ Ёлка", ["σισυφοσ", "елка"]),
        ("שָׁלוֹם العَرَبِيَّة ــ", ["שלום", "العربية"]),
        ("हिन्दी फ़िल्म", ["हिन्दी", "फिल्म"]),
        ("தமிழ் বাংলা ภาษาไทย", ["தமிழ்", "বাংলা", "ภาษาไทย"]),
        ("機械学習ガイド ｶﾞ", [*"機械学習ガイドガ"]),
        ("か\u3099は\u309aか\u309a", ["が", "ぱ", "か"]),
        ("한국어", ["한국어"]),
        ("Scrum™ CFA® 🚀👨‍👩‍👧", ["scrum", "cfa", "®", "🚀", "👨", "👩", "👧"]),
        ("1\ufe0f\u20e3 keycap", ["1", "keycap"]),
        ("pro\u00adgram zero\u200bwidth a\u200db \ufefftext", ["program", "zero", "width", "ab", "text"]),
        ("=title @category ~level", ["title", "category", "level"]),
        ("", []),
        (" \0\t\n.+#-'’&|!()\"\\*:^{}~=@<>$€", []),
        ("\ud800\ufffe", []),
    ],
)  # fmt: skip
def test_the_words_of_a_text(text: str, expected: list[str]) -> None:
    assert words(text) == [unicodedata.normalize("NFC", word) for word in expected]


@given(texts | anything)
def test_a_word_holds_nothing_that_an_index_or_a_marker_could_take_for_its_own(text: str) -> None:
    for word in words(text):
        assert 1 <= len(word) <= search.MAX_WORD_LENGTH
        assert not re.search(r"[\s\x00-\"$-*,\-/:-@A-Z\[-`{-\x7f\ud800-\udfff]", word)


@given(texts | anything)
@example("x" * 62 + "3.8")
@example("x" * 63 + "++")
def test_a_word_is_its_own_and_only_word(text: str) -> None:
    for word in words(text):
        assert words(word) == [word]


def test_no_character_of_unicode_is_folded_to_something_that_folds_further() -> None:
    assigned = (
        chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) not in ("Cn", "Co", "Cs")
    )
    assert [character for character in assigned if words(" ".join(found := words(character))) != found] == []


def test_only_marks_are_dropped_as_accents_and_those_of_indic_and_thai_vowels_are_not() -> None:
    dropped = {code for code in range(sys.maxunicode + 1) if search._ACCENTS.match(chr(code))}
    assert {chr(code) for code in dropped if unicodedata.category(chr(code)) != "Mn"} == {"\N{ARABIC TATWEEL}"}
    assert {code for code in dropped if 0x0900 <= code < 0x1800} == {ord("\N{DEVANAGARI SIGN NUKTA}")}


@given(st.text(st.characters(categories=["Lu", "Ll", "Lt", "Lo", "Nd", "Zs"])))
@example("\u0345")
def test_case_does_not_matter(text: str) -> None:
    assert words(text.upper()) == words(text.lower()) == words(text.casefold()) == words(text)


@given(texts)
def test_the_form_in_which_accents_are_encoded_does_not_matter(text: str) -> None:
    for form in ("NFC", "NFD"):
        assert words(unicodedata.normalize(form, text)) == words(text)


@given(st.text(st.characters(max_codepoint=0x58F)), st.characters(min_codepoint=0x300, max_codepoint=0x36F), st.data())
def test_an_accent_after_a_letter_does_not_matter(text: str, accent: str, data: st.DataObject) -> None:
    assume(text and accent != "\N{COMBINING GREEK YPOGEGRAMMENI}")  # which is an iota, a letter
    place = data.draw(st.integers(1, len(text)))
    assert words(text[:place] + accent + text[place:]) == words(text)


def test_the_table_of_characters_is_bounded_and_right_beyond_its_bound() -> None:
    table = search._Characters()
    everything = "".join(chr(code) for code in range(0x4E00, 0x4E00 + 20_992)) + "aé,"
    assert everything.translate(table).split() == [*everything[:-3], "aé"]
    assert len(table) == 20_000


# --- what is asked ---


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("python", SearchQuery((), "python")),
        ("Python for begin", SearchQuery(("python", "for"), "begin")),
        ("the PYTHON the Pythón py ", SearchQuery(("the", "python"), "py")),
        ("c++ .net", SearchQuery(("c++",), ".net")),
        ("go go go", SearchQuery(("go",), "go")),
    ],
)
def test_a_search_is_its_distinct_words_in_order_and_the_start_of_the_last(text: str, query: SearchQuery) -> None:
    assert parse_search(text) == query


@pytest.mark.parametrize("text", ["", " ", "\0", "...", "+ # &", '"*"', "\ud800", "x" * 0, "\u200d\u00ad\u0301"])
def test_a_search_without_a_word_is_as_if_absent(text: str) -> None:
    assert parse_search(text) is None


@given(anything | texts)
@example("\" OR title:* NEAR(a b) AND NOT -x ^y {z} & | ! <-> :* ' \\ \0 %_")
def test_no_text_makes_a_search_fail_unless_it_is_too_long(text: str) -> None:
    if short_enough(text):
        query = parse_search(text)
        assert (query is None) == (words(text) == [])
        if query:
            assert [*dict.fromkeys(words(text)[:-1]), words(text)[-1]] == [*query.words, query.prefix]


def test_a_search_of_256_characters_and_16_words_is_the_longest() -> None:
    assert parse_search("x" * 256) == SearchQuery((), "x" * 64)
    assert "256 characters" in refused("x" * 257).message
    assert parse_search(" ".join("abcdefghijklmnop")) is not None
    assert "16 words" in refused(" ".join("abcdefghijklmnopq")).message
    assert "16 words" in refused("a " * 17).message, "repeated words count as a person counts"


def test_a_phrase_in_a_script_without_spaces_is_not_too_many_words() -> None:
    phrase = "株式投資で本当のファンダメンタル分析ができるようになる"
    assert len(words(phrase)) > search.MAX_SEARCH_WORDS
    assert finds(phrase, phrase)
    assert finds("株式投資 python", f"{phrase} Python")


@given(texts.filter(short_enough))
def test_every_spelling_of_a_search_has_one_normal_form_which_asks_the_same(text: str) -> None:
    query = parse_search(text)
    assume(query)
    assert query is not None
    assert parse_search(unicodedata.normalize("NFD", f" {text.casefold()}, ")) == query
    folded = " ".join((*query.words, query.prefix))
    if short_enough(folded):
        assert parse_search(folded) == query


# --- what is found ---


@given(texts, texts, texts)
def test_a_course_is_found_by_every_word_it_says_in_any_order(title: str, instructor: str, description: str) -> None:
    tokens = course_tokens(title, instructor, description, "web-development", "all")
    said = words(f"{title}\n{instructor}\n{description}\nweb-development")
    for first, second in zip(said, reversed(said), strict=True):
        assert matches(tokens, SearchQuery((first,), second))


@given(texts.filter(short_enough), texts)
def test_a_course_is_found_by_its_title_and_then_its_title_matches(title: str, description: str) -> None:
    query = parse_search(title)
    assume(query)
    assert query is not None
    tokens = tokens_of(title, description)
    assert matches(tokens, query)
    assert title_matches(tokens, query)


@given(texts.filter(short_enough), st.data())
def test_a_course_is_found_by_every_beginning_of_its_title_while_it_is_typed(title: str, data: st.DataObject) -> None:
    title = unicodedata.normalize("NFC", title)
    place = data.draw(st.integers(0, len(title)))
    assume(not unicodedata.category(title[place:][:1] or "x").startswith("M"))  # nobody stops within a letter
    query = parse_search(title[:place])
    assert query is None or title_matches(tokens_of(title), query)


@given(texts, texts, texts.filter(short_enough))
def test_a_title_that_matches_is_a_course_that_matches(title: str, description: str, text: str) -> None:
    query = parse_search(text)
    assume(query)
    assert query is not None
    tokens = tokens_of(title, description)
    assert matches(tokens, query) or not title_matches(tokens, query)


@given(texts, texts, texts, texts.filter(short_enough))
def test_whether_a_title_matches_does_not_depend_on_the_rest_of_the_course(
    title: str, instructor: str, description: str, text: str
) -> None:
    query = parse_search(text)
    assume(query)
    assert query is not None
    tokens = course_tokens(title, instructor, description, "development", "all")
    assert title_matches(tokens, query) == title_matches(tokens_of(title), query)


@pytest.mark.parametrize(
    ("title", "found_by", "not_found_by"),
    [
        ("Learn ASP.NET Core", ["asp.net", ".net", "net", "asp", "aspnet", ".NET core", "asp.n"], ["asp .js"]),
        ("Node.js from Scratch", ["node.js", "node", "js", ".js", "nodejs", "node js", "node.js s"], ["no js"]),
        (".NET basics", [".net", "net", ".ne"], ["asp"]),
        ("C++ for Everyone", ["c++", "C+", "c", "c++ everyone"], ["c everyone", "c# ", "c+ everyone"]),
        ("C# in Depth", ["c#", "C", "c# depth"], ["c depth", "c++"]),
        ("C Programming", ["c", "c programming"], ["c++", "c#"]),
        ("CompTIA Security+ Exam", ["security+", "security exam", "security+ exam"], ["security++"]),
        ("HTML+CSS", ["html", "css", "html css", "html+css", "html+"], ["html++", "html+ css+"]),
        ("E-Commerce, Front-End", ["e-commerce", "ecommerce", "commerce", "frontend", "front end"], ["ende"]),
        ("Beginner's Guide", ["beginners guide", "beginner's", "beginner guide", "beginner’s guide"], ["begin guide"]),
        ("L’art de l'informatique", ["art", "l'art", "informatique", "l'informatique"], ["formatique"]),
        ("Python 3.8 Deep Dive", ["3.8", "python 3", "3.8 dive"], ["38", "3.9", "3.8.1"]),
        ("हिन्दी सीखें", ["हिन्दी", "हिन्", "सीखें"], ["दी"]),
        ("สอนเทรดไบนารี่", ["สอนเทรดไบนารี่", "สอน"], ["ไบนารี่"]),
        ("株式投資の分析", ["株式", "投資", "分析 投資"], ["株式会社"]),
        ("Café ☕ & Crêpes", ["cafe", "CRÊPES", "crep", "☕"], ["🚀"]),
    ],
)  # fmt: skip
def test_people_find_it_by_what_they_type(title: str, found_by: list[str], not_found_by: list[str]) -> None:
    assert [text for text in found_by if not finds(text, title)] == []
    assert [text for text in not_found_by if finds(text, title)] == []


def test_only_the_last_word_may_be_the_start_of_a_word() -> None:
    assert finds("web dev", "Web Development")
    assert not finds("dev web", "Web Development")


# --- what is stored ---


def test_the_tokens_of_the_published_course() -> None:
    tokens = course_tokens("Web Bootcamp", "Dr. John Smith", "Learn C++ .5, 3.8!", "web-development", "beginner")
    assert tokens.split(" ") == [
        "3", "3.8", "5", "8", "=bootcamp", "=web", "@web-development", "bootcamp", "c++", "development", "dr", "john",
        "learn", "smith", "web", "webdevelopment", "~beginner",
    ]  # fmt: skip


@given(texts | anything, texts, texts, st.text("abc09", min_size=1, max_size=64), levels)
def test_tokens_are_distinct_sorted_and_bear_no_marker_but_their_own(
    title: str, instructor: str, description: str, category: str, level: str
) -> None:
    tokens = course_tokens(title, instructor, description, category, level).split(" ")
    assert tokens == sorted(set(tokens))
    assert [token for token in tokens if token[0] in "@~"] == [f"@{category}", f"~{level}"]
    plain = {token for token in tokens if token[0] not in "=@~"}
    assert {token[1:] for token in tokens if token[0] == "="} <= plain
    assert all(words(token) for token in plain)
    assert not any(re.search(r"[\s\x00-\"$-*,\-/:-@A-Z\[-`{-\x7f\ud800-\udfff]", token) for token in plain)


@pytest.mark.parametrize("title", ["Short", " ".join(f"{number:05}{'𐌀' * 70}" for number in range(5000))])
@pytest.mark.parametrize("description", ["", " ".join(f"{number:05}{'𐍈' * 70}" for number in range(5000))])
def test_the_tokens_of_any_course_fit_into_a_tsvector(title: str, description: str) -> None:
    tokens = course_tokens(title, "Somebody", description, "development", "all")
    assert len(tokens.split(" ")) <= MAX_TOKENS
    assert len(tokens.encode()) < 2**20
    query = SearchQuery((), "04")
    assert matches(tokens, query) or not title_matches(tokens, query)


def test_when_a_description_is_too_long_its_end_is_what_cannot_be_found() -> None:
    description = " ".join(f"w{number}" for number in range(5000))
    tokens = course_tokens("Title", "Instructor", description, "development", "all")
    assert title_matches(tokens, SearchQuery((), "title"))
    assert matches(tokens, SearchQuery(("instructor", "development", "w0", "w2000"), "w2900"))
    assert not matches(tokens, SearchQuery((), "w4999"))


@pytest.mark.parametrize(
    "scrap", ["a", "é", "a.", "a-", "a'", "'", ".", "+", "a+", "1.", "字", "\u0301", "a\u0301\u0323", "ﷺ", "ी"]
)
def test_a_text_of_a_hundred_thousand_characters_is_read_in_one_pass(scrap: str) -> None:
    assert len(tokens_of("x", scrap * (100_000 // len(scrap))).split(" ")) < 20


# --- categories ---


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Business Finance", "business-finance"),
        ("  Arts & Crafts! ", "arts-crafts"),
        ("Développement Web", "developpement-web"),
        ("development", "development"),
        ("web-development", "web-development"),
        ("C", "c"),
        ("C++", "c-plus-plus"),
        ("C#", "c-sharp"),
        ("# Tips", "tips"),
        ("ASP.NET", "asp-net"),
        ("Master's Degree", "masters-degree"),
        ("x" * 64, "x" * 64),
    ],
)
def test_a_category_is_known_by_a_slug_of_its_name(name: str, expected: str) -> None:
    assert slug(name) == expected


@given(texts | anything)
@example("数据科学")
@example("-数")
def test_a_slug_has_the_form_of_one_and_is_its_own_slug_or_there_is_none(name: str) -> None:
    with contextlib.suppress(LearnFlowError):
        found = slug(name)
        assert re.match(SLUG_PATTERN, found)
        assert len(found) <= MAX_SLUG_LENGTH
        assert slug(found) == found


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=3))
def test_every_short_name_with_a_word_has_a_slug(name: str) -> None:
    assume(words(name))
    assert slug(name)


def test_names_in_other_scripts_have_slugs_too_and_different_ones() -> None:
    names = [
        "数据科学",
        "科学数据",
        "商业",
        "Программирование",
        "برمجة",
        "हिन्दी",
        "हिन्द",
        "データ",
        "web 开发",
        "开发 web",
    ]
    assert len({slug(name) for name in names}) == len(names)


@pytest.mark.parametrize("name", ["", "!!!", "--", "\0", "x" * 65, "word " * 20])
def test_a_name_that_makes_no_slug_is_refused(name: str) -> None:
    with pytest.raises(LearnFlowError) as caught:
        slug(name)
    assert (caught.value.code, caught.value.param) == (Code.INVALID_PARAMETER, "category")
    assert "64" in caught.value.message


def test_the_bounds_of_a_search_and_of_an_index() -> None:
    for text in ("x" * 256, "x " * 16, "e\u4e00" * 15 + "e"):
        assert parse_search(text) is not None
    for text in ("x" * 257, "x " * 17):
        with pytest.raises(LearnFlowError) as refused:
            parse_search(text)
        assert (refused.value.code, refused.value.param) == (Code.INVALID_PARAMETER, "search")
    assert [len(word) for word in words("x" * 65)] == [64]
    assert len(slug("x" * 64)) == 64
    with pytest.raises(LearnFlowError) as refused:
        slug("x" * 65)
    assert (refused.value.code, refused.value.param) == (Code.INVALID_PARAMETER, "category")
    assert len(course_tokens("x", "y", " ".join(map(str, range(4_000))), "z", "all").split(" ")) == 3_000


def test_what_characters_become_is_remembered_for_as_many_as_there_is_room_for() -> None:
    characters = search._Characters()
    for code_point in range(0x4E00, 0x4E00 + 20_100):
        assert characters[code_point] == f" {chr(code_point)} "
    assert len(characters) == 20_000
