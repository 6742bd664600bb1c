"""What is asked of a catalogue over HTTP: the same list again, any page of any list, searches, single courses."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPConnection
from itertools import chain, product, repeat
from typing import Final, NamedTuple
from urllib.parse import urlencode

import msgspec

from benchmarks.catalogue_data import CATEGORIES, COMMONEST, Vocabulary
from benchmarks.floor import FixedReply
from benchmarks.processes import Server

COURSES_PATH: Final = "/v1/courses"
SORTS: Final = ("popular", "newest", "rating", "price", "-price")
LEVELS: Final = ("all", "beginner", "intermediate", "advanced")
LIMITS: Final = (46, 47, 48, 49, 50)
"""Of pages, so that two requests are rarely the same, and replies nearly as long as the usual one."""

_SHAPES: Final = ((), ("category",), ("level",), ("category", "level"))
_SHARES_OF_SHAPES: Final = (40, 30, 15, 15)
_COURSES_KNOWN: Final = 2_000
_OF_EVERY_REPLY: Final = {"date", "content-length", "connection", "server"}
"""The headers that the server adds by itself, or that belong to one connection."""

Filters = tuple[tuple[str, str], ...]


class Listing(NamedTuple):
    """The filters of a list, and how many courses it has."""

    filters: Filters
    total: int

    def target(self, sort: str, limit: int, chance: random.Random | None = None) -> str:
        """Page 1 in some order, or with `chance` any full page."""
        page = chance.randint(1, max(1, self.total // limit)) if chance else 1
        return _target(*self.filters, page=str(page), limit=str(limit), sort=sort)


class Catalogue:
    """What there is to ask for, as a server told when it was asked with this credential."""

    def __init__(self, server: Server, credential: str) -> None:
        self._server, self._credential = server, credential
        self._vocabulary = Vocabulary()
        self._lists = {shape: [*self._of_shape(shape)] for shape in _SHAPES}
        self._courses = self._some_courses(random.Random("courses"))

    def same_list(self, seed: int) -> Iterator[str]:
        """The first page of all courses, again and again."""
        return repeat(COURSES_PATH)

    def any_page(self, seed: int) -> Iterator[str]:
        """A full page of some list, by number, in some order: each time another."""
        chance = random.Random(f"{seed} pages")
        shapes = [shape for shape in _SHAPES if self._lists[shape]]
        shares = [_SHARES_OF_SHAPES[_SHAPES.index(shape)] for shape in shapes]
        while True:
            lists = self._lists[chance.choices(shapes, shares)[0]]
            listing = chance.choices(lists, [each.total for each in lists])[0]
            yield listing.target(chance.choice(SORTS), chance.choice(LIMITS), chance)

    def each_list(self, seed: int) -> Iterator[tuple[str, str]]:
        """The first page and another of every list, in every order and length, once; the longest lists first."""
        chance = random.Random(f"{seed} lists")
        lists = sorted(chain(*self._lists.values()), key=lambda each: -each.total)
        for listing, sort, limit in product(lists, SORTS, LIMITS):
            yield listing.target(sort, limit), listing.target(sort, limit, chance)

    def searches(self, seed: int) -> Iterator[str]:
        """A word, two words, or the beginning of one: each time others, rare ones and common ones."""
        chance = random.Random(f"{seed} searches")
        while True:
            rare = chance.choice(self._vocabulary.words)
            (common,) = self._vocabulary.some(1, chance)
            text = chance.choice((rare, f"{common} {rare}", f"{COMMONEST} {rare}", f"{common} {rare[:3]}"))
            yield search_target(text)

    def courses(self, seed: int) -> Iterator[str]:
        """One course of some thousand."""
        chance = random.Random(f"{seed} courses")
        while True:
            yield f"{COURSES_PATH}/{chance.choice(self._courses)}"

    def _of_shape(self, shape: Sequence[str]) -> Iterator[Listing]:
        """The lists with these filters that fill a page; the whole catalogue, however small it is."""
        choices = {"category": CATEGORIES, "level": LEVELS}
        filters: list[Filters] = [()]
        for name in shape:
            filters = [(*some, (name, value)) for some in filters for value in choices[name]]
        for some in filters:
            reply = fetch(self._server, request(_target(*some, limit="1"), self._credential))
            total = msgspec.json.decode(reply.body)["meta"]["total_items"]
            if total >= max(LIMITS) or not shape:
                yield Listing(some, total)

    def _some_courses(self, chance: random.Random) -> list[str]:
        found: set[str] = set()
        everything = self._lists[()][0].total
        for _ in range(-(-min(everything, _COURSES_KNOWN) // 50)):
            page = chance.randint(1, max(1, everything // 50))
            reply = fetch(self._server, request(_target(page=str(page), limit="50"), self._credential))
            found.update(course["id"] for course in msgspec.json.decode(reply.body)["data"])
        return sorted(found)


Asked = Callable[[Catalogue, int], Iterator[str]]
"""The targets of requests, drawn by a seed."""


def request(target: str, credential: str, *, method: str = "GET", body: bytes = b"", key: str = "") -> bytes:
    """A request as it is sent; with an idempotency key, where one is given."""
    head = f"{method} {target} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {credential}\r\n"
    if key:
        head += f"idempotency-key: {key}\r\n"
    if body:
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode("ascii") + b"\r\n" + body


def fetch(server: Server, asked: bytes) -> FixedReply:
    """What a server answers to a request. Raises RuntimeError unless it is a success."""
    head, _, body = asked.partition(b"\r\n\r\n")
    line, *fields = head.decode("ascii").split("\r\n")
    method, target, _ = line.split(" ")
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(method, target, body or None, dict(field.split(": ", 1) for field in fields))
    reply = connection.getresponse()
    headers = [(name.lower(), value) for name, value in reply.getheaders() if name.lower() not in _OF_EVERY_REPLY]
    text = reply.read().decode()
    connection.close()
    if reply.status >= 300:
        raise RuntimeError(f"{line} is answered with {reply.status}: {text}")
    return FixedReply(reply.status, [*headers, ("content-length", str(len(text.encode())))], text)


def search_target(text: str, **more: str) -> str:
    """The target of a search."""
    return _target(search=text, **more)


def _target(*pairs: tuple[str, str], **more: str) -> str:
    return f"{COURSES_PATH}?{urlencode([*pairs, *more.items()])}"
