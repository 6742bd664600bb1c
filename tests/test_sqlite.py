"""SQLite, in a file and in memory."""

from pathlib import Path

import pytest

from learnflow_core.model import Account, Course, Enrollment, Payment, RefreshToken, Reply, TokenFamily, User
from learnflow_core.money import Money
from learnflow_core.pagination import Page
from learnflow_core.ports import CourseQuery, EnrollmentQuery, Transaction
from learnflow_core.search import parse_search
from storage_backends import open_storage


@pytest.mark.parametrize("where", ["memory", "file"])
async def test_every_group_keeps_what_it_is_given(where: str, tmp_path: Path) -> None:
    account = Account("acct_1", "Acme", "enterprise", None, 2, None, 1)
    user = User("usr_1", "acct_1", "live", "A@example.com", "Ann", "learner", None, None, 1, 1, None)
    course = Course(
        *("crs_1", "acct_1", None, "Python", "Bob", "dev", "all", Money(1000, "USD"), None, 7, 7, "", "en", ()),
        *("published", 1, (), None, 1, 1),
    )
    enrollment = Enrollment(
        *("enr_1", "acct_1", "live", "usr_1", "crs_1", "active", 0, False, "pay_1", None, 1, 1, None, None)
    )
    payment = Payment("pay_1", "enr_1", "live", "pm_1", "tok", Money(1000, "USD"), "charging", 1, 1)
    family = TokenFamily("fam_1", "usr_1", None, ("*",), 1, 9, None)

    async def fill(tx: Transaction) -> None:
        await tx.accounts.add(account)
        assert await tx.users.add(user)
        assert await tx.courses.add(course)
        assert await tx.courses.take_seat("crs_1", "live")
        assert not await tx.courses.take_seat("crs_1", "live")
        assert await tx.enrollments.add(enrollment)
        await tx.payments.add(payment)
        await tx.tokens.add_family(family)
        await tx.tokens.put_refresh_token(RefreshToken("tok_1", "fam_1", None, None, 1, None, None))
        await tx.replies.put("usr_1", "key", Reply("f", 201, b'{"id": "\xc3\xa9"}', 1))
        assert await tx.sandbox_charges.add("pay_1", "paid", 1) == "paid"
        assert await tx.courses.settle(10) == 1

    async def look(tx: Transaction) -> None:
        assert await tx.accounts.get("acct_1") == account
        assert await tx.users.get("usr_1") == user
        assert (await tx.users.by_email("a@example.com", "live", None)) == [user]
        found = await tx.courses.list(CourseQuery("relevance", parse_search("pyth")), Page(1, 10))
        assert [(item.id, item.total_students) for item in found.items] == [("crs_1", 8)]
        assert (await tx.enrollments.list(EnrollmentQuery("live"), Page(1, 10))).items == [enrollment]
        assert await tx.payments.unresolved(2, 10) == [payment]
        session = await tx.tokens.session("fam_1", "tok_1")
        assert session is not None
        assert (session.family, session.user, session.account) == (family, user, account)
        assert await tx.replies.get("usr_1", "key") == Reply("f", 201, b'{"id": "\xc3\xa9"}', 1)

    storage = await open_storage("sqlite://" if where == "memory" else f"sqlite:///{tmp_path / 'learnflow.db'}")
    await storage.write(fill)
    await storage.read(look)
    await storage.close()
