"""What `learnflow serve --demo` adds: a catalogue, an account with people for each plan, and keys for this start only.

Whatever a person did with the demo's data stays: what is there is never written again. New at every start are the keys
(those of the start before are revoked) and the password, of which the hash is kept and nothing else.
"""

from __future__ import annotations

import functools
import secrets
import sys
from typing import Final, NamedTuple, get_args

import click
import msgspec

from learnflow_core.access import EVERY_SCOPE
from learnflow_core.model import Account, Course, Plan, Role, User
from learnflow_core.ports import Context, Transaction
from learnflow_core.usecases.api_keys import create_key, end_key
from learnflow_http.cli.common import context, everything, operator
from learnflow_http.cli.demo_catalogue import EXAMPLE_ID, category_names, courses
from learnflow_http.services import Services

EXAMPLE_USER_ID: Final = "usr_7f3d9a"
_KEY_NAME: Final = "demo, for one start of the server"
_BATCH: Final = 500
_PEOPLE: Final[dict[Role, str]] = {"admin": "Ada Admin", "instructor": "Ivan Instructor", "learner": "Lena Learner"}


class Tour(NamedTuple):
    """How to use the demo: the key of each plan, and the person to sign in as, none if all of them were deleted."""

    keys: dict[Plan, str]
    person: User | None
    password: str

    def text(self, address: str) -> str:
        """What is printed for whoever started the server at this address."""
        keys = [f"    {plan:<13} {secret}" for plan, secret in self.keys.items()]
        lines = [
            "",
            f"LearnFlow serves at {address}/v1",
            f"    reference    {address}/docs",
            f"    OpenAPI      {address}/openapi.json",
            "",
            "API keys, new at every start:",
            *keys,
        ]
        return "\n".join([*lines, *self._for_person(address), ""])

    def _for_person(self, address: str) -> list[str]:
        if self.person is None:
            return []
        json = "-H 'Content-Type: application/json'"
        key = f"-H 'Authorization: Bearer {self.keys['professional']}'"
        login = msgspec.json.encode({"email": self.person.email, "password": self.password}).decode()
        order = {"user_id": self.person.id, "course_id": EXAMPLE_ID, "payment_method_id": "pm_visa_4242"}
        return [
            "",
            f"Sign in as {self.person.email} with the password {self.password}",
            "",
            "Find a course, sign in, enrol:",
            f"    curl '{address}/v1/courses?search=web+development&limit=3'",
            f"    curl {address}/v1/auth/token {json} -d '{login}'",
            f"    curl {address}/v1/enrollments {json} {key} -d '{msgspec.json.encode(order).decode()}'",
        ]


async def prepare(services: Services) -> Tour:
    """See to the demo's data, and make its keys and password for this start."""
    ctx, password = context(), secrets.token_urlsafe(12)
    password_hash = await services.passwords.hash(password)
    accounts = await services.storage.write(lambda tx: _accounts(tx, ctx))
    people = await services.storage.write(lambda tx: _people(tx, accounts, password_hash, ctx))
    await _add_courses(services, accounts)
    keys = await services.storage.write(lambda tx: _new_keys(tx, accounts, ctx))
    services.authenticator.forget()
    return Tour(keys, next((user for user in people if user.deleted_at is None), None), password)


async def _accounts(tx: Transaction, ctx: Context) -> dict[Plan, Account]:
    """The demo's account of each plan; its operator may have changed the plan since."""
    found: dict[Plan, Account] = {}
    for plan in get_args(Plan):
        account_id = f"acct_demo{plan}"
        account = await tx.accounts.get(account_id)
        if account is None:
            account = Account(account_id, f"Demo {plan.title()}", plan, None, None, None, ctx.now)
            await tx.accounts.add(account)
            await tx.audit.add(ctx.event("account.created", account.id, account.id, plan))
        found[plan] = account
    return found


async def _people(tx: Transaction, accounts: dict[Plan, Account], password_hash: str, ctx: Context) -> list[User]:
    """The people of each account, with this start's password; the published example first."""
    found = []
    for plan, account in accounts.items():
        for role, name in _PEOPLE.items():
            user = await tx.users.get(_user_id(plan, role))
            if user is None:
                user = _user(account, plan, role, name, ctx)
                await tx.users.add(user)
                await tx.audit.add(ctx.event("user.created", user.id, user.account_id, user.role))
            if user.deleted_at is None:
                user = msgspec.structs.replace(user, password_hash=password_hash)
                await tx.users.put(user)
                await tx.tokens.revoke_of_user(user.id, ctx.now)
                await tx.audit.add(ctx.event("password.set", user.id, user.account_id))
            found.append(user)
    return sorted(found, key=lambda user: user.id != EXAMPLE_USER_ID)


def _user_id(plan: Plan, role: Role) -> str:
    return EXAMPLE_USER_ID if (plan, role) == ("professional", "learner") else f"usr_demo{plan}{role}"


def _user(account: Account, plan: Plan, role: Role, name: str, ctx: Context) -> User:
    return User(
        id=_user_id(plan, role),
        account_id=account.id,
        mode="live",
        email=f"{role}@{plan}.example",
        name=name,
        role=role,
        password_hash=None,
        external_id=None,
        created_at=ctx.now,
        updated_at=ctx.now,
        deleted_at=None,
    )


async def _add_courses(services: Services, accounts: dict[Plan, Account]) -> None:
    """Add those courses of the demo that are not there, published or archived."""
    owners = {account.id: _user_id(plan, "instructor") for plan, account in accounts.items()}
    every = list(courses(owners))
    known = await services.storage.read(lambda tx: tx.courses.known([course.id for course in every]))
    missing = [course for course in every if course.id not in known]
    hidden = not sys.stderr.isatty() or not missing
    with click.progressbar(length=len(missing), label="Making the demo", file=sys.stderr, hidden=hidden) as bar:
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            await services.storage.write(functools.partial(_add, batch=batch))
            bar.update(len(batch))


async def _add(tx: Transaction, batch: list[Course]) -> None:
    await tx.courses.add_all(batch)
    for slug, name in category_names().items():
        await tx.courses.name_category(slug, name)


async def _new_keys(tx: Transaction, accounts: dict[Plan, Account], ctx: Context) -> dict[Plan, str]:
    """A live key of each account that may do everything; those of earlier starts end."""
    made: dict[Plan, str] = {}
    for plan, account in accounts.items():
        for key in await everything(functools.partial(tx.api_keys.list, account.id, "live")):
            if key.name == _KEY_NAME and key.revoked_at is None:
                await end_key(tx, key, ctx)
        new = await create_key(
            tx,
            operator(account, "live"),
            name=_KEY_NAME,
            scopes=(EVERY_SCOPE,),
            mode="live",
            expires_at=None,
            ctx=ctx,
        )
        made[plan] = new.secret
    return made
