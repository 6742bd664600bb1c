"""The application's SQL, once, for every database: `learnflow_core.ports` over a small Driver."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from learnflow_core import ports
from learnflow_core.model import Instant
from learnflow_core.ports import Context, Finding, Work
from storage_backends.driver import Connections, Driver, DriverTransaction
from storage_backends.repository import checkup, leading, tally
from storage_backends.repository.accounts import Accounts, ApiKeys
from storage_backends.repository.courses import Courses
from storage_backends.repository.enrollments import Certificates, Enrollments
from storage_backends.repository.journals import Journals
from storage_backends.repository.payments import Payments, SandboxCharges
from storage_backends.repository.tokens import Replies, Tokens, purge
from storage_backends.repository.users import Users

T = TypeVar("T")


class Repository:
    """`learnflow_core.ports.Transaction` over a transaction of any Driver."""

    def __init__(self, tx: DriverTransaction) -> None:
        self._tx = tx
        self.accounts: ports.Accounts = Accounts(tx)
        self.api_keys: ports.ApiKeys = ApiKeys(tx)
        self.users: ports.Users = Users(tx)
        self._courses = Courses(tx)
        self.courses: ports.Courses = self._courses
        self.enrollments: ports.Enrollments = Enrollments(tx)
        self.payments: ports.Payments = Payments(tx)
        self.certificates: ports.Certificates = Certificates(tx)
        self.tokens: ports.Tokens = Tokens(tx)
        self.replies: ports.Replies = Replies(tx)
        self._journals = Journals(tx)
        self.ledger: ports.Ledger = self._journals.ledger
        self.audit: ports.Audit = self._journals.audit
        self.sandbox_charges: ports.SandboxCharges = SandboxCharges(tx)

    @property
    def changed_catalogue(self) -> bool:
        """Whether what the catalogue shows was changed."""
        return self._courses.changed

    async def alone(self) -> None:
        await self._tx.alone()

    async def lead(self, name: str, now: Instant, until: Instant) -> bool:
        return await leading.lead(self._tx, name, now, until)

    async def purge(self, now: Instant) -> None:
        await purge(self._tx, now)

    async def done(self, work: Work[T]) -> T:
        """What the work answers, when all that it wants kept has been written."""
        result = await work(self)
        await self._journals.flush()
        return result


class RepositoryStorage:
    """`learnflow_core.ports.Storage` over any Driver."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._catalogue_changed: Callable[[], None] = lambda: None

    @property
    def connections(self) -> Callable[[], Connections] | None:
        """How the database's connections are used now, where it has a pool of them."""
        return self._driver.connections

    async def read(self, work: Work[T]) -> T:
        return await self._driver.read(lambda tx: work(Repository(tx)))

    async def write(self, work: Work[T], *, subject: str | None = None, snapshot: bool = False) -> T:
        tries: list[Repository] = []

        def run(tx: DriverTransaction) -> Awaitable[T]:
            tries.append(Repository(tx))
            return tries[-1].done(work)

        try:
            return await self._driver.write(run, subject=subject, snapshot=snapshot)
        finally:
            if any(each.changed_catalogue for each in tries):
                self._catalogue_changed()

    async def tally(self) -> bool:
        due = await self._driver.read(tally.due)
        if due:
            await self._driver.write(tally.portion, snapshot=True)
        return due

    def watch_catalogue(self, changed: Callable[[], None]) -> None:
        self._catalogue_changed = changed

    async def check(self) -> Sequence[Finding]:
        return await checkup.findings(self._driver)

    async def repair(self, ctx: Context) -> Sequence[Finding]:
        return await checkup.repaired(self._driver, ctx)

    async def close(self) -> None:
        await self._driver.close()
