"""`Idempotency-Key`: one effect for one key, the first reply for every repetition, and never another caller's."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2 as httpx
import pytest

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import Account, Course, User
from learnflow_core.usecases import api_keys
from learnflow_http import idempotency
from learnflow_http.operations import OPERATIONS
from tests import scene
from tests.scene import PAYS
from tests.world import World

COURSE: dict[str, Any] = {"title": "Rust", "category": "code", "price": {"amount": 10, "currency": "USD"}}
DAY_S = 86_400


class School:
    """An account on Professional, whose courses cost money, with a learner and its key."""

    def __init__(self, world: World, account: Account, key: str, user: User, course: Course) -> None:
        self.world = world
        self.account = account
        self.key = key
        self.user = user
        self.course = course

    @classmethod
    async def open(cls, world: World) -> School:
        account = await world.account(plan="professional")
        key, user = await world.key(account), await world.user(account, "ada@acme.test")
        return cls(world, account, key, user, await scene.course(world, account))

    async def ask(
        self, method: str, path: str, body: Any = None, *, key: str = "key-1", credential: str | None = None
    ) -> httpx.Response:
        return await self.world.ask(method, path, credential or self.key, body, Idempotency_Key=key)

    async def enrol(
        self, key: str = "key-1", method: str = PAYS, credential: str | None = None, course: Course | None = None
    ) -> httpx.Response:
        body = {
            "user_id": self.user.id,
            "course_id": (course or self.course).id,
            "payment_method_id": method,
        }
        return await self.ask("POST", "/v1/enrollments", body, key=key, credential=credential)


@pytest.fixture
async def school(world: World) -> School:
    return await School.open(world)


def told(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


def is_replay(reply: httpx.Response) -> bool:
    assert reply.headers.get("Idempotent-Replayed") in (None, "true")
    return "Idempotent-Replayed" in reply.headers


async def _new_key(school: School) -> tuple[str, Any]:
    return "/v1/api-keys", {"name": "mine"}


async def _rotated_key(school: School) -> tuple[str, Any]:
    found = await scene.key_of(school.world, await school.world.key(school.account))
    return f"/v1/api-keys/{found.id}/rotate", {}


async def _place(school: School) -> str:
    made = await scene.enrolled(school.world, school.account, school.user, school.course)
    return f"/v1/enrollments/{made.id}"


REQUESTS: dict[str, Callable[[School], Awaitable[tuple[str, Any]]]] = {
    "createCourse": lambda _: _given("/v1/courses", COURSE),
    "changeCourse": lambda school: _given(f"/v1/courses/{school.course.id}", {"title": "Another"}),
    "createEnrollment": lambda school: _given(
        "/v1/enrollments", {"user_id": school.user.id, "course_id": school.course.id, "payment_method_id": PAYS}
    ),
    "createEnrollments": lambda school: _given(
        "/v1/enrollments/batch",
        {
            "enrollments": [
                {"user_id": school.user.id, "course_id": school.course.id, "payment_method_id": PAYS},
                {"user_id": school.user.id, "course_id": "crs_x"},
            ]
        },
    ),
    "setProgress": lambda school: _with(_place(school), "", {"progress": 100}),
    "cancelEnrollment": lambda school: _with(_place(school), "/cancel", None),
    "createUser": lambda _: _given("/v1/users", {"email": "new@acme.test", "name": "New", "password": "long enough"}),
    "changeUser": lambda school: _given(f"/v1/users/{school.user.id}", {"name": "Countess"}),
    "addPaymentMethod": lambda school: _given(f"/v1/users/{school.user.id}/payment-methods", {"token": "tok_x"}),
    "createApiKey": _new_key,
    "rotateApiKey": _rotated_key,
}
"""A request for each operation that honours the header."""


async def _given(path: str, body: Any) -> tuple[str, Any]:
    return path, body


async def _with(path: Awaitable[str], more: str, body: Any) -> tuple[str, Any]:
    return await path + more, body


class TestRepetition:
    def test_every_post_and_patch_but_those_of_signing_in_honours_the_header(self) -> None:
        honouring = {row.name for row in OPERATIONS if row.idempotent}
        assert honouring == REQUESTS.keys()
        assert honouring == {
            row.name for row in OPERATIONS if row.method in ("POST", "PATCH") and not row.path.startswith("/v1/auth/")
        }

    @pytest.mark.parametrize("name", REQUESTS)
    async def test_a_repetition_has_no_effect_and_the_first_reply(self, school: School, name: str) -> None:
        operation = next(row for row in OPERATIONS if row.name == name)
        path, body = await REQUESTS[name](school)
        first = await school.ask(operation.method, path, body)
        assert first.is_success, first.text
        assert not is_replay(first)
        after = await scene.books(school.world)
        for _ in range(2):
            school.world.clock.advance(60)
            again = await school.ask(operation.method, path, body)
            assert is_replay(again)
            assert again.status_code == first.status_code
            assert again.json() == {k: v for k, v in first.json().items() if k != "secret"}
            assert again.headers["X-Request-Id"] != first.headers["X-Request-Id"]
            assert again.headers["Cache-Control"] == first.headers["Cache-Control"]
        assert await scene.books(school.world) == after

    async def test_without_the_header_each_request_has_its_effect(self, school: School) -> None:
        made = [(await school.world.ask("POST", "/v1/courses", school.key, COURSE)).json()["id"] for _ in range(2)]
        assert made[0] != made[1]

    async def test_the_secret_of_a_key_is_in_the_first_reply_only_and_kept_nowhere(self, school: School) -> None:
        path, body = await _rotated_key(school)
        for made_at, sent in (("/v1/api-keys", {"name": "mine"}), (path, body)):
            first = await school.ask("POST", made_at, sent)
            again = await school.ask("POST", made_at, sent)
            assert first.json()["secret"].startswith("sk_live_")
            assert (again.status_code, "secret" in again.json()) == (201, False)
            assert first.json()["secret"] not in str(await scene.books(school.world))

    @pytest.mark.parametrize(
        "text",
        [
            '{"price":{"currency":"USD","amount":10},"category":"code","title":"Rust"}',
            ' {\n "title" : "Rust" , "category":"code", "price":{"amount":10, "currency":"USD"} } ',
            '{"title":"\\u0052ust","category":"code","price":{"amount":10,"currency":"USD"}}',
            '{"title":"Rust","category":"code","price":{"amount":10.00,"currency":"USD"}}',
            '{"title":"Rust","category":"code","price":{"amount":1e1,"currency":"USD"}}',
        ],
    )
    async def test_a_body_that_is_the_same_json_is_the_same_body(self, school: School, text: str) -> None:
        first = await school.ask("POST", "/v1/courses", COURSE)
        headers = {"Authorization": f"Bearer {school.key}", "Idempotency-Key": "key-1"}
        again = await school.world.client.post("/v1/courses", content=text.encode(), headers=headers)
        assert is_replay(again)
        assert again.json() == first.json()

    async def test_no_body_is_the_same_as_an_object_without_fields(self, school: School) -> None:
        path, _ = await _rotated_key(school)
        assert (await school.ask("POST", path)).status_code == 201
        assert is_replay(await school.ask("POST", path, {}))

    @pytest.mark.parametrize(
        "change",
        [{"title": "rust"}, {"seats": None}, {"price": {"amount": 10.01, "currency": "USD"}}, {"level": "all"}],
        ids=str,
    )
    async def test_another_body_under_the_same_key_is_refused(self, school: School, change: dict[str, Any]) -> None:
        first = await school.ask("POST", "/v1/courses", COURSE)
        refused = await school.ask("POST", "/v1/courses", COURSE | change)
        assert told(refused) == (400, "idempotency_key_reused")
        assert refused.json()["error"]["param"] == "Idempotency-Key"
        assert (await school.ask("POST", "/v1/courses", COURSE)).json() == first.json()


class TestTheKey:
    @pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9", "a\tb", "a\x7fb", "\u2603"], ids=ascii)
    async def test_it_is_1_to_255_printable_ascii_characters(self, school: School, key: str) -> None:
        headers = [(b"Authorization", f"Bearer {school.key}".encode()), (b"Idempotency-Key", key.encode())]
        reply = await school.world.client.post("/v1/courses", json=COURSE, headers=headers)
        assert told(reply) == (400, "invalid_parameter")
        assert reply.json()["error"]["param"] == "Idempotency-Key"

    @pytest.mark.parametrize("key", ["x", "x" * 255, "a b", "~!\"'{}\\"])
    async def test_and_nothing_else_is_asked_of_it(self, school: School, key: str) -> None:
        assert (await school.ask("POST", "/v1/courses", COURSE, key=key)).status_code == 201
        assert is_replay(await school.ask("POST", "/v1/courses", COURSE, key=key))

    async def test_another_caller_has_other_keys(self, school: School) -> None:
        world = school.world
        admin = await world.user(school.account, "admin@acme.test", role="admin")
        other_admin = await world.user(school.account, "other@acme.test", role="admin")
        callers = [
            school.key,
            await world.key(school.account, mode="test"),
            await world.key(await world.account("Other")),
            await world.token(admin),
            await world.token(other_admin),
        ]
        replies = [await school.ask("POST", "/v1/courses", COURSE, credential=caller) for caller in callers]
        assert [reply.status_code for reply in replies] == [201] * 5
        assert len({reply.json()["id"] for reply in replies}) == 5

    async def test_a_caller_stays_the_same_with_a_new_credential(self, school: School) -> None:
        world = school.world
        admin = await world.user(school.account, "admin@acme.test", role="admin")
        for first, second in (
            (school.key, await world.key(school.account, ["courses:write"])),
            (await world.token(admin), await world.token(admin)),
        ):
            made = await school.ask("POST", "/v1/courses", COURSE, credential=first)
            again = await school.ask("POST", "/v1/courses", COURSE, credential=second)
            assert is_replay(again)
            assert again.json() == made.json()

    async def test_another_method_path_or_query_has_other_keys(self, school: School) -> None:
        other = await scene.course(school.world, school.account)
        for method, path, body in (
            ("POST", "/v1/courses", COURSE),
            ("POST", "/v1/courses?a=1", COURSE),
            ("POST", "/v1/courses?a=2", COURSE),
            ("PATCH", f"/v1/courses/{school.course.id}", {"title": "T"}),
            ("PATCH", f"/v1/courses/{other.id}", {"title": "T"}),
            ("POST", "/v1/users", {"email": "new@acme.test", "name": "New"}),
        ):
            reply = await school.ask(method, path, body)
            assert reply.is_success
            assert not is_replay(reply)

    async def test_signing_in_reading_and_deleting_ignore_it(self, school: School) -> None:
        for method, path, body in (
            ("POST", "/v1/auth/token", {"user_id": school.user.id}),
            ("GET", "/v1/account", None),
            ("DELETE", f"/v1/courses/{school.course.id}", None),
        ):
            for key in ("key-1", "key-1", "x" * 300):
                reply = await school.ask(method, path, body, key=key)
                assert (reply.status_code, is_replay(reply)) == (200, False)

    async def test_it_is_forgotten_after_24_hours(self, school: School) -> None:
        first = await school.ask("POST", "/v1/courses", COURSE)
        school.world.clock.advance(DAY_S - 1)
        await school.world.sweep()
        assert is_replay(await school.ask("POST", "/v1/courses", COURSE))
        school.world.clock.advance(1)
        await school.world.sweep()
        later = await school.ask("POST", "/v1/courses", COURSE | {"title": "Another body"})
        assert (later.status_code, later.json()["id"] != first.json()["id"]) == (201, True)


class TestWhatIsKept:
    async def test_a_refusal_of_the_business_is_kept_though_the_world_has_changed(self, school: School) -> None:
        path = f"/v1/courses/{school.course.id}"
        await school.ask("PATCH", path, {"seats": 0}, key="close")
        refused = await school.enrol()
        await school.ask("PATCH", path, {"seats": None}, key="open")
        again = await school.enrol()
        assert told(refused) == told(again) == (403, "enrollment_closed")
        assert [is_replay(refused), is_replay(again)] == [False, True]
        assert again.json()["error"]["request_id"] == again.headers["X-Request-Id"] != refused.headers["X-Request-Id"]
        assert (await school.enrol(key="key-2")).status_code == 201

    async def test_a_declined_card_stays_declined_under_its_key(self, school: School) -> None:
        for _ in range(2):
            assert told(await school.enrol(method="pm_visa_0002")) == (403, "card_declined")
        assert (await school.enrol(key="key-2")).status_code == 201

    async def test_a_kept_refusal_has_its_details_and_parameter(self, school: School) -> None:
        demanding = await scene.course(school.world, school.account, prerequisites=(school.course.id,))
        email = {"email": "ada@acme.test", "name": "Another Ada"}
        for replayed in (False, True):
            unprepared = await school.enrol(course=demanding)
            assert (told(unprepared), is_replay(unprepared)) == ((403, "prerequisite_not_met"), replayed)
            assert unprepared.json()["error"]["details"]["missing"] == [school.course.id]
            taken = await school.ask("POST", "/v1/users", email)
            assert (told(taken), is_replay(taken)) == ((400, "email_taken"), replayed)
            assert taken.json()["error"]["param"] == "email"

    async def test_what_is_not_found_is_kept_too(self, school: School) -> None:
        replies = [await school.ask("PATCH", "/v1/courses/crs_x", {"title": "T"}) for _ in range(2)]
        assert [told(reply) for reply in replies] == [(404, "course_not_found")] * 2
        assert [is_replay(reply) for reply in replies] == [False, True]

    @pytest.mark.parametrize(
        ("path", "wrong", "right"),
        [
            ("/v1/courses", {"title": "Rust"}, COURSE),
            ("/v1/courses", COURSE | {"x": 1}, COURSE),
            ("/v1/courses", COURSE | {"seats": "many"}, COURSE),
            ("/v1/courses", COURSE | {"price": {"amount": -1, "currency": "USD"}}, COURSE),
            ("/v1/courses", COURSE | {"price": {"amount": 1, "currency": "usd"}}, COURSE),
            ("/v1/courses", COURSE | {"prerequisites": ["crs_x"]}, COURSE),
            ("/v1/api-keys", {"name": "mine", "expires_at": "tomorrow"}, {"name": "mine"}),
            ("/v1/api-keys", {"name": "mine", "scopes": ["root"]}, {"name": "mine"}),
        ],
    )
    async def test_an_error_of_shape_is_not_kept(
        self, school: School, path: str, wrong: dict[str, Any], right: dict[str, Any]
    ) -> None:
        assert (await school.ask("POST", path, wrong)).status_code == 400
        reply = await school.ask("POST", path, right)
        assert (reply.status_code, is_replay(reply)) == (201, False), reply.text

    async def test_a_forgotten_payment_method_can_be_sent_under_the_same_key(self, school: School) -> None:
        body = {"user_id": school.user.id, "course_id": school.course.id}
        missing = await school.ask("POST", "/v1/enrollments", body)
        assert told(missing) == (400, "missing_parameter")
        assert (await school.enrol()).status_code == 201

    async def test_a_429_is_not_kept(self, world: World) -> None:
        account = await world.account(plan="starter")
        key = await world.key(account)
        for _ in range(30):
            await world.ask("GET", "/v1/courses", key)
        assert told(await world.ask("POST", "/v1/courses", key, COURSE, Idempotency_Key="1"))[0] == 429
        world.clock.advance(2)
        assert (await world.ask("POST", "/v1/courses", key, COURSE, Idempotency_Key="1")).status_code == 201

    @pytest.mark.parametrize("failure", [LearnFlowError(Code.SERVICE_UNAVAILABLE), RuntimeError("a bug")], ids=repr)
    async def test_a_failure_of_ours_is_not_kept(self, school: School, failure: Exception) -> None:
        gateway = scene.watch_payments(school.world)
        gateway.away = lambda: failure
        assert (await school.enrol()).status_code in (500, 503)
        gateway.away = None
        reply = await school.enrol()
        assert (reply.status_code, reply.json()["status"], is_replay(reply)) == (200, "active", False)
        assert len(gateway.paid) == 1


class TestAuthorisationComesFirst:
    async def test_a_revoked_key_reads_no_reply(self, school: School) -> None:
        await school.enrol()
        key, ctx = await scene.key_of(school.world, school.key), school.world.ctx
        await school.world.services.storage.write(lambda tx: api_keys.end_key(tx, key, ctx))
        school.world.clock.advance(1)
        assert told(await school.enrol()) == (401, "invalid_api_key")

    async def test_a_key_without_the_scope_reads_no_reply_of_another(self, school: School) -> None:
        await school.enrol()
        narrow = await school.world.key(school.account, ["enrollments:read"])
        assert told(await school.enrol(credential=narrow)) == (403, "insufficient_scope")

    async def test_who_lost_the_role_reads_no_reply(self, school: School) -> None:
        admin = await school.world.user(school.account, "admin@acme.test", role="admin")
        token = await school.world.token(admin)
        body = {"email": "new@acme.test", "name": "New"}
        assert (await school.ask("POST", "/v1/users", body, credential=token)).status_code == 201
        await school.ask("PATCH", f"/v1/users/{admin.id}", {"role": "learner"})
        assert told(await school.ask("POST", "/v1/users", body, credential=token)) == (403, "forbidden")

    async def test_a_bad_shape_is_told_before_the_key_is_looked_at(self, school: School) -> None:
        await school.ask("POST", "/v1/courses", COURSE)
        assert told(await school.ask("POST", "/v1/courses", {"x": 1})) == (400, "unknown_parameter")


class TestAtOnce:
    @pytest.mark.parametrize("name", ["createUser", "createApiKey", "createEnrollment", "createCourse"])
    async def test_fifty_at_once_have_one_effect_and_one_answer(self, school: School, name: str) -> None:
        gateway = scene.watch_payments(school.world)
        path, body = await REQUESTS[name](school)
        replies = await asyncio.gather(*[school.ask("POST", path, body) for _ in range(50)])
        assert Counter(reply.status_code for reply in replies) == {201: 50}
        assert len({reply.json()["id"] for reply in replies}) == 1
        assert Counter(map(is_replay, replies)) == {True: 49, False: 1}
        assert len(gateway.asked) == (1 if name == "createEnrollment" else 0)

    async def test_of_fifty_bodies_at_once_one_wins_and_the_others_are_refused(self, school: School) -> None:
        bodies = [COURSE | {"title": f"Title {n}"} for n in range(50)]
        replies = await asyncio.gather(*[school.ask("POST", "/v1/courses", body) for body in bodies])
        assert Counter(reply.status_code for reply in replies) == {201: 1, 400: 49}
        assert {told(reply)[1] for reply in replies if reply.status_code == 400} == {"idempotency_key_reused"}

    async def test_fifty_refusals_at_once_are_the_same(self, school: School) -> None:
        replies = await asyncio.gather(*[school.enrol(method="pm_visa_9995") for _ in range(50)])
        assert {told(reply) for reply in replies} == {(403, "insufficient_funds")}

    async def test_while_the_first_is_running_the_second_waits_for_its_reply(self, school: School) -> None:
        gateway = HeldGateway(scene.watch_payments(school.world))
        first = asyncio.create_task(school.enrol())
        await gateway.asked.wait()
        second = asyncio.create_task(school.enrol())
        other_body = await school.enrol(method="pm_visa_0002")
        assert told(other_body) == (400, "idempotency_key_reused")
        assert not second.done()
        gateway.release.set()
        answered, replayed = await first, await second
        assert (answered.status_code, is_replay(answered)) == (201, False)
        assert (replayed.status_code, is_replay(replayed)) == (201, True)
        assert answered.json() == replayed.json()

    async def test_who_has_waited_for_too_long_is_told_when_to_come_again(
        self, school: School, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(idempotency, "WAIT_S", 0.1)
        gateway = HeldGateway(scene.watch_payments(school.world))
        first = asyncio.create_task(school.enrol())
        await gateway.asked.wait()
        refused = await school.enrol()
        assert told(refused) == (503, "service_unavailable")
        assert int(refused.headers["Retry-After"]) >= 1
        gateway.release.set()
        assert (await first).status_code == 201
        assert is_replay(await school.enrol())


class HeldGateway:
    """Holds back the answer to a charge until it is released."""

    def __init__(self, gateway: scene.WatchedGateway) -> None:
        self.asked, self.release = asyncio.Event(), asyncio.Event()
        self._charge = gateway.charge
        gateway.charge = self.charge  # type: ignore[method-assign]

    async def charge(self, payment: Any) -> Any:
        self.asked.set()
        await self.release.wait()
        return await self._charge(payment)


class TestCrashes:
    async def claimed(self, school: School, body: dict[str, Any]) -> None:
        """Claim the key as the process does that crashes right afterwards."""
        key = idempotency.Key.of(
            "key-1",
            caller=f"{school.account.id}:live",
            request="POST /v1/enrollments?",
            body=json.dumps(body).encode(),
            now=school.world.now,
        )
        assert await idempotency._claim(school.world.services.storage, key) is None

    def body(self, school: School) -> dict[str, Any]:
        return {"user_id": school.user.id, "course_id": school.course.id, "payment_method_id": PAYS}

    async def test_after_a_crash_before_the_effect_the_retry_has_it(
        self, school: School, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(idempotency, "WAIT_S", 0.1)
        await self.claimed(school, self.body(school))
        assert told(await school.enrol()) == (503, "service_unavailable")
        school.world.clock.advance(10)
        assert (await school.enrol()).status_code == 201
        assert is_replay(await school.enrol())

    async def test_after_a_crash_between_effect_and_reply_the_retry_finds_the_effect(self, school: School) -> None:
        gateway = scene.watch_payments(school.world)
        await self.claimed(school, self.body(school))
        made = await school.enrol(key="as if the crashed one had come so far")
        school.world.clock.advance(10)
        retried = await school.enrol()
        assert (retried.status_code, retried.json()) == (200, made.json())
        assert len(gateway.paid) == 1

    async def test_of_fifty_retries_after_a_crash_one_takes_over(self, school: School) -> None:
        gateway = scene.watch_payments(school.world)
        await self.claimed(school, self.body(school))
        school.world.clock.advance(10)
        replies = await asyncio.gather(*[school.enrol() for _ in range(50)])
        assert Counter(map(is_replay, replies)) == {True: 49, False: 1}
        assert len(gateway.asked) == 1

    async def test_a_request_that_is_cancelled_lets_go_of_its_key(
        self, school: School, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(idempotency, "CLAIM_LIFETIME", 10**15)  # a claim that stays is nobody else's
        monkeypatch.setattr(idempotency, "WAIT_S", 1)
        gateway = HeldGateway(scene.watch_payments(school.world))
        first = asyncio.create_task(school.enrol())
        await gateway.asked.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gateway.release.set()
        retried = await school.enrol()
        assert (retried.status_code, retried.json()["status"]) == (200, "active")
