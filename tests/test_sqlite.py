"""SQLite, in a file and in memory: the suite of every backend, and what is SQLite's own."""

import asyncio
import importlib.metadata
import itertools
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import storage_backends
from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.pagination import Page
from learnflow_core.ports import Storage, Transaction
from storage_backends import UnusableDatabaseError, open_storage
from storage_backends.conformance import PersistentStorageConformance, StorageConformance
from storage_backends.conformance.base import OpenStorage, said
from storage_backends.conformance.samples import account, course, keep, user
from storage_backends.driver import DriverTransaction, DuplicateError, OverdueError, RefusedError
from storage_backends.repository import RepositoryStorage
from storage_backends.sqlite import READERS, _connect, _prepare, migrate
from storage_backends.sqlite_driver import BATCH_JOBS, PATIENCE_S, SQLiteDriver
from storage_backends.sqlite_transaction import translated

FOR_EVER = "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


class TestInAFile(PersistentStorageConformance):
    @pytest.fixture
    def open_storage(self, tmp_path: Path) -> OpenStorage:
        return lambda: open_storage(f"sqlite:///{tmp_path / 'learnflow.db'}")


class TestInMemory(StorageConformance):
    @pytest.fixture
    def open_storage(self) -> OpenStorage:
        return lambda: open_storage("sqlite://")


class Connection(sqlite3.Connection):
    """A connection that notes what it is asked, and does something else first where a test says so."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.asked: list[str] = []
        self.before: dict[str, Callable[[], None]] = {}

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        self.asked.append(sql)
        self.before.get(sql, lambda: None)()
        return super().execute(sql, *args)


class Opened:
    """A storage on a file, whose connections a test can hold."""

    def __init__(self, path: Path, clock: Callable[[], float] | None = None) -> None:
        options: dict[str, Any] = {"isolation_level": None, "check_same_thread": False, "factory": Connection}
        self.writer, self.reader = (sqlite3.connect(path, **options) for _ in range(2))
        _prepare(self.writer, [self.reader])
        timing: dict[str, Any] = {"clock": clock} if clock else {}
        self.driver = SQLiteDriver(self.writer, [self.reader], read_deadline_s=5.0, **timing)
        self.storage: Storage = RepositoryStorage(self.driver)

    def asked(self, sql: str) -> int:
        """How often the writer was asked this."""
        asked: list[str] = self.writer.asked
        return asked.count(sql)


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A database that is up to date."""
    await migrate(f"sqlite:///{tmp_path / 'learnflow.db'}")
    return tmp_path / "learnflow.db"


@pytest.fixture
async def opened(path: Path) -> Any:
    found = Opened(path)
    yield found
    await found.storage.close()


class Gate:
    """Work that waits on its thread until a test lets it go on, so that what comes meanwhile stands behind it."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    async def __call__(self, tx: Transaction) -> None:
        self.entered.set()
        assert self.opened.wait(20)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, 20)


async def behind(gate: Gate, storage: Storage, *works: Any) -> list[Any]:
    """The results of the gate's own write and of those that were waiting behind it: one batch, within its bounds."""
    first = asyncio.ensure_future(storage.write(gate))
    await gate.reached()
    waiting = [asyncio.ensure_future(work) for work in works]
    await asyncio.sleep(0)
    gate.opened.set()
    return await asyncio.gather(first, *waiting, return_exceptions=True)


def broken(code: int) -> Callable[[], None]:
    """What a connection does when SQLite fails with this code."""

    def fail() -> None:
        error = sqlite3.OperationalError("as a test wants it")
        error.sqlite_errorcode = code
        raise error

    return fail


def kind(result: Any) -> Code | None:
    return result.code if isinstance(result, LearnFlowError) else result


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


async def test_a_commit_waits_for_the_disk(opened: Opened) -> None:
    assert opened.writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: a power cut loses no commit
    assert opened.writer.execute("PRAGMA temp_store").fetchone() == (2,)  # MEMORY: savepoints write nothing


async def test_writes_that_wait_together_share_one_commit(opened: Opened) -> None:
    await behind(Gate(), opened.storage, *(keep(opened.storage, account(f"acct_{number}")) for number in range(50)))
    assert opened.asked("COMMIT") == 1


async def test_a_batch_is_bounded_so_that_other_processes_get_their_turn(opened: Opened) -> None:
    works = (keep(opened.storage, account(f"acct_{number}")) for number in range(2 * BATCH_JOBS))
    await behind(Gate(), opened.storage, *works)
    assert opened.asked("COMMIT") >= 3


