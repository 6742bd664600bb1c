"""The groups of rows: what is asked in memory, of whom, with how many keys, threads, or keys a call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from benchmarks.limiter.ours import ALLOWED, MAX_KEYS, MINUTE_ALLOWED, PLANS
from benchmarks.limiter.sampling import Case
from benchmarks.limiter.subjects import FLOORS, OURS, SERVING, THEIRS, Subject
from benchmarks.limiter.usage import BATCHES, HIT
from benchmarks.limiter.worker import Ask, Order

SIZES = (1, 10_000, MAX_KEYS)
MANY = 10_000
THREADS = (1, 2, 4, 8)
TASKS = 100
FIRST_CALLS = f"first call of a key, {ALLOWED}"
THREADED = f"threads, {ALLOWED}"
ONE_AT_A_TIME = f"over Valkey, one at a time, {ALLOWED}"
ONE_IN_A_LOOP = f"over Valkey, one at a time in an event loop, {ALLOWED}"
IN_TASKS = f"over Valkey, {TASKS} tasks, {ALLOWED}"
REPLIES = f"the limiter's part of an HTTP reply, {ALLOWED}"


class Settings(NamedTuple):
    """What the command was told: rounds, the seed, about how long a sample takes, and how many keys are too many."""

    rounds: int
    seed: int
    seconds: float
    max_keys: int

    def many(self) -> int:
        """How many keys a group has that is not about their number."""
        return min(MANY, self.max_keys)


class Group(NamedTuple):
    """Rows that are compared with each other, by the processor's clock or, where they share or wait, by the wall's."""

    title: str
    cases: Mapping[str, Case]
    clock: str = "cpu_ns"
    with_bytes: bool = False


def with_keys(settings: Settings) -> Iterator[Group]:
    """Every limiter in every way, under every plan; with a million keys, under the plans that let them pass."""
    for size in SIZES:
        if size == MAX_KEYS <= settings.max_keys:
            # A million keys find the caches cold for longer, and peers take their time to fill.
            longer = settings._replace(seconds=5 * settings.seconds)
            for plan in (MINUTE_ALLOWED, ALLOWED):
                cases = cases_of(FLOORS | OURS | THEIRS, plan, size, longer)
                yield Group(title_of(size, plan), cases, with_bytes=True)
        elif size <= settings.max_keys:
            for plan in PLANS:
                yield Group(title_of(size, plan), cases_of(FLOORS | OURS | THEIRS, plan, size, settings))


def first_calls(settings: Settings) -> Iterator[Group]:
    """The first call of every key, to a limiter that knows none."""
    cases = cases_of(FLOORS | OURS | THEIRS, ALLOWED, 1, settings)
    yield Group(FIRST_CALLS, {name: changed(case, strangers=True) for name, case in cases.items()})


def threads(settings: Settings) -> Iterator[Group]:
    """One limiter asked by several threads at once: what they get done together."""
    subjects = {name: subject._replace(ways=(subject.in_threads,)) for name, subject in (OURS | THEIRS).items()}
    of_threads = {
        row_of_threads(name, count): changed(case, threads=count)
        for name, case in cases_of(subjects, ALLOWED, settings.many(), settings).items()
        for count in THREADS
    }
    yield Group(THREADED, of_threads, "wall_ns")


def batches(settings: Settings) -> Iterator[Group]:
    """Many keys in one call, which no peer has; figures are those of one decision, not of the call."""
    subjects = {name: subject._replace(ways=tuple(BATCHES)) for name, subject in OURS.items()}
    for size in dict.fromkeys((1, settings.many())):
        yield Group(title_of_batches(size), cases_of(FLOORS | subjects, ALLOWED, size, settings))


def replies(settings: Settings) -> Iterator[Group]:
    """What a request to the HTTP server takes for its limit: the decision, awaited, and all fields of the reply."""
    yield Group(REPLIES, cases_of(FLOORS | SERVING, ALLOWED, settings.many(), settings))


def title_of(size: int, plan: str) -> str:
    """The title of the group of so many keys under a plan."""
    return f"{size:,} {'key' if size == 1 else 'keys'}, {plan}"


def title_of_batches(size: int) -> str:
    """The title of the group of batches drawn from so many keys."""
    return f"batches, {title_of(size, ALLOWED)}"


def title_of_leases(size: int) -> str:
    """The title of the group of limiters that lease, and of those beside them, with so many keys."""
    return f"leased over Valkey, {title_of(size, ALLOWED)}"


def row_of(subject: str, way: str) -> str:
    """The name of the row of a way to ask; `hit` alone has the subject's own."""
    return subject if way == HIT else f"{subject}: {way}"


def row_of_threads(row: str, count: int) -> str:
    """The name of a row in the group of threads."""
    return f"{row}, {count} {'thread' if count == 1 else 'threads'}"


def cases_of(
    subjects: Mapping[str, Subject], plan: str, size: int, settings: Settings, socket: str = ""
) -> dict[str, Case]:
    """The cases of some subjects in all their ways, by the names of their rows."""
    return {
        row_of(name, way): Case(Order(name, plan, size, settings.seed, socket), Ask(way, settings.seconds))
        for name, subject in subjects.items()
        if len(PLANS[plan]) <= subject.quotas
        for way in subject.ways
    }


def changed(case: Case, **how: Any) -> Case:
    """The same case, asked otherwise."""
    return Case(case.order, case.ask._replace(**how))
