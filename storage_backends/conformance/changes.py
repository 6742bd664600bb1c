"""The suite, on lists of what has changed since an instant: in the order of the changes, with nothing missed."""

from __future__ import annotations

# ruff: noqa: S311 - seeded randomness, so that a failure comes again
from collections.abc import Sequence
from operator import attrgetter
from random import Random
from typing import Any

import msgspec
import pytest

from learnflow_core.model import User
from learnflow_core.pagination import Cursor, Position
from learnflow_core.ports import CertificateQuery, CourseQuery, EnrollmentQuery, Storage
from storage_backends.conformance.base import Suite
from storage_backends.conformance.lists import assert_list, ids, read_part, walk
from storage_backends.conformance.samples import (
    account,
    api_key,
    certificate,
    completed,
    course,
    enrollment,
    keep,
    stage,
    user,
)

replace = msgspec.structs.replace


class Changes(Suite):
    """What was `updated_since`."""

    @pytest.mark.parametrize("since", [0, 2, 3, 9])
    async def test_users_come_as_they_changed_and_the_deleted_among_them(self, storage: Storage, since: int) -> None:
        erased = {"email": "", "name": "", "deleted_at": 9}
        people = [
            user(
                key,
                updated_at=number % 4,
                created_at=(number * 7) % 5,
                mode="test" if number % 3 else "live",
                **({"email": f"{number}@example.com"} if number % 5 else erased),
            )
            for number, key in enumerate(ids("usr", 48))
        ]
        await keep(storage, account(), *people)
        expected = changed((one for one in people if one.mode == "test"), since)
        await assert_list(storage, lambda tx, paging: tx.users.list("acct_1", "test", paging, since), expected)

    @pytest.mark.parametrize("since", [0, 2])
    async def test_keys_come_as_they_changed(self, storage: Storage, since: int) -> None:
        keys = [api_key(key, updated_at=number % 4) for number, key in enumerate(ids("key"))]
        await keep(storage, account(), *keys)
        await assert_list(
            storage, lambda tx, paging: tx.api_keys.list("acct_1", "live", paging, since), changed(keys, since)
        )

    @pytest.mark.parametrize("since", [0, 2])
    async def test_enrolments_and_certificates_come_as_they_changed(self, storage: Storage, since: int) -> None:
        await stage(storage)
        places = []
        for number, key in enumerate(ids("enr")):
            make = completed if number % 2 else enrollment
            places.append(make(key, user_id=f"usr_{key}", updated_at=number % 4, enrolled_at=(number * 7) % 5))
            await keep(storage, user(f"usr_{key}", email=f"{number}@example.com"), places[-1])
        proofs = [certificate(one) for one in places if one.certificate_id]
        for number, proof in enumerate(proofs):
            proofs[number] = replace(proof, updated_at=number % 3)
            await storage.write(lambda tx, it=proofs[number]: tx.certificates.put(it))  # type: ignore[misc]
        query = EnrollmentQuery("live", account_id="acct_1", updated_since=since)
        await assert_list(storage, lambda tx, paging: tx.enrollments.list(query, paging), changed(places, since))
        proven = CertificateQuery("live", account_id="acct_1", updated_since=since)
        await assert_list(storage, lambda tx, paging: tx.certificates.list(proven, paging), changed(proofs, since))

    async def test_courses_come_as_they_changed_within_what_else_is_asked(self, storage: Storage) -> None:
        courses = [
            course(key, updated_at=number % 4, category="ab"[number % 2], students_base=number)
            for number, key in enumerate(ids("crs"))
        ]
        await keep(storage, account(), *courses)
        expected = [one.id for one in changed((one for one in courses if one.category == "a"), 1)]
        query = CourseQuery("popular", category="a", updated_since=1)
        found = await walk(storage, lambda tx, paging: tx.courses.list(query, paging), 5)
        assert [one.id for one in found] == expected

    async def test_whoever_walks_while_things_change_misses_nothing(self, storage: Storage) -> None:
        """Each change comes later than those before it; in the end the walker's copy is what is there."""
        random = Random("changes")
        people = {
            key: user(key, email=f"{number}@example.com", updated_at=number)
            for number, key in enumerate(ids("usr", 36))
        }
        await keep(storage, account(), *people.values())
        copy: dict[str, User] = {}
        after: Position | None = None
        now = 100
        for _ in range(200):
            found = await read_part(
                storage,
                lambda tx, paging: tx.users.list("acct_1", "live", paging, 0),
                Cursor(after, 5),
            )
            copy |= {one.id: one for one in found.items}
            if found.next_after is None:
                break
            after = found.next_after
            if now < 130:
                now += 1
                key = random.choice(sorted(people))
                people[key] = replace(people[key], name=f"Name at {now}", updated_at=now)
                await storage.write(lambda tx, it=people[key]: tx.users.put(it))  # type: ignore[misc]
        assert copy == people


def changed(records: Any, since: int) -> Sequence[Any]:
    """Those that changed at an instant or later, in the order of the list."""
    return sorted((one for one in records if one.updated_at >= since), key=attrgetter("updated_at", "id"))
