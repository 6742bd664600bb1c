"""Every operation asked by every kind of caller: the contract's table of who may do what, as real requests.

`TABLE` is that table, cell by cell, and the only place that says what is expected. An operation without a row fails.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import httpx2 as httpx
import pytest

from learnflow_core.access import SCOPES
from learnflow_core.errors import Code
from learnflow_core.model import SECOND, Account, Course, Enrollment, User
from learnflow_core.usecases import accounts, api_keys
from learnflow_http import openapi
from learnflow_http.errors import STATUS
from learnflow_http.operations import OPERATIONS, Operation
from tests import scene
from tests.scene import PAYS
from tests.world import World

TABLE = """
operation           needs              unseen                key   test  other self  peer  teacher tutor admin stranger

# read published courses, categories; verify a certificate
listCourses         nothing            -                     yes   yes   yes   yes   yes   yes     yes   yes   yes
getCourse           nothing            -                     yes   yes   yes   yes   yes   yes     yes   yes   yes
listCategories      nothing            -                     yes   yes   yes   yes   yes   yes     yes   yes   yes
verifyCertificate   nothing            -                     yes   yes   yes   yes   yes   yes     yes   yes   yes

# create, change, archive courses
createCourse        courses:write      -                     yes   yes   yes   no    no    yes     yes   yes   yes
changeCourse        courses:write      -                     yes   yes   no    no    no    yes     no    yes   no
archiveCourse       courses:write      -                     yes   yes   no    no    no    yes     no    yes   no

# read users / create, change, delete them
listUsers           users:read         -                     yes   blind blind no    no    no      no    yes   blind
getUser             users:read         user_not_found        yes   404   404   yes   404   404     404   yes   404
getMe               anything           user_not_found        404   404   404   yes   yes   yes     yes   yes   yes
createUser          users:write        -                     yes   yes   yes   no    no    no      no    yes   yes
changeUser          users:write        user_not_found        yes   404   404   yes   404   404     404   yes   404
deleteUser          users:write        user_not_found        yes   404   404   no    no    no      no    yes   404

# payment methods
listPaymentMethods  users:write        user_not_found        yes   404   404   yes   404   404     404   no    404
addPaymentMethod    users:write        user_not_found        yes   404   404   yes   404   404     404   no    404
deletePaymentMethod users:write        user_not_found        yes   404   404   yes   404   404     404   no    404

# read enrolments, certificates
listEnrollments     enrollments:read   -                     yes   blind blind yes   blind yes     blind yes   blind
getEnrollment       enrollments:read   enrollment_not_found  yes   404   404   yes   404   yes     404   yes   404
listCertificates    certificates:read  -                     yes   blind blind yes   blind yes     blind yes   blind
getCertificate      certificates:read  certificate_not_found yes   404   404   yes   404   yes     404   yes   404

# enrol, cancel
createEnrollment    enrollments:write  user_not_found        yes   404   404   yes   404   404     404   yes   404
createEnrollments   enrollments:write  -                     yes   yes   yes   yes   yes   yes     yes   yes   yes
cancelEnrollment    enrollments:write  enrollment_not_found  yes   404   404   yes   404   no      404   yes   404

# set progress
setProgress         enrollments:write  enrollment_not_found  yes   404   404   no    no    yes     404   yes   404

# revoke certificates
revokeCertificate   certificates:write certificate_not_found yes   404   404   no    no    no      no    yes   404

# mint tokens for a user
createToken         tokens:write       user_not_found        yes   404   404   no    no    no      no    no    no

# API keys, webhooks, events, the account
listApiKeys         *                  -                     yes   blind blind no    no    no      no    yes   blind
createApiKey        *                  -                     yes   yes   yes   no    no    no      no    yes   yes
rotateApiKey        *                  api_key_not_found     yes   404   404   no    no    no      no    yes   404
revokeApiKey        *                  api_key_not_found     yes   404   404   no    no    no      no    yes   404
getAccount          *                  -                     yes   yes   yes   no    no    no      no    yes   yes

