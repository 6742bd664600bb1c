"""The audit tells of every change of money, keys, tokens, roles, plans and licences, of each once, and of nothing else.

What a change owes to the audit is read from the tables, row by row, before and after whatever is done.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast, get_args

import msgspec
import pytest

from learnflow_core.audit import SWEEP, AuditRow, Event
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.ledger import ways
from learnflow_core.model import LIVE_STATUSES, PaymentStatus
from learnflow_core.pagination import Cursor, Page
from learnflow_core.ports import AuditQuery
from learnflow_core.usecases import accounts
from learnflow_core.usecases import audit as purging
from learnflow_http.operations import OPERATIONS, Operation
from tests import scene
from tests.scene import PAYS
from tests.school import School, school_on
from tests.test_access_matrix import REQUESTS, Cast
from tests.world import World, open_world

Row = dict[str, Any]
Tables = dict[str, dict[str, Row]]
Owed = Counter[tuple[str, str]]

WATCHED = ("accounts", "api_keys", "users", "enrollments", "payments", "token_families", "revoked_tokens")


async def tables(world: World) -> Tables:
    """Every row of the tables that the audit minds, by its id."""
    driver: Any = cast("Any", world.services.storage)._driver

    async def read(tx: Any) -> Tables:
        found: Tables = {}
        for table in WATCHED:
            names = [row[1] for row in await tx.rows(f"PRAGMA table_info({table})")]
            rows = await tx.rows(f"SELECT * FROM {table}")  # noqa: S608 - our own names
            found[table] = {row[names.index("id")]: dict(zip(names, row, strict=True)) for row in rows}
        return found

    result: Tables = await driver.read(read)
    return result


async def audit(world: World) -> list[AuditRow]:
    """All of it, the latest first."""
    found: list[AuditRow] = []
    after, more = None, True
    while more:
        part = await world.services.storage.read(lambda tx, at=after: tx.audit.list(AuditQuery(), Cursor(at, 50)))  # type: ignore[misc]
        found += part.items
        after, more = part.next_after, part.next_after is not None
    return found


def owed(before: Tables, after: Tables) -> Owed:
    """What the audit has to tell of the difference."""
    found: Owed = Counter()
    for table in WATCHED:
        for key, now in after[table].items():
            was = before[table].get(key)
            if now != was:
                found.update((event, key) for event in _EVENTS[table](was, now))
    for key, now in after["token_families"].items():
        was = before["token_families"].get(key)
        ended = now["revoked_at"] is not None and (was is None or was["revoked_at"] is None)
        # The end of its key, a new password and the end of its user tell of a family's end.
        if (
            ended
            and not {("key.revoked", now["key_id"]), ("password.set", now["user_id"]), ("user.erased", now["user_id"])}
            & found.keys()
        ):
            found["token.revoked", key] += 1
    return found


def _of_account(was: Row | None, now: Row) -> Iterator[str]:
    if was is None:
        yield "account.created"
        return
    if [was[name] for name in ("plan", "per_minute", "licenses")] != [
        now[name] for name in ("plan", "per_minute", "licenses")
    ]:
        yield "plan.set"
    if was["suspended_at"] != now["suspended_at"]:
        yield "account.resumed" if now["suspended_at"] is None else "account.suspended"


def _of_key(was: Row | None, now: Row) -> Iterator[str]:
    if was is None:
        yield "key.created"
    elif was["revoked_at"] != now["revoked_at"]:
        yield "key.revoked"
    elif was["expires_at"] != now["expires_at"]:
        yield "key.rotated"


def _of_user(was: Row | None, now: Row) -> Iterator[str]:
    if was is None:
        yield "user.created"
    elif now["deleted_at"] != was["deleted_at"]:
        yield "user.erased"
    else:
        yield from ["role.set"] if was["role"] != now["role"] else []
        yield from ["password.set"] if was["password_hash"] != now["password_hash"] else []


def _of_enrollment(was: Row | None, now: Row) -> Iterator[str]:
    held = was is not None and was["status"] in LIVE_STATUSES
    holds = now["status"] in LIVE_STATUSES
    if now["licensed"] and held != holds:
        yield "license.taken" if holds else "license.returned"


def _of_payment(was: Row | None, now: Row) -> Iterator[str]:
    if was is None:
        yield "payment.charging"
        was = {"status": "charging"}
    if was["status"] != now["status"]:
        yield from (f"payment.{status}" for status in _passed(was["status"], now["status"]))


def _passed(before: PaymentStatus, after: PaymentStatus) -> tuple[PaymentStatus, ...]:
    """What a payment has come to between two looks, by the shortest way."""
    every = [way[len(begun) :] for way in ways(after) for begun in ways(before) if way[: len(begun)] == begun]
    return min(every, key=len)


_EVENTS: dict[str, Callable[[Row | None, Row], Iterator[str]]] = {
    "accounts": _of_account,
    "api_keys": _of_key,
    "users": _of_user,
    "enrollments": _of_enrollment,
    "payments": _of_payment,
    "token_families": lambda was, _now: iter(["token.minted"] if was is None else []),
    "revoked_tokens": lambda was, _now: iter(["token.revoked"] if was is None else []),
}


class Watch:
    """What a world's audit owed and got between two looks."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.before: Tables = {}
        self.seen: set[str] = set()

    async def begin(self) -> None:
        self.before, self.seen = await tables(self.world), {row.id for row in await audit(self.world)}

    async def end(self) -> list[AuditRow]:
        """The rows that were added; it is an error when they are not those that were owed."""
        added = [row for row in await audit(self.world) if row.id not in self.seen]
        assert Counter((row.event, row.object_id) for row in added) == owed(self.before, await tables(self.world))
        assert list(await self.world.services.storage.check()) == []
        return added


