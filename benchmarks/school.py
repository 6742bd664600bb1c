"""What the server of the benchmark keeps: a catalogue, an account without a limit worth the name, and many customers.

Enrolments are asked for by Professional accounts, because an Enterprise account pays by licences.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import NamedTuple

import msgspec

from learnflow_core.access import Actor, actor_for
from learnflow_core.model import Account, Course, Plan, User
from learnflow_core.ports import Context, Storage, Transaction
from learnflow_core.usecases import accounts, api_keys, tokens, users
from learnflow_http.auth import TokenSigner
from learnflow_http.cli.demo_catalogue import courses

COURSES = 2_000
PER_MINUTE = 100_000_000
CUSTOMERS = 40
LEARNERS = 150
"""Of each customer."""


class Place(NamedTuple):
    """An enrolment to be made: the key that asks for it, the user, and the course."""

    key: str
    user_id: str
    course_id: str


class Learner(NamedTuple):
    """A person, and the key of the account that enrols them."""

    key: str
    user_id: str


class School(NamedTuple):
    """What the load is made of: learners, and courses without prerequisites or an end of seats, free or for money."""

    catalogue: list[Course]
    learners: list[Learner]
    free: list[str]
    paid: list[str]

    def spread(self, courses: list[str]) -> Iterator[Place]:
        """Every learner in every one of these courses, once, and two that follow each other never in the same one."""
        for turn in range(len(courses)):
            for number, learner in enumerate(self.learners):
                yield Place(*learner, courses[(turn + number) % len(courses)])

    def crowded(self, courses: list[str]) -> Iterator[Place]:
        """Every learner in the first of these courses, then in the next."""
        for course in courses:
            for learner in self.learners:
                yield Place(*learner, course)


async def reader(storage: Storage, signer: TokenSigner) -> str:
    """The token of a learner of a new Enterprise account, who asks a database that has a catalogue."""
    ctx = Context(time.time_ns() // 1_000, os.urandom)
    owner, _ = await storage.write(partial(_account, name="Reader", plan="enterprise", ctx=ctx))
    return await storage.write(partial(_token, signer=signer, owner=owner, ctx=ctx))


async def found(storage: Storage, *, seed: int) -> School:
    """Fill an empty database."""
    ctx = Context(time.time_ns() // 1_000, os.urandom)
    owner, _ = await storage.write(partial(_account, name="Owner", plan="enterprise", ctx=ctx))
    learners: list[Learner] = []
    for number in range(CUSTOMERS):
        learners += await storage.write(partial(_customer, name=f"Customer {number}", ctx=ctx))
    catalogue = [
        msgspec.structs.replace(course, created_by=None) for course in islice(courses({owner.account_id: ""}), COURSES)
    ]
    await storage.write(partial(_publish, catalogue=catalogue))
    chance = random.Random(seed)
    chance.shuffle(learners)
    open_to_all = [course for course in catalogue if course.seats is None and not course.prerequisites]
    chance.shuffle(open_to_all)
    free = [course.id for course in open_to_all if course.price.amount_minor == 0]
    paid = [course.id for course in open_to_all if course.price.amount_minor > 0]
    return School(catalogue, learners, free, paid)


async def _account(tx: Transaction, name: str, plan: Plan, ctx: Context) -> tuple[Actor, str]:
    """A new account's owner, and a key that may do everything."""
    account: Account = await accounts.create_account(
        tx, name=name, plan=plan, per_minute=PER_MINUTE if plan == "enterprise" else None, licenses=None, ctx=ctx
    )
    owner = actor_for(account, mode="live", scopes={"*"}, key_id="key_owner")
    made = await api_keys.create_key(tx, owner, name="key", scopes=("*",), mode="live", expires_at=None, ctx=ctx)
    return owner, made.secret


async def _customer(tx: Transaction, name: str, ctx: Context) -> list[Learner]:
    """The learners of a new Professional account."""
    owner, key = await _account(tx, name, "professional", ctx)
    return [Learner(key, (await _user(tx, owner, number, ctx)).id) for number in range(LEARNERS)]


async def _user(tx: Transaction, owner: Actor, number: int, ctx: Context) -> User:
    new = users.NewUser(email=f"learner{number}@example.com", name=f"Learner {number}")
    return await users.create_user(tx, owner, new, None, ctx)


async def _publish(tx: Transaction, catalogue: list[Course]) -> None:
    await tx.courses.add_all(catalogue)


async def _token(tx: Transaction, signer: TokenSigner, owner: Actor, ctx: Context) -> str:
    """An access token of a learner, as a sign-in gives it."""
    user = await _user(tx, owner, 0, ctx)
    family = await tokens.open_family(tx, user, scopes=owner.scopes, key_id=None, ctx=ctx)
    return signer.sign("access", user_id=user.id, family_id=family.id, token_id=ctx.new_id("tok"), issued_at=ctx.now)