# the caller's own quotas; and what has its credential in the body, whatever else is sent
getRateLimit        nothing            -                     yes   yes   yes   yes   yes   yes     yes   yes   yes
refreshToken        body               -                     yes   yes   yes   yes   yes   yes     yes   yes   yes
revokeToken         body               -                     yes   yes   yes   yes   yes   yes     yes   yes   yes
"""
"""The thing asked about is live. Its account is the one whose key this is; the person it belongs to is `self`, a
learner in a course of `teacher`.

- Callers: a `key` with just the scope needed; the same in `test` mode; every scope, but of an `other` account; `self`;
  a `peer`, who is another learner; the course's `teacher`; a `tutor`, who is another instructor; the `admin` of the
  account; a `stranger`, admin of another account.
- Answers: `yes`; `no` (403 `forbidden`); `404` with the code in the third column; `blind`, a list in which the thing
  is not.
"""

HEAD, *ROWS = [line.split() for line in TABLE.splitlines() if line and not line.startswith("#")]
CALLERS = HEAD[3:]
EXPECTED = {name: (needs, unseen, dict(zip(CALLERS, cells, strict=True))) for name, needs, unseen, *cells in ROWS}

REFUSED_CREDENTIALS = {
    "nobody": Code.MISSING_TOKEN,
    "garbage": Code.INVALID_TOKEN,
    "garbled key": Code.INVALID_API_KEY,
    "expired token": Code.INVALID_TOKEN,
    "revoked token": Code.INVALID_TOKEN,
    "expired key": Code.INVALID_API_KEY,
    "revoked key": Code.INVALID_API_KEY,
    "suspended key": Code.ACCOUNT_SUSPENDED,
    "suspended admin": Code.ACCOUNT_SUSPENDED,
}
"""Credentials that nobody is let in with, wherever one is looked at."""

NARROW = ("narrow key", "narrow admin", "narrow self")
"""Callers who hold every named scope but the one that is needed."""


def expected(operation: Operation, caller: str) -> str:
    """What the table says: `yes`, `blind`, or the code of the refusal."""
    needs, unseen, cells = EXPECTED[operation.name]
    if needs == "body":
        return "yes"
    if caller in REFUSED_CREDENTIALS:
        return "yes" if needs == "nothing" and caller == "nobody" else REFUSED_CREDENTIALS[caller].value
    if caller in NARROW:
        if needs in SCOPES:
            return "insufficient_scope"
        caller = caller.replace("narrow ", "")
    return {"no": "forbidden", "404": unseen}.get(cells[caller], cells[caller])


class Asked(NamedTuple):
    """A request about a thing: the parameters of its path, its body, and the id by which a list would show it."""

    path: Mapping[str, str] = MappingProxyType({})
    body: Any = None
    shows: str | None = None


class Cast:
    """One world's people, and the credentials they have."""

    def __init__(self, world: World, account: Account, people: dict[str, User]) -> None:
        self.world = world
        self.account = account
        self.people = people
        self.made = 0

    @classmethod
    async def gather(cls, world: World) -> Cast:
        account = await world.account("Acme")
        people = {
            "self": await world.user(account, "self@acme.test"),
            "peer": await world.user(account, "peer@acme.test"),
            "teacher": await world.user(account, "teacher@acme.test", role="instructor"),
            "tutor": await world.user(account, "tutor@acme.test", role="instructor"),
            "admin": await world.user(account, "admin@acme.test", role="admin"),
            "stranger": await world.user(await world.account("Other"), "admin@other.test", role="admin"),
        }
        return cls(world, account, people)

    async def credential(self, caller: str, scope: str) -> str | None:
        """The credential of a caller; `scope` is what the operation needs of a key, where it needs one."""
        exact = [scope] if scope in SCOPES else ["*"]
        others = [name for name in SCOPES if name not in {scope, "*"}]
        if caller in REFUSED_CREDENTIALS:
            return await self._refused(caller)
        if caller in {"key", "test"}:
            return await self.world.key(self.account, exact, mode="test" if caller == "test" else "live")
        if caller == "other":
            return await self.world.key(await self.world.account("Third"))
        if caller == "narrow key":
            return await self.world.key(self.account, others)
        scopes = others if caller in NARROW else ["*"]
        return await self.world.token(self.people[caller.removeprefix("narrow ")], scopes)

    async def _refused(self, caller: str) -> str | None:
        if caller in {"expired token", "revoked token"}:
            return await self._ended_token(caller)
        if caller in {"expired key", "revoked key"}:
            return await self._ended_key(caller)
        if caller in {"suspended key", "suspended admin"}:
            return await self._suspended(caller)
        return {"nobody": None, "garbage": "eyJhbGciOiJub25lIn0.e30.", "garbled key": f"sk_live_{'0' * 36}"}[caller]

    async def _ended_token(self, caller: str) -> str:
        token = await self.world.token(self.people["admin"])
        if caller == "expired token":
            self.world.clock.advance(3_600)
        else:
            assert (await self.world.ask("POST", "/v1/auth/revoke", json={"token": token})).status_code == 200
        return token

    async def _ended_key(self, caller: str) -> str:
        if caller == "expired key":
            secret = await self.world.key(self.account, expires_at=self.world.now + SECOND)
            self.world.clock.advance(1)
            return secret
        secret = await self.world.key(self.account)
        key, ctx = await scene.key_of(self.world, secret), self.world.ctx
        await self.world.services.storage.write(lambda tx: api_keys.end_key(tx, key, ctx))
        return secret

    async def _suspended(self, caller: str) -> str:
        account = await self.world.account("Suspended")
        admin = await self.world.user(account, "admin@suspended.test", role="admin")
        credential = await (self.world.key(account) if caller == "suspended key" else self.world.token(admin))
        ctx = self.world.ctx
        await self.world.services.storage.write(
            lambda tx: accounts.set_suspended(tx, account.id, suspended=True, ctx=ctx)
        )
        return credential

    def one_more(self) -> int:
        self.made += 1
        return self.made

    async def course(self) -> Course:
        return await scene.course(self.world, self.account, by=self.people["teacher"])

    async def place(self) -> Enrollment:
        return await scene.enrolled(self.world, self.account, self.people["self"], await self.course())

    async def certificate(self) -> str:
        done = await scene.completed(self.world, self.account, self.people["self"], await self.course())
        return done.id

    async def someone(self) -> User:
        return await self.world.user(self.account, f"someone{self.one_more()}@acme.test")

    async def key_id(self) -> str:
        return (await scene.key_of(self.world, await self.world.key(self.account))).id

    async def payment_method(self) -> str:
        me = self.people["self"].id
        key = await self.world.key(self.account)
        added = await self.world.ask("POST", f"/v1/users/{me}/payment-methods", key, {"token": "tok_visa_4242"})
        return str(added.json()["id"])

    async def refresh_token(self) -> str:
        key = await self.world.key(self.account)
        minted = await self.world.ask("POST", "/v1/auth/token", key, {"user_id": self.people["self"].id})
        return str(minted.json()["refresh_token"])


