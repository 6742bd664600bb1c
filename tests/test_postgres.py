"""PostgreSQL, on a real server: the suite of every backend, and what is PostgreSQL's own."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

import storage_backends
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.ports import Storage, Transaction
from storage_backends import UnusableDatabaseError, open_storage
from storage_backends import postgres as backend
from storage_backends.conformance import PersistentStorageConformance, lists
from storage_backends.conformance.base import OpenStorage, said
from storage_backends.conformance.samples import account, count, course, keep
from storage_backends.conformance.search import Search
from storage_backends.driver import DriverTransaction, DuplicateError, OverdueError, RefusedError, UncertainError
from storage_backends.postgres import POOL_SIZE, _parts
from storage_backends.postgres_driver import GATED_IDLE_S, TOGETHER, PostgresDriver
from storage_backends.postgres_transaction import AgainError, PostgresTransaction, translated
from storage_backends.repository import Repository, blocks, list_books, searches, tally, uncounted
from tests.postgres import Postgres

SLOW = "SELECT CAST(pg_sleep(60) AS TEXT)"


class TestInPostgreSQL(PersistentStorageConformance):
    @pytest.fixture
    async def open_storage(self, postgres: Postgres) -> AsyncIterator[OpenStorage]:
        async with postgres.database() as url:
            yield lambda: open_storage(url)


@pytest.mark.asyncio
class TestWhereTheDatabaseSortsByBytes(lists.Lists):
    @pytest.fixture
    async def open_storage(self, postgres: Postgres) -> AsyncIterator[OpenStorage]:
        async with postgres.database("c") as url:
            yield lambda: open_storage(url)


@pytest.fixture
async def url(postgres: Postgres) -> AsyncIterator[str]:
    async with postgres.database() as url:
        yield url


@pytest.fixture
async def storage(url: str) -> AsyncIterator[Storage]:
    storage = await open_storage(url)
    yield storage
    await storage.close()


async def test_searches_are_the_same_however_few_courses_are_tested_in_order(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searches, "NEAR", 5)
    await Search().test_searches_of_the_whole_catalogue_stay_exact_whatever_is_written(storage, 2)


@pytest.fixture
def driver(storage: Storage) -> PostgresDriver:
    found: PostgresDriver = storage._driver  # type: ignore[attr-defined]
    return found


@pytest.fixture
async def other(url: str) -> AsyncIterator[Any]:
    """Somebody else at the same database."""
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


def busy(driver: PostgresDriver) -> int:
    """How many connections are lent or being mended."""
    return driver._pool._places - len(driver._pool._idle)


async def kept(storage: Storage, account_id: str = "acct_1") -> bool:
    return await storage.read(lambda tx: tx.accounts.get(account_id)) is not None


def meeting(driver: PostgresDriver, *statements: list[str]) -> tuple[list[Any], list[str]]:
    """Writes that wait for each other between their two statements, the first time; and the notes of their tries."""
    tries: list[str] = []
    arrived: list[str] = []

    def write(first: str, second: str) -> Any:
        async def work(tx: DriverTransaction) -> None:
            tries.append(first)
            await tx.rows(first)
            arrived.append(first)
            while len(arrived) < len(statements):
                await tx.rows("SELECT 1")
            await tx.rows(second)

        return driver.write(work)

    return [write(*each) for each in statements], tries


ADD = "INSERT INTO totals (list, courses) VALUES ('{}', 0)"
READ = "SELECT courses FROM totals WHERE list = 'a'"
UP = "UPDATE totals SET courses = courses + 1 WHERE list = '{}'"


def _up(name: str) -> Any:
    return lambda tx: tx.rows(UP.format(name))


@pytest.fixture
async def totals(other: Any) -> None:
    for name in "ab":
        await other.execute(ADD.format(name))


@pytest.mark.usefixtures("totals")
async def test_writes_that_collide_are_run_again_until_all_are_done(driver: PostgresDriver, other: Any) -> None:
    writes, tries = meeting(driver, [READ, UP.format("a")], [READ, UP.format("a")], [READ, UP.format("a")])
    await asyncio.gather(*writes)
    assert len(tries) > 3
    assert await other.fetchval(READ) == 3


@pytest.mark.usefixtures("totals")
async def test_what_is_asked_at_once_is_answered_one_by_one(driver: PostgresDriver, other: Any) -> None:
    async def work(tx: Any) -> list[Any]:
        await tx.each("UPDATE totals SET courses = courses + $2 WHERE list = $1", [("a", 1), ("b", 2), ("a", 4)])
        asked = [("b",), ("nowhere",), ("a",)]
        return [
            await tx.each("SELECT list, list, courses FROM totals WHERE list = $1", asked),
            await tx.each("UPDATE totals SET courses = 9 WHERE list = $1 AND courses < 9 RETURNING 1", asked + asked),
            await tx.each("SELECT courses FROM totals WHERE list = $1", asked[:1]),
        ]

    found, changed, one = await driver.write(work)
    assert found == [[("b", "b", 2)], [], [("a", "a", 5)]]
    assert changed == [[(1,)], [], [(1,)], [], [], []]
    assert one == [[(9,)]]
    assert await other.fetchval(READ) == 9


@pytest.mark.usefixtures("totals")
async def test_writes_with_a_subject_or_of_a_snapshot_follow_those_of_other_processes_and_hold_up_no_others(
    driver: PostgresDriver, other: Any
) -> None:
    async with other.transaction():
        await other.execute("LOCK TABLE gate IN SHARE UPDATE EXCLUSIVE MODE")
        shared = [asyncio.ensure_future(driver.write(_up("a"), subject=f"{number}")) for number in range(3)]
        counting = asyncio.ensure_future(driver.write(_up("a"), snapshot=True))
        for _ in range(20):  # so that the others would have had the time
            await driver.write(_up("b"))
        assert not any(each.done() for each in [*shared, counting])
    await asyncio.gather(*shared, counting)
    assert await other.fetchval(READ) == 4


async def test_one_that_vanishes_in_a_transaction_that_others_wait_for_is_given_up_soon(
    driver: PostgresDriver, other: Any
) -> None:
    async def work(tx: DriverTransaction) -> Any:
        return await tx.rows("SELECT current_setting('idle_in_transaction_session_timeout')")

    shared = await asyncio.gather(*(driver.write(work, subject=f"{number}") for number in range(2)))
    assert {seconds for ((seconds,),) in [*shared, await driver.write(work, snapshot=True)]} == {f"{GATED_IDLE_S:.0f}s"}
    assert await driver.write(work) == [("30s",)]


@pytest.mark.usefixtures("totals")
async def test_writes_that_lock_each_other_out_are_run_again(driver: PostgresDriver, other: Any) -> None:
    ups = [UP.format("a"), UP.format("b")]
    writes, tries = meeting(driver, ups, ups[::-1])
    await asyncio.gather(*writes)
    assert len(tries) > 2
    assert await other.fetchval(READ) == 2


async def test_the_last_try_is_alone_and_who_loses_it_all_the_same_is_told_to_come_again(
    driver: PostgresDriver,
) -> None:
    locks: list[Any] = []

    async def work(tx: DriverTransaction) -> None:
        locks.append(await tx.row("SELECT mode FROM pg_locks WHERE relation = CAST('gate' AS regclass)"))
        raise AgainError

    with pytest.raises(LearnFlowError) as refused:
        await driver.write(work)
    assert (refused.value.code, refused.value.retry_after_s) == (Code.SERVICE_UNAVAILABLE, 1)
    assert locks == [("RowShareLock",)] * TOGETHER + [("ExclusiveLock",)]


async def test_a_write_waits_only_so_long_for_a_lock(url: str, other: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backend._SERVED, "lock_timeout", "50")
    storage = await open_storage(url)
    await other.execute("BEGIN; LOCK TABLE gate")
    with pytest.raises(LearnFlowError) as refused:
        await keep(storage, account())
    assert refused.value.code is Code.SERVICE_UNAVAILABLE
    await other.execute("ROLLBACK")
    await keep(storage, account())
    await storage.close()


async def test_a_read_past_its_deadline_is_interrupted_on_the_server_and_the_next_one_works(
    url: str, other: Any
) -> None:
    storage = await open_storage(url, read_deadline_s=0.1)
    driver = storage._driver  # type: ignore[attr-defined]
    with pytest.raises(OverdueError):
        await driver.read(lambda tx: tx.rows(SLOW))
    assert not await kept(storage)
    assert await other.fetchval("SELECT count(*) FROM pg_stat_activity WHERE query = $1", SLOW) == 0
    await storage.close()


async def test_a_deadline_also_ends_a_read_of_many_quick_statements(url: str) -> None:
    storage = await open_storage(url)
    driver = storage._driver  # type: ignore[attr-defined]
    driver._clock = map(float, range(1_000)).__next__  # a second passes at every look

    async def many(tx: DriverTransaction) -> None:
        for _ in range(100):
            await tx.rows("SELECT 1")

    with pytest.raises(OverdueError):
        await driver.read(many)
    await driver.read(many, patient=True)
    await storage.close()


async def test_a_read_whose_caller_left_is_interrupted_and_its_connection_used_again(
    storage: Storage, driver: PostgresDriver, other: Any
) -> None:
    reading = asyncio.ensure_future(driver.read(lambda tx: tx.rows(SLOW)))
    running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = $1"
    while not await other.fetchval(running, SLOW):
        pass
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    while busy(driver):
        await other.fetchval("SELECT 1")
    assert await other.fetchval(running, SLOW) == 0
    assert driver._pool._places == 1
    assert not await kept(storage)


async def test_a_write_whose_caller_left_while_it_ran_is_completed(driver: PostgresDriver, other: Any) -> None:
    entered = asyncio.Event()

    async def work(tx: DriverTransaction) -> None:
        entered.set()
        await tx.rows("SELECT CAST(pg_sleep(0.05) AS TEXT)")
        await tx.rows(ADD.format("a"))

    writing = asyncio.ensure_future(driver.write(work))
    await entered.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await driver.close()
    assert await other.fetchval(READ) == 0


async def test_a_commit_whose_answer_is_lost_is_told_as_such_and_not_repeated(
    driver: PostgresDriver, other: Any
) -> None:
    """A deferred trigger ends the connection during COMMIT, as a crash there would."""
    await other.execute("""
        CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER die AFTER INSERT ON totals DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION die()
    """)
    tries = 0

    async def work(tx: DriverTransaction) -> None:
        nonlocal tries
        tries += 1
        await tx.rows(ADD.format("a"))

    with pytest.raises(UncertainError) as uncertain:
        await driver.write(work)
    assert (uncertain.value.code, uncertain.value.retry_after_s, tries) == (Code.SERVICE_UNAVAILABLE, 1, 1)


async def test_what_is_only_refused_at_the_commit_is_refused(driver: PostgresDriver, other: Any) -> None:
    await other.execute("CREATE TABLE late (n bigint UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(DuplicateError):
        await driver.write(lambda tx: tx.rows("INSERT INTO late VALUES (1), (1)"))


async def test_work_that_goes_on_after_an_error_is_not_taken_for_done(driver: PostgresDriver) -> None:
    async def work(tx: DriverTransaction) -> None:
        await tx.rows(ADD.format("a"))
        with pytest.raises(DuplicateError):
            await tx.rows(ADD.format("a"))

    with pytest.raises(RuntimeError, match="savepoint"):
        await driver.write(work)


async def test_a_savepoint_that_is_left_by_an_exception_is_undone_alone(driver: PostgresDriver) -> None:
    async def inner(tx: DriverTransaction) -> None:
        async with tx.savepoint():
            await tx.rows(ADD.format("inner"))
            await tx.rows(ADD.format("outer"))

    async def work(tx: DriverTransaction) -> list[str]:
        async with tx.savepoint():
            await tx.rows(ADD.format("outer"))
            with pytest.raises(DuplicateError):
                await inner(tx)
        return [name for (name,) in await tx.rows("SELECT list FROM totals")]

    assert await driver.write(work) == ["outer"]


async def test_a_statement_prepared_before_the_schema_changed_is_prepared_again(
    driver: PostgresDriver, other: Any
) -> None:
    read = "SELECT * FROM totals"
    for work in (driver.write, driver.read):
        await work(lambda tx: tx.rows(read))
    await other.execute("ALTER TABLE totals ADD COLUMN more bigint; INSERT INTO totals VALUES ('a', 1, 2)")
    assert await driver.write(lambda tx: tx.rows(read)) == [("a", 1, 2)]


async def test_every_connection_is_set_up_for_what_it_does(driver: PostgresDriver) -> None:
    names = ("plan_cache_mode", "jit", "lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")

    async def work(tx: DriverTransaction) -> list[Any]:
        return [await tx.row(f"SELECT current_setting('{name}')") for name in (*names, "transaction_isolation")]

    shared = [("force_custom_plan",), ("off",), ("5s",), ("10s",), ("30s",)]
    assert await driver.write(work) == [*shared, ("serializable",)]
    assert await driver.read(work) == [*shared, ("repeatable read",)]
    assert (await driver.read(work, patient=True))[3] == ("0",)


async def test_damage_that_the_server_knows_of_is_found(storage: Storage, other: Any) -> None:
    await other.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'courses_newest'::regclass")
    assert "the database is damaged: the index courses_newest is not valid" in await said(storage)


async def test_a_connection_that_the_server_ended_is_replaced_unseen(storage: Storage, other: Any) -> None:
    await keep(storage, account())
    for _ in range(3):
        await other.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
        await asyncio.sleep(0)
        assert await kept(storage)


AWAY = "08006", "53100", "53200", "53300", "55P03", "57P01", "57P03", "58030", "28P01", "25006", "25P03", "XX001"


def failure(code: str) -> Exception:
    error: Exception = asyncpg.PostgresError.new({"C": code, "M": "as a test wants it"})
    return error


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (failure("23505"), DuplicateError),
        *((failure(code), RefusedError) for code in ("23503", "23514", "23502", "23P01")),
        *((failure(code), AgainError) for code in ("40001", "40P01")),
        (failure("57014"), OverdueError),
        *((failure(code), LearnFlowError) for code in AWAY),
        *((failure(code), type(failure(code))) for code in ("42P01", "22003", "25P02", "0A000", "XX000")),
        (asyncpg.exceptions.InvalidCachedStatementError("changed"), AgainError),
        (ConnectionRefusedError(), LearnFlowError),
        (TimeoutError(), LearnFlowError),
        (asyncpg.InterfaceError("another operation is in progress"), asyncpg.InterfaceError),
    ],
    ids=str,
)
def test_errors_are_told_apart_by_their_codes(error: Exception, meaning: type[Exception]) -> None:
    assert type(translated(error, closed=False)) is meaning


def test_any_error_of_the_library_on_a_closed_connection_is_that_the_database_is_away() -> None:
    error = asyncpg.InterfaceError("the underlying connection is closed")
    assert type(translated(error, closed=True)) is LearnFlowError


def test_the_size_of_the_pool_is_taken_out_of_the_url() -> None:
    assert _parts("postgresql://u:p@h:1/x?sslmode=require&pool_size=3") == ("postgresql://u:p@h:1/x?sslmode=require", 3)
    assert _parts("postgresql:///x?host=/run/postgresql") == ("postgresql:///x?host=%2Frun%2Fpostgresql", POOL_SIZE)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h",
        "postgresql://h/",
        "postgresql://h/x#y",
        "postgresql://h/x?pool_size=0",
        "postgresql://h/x?pool_size=many",
        "postgresql://h:port/x",
        "postgresql://h/x?sslmode=perhaps",
    ],
)
async def test_a_url_that_names_no_database_is_refused(url: str) -> None:
    for use in (open_storage, storage_backends.migrate):
        with pytest.raises(ValueError, match="database: "):
            await use(url)


@pytest.mark.parametrize("change", [("user=postgres", "user=nobody_here"), ("/school", "/nowhere")])
async def test_a_database_that_lets_nobody_in_is_explained(url: str, change: tuple[str, str]) -> None:
    with pytest.raises(UnusableDatabaseError, match=r"cannot be used: .* does not exist"):
        await open_storage(url.replace(*change))


async def test_a_missing_library_is_named_with_what_installs_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    for name in [name for name in sys.modules if name.startswith("storage_backends.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UnusableDatabaseError, match=r"learnflow\[postgres\]"):
        await open_storage(url)


async def test_a_course_is_added_while_a_write_that_added_another_is_still_open(storage: Storage) -> None:
    """Both count in the same lists and take the next number, and neither waits for the other."""
    await keep(storage, account(), course())
    first_added, second_kept = asyncio.Event(), asyncio.Event()

    async def first(tx: Transaction) -> None:
        assert await tx.courses.add(course("crs_2"))
        first_added.set()
        while not second_kept.is_set():
            await tx.accounts.get("acct_1")

    async def second() -> None:
        await first_added.wait()
        await keep(storage, course("crs_3"))
        second_kept.set()

    await asyncio.gather(storage.write(first), second())
    assert await storage.check() == []


async def test_statements_that_go_together_are_one_round_trip_and_all_or_nothing(
    driver: PostgresDriver, other: Any
) -> None:
    await other.execute("CREATE TABLE one (n BIGINT PRIMARY KEY, t TEXT); CREATE TABLE two (n BIGINT PRIMARY KEY)")
    first = ("INSERT INTO one (n, t) VALUES ($1, $2), ($3, $4)", (1, None, 2, "x"))
    second = ("INSERT INTO two (n) VALUES ($1)", (7,))
    third = ("UPDATE two SET n = $1 WHERE n = $2", (8, 9))

    async def together(tx: DriverTransaction) -> list[Any]:
        asked: list[Any] = []
        rows = tx.rows

        async def noted(sql: str, *args: Any) -> Any:
            asked.append(sql)
            return await rows(sql, *args)

        tx.rows = noted  # type: ignore[method-assign]
        await tx.together()
        await tx.together(first, second, third)
        return [len(asked), *await rows("SELECT n, t FROM one ORDER BY n"), *await rows("SELECT n FROM two")]

    assert await driver.write(together) == [1, (1, None), (2, "x"), (7,)]
    with pytest.raises(DuplicateError):
        await driver.write(lambda tx: tx.together(("INSERT INTO one (n) VALUES ($1)", (3,)), second))
    assert await driver.read(lambda tx: tx.rows("SELECT n FROM one ORDER BY n")) == [(1,), (2,)]


async def test_an_import_is_not_undone_by_those_who_publish_meanwhile(storage: Storage) -> None:
    await keep(storage, account(), course())
    added, published = asyncio.Event(), asyncio.Event()
    tries = 0

    async def load(tx: Transaction) -> None:
        nonlocal tries
        tries += 1
        await tx.courses.add_all([course(f"crs_a{number}") for number in range(40)])
        added.set()
        while not published.is_set():
            await tx.accounts.get("acct_1")

    async def publish() -> None:
        await added.wait()
        for number in range(100):
            await keep(storage, course(f"crs_b{number}"))
        await count(storage)
        published.set()

    try:
        async with asyncio.timeout(60):
            await asyncio.gather(storage.write(load), publish())
    finally:
        published.set()  # what is loaded goes on when its caller is cancelled
    assert tries == 1
    assert await storage.check() == []


async def test_of_two_that_count_at_once_one_is_undone_though_each_has_other_notes(
    storage: Storage, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second has notes with lower numbers, which were committed after the first had begun."""
    monkeypatch.setattr(blocks, "BLOCK", 4)
    monkeypatch.setattr(uncounted, "ENOUGH", 1)
    monkeypatch.setattr(uncounted, "NOTES", 2)
    await keep(storage, account(), *(course(f"crs_{number}", students_base=10 * number) for number in range(8)))
    await count(storage)
    late, first, second = [await asyncpg.connect(url) for _ in range(3)]
    publishing = await begun(late, "SERIALIZABLE")
    moved = course("crs_1", students_base=60, title="Title of crs_1, again")
    assert await Repository(publishing).courses.put(moved)
    await keep(storage, course("crs_9", students_base=35))
    splitting = await begun(first, "REPEATABLE READ")
    await late.execute("COMMIT")
    moving = await begun(second, "REPEATABLE READ")
    await tally.portion(splitting)
    undone = asyncio.create_task(tally.portion(moving))
    await asyncio.sleep(0)
    await first.execute("COMMIT")
    with pytest.raises(AgainError):
        await undone
    for connection in (late, first, second):
        await connection.close()
    await count(storage)
    assert await storage.check() == []


@pytest.mark.parametrize("sort", blocks.SORTS)
async def test_the_courses_of_a_block_are_counted_without_reading_on_to_where_the_order_changes(
    driver: PostgresDriver, sort: str
) -> None:
    (question,) = [sql for what, sql in list_books.QUESTIONS.items() if f" by {sort}: the block" in what]

    async def plan(tx: DriverTransaction) -> str:
        await tx.rows("SET LOCAL enable_seqscan = off")
        await tx.rows("SET LOCAL enable_bitmapscan = off")
        return "\n".join(line for (line,) in await tx.rows(f"EXPLAIN {question}"))

    counting = re.findall(r"on courses.*\n *Index Cond: (.*)", await driver.read(plan))
    assert len(counting) == 24  # three parts, in four kinds of lists, to be told and to be compared
    assert [condition for condition in counting if "ROW" in condition] == []


async def begun(connection: Any, level: str) -> PostgresTransaction:
    """A transaction that has its snapshot."""
    await connection.execute(f"BEGIN ISOLATION LEVEL {level}")
    transaction = PostgresTransaction(connection, lambda: None, writes=True)
    await transaction.rows("SELECT count(*) FROM uncounted")
    return transaction