async def test_a_batch_takes_nothing_in_any_more_when_it_has_lasted_long(path: Path) -> None:
    opened = Opened(path, clock=map(float, itertools.count()).__next__)  # a second passes at every look
    await behind(Gate(), opened.storage, *(keep(opened.storage, account(f"acct_{number}")) for number in range(5)))
    assert opened.asked("COMMIT") == 6
    await opened.storage.close()


async def test_a_write_that_fails_leaves_the_others_of_its_batch(opened: Opened) -> None:
    results = await behind(
        Gate(),
        opened.storage,
        keep(opened.storage, account("acct_1")),
        keep(opened.storage, account("acct_2"), account("acct_1")),
        keep(opened.storage, account("acct_3")),
    )
    assert [type(result) for result in results] == [type(None), type(None), DuplicateError, type(None)]
    assert opened.asked("COMMIT") == 1
    found = await opened.storage.read(lambda tx: tx.accounts.list(Page(1, 50)))
    assert [one.id for one in found.items] == ["acct_1", "acct_3"]


async def test_nobody_is_told_of_success_when_the_commit_fails(opened: Opened) -> None:
    opened.writer.before["COMMIT"] = broken(sqlite3.SQLITE_IOERR_FSYNC)
    works = (keep(opened.storage, account(f"acct_{number}")) for number in range(3))
    results = await behind(Gate(), opened.storage, *works)
    assert set(map(kind, results)) == {Code.SERVICE_UNAVAILABLE}
    assert len(set(map(id, results))) == 4  # an exception of its own for each, since each grows a traceback
    del opened.writer.before["COMMIT"]
    assert await opened.storage.read(lambda tx: tx.accounts.get("acct_0")) is None
    await keep(opened.storage, account("acct_0"))


async def test_a_batch_that_cannot_even_be_undone_does_not_spoil_the_next(opened: Opened) -> None:
    opened.writer.before |= {"COMMIT": broken(sqlite3.SQLITE_IOERR), "ROLLBACK": broken(sqlite3.SQLITE_IOERR)}
    with pytest.raises(LearnFlowError):
        await keep(opened.storage, account())
    opened.writer.before.clear()
    await keep(opened.storage, account())


async def test_a_snapshot_that_cannot_be_let_go_of_does_not_spoil_the_next(opened: Opened) -> None:
    opened.reader.before["ROLLBACK"] = broken(sqlite3.SQLITE_IOERR)
    with pytest.raises(LearnFlowError):
        await opened.storage.read(lambda tx: tx.accounts.get("acct_0"))
    opened.reader.before.clear()
    assert await opened.storage.read(lambda tx: tx.accounts.get("acct_0")) is None


async def test_a_full_disk_is_unavailable_and_loses_nothing_that_was_answered(opened: Opened) -> None:
    pages = opened.writer.execute("PRAGMA page_count").fetchone()[0]
    opened.writer.execute(f"PRAGMA max_page_count = {pages + 2}")
    results: list[Any] = []
    for number in range(40):
        write = keep(opened.storage, account(f"acct_{number}", name="x" * 200))
        results += await asyncio.gather(write, return_exceptions=True)
    assert None in results
    assert set(map(kind, results)) == {None, Code.SERVICE_UNAVAILABLE}
    opened.writer.execute("PRAGMA max_page_count = 1000000")
    await keep(opened.storage, account("acct_after"))
    for number, result in enumerate(results):
        found = await opened.storage.read(lambda tx, at=f"acct_{number}": tx.accounts.get(at))  # type: ignore[misc]
        assert (found is not None) == (result is None)
    assert await opened.storage.check() == []


async def test_a_batch_that_sqlite_undid_by_itself_is_nobodys_success(opened: Opened) -> None:
    async def full_disk(tx: Transaction) -> str:
        opened.writer.rollback()
        return "as if nothing had happened"

    results = await behind(Gate(), opened.storage, keep(opened.storage, account()), opened.storage.write(full_disk))
    assert list(map(kind, results)) == [Code.SERVICE_UNAVAILABLE] * 3
    assert await opened.storage.read(lambda tx: tx.accounts.get("acct_1")) is None


async def test_a_write_waits_for_another_process_that_holds_the_lock(path: Path) -> None:
    opened = Opened(path)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    attempts = itertools.count(1)
    opened.writer.before["BEGIN IMMEDIATE"] = lambda: other.rollback() if next(attempts) == 4 else None
    await keep(opened.storage, account())
    assert opened.asked("BEGIN IMMEDIATE") == 4
    await opened.storage.close()
    other.close()