NEW_COURSE = {"title": "Rust", "category": "development", "price": {"amount": 10, "currency": "USD"}}


async def _about_user(cast: Cast, body: Any = None) -> Asked:
    return Asked({"id": cast.people["self"].id}, body)


async def _list_courses(cast: Cast) -> Asked:
    return Asked(shows=(await cast.course()).id)


async def _list_categories(cast: Cast) -> Asked:
    return Asked(shows=(await cast.course()).category)


async def _one_course(cast: Cast, body: Any = None) -> Asked:
    return Asked({"id": (await cast.course()).id}, body)


async def _list_places(cast: Cast) -> Asked:
    return Asked(shows=(await cast.place()).id)


async def _one_place(cast: Cast, body: Any = None) -> Asked:
    return Asked({"id": (await cast.place()).id}, body)


async def _enrol(cast: Cast) -> Asked:
    course = await cast.course()
    body = {"user_id": cast.people["self"].id, "course_id": course.id, "payment_method_id": PAYS}
    return Asked(body=body)


async def _enrol_many(cast: Cast) -> Asked:
    """Whoever may enrol somebody is answered; whom they may not enrol, an item tells."""
    return Asked(body={"enrollments": [(await _enrol(cast)).body]})


async def _one_certificate(cast: Cast) -> Asked:
    return Asked({"id": await cast.certificate()})


