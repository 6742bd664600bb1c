"""What the repository asks of a database: one library, one dialect, and nothing of the application.

SQL is written once, in `storage_backends.repository`, in the subset that SQLite and PostgreSQL share; parameters are
`$1`, `$2`, …. What truly differs between databases is a method here, never a branch on the dialect's name there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

from learnflow_core.errors import Code, LearnFlowError

T = TypeVar("T")

Value = str | int | None
"""What a column holds and a parameter may be. Booleans are 0 and 1, lists are JSON text."""

Row = tuple[Any, ...]
"""One row of an answer, a `Value` for each column."""


class Entry(NamedTuple):
    """What the search index knows of a course: its number, its standing among the others, and its tokens."""

    n: int
    published: bool
    total_students: int
    id: str
    tokens: str


class Wanted(NamedTuple):
    """Which tokens a course must have: `every` one of these, and one that starts with `prefix`, or is one of `some`.

    Where both are given, `some` are all tokens of the courses asked for that start with `prefix`: an index is asked for
    these by name, and a row by itself for the prefix. At least one of the three is given.
    """

    every: tuple[str, ...] = ()
    some: tuple[str, ...] = ()
    prefix: str | None = None


class UnusableDatabaseError(Exception):
    """The database cannot be served as it is; the message tells an operator why, and what helps."""


class RefusedError(Exception):
    """The schema refused a row: the caller broke a rule that it should have checked, so this is a bug."""


class DuplicateError(RefusedError):
    """The row, or one of its unique facts, exists already. Which one, not every database can tell."""


class OverdueError(LearnFlowError):
    """A read took longer than its deadline and was interrupted; the database itself is well."""

    def __init__(self) -> None:
        super().__init__(Code.SERVICE_UNAVAILABLE, "This took too long to read.", retry_after_s=1)


class UncertainError(LearnFlowError):
    """The database went away while a write was made durable: it may have been done, and is not tried again unasked."""

    def __init__(self) -> None:
        message = "Whether this was done is not known. Look, or repeat the request with the same Idempotency-Key."
        super().__init__(Code.SERVICE_UNAVAILABLE, message, retry_after_s=1)


def unavailable() -> LearnFlowError:
    """What is raised when the database cannot be used now: it is away, full, broken, or held by others for too long."""
    return LearnFlowError(Code.SERVICE_UNAVAILABLE, retry_after_s=1)


class DriverTransaction(Protocol):
    """One transaction of one database. Its exceptions: `RefusedError`, and `LearnFlowError(service_unavailable)`;
    RuntimeError when work that was given to `Driver.read` writes, and when it is used after its work has ended."""

    found: str
    """The courses that match, to be read FROM as if they were all of `courses`; `{0}` stands for the parameter that
    holds what `match` answered."""

    async def rows(self, sql: str, *args: Value) -> Sequence[Row]:
        """Run one statement; every row it answers."""

    async def row(self, sql: str, *args: Value) -> Row | None:
        """Run one statement; the first row it answers. Whether it changed anything is told by RETURNING."""
        found = await self.rows(sql, *args)
        return found[0] if found else None

    async def together(self, *statements: tuple[str, Sequence[Value]]) -> None:
        """Run statements, each with its arguments, of which none depends on what another does; in as few round trips
        as the database allows. What they answer is told to nobody."""
        for sql, args in statements:
            await self.rows(sql, *args)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Undo what was done inside when it is left by an exception; what may fail and be survived runs in one."""
        await self.rows("SAVEPOINT inner_work")
        try:
            yield
        except BaseException:
            await self.rows("ROLLBACK TO inner_work")
            await self.rows("RELEASE inner_work")
            raise
        await self.rows("RELEASE inner_work")

    async def alone(self) -> None:
        """Share the transaction with nobody from here on; a work that does is begun anew in one of its own."""
        return

    tested: str
    """The column of `courses` that `tests` looks at."""

    tests: str
    """An SQL condition on `courses` that tells of a row by itself whether it matches; `{0}` stands for the parameter
    that holds what `test` answered."""

    offset_reads_rows: bool
    """Whether OFFSET reads the rows that it passes over, though an index has all that is asked of them. If so, the
    first row behind it is found in the index, and a sub-select that answers its place bounds the index as a parameter
    would."""

    counting: str | None
    """A statement that answers how many published courses match, where the index knows by itself; `{0}` as before."""

    ranked: str | None
    """A condition on `courses`, where the index knows popularity: that they are published, match, and stand behind
    `({1}, {2})` in the order of `(total_students, id)`, both falling; of these at most `{3}` after the first `{4}`."""

    def match(self, wanted: Wanted, *, without: Wanted | None = None, markers: Sequence[str] = ()) -> str:
        """The index's own text for the courses that are `wanted`, but not those of `without`.

        `markers` are tokens that the search's other conditions imply. An index that gains by them asks for them too,
        and so does one with `counting` or `ranked`, where nothing else says them.
        """

    def test(self, wanted: Wanted, without: Wanted | None = None) -> str | None:
        """What `tests` needs for the courses that are `wanted`, but not those of `without`; None if it cannot tell."""

    async def numbers(self, count: int) -> Sequence[int]:
        """So many positive numbers, rising, that nothing in the database has had. Taking them holds nobody up."""

    async def load(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Keep many new rows in the quickest way that the database has; `DuplicateError` when one of them exists."""

    async def survey(self, tables: Sequence[str]) -> None:
        """Look at what these tables and the index hold now, where statements are planned by that; it takes its time."""

    async def index(self, changes: Sequence[tuple[Entry | None, Entry]]) -> None:
        """Let the index know of courses what it is to know now, in place of what it knew (None: they are new).

        Their rows have been written, and each course comes once. No statement is longer for more courses, or longer
        texts, than the database has time for.
        """

    async def clear_index(self) -> None:
        """Let the index know of no course, as when there was none."""

    async def misplaced(self) -> Sequence[str]:
        """The ids of courses that stand in the index where they should not, if it has an order."""
        return ()

    async def missed(self, courses: Sequence[Entry]) -> Sequence[int]:
        """The numbers of those of these courses that the index does not know as they are given."""

    async def indexed(self) -> Sequence[Row]:
        """Every token of the index, with how many courses the index answers for it."""

    async def damage(self) -> Sequence[str]:
        """What the database finds wrong with itself, down to its pages; long work."""


class Connections(NamedTuple):
    """How a pool is used: connections that are lent and that are idle, and how many callers wait for one."""

    in_use: int
    idle: int
    waiting: int


Work = Callable[[DriverTransaction], Awaitable[T]]


class Driver(Protocol):
    """A database that is open; the promises of `learnflow_core.ports.Storage`, one level lower.

    Work that awaits anything but its transaction ends in RuntimeError and is undone, on every database: it would not
    work on those where it runs on a thread. A driver that is closed is `unavailable`, and may be closed again.
    """

    @property
    def connections(self) -> Callable[[], Connections] | None:
        """How its connections are used now, where it has a pool of them."""

    async def read(self, work: Work[T], *, patient: bool = False) -> T:
        """Run work on one snapshot, interrupted (`OverdueError`) when it takes too long, unless `patient`."""

    async def write(self, work: Work[T], *, subject: str | None = None, snapshot: bool = False) -> T:
        """Run work in a transaction that is durable when this returns (`UncertainError`: perhaps all the same).

        It is as if it were alone, and what it has read had not changed when it is done. With `snapshot` that holds only
        of what it writes: so it undoes nobody who writes what it has read. With a `subject` it may share a transaction
        as `learnflow_core.ports.Storage.write` says.
        """

    async def close(self) -> None:
        """Finish what is under way and let go of the database."""
