"""Nobody grants more than they have: every way to climb that we could think of."""

from __future__ import annotations

from typing import Any

from learnflow_core.model import Role, User
from tests import scene
from tests.sessions import (
    mint,
    somebody,
    told,
)
from tests.world import World


class TestNobodyGrantsMoreThanTheyHave:
    """Each test is an attempt to climb."""

    async def refused(self, world: World, credential: str, *attempts: tuple[str, str, Any]) -> None:
        before = await scene.books(world)
        for method, path, body in attempts:
            reply = await world.ask(method, path, credential, body)
            assert reply.status_code in (400, 403, 404), f"{method} {path}: {reply.status_code} {reply.text}"
        assert await scene.books(world) == before

    async def test_a_key_that_minds_users_makes_no_one_mightier_than_itself(self, world: World) -> None:
        account = await world.account()
        people: dict[Role, User] = {
            "admin": await somebody(world, account, "admin@acme.test", "admin"),
            "instructor": await somebody(world, account, "teacher@acme.test", "instructor"),
            "learner": await somebody(world, account),
        }
        key = await world.key(account, ["users:write", "users:read", "tokens:write"])
        attempts: list[tuple[str, str, Any]] = [
            ("POST", "/v1/users", {"email": "x@acme.test", "name": "X", "role": role})
            for role in ("admin", "instructor")
        ]
        attempts += [("PATCH", f"/v1/users/{people['learner'].id}", {"role": role}) for role in ("admin", "instructor")]
        for role in ("admin", "instructor"):
            path = f"/v1/users/{people[role].id}"
            attempts += [
                ("PATCH", path, {"password": "taken over now"}),
                ("PATCH", path, {"email": "mine@acme.test"}),
                ("PATCH", path, {"role": "learner"}),
                ("DELETE", path, None),
            ]
        attempts += [
            ("POST", "/v1/api-keys", {"name": "mine"}),
            ("POST", "/v1/api-keys", {"name": "x", "scopes": ["*"]}),
        ]
        await self.refused(world, key, *attempts)

    async def test_a_minted_admin_is_no_admin_beyond_the_key(self, world: World) -> None:
        account = await world.account()
        admin = await somebody(world, account, "admin@acme.test", "admin")
        other = await somebody(world, account, "other@acme.test", "admin")
        key = await world.key(account, ["users:write", "tokens:write"])
        token = (await mint(world, key, admin))["access_token"]
        await self.refused(
            world,
            token,
            ("POST", "/v1/users", {"email": "x@acme.test", "name": "X", "role": "admin"}),
            ("PATCH", f"/v1/users/{admin.id}", {"password": "a way to sign in"}),
            ("PATCH", f"/v1/users/{admin.id}", {"email": "elsewhere@acme.test"}),
            ("PATCH", f"/v1/users/{other.id}", {"password": "a way to sign in"}),
            ("DELETE", f"/v1/users/{other.id}", None),
            ("POST", "/v1/api-keys", {"name": "mine"}),
            ("POST", "/v1/auth/token", {"user_id": other.id}),
            ("POST", "/v1/auth/token", {"email": "admin@acme.test"}),
        )

    async def test_a_person_makes_nothing_of_themselves_but_name_and_password(self, world: World) -> None:
        account = await world.account()
        roles: tuple[Role, ...] = ("learner", "instructor")
        for role in roles:
            user = await somebody(world, account, f"{role}@acme.test", role)
            token = await world.token(user)
            path = f"/v1/users/{user.id}"
            await self.refused(
                world,
                token,
                *[("PATCH", path, {"role": wanted}) for wanted in ("learner", "instructor", "admin")],
                ("PATCH", path, {"email": "other@acme.test"}),
                ("PATCH", path, {"external_id": "1"}),
                ("PATCH", path, {"name": "Me", "role": "admin"}),
                ("PATCH", path, {"account_id": "acct_x"}),
                ("DELETE", path, None),
                ("POST", "/v1/users", {"email": "x@acme.test", "name": "X"}),
                ("POST", "/v1/api-keys", {"name": "mine", "scopes": ["users:read"]}),
            )

    async def test_the_test_mode_opens_no_door_to_the_live_one(self, world: World) -> None:
        account = await world.account()
        live = await world.key(account)
        live_id = (await scene.key_of(world, live)).id
        person = await somebody(world, account, "admin@acme.test", "admin", "test")
        for credential in (await world.key(account, mode="test"), await world.token(person)):
            await self.refused(
                world,
                credential,
                ("POST", "/v1/api-keys", {"name": "mine", "mode": "live"}),
                ("POST", f"/v1/api-keys/{live_id}/rotate", {}),
                ("DELETE", f"/v1/api-keys/{live_id}", None),
            )
            assert live_id not in (await world.ask("GET", "/v1/api-keys", credential)).text
            made = await world.ask("POST", "/v1/api-keys", credential, {"name": "mine"})
            assert made.json()["mode"] == "test"

    async def test_a_key_of_another_account_reaches_nothing_of_this_one(self, world: World) -> None:
        account = await world.account()
        user = await somebody(world, account)
        key_id = (await scene.key_of(world, await world.key(account))).id
        await self.refused(
            world,
            await world.key(await world.account("Other")),
            ("POST", f"/v1/api-keys/{key_id}/rotate", {}),
            ("DELETE", f"/v1/api-keys/{key_id}", None),
            ("PATCH", f"/v1/users/{user.id}", {"password": "taken over now"}),
            ("POST", "/v1/auth/token", {"user_id": user.id}),
            ("POST", f"/v1/users/{user.id}/payment-methods", {"token": "tok_visa_4242"}),
        )

    async def test_a_new_key_has_its_creators_scopes_and_mode_unless_it_asks_for_less(self, world: World) -> None:
        account = await world.account()
        key = await world.key(account)
        same = (await world.ask("POST", "/v1/api-keys", key, {"name": "same"})).json()
        less = (await world.ask("POST", "/v1/api-keys", key, {"name": "less", "scopes": ["users:read"]})).json()
        assert (same["scopes"], same["mode"]) == (["*"], "live")
        assert less["scopes"] == ["users:read"]
        assert (await world.ask("GET", "/v1/users", less["secret"])).status_code == 200
        assert told(await world.ask("GET", "/v1/account", less["secret"])) == (403, "insufficient_scope")
