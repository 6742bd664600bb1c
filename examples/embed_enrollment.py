"""The whole domain without HTTP, on a database in memory: `python examples/embed_enrollment.py` enrols two people.

Needs the extra `server`; `sqlite:///school.db` instead of `sqlite://` keeps what happened in a file.
"""

import asyncio
import os
import time

from learnflow_core.access import actor_for
from learnflow_core.errors import LearnFlowError
from learnflow_core.fields import Price
from learnflow_core.money import Money
from learnflow_core.ports import Context
from learnflow_core.usecases import accounts, certificates, courses, enrollments, payments, users
from learnflow_core.usecases.enrollments import NewEnrollment, ProgressChange
from payment_gateways.sandbox import SandboxGateway
from storage_backends import open_storage

COURSE = courses.NewCourse(title="Knots and Splices", category="sailing", price=Price.of(Money(4_999, "USD")), seats=1)


def now() -> Context:
    """When a use case happens, and the randomness it may draw: the domain reads no clock and rolls no dice."""
    return Context(time.time_ns() // 1_000, os.urandom)


async def main() -> None:
    storage = await open_storage("sqlite://")
    sandbox = SandboxGateway(storage)
    gateways: payments.Gateways = {"live": sandbox, "test": sandbox}

    account = await storage.write(
        lambda tx: accounts.create_account(
            tx, name="Harbour School", plan="starter", per_minute=None, licenses=None, ctx=now()
        )
    )
    school = actor_for(account, mode="live", scopes={"*"})
    course = await storage.write(lambda tx: courses.create_course(tx, school, COURSE, now()))
    ada = await storage.write(
        lambda tx: users.create_user(tx, school, users.NewUser("ada@example.com", "Ada Lovelace"), None, now())
    )
    ben = await storage.write(
        lambda tx: users.create_user(tx, school, users.NewUser("ben@example.com", "Ben Nevis"), None, now())
    )

    for user, method in ((ben, "pm_visa_0002"), (ada, "pm_visa_4242"), (ada, "pm_visa_4242"), (ben, "pm_visa_4242")):
        wanted = NewEnrollment(user.id, course.id, method)
        try:
            place = await enrollments.enroll(storage, gateways, school, wanted, now())
        except LearnFlowError as refusal:
            print(f"{user.name}: {refusal}")
        else:
            print(f"{user.name}: {place.enrollment.status}, {'charged' if place.created else 'enrolled before'}")
            last = place.enrollment

    done = await storage.write(lambda tx: enrollments.set_progress(tx, school, last.id, ProgressChange(100), now()))
    proof = await storage.read(lambda tx: certificates.verify_certificate(tx, done.certificate_id or ""))
    print(f"{done.status}: {proof.recipient} has a certificate for {proof.course_title}")
    print("the books:", await storage.check() or "agree")
    await storage.close()


asyncio.run(main())