async def test_a_write_gives_up_when_another_process_holds_the_lock_for_too_long(path: Path) -> None:
    opened = Opened(path, clock=map(float, itertools.count()).__next__)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LearnFlowError) as refused:
        await keep(opened.storage, account())
    assert (refused.value.code, refused.value.retry_after_s) == (Code.SERVICE_UNAVAILABLE, 1)
    assert opened.asked("BEGIN IMMEDIATE") >= PATIENCE_S
    assert await opened.storage.read(lambda tx: tx.accounts.get("acct_1")) is None  # readers do not wait
    other.rollback()
    await keep(opened.storage, account())
    await opened.storage.close()
    other.close()


async def test_a_read_keeps_its_snapshot_while_a_write_is_committed(opened: Opened) -> None:
    await keep(opened.storage, account(name="before"))
    gate = Gate()

    async def look(tx: Transaction) -> list[str]:
        first = await tx.accounts.get("acct_1")
        await gate(tx)
        second = await tx.accounts.get("acct_1")
        return [one.name for one in (first, second) if one is not None]

    reading = asyncio.ensure_future(opened.storage.read(look))
    await gate.reached()
    await opened.storage.write(lambda tx: tx.accounts.put(account(name="after")))
    gate.opened.set()
    assert await reading == ["before", "before"]


@pytest.mark.parametrize("memory", [False, True])
async def test_a_read_past_its_deadline_is_interrupted_and_the_next_one_works(path: Path, memory: bool) -> None:
    storage = await open_storage("sqlite://" if memory else f"sqlite:///{path}", read_deadline_s=0.05)
    driver: SQLiteDriver = storage._driver  # type: ignore[attr-defined]
    with pytest.raises(OverdueError) as overdue:
        await driver.read(lambda tx: tx.rows(FOR_EVER))
    assert (overdue.value.code, overdue.value.retry_after_s) == (Code.SERVICE_UNAVAILABLE, 1)
    assert await storage.read(lambda tx: tx.accounts.get("acct_1")) is None
    await storage.close()


async def test_a_deadline_also_ends_a_read_of_many_quick_statements(path: Path) -> None:
    opened = Opened(path, clock=map(float, itertools.count()).__next__)

    async def many(tx: Transaction) -> None:
        for _ in range(100):
            await tx.accounts.get("acct_1")

    with pytest.raises(OverdueError):
        await opened.storage.read(many)
    assert await opened.storage.check() == []  # which may take its time
    await opened.storage.close()


async def test_a_job_whose_caller_gave_up_before_it_began_is_not_run(opened: Opened) -> None:
    gate = Gate()
    first = asyncio.ensure_future(opened.storage.write(gate))
    await gate.reached()
    waiting = asyncio.ensure_future(keep(opened.storage, account()))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    gate.opened.set()
    await first
    assert await opened.storage.read(lambda tx: tx.accounts.get("acct_1")) is None


@pytest.mark.parametrize("patient", [False, True])
async def test_a_read_whose_caller_gave_up_is_interrupted(path: Path, patient: bool) -> None:
    storage = await open_storage(f"sqlite:///{path}", read_deadline_s=1_000)
    driver: SQLiteDriver = storage._driver  # type: ignore[attr-defined]
    slow = [driver.read(lambda tx: tx.rows(FOR_EVER), patient=patient) for _ in range(READERS)]
    running = list(map(asyncio.ensure_future, slow))
    await asyncio.sleep(0.02)
    for each in running:
        each.cancel()
    assert await storage.read(lambda tx: tx.accounts.get("acct_1")) is None  # by a thread that has finished
    await storage.close()


async def test_a_write_whose_caller_gave_up_while_it_ran_is_completed(opened: Opened) -> None:
    gate = Gate()

    async def work(tx: Transaction) -> None:
        await gate(tx)
        await tx.accounts.add(account())

    writing = asyncio.ensure_future(opened.storage.write(work))
    await gate.reached()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    gate.opened.set()
    await keep(opened.storage, account("acct_2"))
    assert await opened.storage.read(lambda tx: tx.accounts.get("acct_1")) == account()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
async def test_not_even_work_that_wants_to_end_the_program_ends_a_thread(opened: Opened, error: Any) -> None:
    async def work(tx: DriverTransaction) -> None:
        raise error

    for run in (opened.driver.read, opened.driver.write):
        with pytest.raises(error):
            await run(work)
    await keep(opened.storage, account())


