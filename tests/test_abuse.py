"""What somebody who means no good, or no harm and has bad luck, could try."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import Account, Payment, Reply, User
from learnflow_core.pagination import Page
from learnflow_core.usecases import enrollments
from learnflow_core.usecases.payments import finish_unresolved
from learnflow_http.auth import MAX_WAITING, PasswordHasher
from learnflow_http.exchange import BodyMemory
from tests.world import World

COURSE = {"title": "Rust", "category": "programming", "price": {"amount": 10, "currency": "USD"}}


class SlowBody:
    """A request's body whose second half comes when the test says so."""

    def __init__(self, body: bytes) -> None:
        self.halves = body[:5], body[5:]
        self.rest = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.halves[0]
        await self.rest.wait()
        yield self.halves[1]


async def post_slowly(world: World, path: str, credential: str, body: SlowBody) -> Any:
    headers = {"Authorization": f"Bearer {credential}", "Content-Type": "application/json"}
    return await world.client.post(path, content=body, headers=headers)


async def test_a_key_that_is_revoked_while_a_body_comes_makes_nothing(world: World) -> None:
    account = await world.account()
    good, bad = await world.key(account), await world.key(account)
    body = SlowBody(b'{"name": "backdoor"}')
    request = asyncio.create_task(post_slowly(world, "/v1/api-keys", bad, body))
    for _ in range(20):
        await asyncio.sleep(0.001)
    listed = (await world.ask("GET", "/v1/api-keys", good)).json()["data"]
    [revoked] = [key["id"] for key in listed if bad.startswith(key["prefix"])]
    await world.ask("DELETE", f"/v1/api-keys/{revoked}", good)
    body.rest.set()
    reply = await request
    assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
    assert len((await world.ask("GET", "/v1/api-keys", good)).json()["data"]) == 2