async def watched(world: World, done: Callable[[], Awaitable[Any]]) -> list[AuditRow]:
    watch = Watch(world)
    await watch.begin()
    await done()
    return await watch.end()


QUIET: frozenset[str] = frozenset(
    operation.name for operation in OPERATIONS if operation.method == "GET" or "ourse" in operation.name
)
"""Operations that owe nothing."""

TELLING = {
    "createUser": {"user.created"},
    "changeUser": set(),
    "deleteUser": {"user.erased"},
    "addPaymentMethod": set(),
    "deletePaymentMethod": set(),
    "createEnrollment": {"license.taken"},
    "createEnrollments": {"license.taken"},
    "cancelEnrollment": {"license.returned"},
    "setProgress": set(),
    "revokeCertificate": set(),
    "createToken": {"token.minted"},
    "refreshToken": set(),
    "revokeToken": {"token.revoked"},
    "createApiKey": {"key.created"},
    "rotateApiKey": {"key.created", "key.rotated"},
    "revokeApiKey": {"key.revoked"},
}
"""What each of the others has the audit tell, as the key of an Enterprise account asks for it."""


def test_every_operation_is_said_to_owe_something_or_nothing() -> None:
    assert {operation.name for operation in OPERATIONS} - QUIET == TELLING.keys()


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
async def test_every_operation_has_the_audit_tell_what_it_changed(world: World, operation: Operation) -> None:
    cast_ = await Cast.gather(world)
    key = await world.key(cast_.account)
    asked = await REQUESTS[operation.name](cast_)
    replies: list[Any] = []

    async def ask() -> None:
        path = operation.path.format(**asked.path)
        replies.append(await world.ask(operation.method, path, key, asked.body))

    rows = await watched(world, ask)
    assert {row.event for row in rows} == TELLING.get(operation.name, set())
    key_id = (await scene.key_of(world, key)).id
    for row in rows:
        assert row.request_id == replies[0].headers["X-Request-Id"]
        assert row.actor == (key_id if operation.name != "revokeToken" else cast_.people["self"].id)
        assert row.account_id == cast_.account.id
    if rows:
        again = (
            await watched(world, ask) if operation.name in ("revokeToken", "revokeApiKey", "cancelEnrollment") else []
        )
        assert again == []