def test_a_storage_serves_several_event_loops_one_after_the_other(tmp_path: Path) -> None:
    storage = asyncio.run(open_storage(f"sqlite:///{tmp_path / 'learnflow.db'}"))

    async def abandon() -> None:
        asyncio.ensure_future(keep(storage, account("acct_1")))  # noqa: RUF006 - its loop ends before it does
        await asyncio.sleep(0)

    asyncio.run(abandon())
    asyncio.run(keep(storage, account("acct_2")))
    assert asyncio.run(storage.read(lambda tx: tx.accounts.get("acct_2"))) == account("acct_2")
    asyncio.run(storage.close())


async def test_closing_ends_the_threads_and_empties_the_log(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    storage = await open_storage(f"sqlite:///{tmp_path / 'learnflow.db'}")
    await keep(storage, account())
    assert "learnflow.db-wal" in names(tmp_path)
    await storage.close()
    assert [thread for thread in set(threading.enumerate()) - before if "sqlite" in thread.name] == []
    assert names(tmp_path) == ["learnflow.db"]


async def test_nobody_else_may_read_the_file(tmp_path: Path) -> None:
    storage = await open_storage(f"sqlite:///{tmp_path / 'learnflow.db'}")
    await keep(storage, account())
    assert {stat.S_IMODE(file.stat().st_mode) for file in os.scandir(tmp_path)} == {0o600}
    await storage.close()


CHILD = """
import asyncio, sys
from storage_backends import open_storage
from storage_backends.conformance.samples import account, course, keep

async def main():
    storage = await open_storage(sys.argv[1])
    async def write(worker):
        for number in range(10**6):
            name = f"{sys.argv[2]}_{worker}_{number}"
            await keep(storage, account(f"acct_{name}"))
            print(f"acct_{name}", flush=True)
            first, again = (
                course(f"crs_{name}", account_id=f"acct_{name}", title=title, students_base=students)
                for title, students in (("Kept", number % 7), ("Kept again", number % 5))
            )
            await keep(storage, first)
            await storage.write(lambda tx: tx.courses.put(again))
            await storage.write(lambda tx: tx.courses.settle(10))
    await asyncio.gather(*(write(worker) for worker in range(8)))

asyncio.run(main())
"""


def writing_process(path: Path, name: str) -> "subprocess.Popen[str]":
    """A process that keeps writing accounts, and says of each that it was told it is kept."""
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, f"sqlite:///{path}", name], stdout=subprocess.PIPE, text=True, env=os.environ
    )


async def test_a_killed_process_loses_nothing_that_it_was_told_is_kept(path: Path) -> None:
    for round_ in range(3):
        child = writing_process(path, f"k{round_}")
        assert child.stdout is not None
        told = [child.stdout.readline().strip() for _ in range(50 + 40 * round_)]
        child.send_signal(signal.SIGKILL)
        told += [line.strip() for line in child.stdout if line.endswith("\n")]
        child.wait()
        child.stdout.close()
        storage = await open_storage(f"sqlite:///{path}")
        for key in told:
            assert await storage.read(lambda tx, at=key: tx.accounts.get(at)) is not None  # type: ignore[misc]
        assert await storage.check() == []
        await storage.close()


async def test_two_busy_processes_both_get_to_write(path: Path) -> None:
    children = [writing_process(path, name) for name in ("one", "two")]
    for child in children:
        assert child.stdout is not None
        assert len([child.stdout.readline() for _ in range(200)]) == 200
    for child in children:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, DuplicateError),
        (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, DuplicateError),
        (sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY, RefusedError),
        (sqlite3.SQLITE_CONSTRAINT_CHECK, RefusedError),
        (sqlite3.SQLITE_CONSTRAINT_NOTNULL, RefusedError),
        (3091, RefusedError),  # a value of another type than the column's, which has no name in the library
        (sqlite3.SQLITE_BUSY, LearnFlowError),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, LearnFlowError),
        (sqlite3.SQLITE_IOERR_WRITE, LearnFlowError),
        (sqlite3.SQLITE_IOERR_SHORT_READ, LearnFlowError),
        (sqlite3.SQLITE_FULL, LearnFlowError),
        (sqlite3.SQLITE_CANTOPEN, LearnFlowError),
        (sqlite3.SQLITE_CORRUPT, LearnFlowError),
        (sqlite3.SQLITE_INTERRUPT, OverdueError),
        (sqlite3.SQLITE_ERROR, sqlite3.OperationalError),
    ],
)
def test_errors_are_told_apart_by_their_codes(code: int, meaning: type[Exception]) -> None:
    with pytest.raises(sqlite3.OperationalError) as raised:
        broken(code)()
    assert type(translated(raised.value)) is meaning


