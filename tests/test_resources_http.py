"""Keys, people and courses as a client minds them: made, changed, listed, ended."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx
import pytest

from tests import scene
from tests.scene import told
from tests.world import World

COURSE: dict[str, Any] = {"title": "Rust", "category": "code", "price": {"amount": 10, "currency": "USD"}}


@pytest.fixture
async def key(world: World) -> str:
    """A key that may do everything, of an account that pays with licences."""
    return await world.key(await world.account())


class TestApiKeys:
    async def works(self, world: World, secret: str) -> bool:
        reply = await world.ask("GET", "/v1/account", secret)
        assert reply.status_code == 200 or told(reply)[:2] == (401, "invalid_api_key")
        return reply.status_code == 200

    async def make(self, world: World, key: str, **fields: Any) -> dict[str, Any]:
        reply = await world.ask("POST", "/v1/api-keys", key, {"name": "made", **fields})
        assert reply.status_code == 201, reply.text
        made: dict[str, Any] = reply.json()
        return made

    async def test_a_secret_is_a_prefix_thirty_characters_and_a_checksum_and_works_at_once(
        self, world: World, key: str
    ) -> None:
        for mode in ("live", "test"):
            made = await self.make(world, key, mode=mode)
            assert made["secret"].startswith(made["prefix"])
            assert made["prefix"].startswith(f"sk_{mode}_")
            assert len(made["secret"]) == len(f"sk_{mode}_") + 36
            assert await self.works(world, made["secret"])

    async def test_the_list_shows_no_secret_and_when_each_was_last_used(self, world: World, key: str) -> None:
        made = await self.make(world, key)
        world.clock.advance(60)
        assert await self.works(world, made["secret"])
        await world.sweep()
        listed = (await world.ask("GET", "/v1/api-keys", key)).json()["data"]
        found = next(one for one in listed if one["id"] == made["id"])
        secret = made.pop("secret")
        assert found == {**made, "last_used_at": "2024-01-15T09:31:00Z"}
        assert secret not in str(listed)

    async def test_a_rotated_key_works_beside_its_successor_until_the_overlap_is_over(
        self, world: World, key: str
    ) -> None:
        old = await self.make(world, key, scopes=["*"], expires_at="2024-02-01T00:00:00Z")
        path = f"/v1/api-keys/{old['id']}/rotate"
        new = (await world.ask("POST", path, key, {"overlap_seconds": 100})).json()
        assert [new[field] for field in ("name", "scopes", "mode", "expires_at")] == [
            old[field] for field in ("name", "scopes", "mode", "expires_at")
        ]
        world.clock.advance(99)
        assert await self.works(world, old["secret"])
        world.clock.advance(1)
        assert not await self.works(world, old["secret"])
        assert await self.works(world, new["secret"])

    async def test_without_overlap_the_old_secret_ends_at_once(self, world: World, key: str) -> None:
        old = await self.make(world, key)
        assert await self.works(world, old["secret"])
        rotated = await world.ask("POST", f"/v1/api-keys/{old['id']}/rotate", key, {"overlap_seconds": 0})
        assert rotated.status_code == 201
        assert not await self.works(world, old["secret"])

    async def test_an_overlap_does_not_lengthen_a_life(self, world: World, key: str) -> None:
        old = await self.make(world, key, expires_at="2024-01-15T09:30:10Z")
        await world.ask("POST", f"/v1/api-keys/{old['id']}/rotate", key, {"overlap_seconds": 3_600})
        world.clock.advance(10)
        assert not await self.works(world, old["secret"])

    async def test_what_is_revoked_or_expired_is_not_rotated(self, world: World, key: str) -> None:
        revoked, expired = await self.make(world, key), await self.make(world, key, expires_at="2024-01-15T09:30:01Z")
        first = await world.ask("DELETE", f"/v1/api-keys/{revoked['id']}", key)
        world.clock.advance(1)
        again = await world.ask("DELETE", f"/v1/api-keys/{revoked['id']}", key)
        assert (first.status_code, first.json()) == (200, again.json())
        assert first.json()["revoked_at"] == "2024-01-15T09:30:00Z"
        assert not await self.works(world, revoked["secret"])
        for one in (revoked, expired):
            reply = await world.ask("POST", f"/v1/api-keys/{one['id']}/rotate", key, {})
            assert told(reply)[:2] == (404, "api_key_not_found")

    async def test_a_key_can_revoke_itself(self, world: World, key: str) -> None:
        key_id = (await scene.key_of(world, key)).id
        assert (await world.ask("DELETE", f"/v1/api-keys/{key_id}", key)).status_code == 200
        assert not await self.works(world, key)


class TestUsers:
    async def make(self, world: World, key: str, **fields: Any) -> httpx.Response:
        return await world.ask("POST", "/v1/users", key, {"email": "ada@acme.test", "name": "Ada", **fields})

    async def test_an_email_is_one_persons_in_an_account_and_mode_however_it_is_written(
        self, world: World, key: str
    ) -> None:
        assert (await self.make(world, key)).status_code == 201
        for email in ("ada@acme.test", "ADA@acme.test", "\uff41da@acme.test"):
            assert told(await self.make(world, key, email=email)) == (400, "email_taken", "email")
        other = await world.key(await world.account("Other"))
        assert (await self.make(world, other)).status_code == 201
        account = (await world.ask("GET", "/v1/account", key)).json()["id"]
        assert account.startswith("acct_")

    async def test_an_external_id_is_one_persons_too(self, world: World, key: str) -> None:
        assert (await self.make(world, key, external_id="7")).status_code == 201
        taken = await self.make(world, key, email="bob@acme.test", external_id="7")
        assert told(taken) == (400, "invalid_parameter", "external_id")
        bob = (await self.make(world, key, email="bob@acme.test")).json()["id"]
        for change, param in (({"external_id": "7"}, "external_id"), ({"email": "ada@acme.test"}, "email")):
            assert told(await world.ask("PATCH", f"/v1/users/{bob}", key, change))[2] == param

    async def test_no_reply_says_anything_of_a_password(self, world: World, key: str) -> None:
        made = await self.make(world, key, password="correct horse battery")
        assert set(made.json()) == {
            *("id", "account_id", "mode", "email", "name", "role", "external_id"),
            *("created_at", "updated_at", "deleted_at"),
        }
        assert "correct horse" not in str(await scene.books(world))

    async def test_deleting_erases_the_person_and_keeps_the_books(self, world: World) -> None:
        account = await world.account()
        key, user = await world.key(account), await world.user(account, "ada@acme.test", password="correct horse")
        course = await scene.course(world, account, seats=1)
        place = await scene.enrolled(world, account, user, course)
        path = f"/v1/users/{user.id}"
        assert (await world.ask("POST", f"{path}/payment-methods", key, {"token": "tok_x"})).status_code == 201
        deleted = (await world.ask("DELETE", path, key)).json()
        assert (deleted["id"], deleted["email"], deleted["name"]) == (user.id, None, None)
        assert (await world.ask("GET", path, key)).status_code == 404
        assert (await world.ask("DELETE", path, key)).status_code == 404
        assert (await world.ask("GET", "/v1/users", key)).json()["meta"]["total_items"] == 0
        kept = (await world.ask("GET", f"/v1/enrollments/{place.id}", key)).json()
        assert (kept["user_id"], kept["status"]) == (user.id, "cancelled")
        assert "ada" not in str({**await scene.books(world), "replies": []})
        again = await world.user(account, "ada@acme.test")
        assert (await scene.enrolled(world, account, again, course)).status == "active"
        assert list(await world.services.storage.check()) == []

    async def test_a_person_changes_their_own_name_and_password(self, world: World, key: str) -> None:
        made = (await self.make(world, key, password="correct horse battery")).json()
        body = {"email": "ada@acme.test", "password": "correct horse battery"}
        token = (await world.ask("POST", "/v1/auth/token", json=body)).json()["access_token"]
        world.clock.advance(60)
        named = await world.ask("PATCH", f"/v1/users/{made['id']}", token, {"name": "Countess"})
        assert (named.json()["name"], named.json()["updated_at"]) == ("Countess", "2024-01-15T09:31:00Z")
        assert (await world.ask("GET", "/v1/users/me", token)).json() == named.json()

    async def test_a_payment_method_is_listed_until_it_is_deleted(self, world: World, key: str) -> None:
        path = f"/v1/users/{(await self.make(world, key)).json()['id']}/payment-methods"
        made = (await world.ask("POST", path, key, {"token": "tok_secret"})).json()
        listed = await world.ask("GET", path, key)
        assert listed.json()["data"] == [made]
        assert "tok_secret" not in listed.text
        for _ in range(2):
            assert (await world.ask("DELETE", f"{path}/{made['id']}", key)).json()["deleted_at"] is not None
        assert (await world.ask("GET", path, key)).json()["data"] == []
        absent = await world.ask("DELETE", f"{path}/pm_x", key)
        assert told(absent)[:2] == (404, "payment_method_not_found")


class TestCourses:
    async def test_what_is_left_out_has_its_default(self, world: World, key: str) -> None:
        made = (await world.ask("POST", "/v1/courses", key, COURSE)).json()
        assert {name: made[name] for name in made if name not in ("id", "created_at", "updated_at")} == {
            **COURSE,
            "instructor": "Acme",
            "level": "all",
            "rating": None,
            "total_students": 0,
            "description": "",
            "language": "en",
            "curriculum": [],
            "status": "published",
            "seats": None,
            "prerequisites": [],
            "enrolls_from": None,
            "enrolls_until": None,
            "access_days": None,
            "version": 1,
            "external_id": None,
        }
        assert (await world.ask("GET", f"/v1/courses/{made['id']}")).json() == made

    @pytest.mark.parametrize(
        "change",
        [
            {"title": "Rust, again"},
            {"category": "systems"},
            {"price": {"amount": 0, "currency": "JPY"}},
            {"instructor": "Ferris"},
            {"level": "advanced"},
            {"description": "Lifetimes\nand borrows"},
            {"language": "pt-BR"},
            {"curriculum": [{"title": "One", "lessons": [{"title": "Hello", "seconds": 60}]}]},
            {"seats": 0},
            {"seats": None},
            {"enrolls_from": "2024-02-01T00:00:00Z"},
            {"enrolls_until": "2024-02-01T00:00:00Z"},
            {"access_days": 30},
            {"status": "draft"},
            {"status": "archived"},
            {"external_id": "rust-1"},
            {"external_id": None},
        ],
        ids=str,
    )
    async def test_each_field_can_be_changed_and_nothing_else_changes(
        self, world: World, key: str, change: dict[str, Any]
    ) -> None:
        made = (await world.ask("POST", "/v1/courses", key, COURSE | {"seats": 5, "external_id": "x"})).json()
        world.clock.advance(60)
        changed = (await world.ask("PATCH", f"/v1/courses/{made['id']}", key, change)).json()
        version = 2 if change.keys() & {"price", "access_days"} else 1
        assert changed == {**made, **change, "version": version, "updated_at": "2024-01-15T09:31:00Z"}
        assert list(await world.services.storage.check()) == []

    async def test_a_change_that_changes_nothing_leaves_no_trace(self, world: World, key: str) -> None:
        made = (await world.ask("POST", "/v1/courses", key, COURSE)).json()
        world.clock.advance(60)
        for change in ({}, {"title": "Rust"}, {"price": {"amount": 10.00, "currency": "USD"}}):
            assert (await world.ask("PATCH", f"/v1/courses/{made['id']}", key, change)).json() == made

    async def test_an_external_id_is_unique_in_the_account(self, world: World, key: str) -> None:
        body = COURSE | {"external_id": "1"}
        assert (await world.ask("POST", "/v1/courses", key, body)).status_code == 201
        assert told(await world.ask("POST", "/v1/courses", key, body)) == (400, "invalid_parameter", "external_id")
        other = await world.key(await world.account("Other"))
        assert (await world.ask("POST", "/v1/courses", other, body)).status_code == 201

    async def test_a_course_is_no_prerequisite_of_itself(self, world: World, key: str) -> None:
        made = (await world.ask("POST", "/v1/courses", key, COURSE)).json()["id"]
        for wrong in ([made], ["crs_x"]):
            reply = await world.ask("PATCH", f"/v1/courses/{made}", key, {"prerequisites": wrong})
            assert told(reply) == (400, "invalid_parameter", "prerequisites")

    async def test_categories_count_what_is_published_in_them(self, world: World, key: str) -> None:
        async def categories() -> dict[str, int]:
            found = (await world.ask("GET", "/v1/categories", key)).json()["data"]
            return {one["slug"]: one["courses"] for one in found}

        made = [(await world.ask("POST", "/v1/courses", key, COURSE)).json()["id"] for _ in range(2)]
        await world.ask("POST", "/v1/courses", key, COURSE | {"status": "draft", "category": "hidden"})
        assert await categories() == {"code": 2}
        await world.ask("PATCH", f"/v1/courses/{made[0]}", key, {"category": "systems"})
        assert await categories() == {"code": 1, "systems": 1}
        await world.ask("DELETE", f"/v1/courses/{made[1]}", key)
        assert await categories() == {"systems": 1}

    async def test_an_archived_course_is_read_and_kept_but_not_found(self, world: World, key: str) -> None:
        made = (await world.ask("POST", "/v1/courses", key, COURSE)).json()["id"]
        for _ in range(2):
            assert (await world.ask("DELETE", f"/v1/courses/{made}", key)).json()["status"] == "archived"
        assert (await world.ask("GET", "/v1/courses?search=rust")).json()["data"] == []
        assert (await world.ask("GET", f"/v1/courses/{made}", key)).status_code == 200
        assert (await world.ask("GET", f"/v1/courses/{made}")).status_code == 404
        archived = (await world.ask("GET", "/v1/courses?status=archived", key)).json()["data"]
        assert [one["id"] for one in archived] == [made]

    async def test_people_find_a_course_by_what_they_type(self, world: World, key: str) -> None:
        titles = ["C++ for Beginners", "C# in Depth", "Introducción al Álgebra", "The C Language"]
        for title in titles:
            await world.ask("POST", "/v1/courses", key, COURSE | {"title": title})
        for search, found in (
            ("c++", titles[:1]),
            ("C#", titles[1:2]),
            ("algebra", titles[2:3]),
            ("INTRODUCCION alg", titles[2:3]),
            ("nothing", []),
            ("   ", titles),
        ):
            reply = await world.client.get("/v1/courses", params={"search": search})
            assert sorted(one["title"] for one in reply.json()["data"]) == sorted(found), search
