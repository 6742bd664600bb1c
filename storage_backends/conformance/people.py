"""The suite, on people: accounts with their licences, keys and users."""

from __future__ import annotations

# ruff: noqa: S106 - secrets of people who do not exist
import msgspec
import pytest

from learnflow_core.ports import Storage, Transaction
from storage_backends.conformance.base import Suite, same
from storage_backends.conformance.samples import (
    HOSTILE,
    NOW,
    account,
    api_key,
    keep,
    user,
)
from storage_backends.driver import RefusedError

replace = msgspec.structs.replace
LATEST = 2**63 - 1
"""The last instant there is."""


class People(Suite):
    """Accounts, keys and users."""

    async def test_an_account_comes_back_as_it_was_kept_and_as_it_was_replaced(self, storage: Storage) -> None:
        kept = account(name=HOSTILE, plan="enterprise", per_minute=1, licenses=0, suspended_at=LATEST, created_at=-1)
        await keep(storage, kept, account("acct_2"))
        assert same(await storage.read(lambda tx: tx.accounts.get("acct_1")), kept)
        changed = replace(kept, name="New", plan="starter", per_minute=None, licenses=None, suspended_at=None)
        await storage.write(lambda tx: tx.accounts.put(changed))
        assert same(await storage.read(lambda tx: tx.accounts.get("acct_1")), changed)
        assert same(await storage.read(lambda tx: tx.accounts.get("acct_2")), account("acct_2"))
        assert await storage.read(lambda tx: tx.accounts.get("acct_3")) is None

    async def test_a_key_is_found_by_its_digest_with_its_account(self, storage: Storage) -> None:
        kept = api_key(
            name=HOSTILE, scopes=("users:read", "*"), mode="test", expires_at=1, revoked_at=2, last_used_at=3
        )
        await keep(storage, account(), kept, api_key("key_2"))
        found = await storage.read(lambda tx: tx.api_keys.by_digest(kept.digest))
        assert found is not None
        assert same(found, (kept, account()))
        assert await storage.read(lambda tx: tx.api_keys.by_digest("f" * 64)) is None

    async def test_a_key_changes_in_name_expiry_and_revocation_only(self, storage: Storage) -> None:
        await keep(storage, account(), api_key())
        changed = api_key(name="New", expires_at=5, revoked_at=6)
        await storage.write(lambda tx: tx.api_keys.put(replace(changed, scopes=(), mode="test", last_used_at=9)))
        assert same(await storage.read(lambda tx: tx.api_keys.get("key_1")), changed)

    async def test_the_last_use_of_a_key_never_goes_back(self, storage: Storage) -> None:
        await keep(storage, account(), api_key("key_1"), api_key("key_2"), api_key("key_3"))
        await storage.write(lambda tx: tx.api_keys.touch([("key_2", 5), ("key_1", 7), ("key_none", 1)]))
        await storage.write(lambda tx: tx.api_keys.touch([("key_1", 6), ("key_2", 8)]))
        found = [await _last_use(storage, key) for key in ("key_1", "key_2", "key_3")]
        assert found == [7, 8, None]

    async def test_a_user_comes_back_as_kept_and_as_replaced(self, storage: Storage) -> None:
        kept = user(
            email="Ann@Example.COM",
            name=HOSTILE,
            role="admin",
            mode="test",
            password_hash="$argon2id$",
            external_id="é",
        )
        await keep(storage, account(), kept)
        assert same(await storage.read(lambda tx: tx.users.get("usr_1")), kept)
        changed = replace(kept, email="b@example.com", name="B", role="learner", password_hash=None, external_id=None)
        assert await storage.write(lambda tx: tx.users.put(changed)) is True
        assert same(await storage.read(lambda tx: tx.users.get("usr_1")), changed)
        assert await storage.read(lambda tx: tx.users.get("usr_2")) is None

    async def test_an_email_or_external_id_of_another_user_is_refused_and_nothing_else_undone(
        self, storage: Storage
    ) -> None:
        taken = user("usr_1", email="Straße@example.com", external_id="hr-1")
        other = user("usr_2")
        await keep(storage, account(), taken, other)

        async def work(tx: Transaction) -> list[bool]:
            return [
                await tx.users.add(user("usr_3", email="STRASSE@EXAMPLE.COM")),
                await tx.users.add(user("usr_4", external_id="hr-1")),
                await tx.users.put(replace(other, email="strasse@example.com")),
                await tx.users.put(replace(other, external_id="hr-1")),
                await tx.users.put(replace(other, name="Still here")),
                await tx.users.add(user("usr_5")),
            ]

        assert await storage.write(work) == [False, False, False, False, True, True]
        assert await storage.read(lambda tx: tx.users.get("usr_3")) is None
        assert same(await storage.read(lambda tx: tx.users.get("usr_2")), replace(other, name="Still here"))
        assert await storage.read(lambda tx: tx.users.get("usr_5")) is not None

    async def test_the_same_email_and_external_id_are_free_in_another_account_or_mode(self, storage: Storage) -> None:
        facts = {"email": "ann@example.com", "external_id": "hr-1"}
        people = [
            user("usr_1", **facts),
            user("usr_2", mode="test", **facts),
            user("usr_3", account_id="acct_2", **facts),
        ]
        await keep(storage, account(), account("acct_2"), *people)
        found = await storage.read(lambda tx: tx.users.by_email("ann@example.com", "live", None))
        assert same(list(found), [people[0], people[2]])
        found = await storage.read(lambda tx: tx.users.by_email("ann@example.com", "live", "acct_2"))
        assert same(list(found), [people[2]])
        assert list(await storage.read(lambda tx: tx.users.by_email("Ann@example.com", "live", None))) == []

    async def test_a_deleted_user_stays_under_the_id_and_leaves_email_and_external_id_to_others(
        self, storage: Storage
    ) -> None:
        leaving = user("usr_1", email="ann@example.com", external_id="hr-1", password_hash="$")
        await keep(storage, account(), leaving)
        erased = replace(leaving, email="", name="", password_hash=None, external_id=None, deleted_at=NOW)
        assert await storage.write(lambda tx: tx.users.put(erased))
        await keep(storage, user("usr_2", email="ann@example.com", external_id="hr-1"))
        assert same(await storage.read(lambda tx: tx.users.get("usr_1")), erased)
        found = await storage.read(lambda tx: tx.users.by_email("ann@example.com", "live", None))
        assert [one.id for one in found] == ["usr_2"]

    async def test_a_deleted_user_cannot_keep_anything_personal(self, storage: Storage) -> None:
        await keep(storage, account(), user())
        with pytest.raises(RefusedError):
            await storage.write(lambda tx: tx.users.put(user(deleted_at=NOW)))
        assert same(await storage.read(lambda tx: tx.users.get("usr_1")), user())

    async def test_a_licence_that_nobody_took_cannot_be_given_back(self, storage: Storage) -> None:
        await keep(storage, account(plan="enterprise"))
        with pytest.raises(RefusedError):
            await storage.write(lambda tx: tx.accounts.return_license("acct_1", "test"))

    async def test_licences_are_taken_up_to_their_number_in_each_mode(self, storage: Storage) -> None:
        await keep(storage, account(plan="enterprise", licenses=2))

        async def work(tx: Transaction) -> list[bool]:
            taken = [await tx.accounts.take_license("acct_1", "live") for _ in range(3)]
            taken.append(await tx.accounts.take_license("acct_1", "test"))
            await tx.accounts.return_license("acct_1", "live")
            taken.append(await tx.accounts.take_license("acct_1", "live"))
            for mode in ("live", "live", "test"):
                await tx.accounts.return_license("acct_1", mode)
            return taken

        assert await storage.write(work) == [True, True, False, True, True]

    async def test_licences_without_a_number_never_end(self, storage: Storage) -> None:
        await keep(storage, account(plan="enterprise"))

        async def work(tx: Transaction) -> None:
            for _ in range(100):
                assert await tx.accounts.take_license("acct_1", "live")
            for _ in range(100):
                await tx.accounts.return_license("acct_1", "live")

        await storage.write(work)


async def _last_use(storage: Storage, key_id: str) -> int | None:
    key = await storage.read(lambda tx: tx.api_keys.get(key_id))
    assert key is not None
    return key.last_used_at
