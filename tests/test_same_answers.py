"""SQLite and PostgreSQL give the same answer to everything: random sequences of operations are run on both at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learnflow_core import ledger
from learnflow_core.audit import AuditRow
from learnflow_core.errors import LearnFlowError
from learnflow_core.model import Level, Reply, SandboxCharge
from learnflow_core.money import Money
from learnflow_core.pagination import Cursor, Page
from learnflow_core.ports import (
    AuditQuery,
    CertificateQuery,
    CourseQuery,
    CourseSort,
    EnrollmentQuery,
    Storage,
    Transaction,
)
from learnflow_core.search import MAX_SEARCH_WORDS, SearchQuery, words
from storage_backends import open_storage
from storage_backends.conformance.base import same
from storage_backends.conformance.samples import (
    HOSTILE,
    NOW,
    account,
    api_key,
    certificate,
    completed,
    count,
    course,
    enrollment,
    family,
    method,
    payment,
    refresh_token,
    user,
)
from storage_backends.driver import DuplicateError, RefusedError
from storage_backends.repository import blocks, uncounted
from tests.postgres import Postgres

Step = Callable[[Transaction], Awaitable[Any]]
Draw = Callable[[st.SearchStrategy[Any]], Any]

# Ids whose order by code point is no language's, few enough that sequences meet the same record again.
ENDS = ("1", "2", "a", "B", "é", "-a", "ab", "😀", "\uff21")
WORDS = st.sampled_from(
    [
        "Python",
        "python3",
        "C++ c#",
        ".NET",
        "naïve Straße",
        "İstanbul",
        "हिन्दी",
        "日本語",
        "\ufb03",
        "a'b\\c & !x",
        HOSTILE,
    ]
)
"""Few enough that what is asked for is found."""
TITLES = st.lists(WORDS, min_size=1, max_size=3).map(" ".join) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12
)
FEW = st.integers(0, 3)
TIMES = FEW.map(lambda n: NOW + n)
LEVELS = st.sampled_from(get_args(Level))
CATEGORIES = st.sampled_from(["a", "a-b", "ab", "9-a"])
MODES = st.sampled_from(["live", "test"])


def an(prefix: str) -> st.SearchStrategy[str]:
    """An id; there are few accounts and people, so that most of what refers to them finds them."""
    ends = ENDS[::4] if prefix in ("acct", "usr") else ENDS
    return st.sampled_from([f"{prefix}_{end}" for end in ends])


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


PAGINGS = st.builds(Page, st.integers(1, 4), st.integers(1, 5)) | st.builds(Cursor, st.none(), st.integers(1, 50))
ACCOUNTS = st.builds(
    account,
    an("acct"),
    name=TITLES,
    plan=st.sampled_from(["starter", "enterprise"]),
    licenses=maybe(FEW),
    created_at=TIMES,
)
KEYS = st.builds(
    api_key,
    an("key"),
    account_id=an("acct"),
    name=TITLES,
    mode=MODES,
    created_at=TIMES,
    digest=FEW.map(lambda n: str(n) * 64),
)
USERS = st.builds(
    user,
    an("usr"),
    account_id=an("acct"),
    mode=MODES,
    email=FEW.map(lambda n: f"{n}@example.com"),
    external_id=maybe(an("x")),
    created_at=TIMES,
)
PRICES = st.builds(Money, st.integers(0, 10**11), st.sampled_from(["USD", "JPY", "KWD"]))
COURSES = st.builds(
    course,
    an("crs"),
    account_id=an("acct"),
    title=TITLES,
    instructor=TITLES,
    description=TITLES,
    category=CATEGORIES,
    level=LEVELS,
    status=st.sampled_from(["published", "published", "draft"]),
    price=PRICES,
    rating=maybe(st.integers(0, 500)),
    students_base=FEW,
    seats=maybe(FEW),
    external_id=maybe(an("x")),
    prerequisites=st.lists(an("crs"), max_size=2).map(tuple),
    created_at=TIMES,
)
STATUSES = st.sampled_from(["active", "pending", "cancelled", "refunded", "expired"])
ENROLLMENTS = st.builds(
    enrollment,
    an("enr"),
    account_id=an("acct"),
    user_id=an("usr"),
    course_id=an("crs"),
    status=STATUSES,
    enrolled_at=TIMES,
    expires_at=maybe(TIMES),
) | st.builds(completed, an("enr"), account_id=an("acct"), user_id=an("usr"), course_id=an("crs"))
PAYMENTS = st.builds(payment, an("pay"), enrollment_id=an("enr"), updated_at=TIMES, due_at=TIMES)
METHODS = st.builds(method, an("pm"), user_id=an("usr"), created_at=TIMES, deleted_at=maybe(TIMES))
CHARGES = st.builds(
    SandboxCharge,
    an("k"),
    st.sampled_from(["paid", "declined"]),
    st.builds(Money, FEW.map(lambda n: n + 1), st.just("USD")),
    TIMES,
)
FAMILIES = st.builds(family, an("fam"), user_id=an("usr"), key_id=maybe(an("key")), expires_at=TIMES)
TOKENS = st.builds(refresh_token, an("tok"), family_id=an("fam"), rotated_at=maybe(TIMES))
AUDIT_ROWS = st.builds(
    AuditRow,
    an("aud"),
    TIMES,
    st.sampled_from(["payment.charging", "payment.charged", "account.created"]),
    an("pay") | an("acct"),
    maybe(an("acct")),
    st.just("program"),
    st.none(),
    maybe(st.sampled_from(["starter", "enterprise"])),
)
REPLIES = st.builds(
    Reply, st.just("f"), st.sampled_from([200, 201]), st.sampled_from([b'{"id":"usr_1"}', b"{}"]), TIMES
)


def searches(text: str) -> SearchQuery | None:
    found = words(text)[:MAX_SEARCH_WORDS]
    return SearchQuery(tuple(dict.fromkeys(found[:-1])), found[-1]) if found else None


@st.composite
def course_queries(draw: Draw) -> CourseQuery:
    search = searches(draw(st.lists(WORDS, min_size=1, max_size=2).map(" ".join))) if draw(st.booleans()) else None
    sorts = [sort for sort in get_args(CourseSort) if search is not None or sort != "relevance"]
    category, level, owner = draw(
        st.just((None, None, None)) | st.tuples(*map(maybe, (CATEGORIES, LEVELS, an("acct"))))
    )
    return CourseQuery(draw(st.sampled_from(sorts)), search, category, level, account_id=owner)


def call(group: str, name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    """A call of one of the transaction's methods with such arguments."""

    def made(given: tuple[Any, ...]) -> Step:
        def step(tx: Transaction) -> Awaitable[Any]:
            answer: Awaitable[Any] = getattr(getattr(tx, group), name)(*given)
            return answer

        step.__qualname__ = f"{group}.{name}{given}"
        return step

    return st.tuples(*arguments).map(made)