async def _list_certificates(cast: Cast) -> Asked:
    return Asked(shows=await cast.certificate())


async def _create_user(cast: Cast) -> Asked:
    return Asked(body={"email": f"new{cast.one_more()}@acme.test", "name": "New"})


async def _delete_user(cast: Cast) -> Asked:
    return Asked({"id": (await cast.someone()).id})


async def _list_methods(cast: Cast) -> Asked:
    return Asked({"id": cast.people["self"].id}, shows=await cast.payment_method())


async def _delete_method(cast: Cast) -> Asked:
    return Asked({"id": cast.people["self"].id, "method_id": await cast.payment_method()})


async def _list_keys(cast: Cast) -> Asked:
    return Asked(shows=await cast.key_id())


async def _one_key(cast: Cast, body: Any = None) -> Asked:
    return Asked({"id": await cast.key_id()}, body)


async def _refresh(cast: Cast) -> Asked:
    return Asked(body={"refresh_token": await cast.refresh_token()})


async def _revoke(cast: Cast) -> Asked:
    return Asked(body={"token": await cast.refresh_token()})


async def _plain(_cast: Cast) -> Asked:
    return Asked()


REQUESTS: dict[str, Callable[[Cast], Awaitable[Asked]]] = {
    "listCourses": _list_courses,
    "createCourse": lambda _: _asked(Asked(body=NEW_COURSE)),
    "getCourse": _one_course,
    "changeCourse": lambda cast: _one_course(cast, {"title": "Rust, again"}),
    "archiveCourse": _one_course,
    "listCategories": _list_categories,
    "listEnrollments": _list_places,
    "createEnrollment": _enrol,
    "createEnrollments": _enrol_many,
    "getEnrollment": _one_place,
    "setProgress": lambda cast: _one_place(cast, {"progress": 50}),
    "cancelEnrollment": _one_place,
    "listCertificates": _list_certificates,
    "getCertificate": _one_certificate,
    "revokeCertificate": _one_certificate,
    "verifyCertificate": _one_certificate,
    "listUsers": lambda cast: _asked(Asked(shows=cast.people["self"].id)),
    "createUser": _create_user,
    "getMe": _plain,
    "getUser": _about_user,
    "changeUser": lambda cast: _about_user(cast, {"name": f"Name {cast.one_more()}"}),
    "deleteUser": _delete_user,
    "listPaymentMethods": _list_methods,
    "addPaymentMethod": lambda cast: _about_user(cast, {"token": "tok_visa_4242"}),
    "deletePaymentMethod": _delete_method,
    "listApiKeys": _list_keys,
    "createApiKey": lambda _: _asked(Asked(body={"name": "New"})),
    "rotateApiKey": lambda cast: _one_key(cast, {}),
    "revokeApiKey": _one_key,
    "getAccount": _plain,
    "getRateLimit": _plain,
    "createToken": lambda cast: _asked(Asked(body={"user_id": cast.people["self"].id})),
    "refreshToken": _refresh,
    "revokeToken": _revoke,
}
"""A request that succeeds for those who may make it, about things that are there."""


async def _asked(asked: Asked) -> Asked:
    return asked


def check_answer(operation: Operation, reply: httpx.Response, expected: str, asked: Asked) -> None:
    """The reply is what the cell says, and among what the served document says of the operation."""
    assert reply.status_code in openapi.statuses(operation)
    if expected in {"yes", "blind"}:
        assert reply.status_code in (200, 201), reply.text
        assert operation.status == reply.status_code or callable(operation.status)
        found = json.loads(reply.content)
        items = found["data"] if operation.paged else [found]
        assert all(set(item) <= set(operation.reply.__struct_fields__) for item in items)
        if asked.shows is not None:
            assert (asked.shows in {item.get("id", item.get("slug")) for item in items}) == (expected == "yes")
        return
    code = Code(expected)
    assert (reply.status_code, reply.json()["error"]["code"]) == (STATUS[code], expected), reply.text
    assert code in openapi.codes(operation)


ROWS_BY_NAME = {operation.name: operation for operation in OPERATIONS}


