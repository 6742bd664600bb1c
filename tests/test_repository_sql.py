"""The application's SQL keeps to what SQLite and PostgreSQL share; the conformance suite shows that it is right."""

import gc
import re
import sqlite3
import weakref
from collections.abc import Sequence
from contextlib import closing
from itertools import product
from typing import get_args

import pytest

from learnflow_core.model import LIVE_STATUSES, Mode, SandboxCharge
from learnflow_core.money import Money
from learnflow_core.pagination import Cursor, Page
from learnflow_core.ports import (
    AuditQuery,
    CertificateQuery,
    CourseQuery,
    CourseSort,
    EnrollmentQuery,
    Paging,
    Storage,
    Transaction,
)
from learnflow_core.search import parse_search
from storage_backends import open_storage
from storage_backends.conformance.samples import (
    CONTEXT,
    account,
    api_key,
    certificate,
    completed,
    count,
    course,
    enrollment,
    family,
    keep,
    method,
    payment,
    refresh_token,
    user,
)
from storage_backends.repository import Repository, blocks, uncounted, version
from storage_backends.repository.enrollments import LIVE
from storage_backends.sqlite_transaction import SQLiteTransaction
from storage_backends.upgrade import known

ONE_DATABASE_ONLY = re.compile(
    r"""
    "                                         # SQLite reads a mistyped quoted name as a string
    | \b(LIKE|ILIKE|GLOB|SIMILAR|REGEXP)\b    # no case folding is the same on both
    | \b(lower|upper|now|datetime|strftime|unixepoch|group_concat|string_agg|round|avg|greatest|least)\b
    | \b(max|min)\([^()]*,                    # of several arguments, PostgreSQL has none
    | \bCOLLATE\b | \bFOR\ UPDATE\b | \bANY\b | ->> | :: | \bREPLACE\ INTO\b | \bOR\ REPLACE\b
    | \bROWID\b | \bTRUE\b | \bFALSE\b
    | \bNOT\ INDEXED\b | \bON\ DUPLICATE\b | \bPRAGMA\b | \bSELECT\ \*(?!\ FROM\ \()
    """,
    re.VERBOSE | re.IGNORECASE,
)

DRIVERS_OWN = re.compile(r"SAVEPOINT|ROLLBACK TO|RELEASE|PRAGMA|course_index")