def replacing(**fields: Any) -> Callable[[Any], Any]:
    return lambda record: msgspec.structs.replace(record, **fields)


def claims() -> st.SearchStrategy[Step]:
    """Payments that are taken up; which of them come first in the answer, a statement does not say."""

    def made(now: int, limit: int, until: int) -> Step:
        async def step(tx: Transaction) -> Any:
            found = await tx.payments.claim(now, limit, until=until)
            return sorted(found, key=lambda one: one.id)

        step.__qualname__ = f"payments.claim({now}, {limit}, {until})"
        return step

    return st.builds(made, TIMES, st.integers(1, 3), TIMES)


VISIBLE = [maybe(an("acct")), maybe(an("usr")), maybe(an("usr")), maybe(an("crs"))]
ENROLLMENT_QUERIES = st.builds(EnrollmentQuery, MODES, *VISIBLE, maybe(STATUSES), maybe(TIMES), TIMES)
CHANGES = st.one_of(
    *(call("accounts", name, ACCOUNTS) for name in ("add", "put")),
    *(call("accounts", name, an("acct"), MODES) for name in ("take_license", "return_license")),
    *(call("api_keys", name, KEYS) for name in ("add", "put")),
    call("api_keys", "touch", st.lists(st.tuples(an("key"), TIMES), max_size=3)),
    *(call("users", name, USERS) for name in ("add", "put")),
    *(call("courses", name, COURSES) for name in ("add", "add", "put")),
    call("courses", "name_category", CATEGORIES, TITLES),
    *(call("courses", name, an("crs"), MODES) for name in ("take_seat", "free_seat")),
    call("courses", "settle", st.integers(1, 3)),
    call("courses", "survey"),
    *(call("enrollments", name, ENROLLMENTS) for name in ("add", "put")),
    *(call("payments", name, PAYMENTS) for name in ("add", "put")),
    *(call("payments", name, METHODS) for name in ("add_method", "put_method")),
    claims(),
    call("payments", "delete_methods", an("usr"), TIMES),
    call("certificates", "add", ENROLLMENTS.filter(lambda one: one.certificate_id is not None).map(certificate)),
    call("certificates", "erase_recipient", an("usr"), TIMES),
    call("tokens", "add_family", FAMILIES),
    *(call("tokens", name, an(kind), TIMES) for name, kind in (("extend_family", "fam"), ("revoke_of_key", "key"))),
    call("tokens", "revoke_token", an("tok"), TIMES),
    call("tokens", "put_refresh_token", TOKENS),
    call("ledger", "add", PAYMENTS.map(lambda one: ledger.entries(one, ledger.movements(one.status), one.updated_at))),
    call("audit", "add", AUDIT_ROWS),
    call("audit", "purge", TIMES, st.integers(1, 3)),
    call("replies", "put", an("s"), an("k"), REPLIES),
    call("replies", "drop_naming", st.sampled_from(["usr_1", "nobody"])),
    call("sandbox_charges", "add", CHARGES),
)
QUESTIONS = st.one_of(
    call("accounts", "list", PAGINGS),
    call("api_keys", "list", an("acct"), maybe(MODES), PAGINGS),
    call("api_keys", "by_digest", FEW.map(lambda n: str(n) * 64)),
    call("users", "list", an("acct"), MODES, PAGINGS),
    call("users", "by_email", FEW.map(lambda n: f"{n}@example.com"), MODES, maybe(an("acct"))),
    *(call("courses", "list", course_queries(), PAGINGS) for _ in range(4)),
    call("courses", "categories", PAGINGS),
    call("courses", "get", an("crs")),
    call("courses", "known", st.lists(an("crs"), max_size=5)),
    call("enrollments", "list", ENROLLMENT_QUERIES, PAGINGS),
    call("enrollments", "completed", an("usr"), st.lists(an("crs"), max_size=4)),
    call("enrollments", "live_of_user", an("usr")),
    call("enrollments", "overdue", TIMES, st.integers(1, 3), maybe(an("crs"))),
    call("certificates", "list", st.builds(CertificateQuery, MODES, *VISIBLE), PAGINGS),
    call("payments", "methods", an("usr"), PAGINGS),
    call("payments", "method_with", an("usr"), st.just(method().token)),
    call("payments", "unforgotten", st.integers(1, 3)),
    call("payments", "unresolved", TIMES, st.integers(1, 3)),
    call("tokens", "session", an("fam"), an("tok")),
    call("tokens", "refresh_token", an("tok")),
    call("ledger", "of", an("pay") | an("enr")),
    call("ledger", "balances", MODES, maybe(an("acct"))),
    call("audit", "list", st.builds(AuditQuery, maybe(an("pay")), maybe(an("acct")), maybe(TIMES)), PAGINGS),
    call("replies", "get", an("s"), an("k")),
)