def test_no_operation_escapes_the_table() -> None:
    assert EXPECTED.keys() == ROWS_BY_NAME.keys() == REQUESTS.keys()
    assert len(ROWS) == len(EXPECTED) == len(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
async def test_every_caller_is_answered_as_the_table_says_and_a_refusal_changes_nothing(
    operation: Operation, world: World
) -> None:
    cast = await Cast.gather(world)
    for caller in (*REFUSED_CREDENTIALS, *NARROW, *CALLERS):
        credential = await cast.credential(caller, EXPECTED[operation.name][0])
        asked = await REQUESTS[operation.name](cast)
        before = await scene.books(world)
        answer = expected(operation, caller)
        reply = await world.ask(operation.method, operation.path.format(**asked.path), credential, asked.body)
        try:
            check_answer(operation, reply, answer, asked)
        except AssertionError as error:
            error.add_note(f"{operation.name} asked by {caller}: {reply.status_code} {reply.text}")
            raise
        if answer not in {"yes", "blind"}:
            assert await scene.books(world) == before, f"{operation.name} by {caller} changed something"


async def test_a_draft_is_there_for_its_own_account_and_for_nobody_else(world: World) -> None:
    cast = await Cast.gather(world)
    draft = await scene.course(world, cast.account, by=cast.people["teacher"], status="draft")
    changes = {"title": "Rust, again"}
    inside = ("key", "test", "self", "peer", "teacher", "tutor", "admin")
    for caller in ("nobody", *CALLERS):
        credential = await cast.credential(caller, "*")
        read = await world.ask("GET", f"/v1/courses/{draft.id}", credential)
        assert read.status_code == (200 if caller in inside else 404), caller
        listed = await world.ask("GET", "/v1/courses?status=draft", credential)
        if caller == "nobody":
            assert (listed.status_code, listed.json()["error"]["param"]) == (400, "status")
        else:
            assert (draft.id in listed.text) == (caller in inside), caller
        if caller in ("other", "stranger"):
            refused = await world.ask("PATCH", f"/v1/courses/{draft.id}", credential, changes)
            assert refused.json()["error"]["code"] == "course_not_found"


async def test_what_is_not_there_is_answered_like_what_may_not_be_seen(world: World) -> None:
    cast = await Cast.gather(world)
    stranger = await cast.credential("stranger", "*")
    kinds = {
        "/v1/users/{}": cast.people["self"].id,
        "/v1/enrollments/{}": (await cast.place()).id,
        "/v1/certificates/{}": await cast.certificate(),
    }
    for path, there in kinds.items():
        hidden = await world.ask("GET", path.format(there), stranger)
        absent = await world.ask("GET", path.format("nobody_has_this_id"), stranger)
        told = [{**reply.json()["error"], "request_id": ""} for reply in (hidden, absent)]
        assert hidden.status_code == absent.status_code == 404
        assert told[0] == told[1]


async def test_who_lost_a_role_lost_what_it_showed(world: World) -> None:
    cast = await Cast.gather(world)
    place, certificate = await cast.place(), await cast.certificate()
    teacher = await cast.credential("teacher", "*")
    admin = await cast.credential("admin", "*")
    assert place.id in (await world.ask("GET", "/v1/enrollments", teacher)).text
    demoted = await world.ask("PATCH", f"/v1/users/{cast.people['teacher'].id}", admin, {"role": "learner"})
    assert demoted.json()["role"] == "learner"
    learner = cast.people["self"].id
    for path in (
        "/v1/enrollments",
        f"/v1/enrollments?user_id={learner}",
        f"/v1/enrollments?course_id={place.course_id}",
    ):
        assert (await world.ask("GET", path, teacher)).json()["data"] == []
    for path in ("/v1/certificates", f"/v1/certificates?user_id={learner}", "/v1/certificates?cursor="):
        assert (await world.ask("GET", path, teacher)).json()["data"] == []
    assert (await world.ask("GET", f"/v1/enrollments/{place.id}", teacher)).status_code == 404
    assert (await world.ask("GET", f"/v1/certificates/{certificate}", teacher)).status_code == 404