async def test_a_savepoint_that_is_left_by_an_exception_is_undone_alone(opened: Opened) -> None:
    async def inner(tx: DriverTransaction) -> None:
        async with tx.savepoint():
            await tx.rows("INSERT INTO totals (list, courses) VALUES ('inner', 1)")
            await tx.rows("INSERT INTO totals (list, courses) VALUES ('outer', 2)")

    async def work(tx: DriverTransaction) -> list[str]:
        async with tx.savepoint():
            await tx.rows("INSERT INTO totals (list, courses) VALUES ('outer', 1)")
            with pytest.raises(DuplicateError):
                await inner(tx)
        return [name for (name,) in await tx.rows("SELECT list FROM totals")]

    assert await opened.driver.write(work) == ["outer"]


async def test_a_mistake_in_sql_stays_what_it_is(opened: Opened) -> None:
    with pytest.raises(sqlite3.OperationalError, match="nosuch"):
        await opened.driver.write(lambda tx: tx.rows("SELECT nosuch FROM accounts"))
    with pytest.raises(sqlite3.ProgrammingError):
        await opened.driver.write(lambda tx: tx.rows("SELECT $1, $2", 1))


@pytest.mark.parametrize(
    "url", ["sqlite://name.db", "sqlite:///folder/", "sqlite:///a.db?mode=ro", "sqlite:///a.db#x", "sqlite:////"]
)
async def test_a_url_that_names_no_file_is_refused_with_what_to_write(url: str) -> None:
    with pytest.raises(ValueError, match=r"database: .* sqlite:///name\.db"):
        await open_storage(url)


@pytest.mark.parametrize("url", ["mysql://host/db", "learnflow.db", "", "SQLITE:///x.db"])
async def test_an_unknown_scheme_is_refused_with_those_there_are(url: str) -> None:
    for use in (open_storage, storage_backends.migrate):
        with pytest.raises(ValueError, match=r"database: .* sqlite:"):
            await use(url)


async def test_a_path_is_taken_from_the_working_directory_and_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for url, file in (("sqlite:///a%20b.db", "a b.db"), (f"sqlite:///{tmp_path}/c.db", "c.db")):
        storage = await open_storage(url)
        monkeypatch.chdir("/")
        await keep(storage, account())
        await storage.close()
        monkeypatch.chdir(tmp_path)
        assert file in names(tmp_path)


async def test_what_is_no_database_is_unusable(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("This is no database, though it is long enough to be one. " * 100)
    for name in ("text.db", "no/such/folder.db"):
        with pytest.raises(UnusableDatabaseError, match=r"text.db|folder.db"):
            await open_storage(f"sqlite:///{tmp_path / name}")


async def test_an_old_sqlite_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 38, 5))
    with pytest.raises(UnusableDatabaseError, match=r"3\.39\.0 or later"):
        await open_storage("sqlite://")


async def test_a_third_partys_backend_is_found_by_its_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name = "mine"

        def load(self) -> Any:
            return self

        async def open_storage(self, url: str, *, read_deadline_s: float) -> Any:
            return url, read_deadline_s

        async def migrate(self, url: str) -> list[str]:
            return [url]

    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: [Entry()] if group == "learnflow.storage" else []
    )
    opened: Any = await open_storage("mine://host/x", read_deadline_s=3)
    assert opened == ("mine://host/x", 3)
    assert await storage_backends.migrate("mine://host/x") == ["mine://host/x"]
    with pytest.raises(ValueError, match="mine:, postgres:, postgresql:, sqlite:"):
        await open_storage("theirs://host")


async def test_damage_is_found(path: Path) -> None:
    storage = await open_storage(f"sqlite:///{path}")
    await keep(storage, account(), user(), course(created_by="usr_1"))
    await storage.close()
    other = _connect(str(path))
    other.execute("DELETE FROM users")
    other.execute("PRAGMA writable_schema = 1")
    other.execute("DELETE FROM sqlite_schema WHERE name = 'courses_newest'")
    other.close()
    storage = await open_storage(f"sqlite:///{path}")
    found = await said(storage)
    assert any("refers to nothing in users" in finding for finding in found)
    assert any("the database is damaged" in finding for finding in found)
    await storage.close()