async def test_a_person_is_told_to_have_another_role_and_another_password(world: World) -> None:
    account = await world.account()
    key, user = await world.key(account), await world.user(account, "ann@acme.test")
    changes = {"role": "instructor", "password": "correct horse battery"}
    rows = await watched(world, lambda: world.ask("PATCH", f"/v1/users/{user.id}", key, changes))
    assert {(row.event, row.detail) for row in rows} == {("role.set", "instructor"), ("password.set", None)}


async def test_a_sign_in_and_what_one_does_signed_in_are_the_persons_own(world: World) -> None:
    account = await world.account()
    user = await world.user(account, "ann@acme.test", password="correct horse battery")
    login = {"email": "ann@acme.test", "password": "correct horse battery"}
    [row] = await watched(world, lambda: world.ask("POST", "/v1/auth/token", json=login))
    assert (row.event, row.actor, row.account_id) == ("token.minted", user.id, account.id)


async def test_a_refresh_token_that_was_stolen_is_told_of_once() -> None:
    async with open_world(refresh_rotation="strict") as world:
        cast_ = await Cast.gather(world)
        body = {"refresh_token": await cast_.refresh_token()}
        assert (await world.ask("POST", "/v1/auth/refresh", json=body)).status_code == 200
        world.clock.advance(60)
        watch = Watch(world)
        await watch.begin()
        for _ in range(2):
            assert (await world.ask("POST", "/v1/auth/refresh", json=body)).status_code == 401
        [row] = [row for row in await audit(world) if row.id not in watch.seen]
        assert (row.event, row.actor) == ("token.reused", cast_.people["self"].id)
        assert list(await world.services.storage.check()) == []


async def test_what_an_operator_changes_about_an_account_is_told(world: World) -> None:
    account = await world.account()
    write, ctx = world.services.storage.write, world.ctx
    plan: Any = {"plan": "enterprise", "per_minute": 7, "licenses": 3}
    rows = [
        *await watched(world, lambda: write(lambda tx: accounts.set_plan(tx, account.id, **plan, ctx=ctx))),
        *await watched(
            world, lambda: write(lambda tx: accounts.set_suspended(tx, account.id, suspended=True, ctx=ctx))
        ),
        *await watched(
            world, lambda: write(lambda tx: accounts.set_suspended(tx, account.id, suspended=True, ctx=ctx))
        ),
        *await watched(
            world, lambda: write(lambda tx: accounts.set_suspended(tx, account.id, suspended=False, ctx=ctx))
        ),
    ]
    assert [(row.event, row.detail) for row in rows] == [
        ("plan.set", "enterprise"),
        ("account.suspended", None),
        ("account.resumed", None),
    ]


@pytest.fixture
async def school(world: World) -> School:
    return await school_on(world, "professional")


def told(rows: list[AuditRow]) -> list[tuple[str, str | None]]:
    return sorted((row.event, row.detail) for row in rows)


async def balances(school: School) -> dict[str, int]:
    found = await school.world.services.storage.read(lambda tx: tx.ledger.balances("live", school.account.id))
    return {balance.ledger_account: balance.debits - balance.credits for balance in found}


async def test_a_charge_is_told_and_entered(school: School) -> None:
    course = await school.course()
    rows = await watched(school.world, lambda: school.enrol(course))
    assert told(rows) == [("payment.charged", None), ("payment.charging", None)]
    assert await balances(school) == {"receivable": 4_999, "revenue": -4_999}
    assert await watched(school.world, lambda: school.enrol(course)) == []


async def test_a_refusal_is_told_by_its_code_and_moves_nothing(school: School) -> None:
    course = await school.course()
    rows = await watched(school.world, lambda: school.enrol(course, "pm_visa_0002"))
    assert told(rows) == [("payment.charging", None), ("payment.declined", "card_declined")]
    assert await balances(school) == {}