async def test_a_key_for_users_gives_no_password_with_which_a_learner_could_do_more(world: World) -> None:
    key = await world.key(await world.account(), ["users:write", "users:read"])
    person = {"email": "a@b.example", "name": "A"}
    refused = await world.ask("POST", "/v1/users", key, person | {"password": "a long password"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
    made = await world.ask("POST", "/v1/users", key, person)
    assert made.status_code == 201
    address = f"/v1/users/{made.json()['id']}"
    assert (await world.ask("PATCH", address, key, {"password": "a long password"})).status_code == 403
    assert (await world.ask("PATCH", address, key, {"email": "c@b.example"})).status_code == 200
    assert (await world.ask("DELETE", address, key)).status_code == 200


async def test_a_token_of_a_narrow_key_sets_no_password_that_would_outgrow_it(world: World) -> None:
    account = await world.account()
    learner = await world.user(account, "a@b.example")
    narrow = await world.token(learner, ["users:write"])
    assert (await world.ask("PATCH", f"/v1/users/{learner.id}", narrow, {"password": "a long one"})).status_code == 403
    whole = await world.token(learner)
    assert (await world.ask("PATCH", f"/v1/users/{learner.id}", whole, {"password": "a long one"})).status_code == 200


async def test_tokens_end_with_the_key_that_minted_them(world: World) -> None:
    account = await world.account()
    learner = await world.user(account, "a@b.example")
    key = await world.key(account, expires_at=world.now + 60_000_000)
    minted = (await world.ask("POST", "/v1/auth/token", key, {"user_id": learner.id})).json()
    assert (await world.ask("GET", "/v1/users/me", minted["access_token"])).status_code == 200
    world.clock.advance(61)
    assert (await world.ask("GET", "/v1/users/me", minted["access_token"])).status_code == 401
    refresh = {"refresh_token": minted["refresh_token"]}
    assert (await world.ask("POST", "/v1/auth/refresh", json=refresh)).status_code == 401


async def test_a_wrong_key_is_counted_at_addresses_that_do_not_exist_as_well(world: World) -> None:
    wrong = "sk_live_" + "a" * 36
    reply = await world.ask("GET", "/v1/nope", wrong)
    assert reply.status_code == 404
    assert '"failed-credentials"' in reply.headers["ratelimit-policy"]
    for _ in range(29):
        await world.ask("GET", "/v1/nope", wrong)
    assert (await world.ask("GET", "/v1/account", wrong)).status_code == 429


@pytest.mark.parametrize(
    "token", ["4242424242424242", "4242 4242 4242 4242", "card 4242-4242-4242-4242", "4242424242424242/12/27"]
)
async def test_the_number_of_a_card_is_refused_however_it_is_written(world: World, token: str) -> None:
    account = await world.account()
    learner = await world.user(account, "a@b.example")
    reply = await world.ask(
        "POST", f"/v1/users/{learner.id}/payment-methods", await world.key(account), {"token": token}
    )
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "token")


async def test_digits_that_are_no_card_may_stand_in_a_token(world: World) -> None:
    account = await world.account()
    learner = await world.user(account, "a@b.example")
    reply = await world.ask(
        "POST", f"/v1/users/{learner.id}/payment-methods", await world.key(account), {"token": "tok_1234567890123456"}
    )
    assert reply.status_code == 201


async def test_a_draft_that_is_archived_stays_its_accounts_own(world: World) -> None:
    ours, others = await world.account(), await world.account("Others")
    key, foreign = await world.key(ours), await world.key(others)
    draft = (await world.ask("POST", "/v1/courses", key, COURSE | {"status": "draft"})).json()["id"]
    await world.ask("DELETE", f"/v1/courses/{draft}", key)
    assert (await world.ask("GET", f"/v1/courses/{draft}", foreign)).status_code == 404
    assert (await world.ask("GET", f"/v1/courses/{draft}", key)).status_code == 200


async def test_an_archived_course_is_still_read_by_those_who_are_in_it(world: World) -> None:
    ours, others = await world.account(), await world.account("Others")
    key = await world.key(ours)
    course = (await world.ask("POST", "/v1/courses", key, COURSE)).json()["id"]
    inside, outside = await world.user(others, "a@b.example"), await world.user(others, "c@b.example")
    await world.ask("POST", "/v1/enrollments", await world.token(inside), {"user_id": inside.id, "course_id": course})
    await world.ask("DELETE", f"/v1/courses/{course}", key)
    assert (await world.ask("GET", f"/v1/courses/{course}", await world.token(inside))).status_code == 200
    assert (await world.ask("GET", f"/v1/courses/{course}", await world.token(outside))).status_code == 404


async def test_a_prerequisite_is_a_course_that_can_be_seen_and_no_circle(world: World) -> None:
    ours, others = await world.account(), await world.account("Others")
    key = await world.key(ours)
    foreign = await world.ask("POST", "/v1/courses", await world.key(others), COURSE | {"status": "draft"})
    hidden = await world.ask("POST", "/v1/courses", key, COURSE | {"prerequisites": [foreign.json()["id"]]})
    assert (hidden.status_code, hidden.json()["error"]["param"]) == (400, "prerequisites")
    chain: list[str] = []
    for _ in range(3):
        made = await world.ask("POST", "/v1/courses", key, COURSE | {"prerequisites": chain[-1:]})
        chain.append(made.json()["id"])
    circle = await world.ask("PATCH", f"/v1/courses/{chain[0]}", key, {"prerequisites": [chain[2]]})
    assert (circle.status_code, circle.json()["error"]["param"]) == (400, "prerequisites")


class Away:
    """A payment service that cannot be reached until it is back, in front of one that can."""

    def __init__(self, gateway: Any) -> None:
        self.gateway = gateway
        self.builtin_methods = gateway.builtin_methods
        self.back = False

    async def charge(self, payment: Payment) -> Code | None:
        if not self.back:
            raise LearnFlowError(Code.SERVICE_UNAVAILABLE)
        result: Code | None = await self.gateway.charge(payment)
        return result

    async def refund(self, payment: Payment) -> None:
        await self.gateway.refund(payment)


async def pending(world: World) -> tuple[Account, User, str, dict[str, Any]]:
    account = await world.account(plan="professional")
    key = await world.key(account)
    course = (await world.ask("POST", "/v1/courses", key, COURSE | {"seats": 1})).json()["id"]
    learner = await world.user(account, "a@b.example")
    away = Away(world.services.gateways["live"])
    gateways: Any = {"live": away, "test": away}
    world.services = world.services._replace(gateways=gateways)
    return account, learner, key, {"user_id": learner.id, "course_id": course, "payment_method_id": "pm_visa_4242"}


async def test_a_person_who_is_deleted_while_paying_gets_the_money_back_and_leaves_the_seat(world: World) -> None:
    account, learner, key, new = await pending(world)
    gateways: Any = world.services.gateways
    actor = world.owner(account)
    with pytest.raises(LearnFlowError):
        await enrollments.enroll(world.services.storage, gateways, actor, enrollments.NewEnrollment(**new), world.ctx)
    assert (await world.ask("DELETE", f"/v1/users/{learner.id}", key)).status_code == 200
    gateways["live"].back = True
    for _ in range(2):
        world.clock.advance(60)
        await finish_unresolved(world.services.storage, gateways, world.ctx)
    listed = (await world.ask("GET", "/v1/enrollments", key)).json()["data"]
    assert [one["status"] for one in listed] == ["refunded"]
    assert await world.services.storage.read(lambda tx: tx.payments.unresolved(world.now, 10)) == 0
    assert await world.services.storage.check() == []


async def test_a_payment_that_cannot_be_resolved_keeps_nothing_else_from_being_swept(world: World) -> None:
    account, _, _, new = await pending(world)
    gateways: Any = world.services.gateways
    with pytest.raises(LearnFlowError):
        await enrollments.enroll(
            world.services.storage, gateways, world.owner(account), enrollments.NewEnrollment(**new), world.ctx
        )
    world.services = world.services._replace(gateways={})  # asking for the mode's gateway fails from now on
    old = Reply("print", 201, b"{}", world.now)
    await world.services.storage.write(lambda tx: tx.replies.put("post", "old", old))
    world.clock.advance(25 * 3_600)
    with pytest.raises(ExceptionGroup):
        await world.sweep()
    assert await world.services.storage.read(lambda tx: tx.replies.get("post", "old")) is None


async def test_what_is_kept_of_an_erased_person_names_them_no_more(world: World) -> None:
    account = await world.account()
    key = await world.key(account)
    person = {"email": "secret.name@b.example", "name": "Secret Name"}
    made = (await world.ask("POST", "/v1/users", key, person, Idempotency_Key="one")).json()["id"]
    await world.ask("POST", f"/v1/users/{made}/payment-methods", key, {"token": "tok_visa_4242"})
    await world.ask("DELETE", f"/v1/users/{made}", key)
    again = await world.ask("POST", "/v1/users", key, person, Idempotency_Key="one")
    assert again.json()["id"] != made
    methods = await world.services.storage.read(lambda tx: tx.payments.methods(made, Page(1, 50)))
    assert methods.items == []


async def test_a_key_that_ends_makes_none_that_outlives_it(world: World) -> None:
    account = await world.account()
    ending = await world.key(account, expires_at=world.now + 3_600_000_000)
    made = await world.ask("POST", "/v1/api-keys", ending, {"name": "child"})
    assert made.json()["expires_at"] == "2024-01-15T10:30:00Z"
    later = {"name": "child", "expires_at": "2024-01-15T10:30:01Z"}
    assert (await world.ask("POST", "/v1/api-keys", ending, later)).status_code == 403
    sooner = {"name": "child", "expires_at": "2024-01-15T10:29:59Z"}
    assert (await world.ask("POST", "/v1/api-keys", ending, sooner)).status_code == 201


def test_bodies_that_never_end_hold_so_much_memory_and_no_more() -> None:
    memory = BodyMemory(in_all=100, for_one=60)
    memory.take("a", 60)
    with pytest.raises(LearnFlowError) as one_too_many:
        memory.take("a", 1)
    assert one_too_many.value.code is Code.SERVICE_UNAVAILABLE
    memory.take("b", 40)
    with pytest.raises(LearnFlowError):
        memory.take("c", 1)
    memory.give_back("a", 60)
    memory.take("c", 60)


async def test_a_body_gives_back_the_memory_it_held_whatever_becomes_of_it(world: World) -> None:
    key = await world.key(await world.account())
    for body in (b"{}", b"{" * 2_000_000, b'{"title": '):
        await world.client.post("/v1/courses", content=body, headers={"Authorization": f"Bearer {key}"})
    assert world.services.bodies.held_in_all == 0


async def test_passwords_beyond_the_queue_are_refused_and_keep_nobody_from_signing_in() -> None:
    hasher = PasswordHasher()
    hasher._hashing._waiting = MAX_WAITING
    with pytest.raises(LearnFlowError) as refused:
        await hasher.hash("a long password")
    assert refused.value.code is Code.SERVICE_UNAVAILABLE
    assert not await hasher.verify("a long password", None)
    hasher.close()