WRITES = st.lists(st.lists(CHANGES, min_size=1, max_size=3), min_size=5, max_size=25)
READS = st.lists(QUESTIONS, min_size=15, max_size=30)
EXAMPLES = settings().max_examples  # as many as the profile says: 100, or 5,000 in a soak


async def outcome(run: Callable[[Step], Awaitable[Any]], steps: list[Step]) -> Any:
    """What some work answers, or of what kind its error is."""

    async def work(tx: Transaction) -> list[Any]:
        return [await step(tx) for step in steps]

    try:
        return await run(work)
    except LearnFlowError as error:
        return error.code
    except (RefusedError, LookupError) as error:
        return DuplicateError if isinstance(error, DuplicateError) else type(error)


Both = tuple[Storage, Storage]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def both(loop: asyncio.Runner, postgres: Postgres) -> Iterator[Both]:
    """The two, empty, and to be emptied by who uses them."""
    name = loop.run(postgres.make())
    storages = loop.run(open_storage("sqlite://")), loop.run(open_storage(postgres.url(name)))
    with pytest.MonkeyPatch.context() as patch:
        for module, size, smaller in ((blocks, "BLOCK", 4), (blocks, "SPAN", 3), (uncounted, "NOTES", 5)):
            patch.setattr(module, size, smaller)
        patch.setattr(uncounted, "ENOUGH", 1)
        yield storages
    for storage in storages:
        loop.run(storage.close())
    loop.run(postgres.drop(name))