async def test_a_refund_is_owed_from_its_decision_and_paid_when_the_payment_service_says_so(school: School) -> None:
    enrolled = (await school.enrol(await school.course())).json()["id"]
    school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE)
    rows = await watched(school.world, lambda: school.cancel(enrolled))
    assert told(rows) == [("payment.refunding", None)]
    assert await balances(school) == {
        "receivable": 4_999,
        "revenue": -4_999,
        "refunds": 4_999,
        "refunds_payable": -4_999,
    }
    school.gateway.away = None
    school.world.clock.advance(60)
    rows = await watched(school.world, school.world.sweep)
    assert [(row.event, row.actor, row.request_id) for row in rows] == [("payment.refunded", SWEEP, None)]
    assert await balances(school) == {"receivable": 0, "revenue": -4_999, "refunds": 4_999, "refunds_payable": 0}
    assert await watched(school.world, school.world.sweep) == []


async def test_a_person_erased_while_paying_is_told_of_without_a_word_about_them(school: School) -> None:
    course = await school.course()
    school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE)
    assert (await school.enrol(course)).status_code == 503
    erase = school.world.ask("DELETE", f"/v1/users/{school.user.id}", school.key)
    await watched(school.world, lambda: erase)
    school.gateway.away = None
    for _ in range(3):
        school.world.clock.advance(60)
        await watched(school.world, school.world.sweep)
    assert sum((await balances(school)).values()) == 0
    assert (await balances(school)).get("receivable", 0) == 0
    text = msgspec.json.encode(await audit(school.world)).decode()
    assert school.user.id in text
    assert not re.search(r"ada|acme\.test|@|4242|tok_visa", text)


async def test_test_mode_has_a_ledger_of_its_own(school: School) -> None:
    key = await school.world.key(school.account, mode="test")
    user = await school.world.user(school.account, "try@acme.test", mode="test")
    reply = await school.enrol(await school.course(), PAYS, user=user, credential=key)
    assert reply.status_code == 201
    assert await balances(school) == {}
    found = await school.world.services.storage.read(lambda tx: tx.ledger.balances("test", None))
    assert [balance.debits - balance.credits for balance in found] == [4_999, -4_999]


async def test_what_is_undone_leaves_nothing_in_the_audit(world: World) -> None:
    account = await world.account()
    key = await world.key(account)
    await world.user(account, "ann@acme.test")
    same = {"email": "ann@acme.test", "name": "Ann"}
    assert await watched(world, lambda: world.ask("POST", "/v1/users", key, same)) == []


async def test_what_is_old_can_be_let_go_of_and_the_audit_tells_of_that(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purging, "AT_ONCE", 2)
    for name in "abcde":
        await world.account(name)
    storage, end = world.services.storage, world.now + 1
    with pytest.raises(LearnFlowError) as refused:
        await purging.purge(storage, end, world.ctx)
    assert (refused.value.code, refused.value.param) == (Code.INVALID_PARAMETER, "before")
    assert await purging.purge(storage, world.now, world.ctx) == 0
    world.clock.advance(0.000_001)
    assert await purging.purge(storage, end, world.ctx) == 6
    rows = await storage.read(lambda tx: tx.audit.list(AuditQuery(), Page(1, 50)))
    told = [(row.event, row.object_id, row.account_id, row.detail) for row in rows.items]
    assert told == [("audit.purged", "audit", None, str(end))]


def test_the_events_are_frozen() -> None:
    assert set(get_args(Event)) >= {
        *("payment.charging", "payment.charged", "payment.declined", "payment.refunding", "payment.refunded"),
        *("license.taken", "license.returned", "key.created", "key.rotated", "key.revoked"),
        *("token.minted", "token.revoked", "token.reused", "user.created", "user.erased", "role.set", "password.set"),
        *("account.created", "account.suspended", "account.resumed", "plan.set", "books.repaired", "audit.purged"),
    }


def test_no_statement_changes_the_journals_or_deletes_from_the_ledger() -> None:
    folder = Path(__file__).parent.parent / "storage_backends"
    for path in folder.rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"UPDATE (ledger|audit)\b|DELETE FROM ledger\b", text), path
        assert "DELETE FROM audit" not in text or path.name == "journals.py"


def test_the_document_names_every_event() -> None:
    document = (Path(__file__).parent.parent / "docs/books.md").read_text()
    assert {event for event in get_args(Event) if f"`{event}`" not in document} == set()