@pytest.fixture
async def asked(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Every statement of the repository, collected while a storage goes through all that it can do."""
    found: set[str] = set()
    run = SQLiteTransaction.rows

    async def rows(self: SQLiteTransaction, sql: str, *args: str | int | None) -> Sequence[tuple[object, ...]]:
        own = self.found.format("$1")
        found.add(re.sub(re.escape(own).replace(r"\$1", r"\$\d+"), "courses", sql))
        return await run(self, sql, *args)

    monkeypatch.setattr(SQLiteTransaction, "rows", rows)
    monkeypatch.setattr(blocks, "BLOCK", 2)
    monkeypatch.setattr(blocks, "SPAN", 2)
    monkeypatch.setattr(uncounted, "ENOUGH", 1)
    monkeypatch.setattr(version, "_MANY", 2)
    storage = await open_storage("sqlite://")
    await _do_everything(storage)
    await storage.close()
    return {sql for sql in found if not DRIVERS_OWN.search(sql)}


async def _do_everything(storage: Storage) -> None:
    done = completed("enr_2", course_id="crs_2")
    await keep(storage, account(), api_key(), user(), course(), course("crs_2"), course("crs_3"))
    await keep(storage, enrollment(payment_id="pay_1", status="pending"), done, payment(), method(), family())
    await keep(storage, enrollment("enr_3", course_id="crs_3", licensed=True))
    await storage.write(_change_everything)
    await _fill_and_empty_lists(storage)
    pagings: list[Paging] = [Page(1, 2), Cursor((0, 1, "x"), 2)]
    for paging in pagings:
        await storage.read(lambda tx, at=paging: _list_everything(tx, at))  # type: ignore[misc]
    await storage.check()
    for damage in ("DELETE FROM ledger", "DELETE FROM audit", "UPDATE courses SET live_taken = 9"):
        await storage._driver.write(lambda tx, it=damage: tx.rows(it))  # type: ignore[attr-defined]
    await storage.repair(CONTEXT)


async def _fill_and_empty_lists(storage: Storage) -> None:
    many = [course(f"crs_1{number}", students_base=number) for number in range(40)]
    await storage.write(lambda tx: tx.courses.add_all(many))
    for sort in ("popular", "price"):
        await storage.read(lambda tx, by=sort: tx.courses.list(CourseQuery(by), Page(9, 2)))  # type: ignore[misc]
    for one in many:
        await storage.write(lambda tx, key=one.id: tx.courses.put(course(key, status="draft")))  # type: ignore[misc]
    await count(storage)


async def _change_everything(tx: Transaction) -> None:
    await tx.accounts.put(account())
    await tx.accounts.get("acct_1")
    await tx.api_keys.put(api_key())
    await tx.api_keys.get("key_1")
    await tx.api_keys.by_digest("x")
    await tx.api_keys.touch([("key_1", 1)])
    await tx.users.put(user())
    await tx.users.by_email("x", "live", None)
    await tx.courses.put(course(title="New"))
    await tx.courses.get("crs_1")
    await tx.courses.by_external_ids("acct_1", ["x"])
    await tx.courses.known(["crs_1"])
    await tx.courses.name_category("development", "Development")
    await tx.courses.free_seat("crs_3", "live")
    await tx.accounts.return_license("acct_1", "live")
    await tx.enrollments.put(enrollment("enr_3", course_id="crs_3", status="cancelled"))
    await tx.courses.settle(10)
    await tx.enrollments.get("enr_1")
    await tx.enrollments.live("usr_1", "crs_1")
    await tx.enrollments.completed("usr_1", ["crs_1"])
    await tx.enrollments.live_of_user("usr_1")
    await tx.payments.get("pay_1")
    await tx.payments.put(payment(updated_at=1))
    await tx.payments.claim(1, 1, until=2)
    await tx.payments.unresolved(1, 1)
    await tx.enrollments.overdue(1, 1, "crs_1")
    await tx.courses.seats_taken("crs_1", "live")
    await tx.accounts.licenses_taken("acct_1", "live")
    await _change_methods(tx)
    await tx.certificates.get("crt_1")
    await tx.certificates.put(certificate(completed("enr_2")))
    await tx.certificates.erase_recipient("usr_1", 1)
    await tx.tokens.session("fam_1", "tok_1")
    await tx.tokens.extend_family("fam_1", 1)
    await tx.tokens.revoke_family("fam_1", 1)
    await tx.tokens.revoke_of_user("usr_1", 1)
    await tx.tokens.revoke_of_key("key_1", 1)
    await tx.tokens.revoke_token("tok_1", 1)
    await tx.tokens.put_refresh_token(refresh_token())
    await tx.tokens.refresh_token("tok_1")
    await tx.replies.get("s", "k")
    await tx.replies.drop("s", "k")
    await tx.sandbox_charges.add(SandboxCharge("k", "paid", Money(1, "USD"), 1))
    await tx.ledger.of("enr_1")
    for account_id in (None, "acct_1"):
        await tx.ledger.balances("live", account_id)
    await tx.audit.purge(1, 10)
    await tx.lead("one", 1, 2)
    await tx.purge(1)


async def _change_methods(tx: Transaction) -> None:
    await tx.payments.method("pm_1")
    await tx.payments.method_with("usr_1", "tok_visa_4242")
    await tx.payments.unforgotten(5)
    await tx.payments.put_method(method())
    await tx.payments.delete_methods("usr_1", 1)


async def _list_everything(tx: Transaction, paging: Paging) -> None:
    await tx.accounts.list(paging)
    await tx.api_keys.list("acct_1", "live", paging)
    await tx.users.list("acct_1", "live", paging)
    await tx.payments.methods("usr_1", paging)
    await tx.audit.list(AuditQuery("enr_1", "acct_1", 1), paging)
    await tx.enrollments.list(EnrollmentQuery("live", "acct_1", "usr_1", "usr_1", "crs_1", "active"), paging)
    await tx.enrollments.list(EnrollmentQuery("live", "acct_1", status="expired", now=1), paging)
    await tx.certificates.list(CertificateQuery("live", "acct_1", "usr_1", "usr_1", "crs_1"), paging)
    await _list_changes(tx, paging)
    for sort, search in product(get_args(CourseSort), (None, parse_search("title"))):
        await tx.courses.list(CourseQuery(sort, search, "development", "all", account_id="acct_1"), paging)
    await tx.courses.categories(paging if isinstance(paging, Page) else Cursor((0, "x"), 2))


async def _list_changes(tx: Transaction, paging: Paging) -> None:
    await tx.users.list("acct_1", "live", paging, 1)
    await tx.api_keys.list("acct_1", "live", paging, 1)
    await tx.enrollments.list(EnrollmentQuery("live", "acct_1", updated_since=1), paging)
    await tx.certificates.list(CertificateQuery("live", "acct_1", updated_since=1), paging)
    await tx.courses.list(CourseQuery("popular", updated_since=1), paging)


def test_a_transaction_is_gone_with_who_used_it_and_not_left_to_the_garbage_collector() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        repository = Repository(SQLiteTransaction(connection))
        gone = weakref.ref(repository._tx)
        gc.disable()
        try:
            del repository
            assert gone() is None
        finally:
            gc.enable()


async def test_every_statement_is_in_words_that_both_databases_have(asked: set[str]) -> None:
    assert len(asked) > 80
    assert {sql: found[0] for sql in asked if (found := ONE_DATABASE_ONLY.search(sql))} == {}


async def test_every_parameter_stands_where_both_databases_know_its_type(asked: set[str]) -> None:
    """Beside a column, in the VALUES of an INSERT, after LIMIT or OFFSET, or else in a CAST."""
    column = r"[a-z_.]+"
    typed = re.compile(
        rf"""
        \b{column}\ (=|<|<=|>|>=|<>|[+-])\ \$\d+ | \b(LIMIT|OFFSET)\ \$\d+ | CAST\(\$\d+\ AS\ (BIGINT|TEXT)\)
        | VALUES\ \([^()]*\)(,\ \([^()]*\))* | \({column}(,\ {column})*\)\ [<>]=?\ \(\$\d+(,\ \$\d+)*\)
        """,
        re.VERBOSE,
    )
    assert {sql for sql in asked if "$" in typed.sub("", sql)} == set()


async def test_every_order_says_its_direction_or_has_no_nulls_to_place(asked: set[str]) -> None:
    nullable = {
        "suspended_at",
        "external_id",
        "created_by",
        "completed_at",
        "expires_at",
        "revoked_at",
        "seats",
        "name",
        "due_at",
    }
    for sql in asked:
        for order in re.findall(r"ORDER BY ([a-z_., ]+?)(?: LIMIT|\)|$)", sql, re.IGNORECASE):
            columns = {term.split(" ")[0].split(".")[-1] for term in order.split(", ")}
            assert not {column for column in columns & nullable if f"{column} <= $" not in sql}


async def test_a_search_looks_up_what_it_finds_instead_of_testing_every_course() -> None:
    storage = await open_storage("sqlite://")
    plans: list[str] = []

    async def plan(tx: SQLiteTransaction) -> None:
        for conditions in ("status = $1", "status = $1 AND category = $1", "status = $1 AND level = $1"):
            found = tx.found.format("$2")
            sql = f"EXPLAIN QUERY PLAN SELECT n FROM {found} WHERE {conditions}"  # noqa: S608 - a test's own
            plans.append(str(await tx.rows(sql, "published", '"python"')))

    await storage._driver.read(plan)  # type: ignore[attr-defined]
    await storage.close()
    assert all("courses USING INTEGER PRIMARY KEY" in found for found in plans)


@pytest.mark.parametrize(
    ("words", "index", "statements"),
    [
        ("FROM users WHERE", "users_changed", 3),
        ("FROM enrollments WHERE", "enrollments_changed", 3),
        ("FROM certificates WHERE", "certificates_changed", 3),
        ("FROM courses WHERE", "courses_changed", 3),
        ("UPDATE payments SET due_at = $3", "payments_due", 1),
        ("FROM (SELECT 1 FROM payments", "payments_due", 1),
    ],
)
async def test_what_changed_and_what_is_due_is_found_by_an_index(
    asked: set[str], words: str, index: str, statements: int
) -> None:
    storage = await open_storage("sqlite://")
    wanted = [sql for sql in asked if words in sql and re.search(r"updated_at (>=|<) \$|due_at <= \$", sql)]
    assert len(wanted) == statements

    async def explain(tx: SQLiteTransaction) -> list[str]:
        plans = []
        for sql in wanted:
            arguments = [1] * len(set(re.findall(r"\$\d+", sql)))
            plans.append(str(await tx.rows(f"EXPLAIN QUERY PLAN {sql}", *arguments)))
        return plans

    for plan in await storage._driver.read(explain):  # type: ignore[attr-defined]
        assert index in plan, plan
    await storage.close()


async def test_no_column_of_returning_has_an_alias(asked: set[str]) -> None:
    assert {sql for sql in asked if re.search(r"RETURNING [^$]*\.", sql)} == set()


def test_the_words_of_the_partial_index_are_the_live_statuses() -> None:
    assert set(re.findall(r"'(\w+)'", LIVE)) == LIVE_STATUSES
    assert LIVE in known("sqlite")[0].common


def test_the_common_schema_has_two_types_and_names_no_database() -> None:
    for migration in known("sqlite"):
        code = "\n".join(line for line in migration.common.splitlines() if not line.lstrip().startswith("--"))
        types = set(re.findall(r"^    [a-z_]+ ([A-Z]+(?: COLLATE \"C\")?)", code, re.MULTILINE))
        assert types <= {"BIGINT", 'TEXT COLLATE "C"'}
        for word in (
            "TRIGGER",
            "SERIAL",
            "IDENTITY",
            "AUTOINCREMENT",
            "WITHOUT ROWID",
            "JSONB",
            "VARCHAR",
            "DEFAULT NOW",
        ):
            assert word not in code.upper()
        assert len(re.findall(r"PRIMARY KEY", code)) == len(re.findall(r"CREATE TABLE", code))


def test_the_schema_names_every_mode() -> None:
    assert all(f"{mode}_taken" in known("sqlite")[0].common for mode in get_args(Mode))