async def emptied(storage: Storage) -> None:
    driver: Any = storage._driver  # type: ignore[attr-defined]

    async def work(tx: Any) -> None:
        if "course_index" in tx.found:
            await tx.rows("INSERT INTO course_index (course_index) VALUES ('delete-all')")
            await tx.rows("DELETE FROM places")
        else:
            await tx.rows("DELETE FROM course_search")
        for table in TABLES:
            await tx.rows(f"DELETE FROM {table}")  # noqa: S608 - our own names

    await driver.write(work)


TABLES = (
    *(
        "ledger",
        "audit",
        "sandbox_charges",
        "replies",
        "revoked_tokens",
        "refresh_tokens",
        "token_families",
        "certificates",
    ),
    *(
        "payment_methods",
        "payments",
        "enrollments",
        "unsettled",
        "course_texts",
        "courses",
        "categories",
        "totals",
        "words",
        "blocks",
        "spans",
        "uncounted",
        "uncounted_texts",
        "catalogue_changes",
    ),
    *("api_keys", "users", "accounts"),
)
"""In an order in which nothing refers to what is gone."""


SCENE = (
    *(call("accounts", "add", ACCOUNTS.map(replacing(id=f"acct_{end}"))) for end in ENDS[::4]),
    *(call("users", "add", USERS.map(replacing(id=f"usr_{end}", email=f"{end}@example.com"))) for end in ENDS[::4]),
    *(call("courses", "add", COURSES.map(replacing(id=f"crs_{end}"))) for end in ENDS[::2]),
)


@settings(suppress_health_check=list(HealthCheck), max_examples=EXAMPLES)
@given(st.data())
def test_every_sequence_of_operations_has_the_same_answers(
    both: Both, loop: asyncio.Runner, data: st.DataObject
) -> None:
    for storage in both:
        loop.run(emptied(storage))
    for steps in [[step] for step in data.draw(st.tuples(*SCENE))] + data.draw(WRITES):
        agree(loop, [outcome(storage.write, steps) for storage in both], steps)
        if data.draw(st.booleans()):
            agree(loop, [count(storage) for storage in both], [])
    for question in data.draw(READS):
        agree(loop, [outcome(storage.read, [question]) for storage in both], [question])
    agree(loop, [storage.check() for storage in both], [])


def agree(loop: asyncio.Runner, answers: list[Any], steps: list[Step]) -> None:
    left, right = loop.run(_gathered(answers))
    assert same(left, right) or left == right == [], ([step.__qualname__ for step in steps], left, right)


async def _gathered(answers: list[Awaitable[Any]]) -> list[Any]:
    return [await answer for answer in answers]
