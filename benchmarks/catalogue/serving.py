"""The catalogue over HTTP: page 1 beside any page, the worker's memory, and whether a slow search holds others up."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from math import inf
from multiprocessing import get_context
from time import sleep
from typing import Final

from benchmarks.catalogue.lists import BySize, by_size
from benchmarks.catalogue_data import COMMONEST, Vocabulary
from benchmarks.http.requests import Catalogue, request, search_target
from benchmarks.load import LoadError, drive
from benchmarks.processes import Server, waited_ns

FIRST, ANY = "page 1", "any page"
QUIET, SEARCHING = "nothing else is asked", "slow searches run"
STALLED = "slow searches run, without waiting for a processor"

_LIGHT: Final = "/healthz"
_SEARCHERS: Final = 2
_PAGES_A_SAMPLE: Final = 400
_PAUSE_S: Final = 0.001
_ALWAYS_S: Final = 3_600.0


def pages(server: Server, token: str, courses: int, rounds: int, seed: int) -> BySize:
    """The p50 of page 1 and of any page, in milliseconds: of the same lists, orders and lengths, each asked once."""
    asked = list(Catalogue(server, token).each_list(seed))
    size = min(_PAGES_A_SAMPLE, len(asked) // (rounds + 1))
    samples: dict[tuple[str, int], list[float]] = {(FIRST, courses): [], (ANY, courses): []}
    for take in range(rounds + 1):
        pairs = asked[take * size : (take + 1) * size]
        for name, targets in zip((FIRST, ANY), zip(*pairs, strict=True), strict=True):
            load = drive(
                server.port, (request(target, token) for target in targets), status=200, connections=1, seconds=inf
            )
            if take:
                samples[name, courses].append(statistics.median(load.latencies_ns) / 1e6)
    return by_size(samples)


def stalls(server: Server, token: str, courses: int, rounds: int, seconds: float) -> BySize:
    """The worst that a request which needs no database took in each sample, in milliseconds, asked a thousand times a
    second: with nothing else going on, and while others search for what takes long; and the worst of these without
    what the server's event loop and this thread were ready and waited for a processor, which others had."""
    quiet = [max(_waits_ms(server, token, seconds))[0] for _ in range(rounds)]
    with _searching(server, token):
        searching = [_waits_ms(server, token, seconds) for _ in range(rounds)]
    return by_size(
        {
            (QUIET, courses): quiet,
            (SEARCHING, courses): [max(took for took, _ in sample) for sample in searching],
            (STALLED, courses): [max(took - waited for took, waited in sample) for sample in searching],
        }
    )


def _waits_ms(server: Server, token: str, seconds: float) -> list[tuple[float, float]]:
    """What each request took, and how much of that was waiting for a processor."""
    waited: list[int] = []

    def patiently() -> Iterator[bytes]:
        while True:
            sleep(_PAUSE_S)
            before = waited_ns(server.pid) + waited_ns(os.getpid())
            yield request(_LIGHT, token)
            waited.append(waited_ns(server.pid) + waited_ns(os.getpid()) - before)

    asked = patiently()
    took = drive(server.port, asked, status=200, connections=1, seconds=seconds).latencies_ns
    next(asked)  # which notes what the last one waited
    return [(one / 1e6, other / 1e6) for one, other in zip(took, waited, strict=True)]


@contextmanager
def _searching(server: Server, token: str) -> Iterator[None]:
    """Let a process of its own search, for the block: one with threads of this one would hold up what is measured."""
    process = get_context("spawn").Process(target=search, args=(server.port, token), daemon=True)
    process.start()
    sleep(1)  # until it has imported what it needs
    try:
        yield
    finally:
        process.terminate()
        process.join()


def search(port: int, token: str) -> None:
    """Search without an end for common words, each time other ones, in an order and on a page that are no help."""
    words = Vocabulary().words
    texts = (f"{words[number % 97]} {COMMONEST} {words[number % 89][:3]}" for number in count())
    asked = (request(search_target(text, sort="price", page="3"), token) for text in texts)
    while True:
        with suppress(LoadError):  # one that took too long is refused
            drive(port, asked, status=200, connections=_SEARCHERS, seconds=_ALWAYS_S)
