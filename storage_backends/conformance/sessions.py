"""The suite, on sessions: tokens, replies kept for retries, and the sandbox's books."""

from __future__ import annotations

import msgspec

from learnflow_core.model import DAY, Reply, SandboxCharge
from learnflow_core.money import Money
from learnflow_core.ports import Session, Storage, Transaction
from storage_backends.conformance.base import Suite, same
from storage_backends.conformance.samples import (
    HOSTILE,
    NOW,
    account,
    api_key,
    family,
    keep,
    refresh_token,
    stage,
    user,
)

replace = msgspec.structs.replace
LATEST = 2**63 - 1
"""The last instant there is."""


class Sessions(Suite):
    """Tokens, replies, and the sandbox's books."""

    async def test_a_session_is_its_family_its_user_and_their_account(self, storage: Storage) -> None:
        await stage(storage)
        kept = family(scopes=("users:read", HOSTILE), key_id="key_1")
        await keep(storage, api_key(), kept)
        found = await storage.read(lambda tx: tx.tokens.session("fam_1", "tok_1"))
        assert same(found, Session(family=kept, user=user(), account=account(), token_revoked=False))
        assert await storage.read(lambda tx: tx.tokens.session("fam_2", "tok_1")) is None

    async def test_one_token_can_be_revoked_alone_and_again(self, storage: Storage) -> None:
        await stage(storage)
        await keep(storage, family())
        for _ in range(2):
            await storage.write(lambda tx: tx.tokens.revoke_token("tok_1", NOW))
        first = await storage.read(lambda tx: tx.tokens.session("fam_1", "tok_1"))
        second = await storage.read(lambda tx: tx.tokens.session("fam_1", "tok_2"))
        assert first is not None
        assert second is not None
        assert (first.token_revoked, second.token_revoked) == (True, False)

    async def test_families_end_one_by_one_or_with_their_user_or_key_and_stay_ended(self, storage: Storage) -> None:
        await stage(storage)
        await keep(storage, user("usr_2"), api_key("key_1"), api_key("key_2"))
        await keep(storage, family("fam_1"), family("fam_2"), family("fam_3", user_id="usr_2", key_id="key_1"))
        await keep(storage, family("fam_4", user_id="usr_2", key_id="key_2"))

        async def work(tx: Transaction) -> None:
            await tx.tokens.revoke_family("fam_1", 1)
            await tx.tokens.revoke_of_user("usr_1", 2)
            await tx.tokens.revoke_of_key("key_1", 3)
            await tx.tokens.revoke_family("fam_1", 4)

        await storage.write(work)
        found = [await _revoked_at(storage, key) for key in ("fam_1", "fam_2", "fam_3", "fam_4")]
        assert found == [1, 2, 3, None]

    async def test_a_family_lives_longer_and_never_shorter(self, storage: Storage) -> None:
        await stage(storage)
        await keep(storage, family(expires_at=10))
        await storage.write(lambda tx: tx.tokens.extend_family("fam_1", 20))
        await storage.write(lambda tx: tx.tokens.extend_family("fam_1", 15))
        found = await storage.read(lambda tx: tx.tokens.session("fam_1", "tok_1"))
        assert found is not None
        assert found.family.expires_at == 20

    async def test_a_refresh_token_is_kept_and_replaced(self, storage: Storage) -> None:
        await stage(storage)
        await keep(storage, family())
        first = refresh_token()
        await storage.write(lambda tx: tx.tokens.put_refresh_token(first))
        assert same(await storage.read(lambda tx: tx.tokens.refresh_token("tok_1")), first)
        rotated = refresh_token(successor_id="tok_2", rotated_at=2, retired_at=3)
        child = refresh_token("tok_2", parent_id="tok_1")

        async def work(tx: Transaction) -> None:
            await tx.tokens.put_refresh_token(rotated)
            await tx.tokens.put_refresh_token(child)

        await storage.write(work)
        assert same(await storage.read(lambda tx: tx.tokens.refresh_token("tok_1")), rotated)
        assert same(await storage.read(lambda tx: tx.tokens.refresh_token("tok_2")), child)
        assert await storage.read(lambda tx: tx.tokens.refresh_token("tok_3")) is None

    async def test_a_reply_is_kept_replaced_and_dropped_under_scope_and_key(self, storage: Storage) -> None:
        body = ('{"name": "' + "é😀" * 1000 + '"}').encode()
        claimed, answered = Reply("print", 0, b"", NOW), Reply("print", 201, body, NOW)

        async def work(tx: Transaction) -> None:
            await tx.replies.put("usr_1 POST", "key", claimed)
            await tx.replies.put("usr_2 POST", "key", claimed)
            await tx.replies.put("usr_1 POST", "key", answered)

        await storage.write(work)
        assert same(await storage.read(lambda tx: tx.replies.get("usr_1 POST", "key")), answered)
        assert same(await storage.read(lambda tx: tx.replies.get("usr_2 POST", "key")), claimed)
        await storage.write(lambda tx: tx.replies.drop("usr_1 POST", "key"))
        assert await storage.read(lambda tx: tx.replies.get("usr_1 POST", "key")) is None
        assert await storage.read(lambda tx: tx.replies.get("usr_2 POST", "key")) is not None

    async def test_replies_that_name_a_record_are_dropped_and_no_others(self, storage: Storage) -> None:
        async def work(tx: Transaction) -> None:
            await tx.replies.put("post", "one", Reply("print", 201, b'{"id": "usr_1", "name": "Ada"}', NOW))
            await tx.replies.put("post", "two", Reply("print", 201, b'{"id": "usr_2", "name": "Bob"}', NOW))
            await tx.replies.drop_naming("usr_1")

        await storage.write(work)
        assert await storage.read(lambda tx: tx.replies.get("post", "one")) is None
        assert await storage.read(lambda tx: tx.replies.get("post", "two")) is not None

    async def test_the_sandbox_keeps_the_first_request_under_a_key(self, storage: Storage) -> None:
        first = SandboxCharge("pay_1", "paid", Money(500, "JPY"), 1)
        second = SandboxCharge("pay_1", "declined", Money(700, "KWD"), 2)
        other = SandboxCharge("pay_2", "declined", Money(700, "KWD"), 2)
        assert await storage.write(lambda tx: tx.sandbox_charges.add(first)) == first
        assert await storage.write(lambda tx: tx.sandbox_charges.add(second)) == first
        assert await storage.write(lambda tx: tx.sandbox_charges.add(other)) == other

    async def test_purging_forgets_what_is_over_and_nothing_that_is_not(self, storage: Storage) -> None:
        await stage(storage)
        await keep(storage, family("fam_1", expires_at=NOW), family("fam_2", expires_at=NOW + 1))

        async def fill(tx: Transaction) -> None:
            for number in (1, 2):
                await tx.tokens.put_refresh_token(refresh_token(f"tok_{number}", family_id=f"fam_{number}"))
            await tx.tokens.revoke_token("tok_old", NOW)
            await tx.tokens.revoke_token("tok_new", NOW + 1)
            await tx.replies.put("scope", "old", Reply("", 200, b"{}", NOW - DAY))
            await tx.replies.put("scope", "new", Reply("", 200, b"{}", NOW - DAY + 1))
            await tx.purge(NOW)

        await storage.write(fill)

        async def look(tx: Transaction) -> list[bool]:
            session = await tx.tokens.session("fam_2", "tok_new")
            assert session is not None
            old = await tx.tokens.session("fam_2", "tok_old")
            assert old is not None
            return [
                await tx.tokens.session("fam_1", "tok_1") is None,
                await tx.tokens.refresh_token("tok_1") is None,
                await tx.tokens.refresh_token("tok_2") is not None,
                session.token_revoked and not old.token_revoked,
                await tx.replies.get("scope", "old") is None,
                await tx.replies.get("scope", "new") is not None,
            ]

        assert all(await storage.read(look))


async def _revoked_at(storage: Storage, family_id: str) -> int | None:
    session = await storage.read(lambda tx: tx.tokens.session(family_id, "tok_1"))
    assert session is not None
    return session.family.revoked_at
