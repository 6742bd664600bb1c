"""What clients want, in the words of requests, and what replies say of it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

import msgspec

from tests.simulator.node import Reply
from tests.simulator.school import School

REFUSAL_OF = {"pm_visa_4242": None, "pm_visa_0002": "card_declined", "pm_visa_9995": "insufficient_funds"}
"""What the payment service says to each means of payment."""
METHODS = ("pm_visa_4242", "pm_visa_4242", "pm_visa_4242", "pm_visa_0002", "pm_visa_9995")
CLOSED = frozenset({"course_full", "enrollment_closed", "license_exhausted"})
"""Why anybody may be kept out of a course."""
TOO_LATE = frozenset({"enrollment_not_active"})
"""Why anybody may be refused who wants something of a place, or is in it no more when it is paid."""


class Intent(NamedTuple):
    """What a client wants, in the words of one request that it may send many times."""

    number: int
    method: str
    path: str
    body: bytes
    key: str | None
    users: frozenset[str]
    """Of whom it is."""
    credential: str
    refusals: frozenset[str | None]
    """The codes with which it may be refused, whatever else happens; all but those of a server that cannot answer."""

    @property
    def fields(self) -> dict[str, str]:
        return {} if self.key is None else {"idempotency-key": self.key}


class Said(NamedTuple):
    """What a reply says of one thing that was asked for: a batch asks for many."""

    status: int
    body: Any


class Told(NamedTuple):
    """A reply that a client received."""

    intent: Intent
    reply: Reply

    @property
    def said(self) -> list[Said]:
        """What it says, thing by thing."""
        status, body = self.reply
        if status != 200 or "results" not in body:
            return [Said(status, body)]
        return [Said(each["status"], each.get("enrollment", each)) for each in body["results"]]

    @property
    def is_final(self) -> bool:
        """Whether there is nothing left to ask again for."""
        return all(status not in (429, 503) for status, _ in self.said)

    @property
    def places(self) -> list[tuple[str, str]]:
        """The enrolments that it tells of, each with its user."""
        return [(body["id"], body["user_id"]) for status, body in self.said if status < 300 and "progress" in body]


class Wishes:
    """Draws intents; remembers what was wished that takes back what others were told."""

    def __init__(self, random: Random, school: School) -> None:
        self.users = random.sample(school.users, random.randint(1, 5))
        self.left: set[str] = set()
        """Enrolments that somebody has asked to cancel."""
        self.erased: set[str] = set()
        """Users whom somebody has asked to delete."""
        self._random = random
        self._school = school
        self._courses = random.sample(school.courses, random.randint(1, 4))
        self._user_of: dict[str, str] = {}
        self._made = 0

    def hear(self, told: Told) -> None:
        """Know of the places that a reply tells of."""
        self._user_of |= told.places

    def any(self) -> Intent:
        """What comes to somebody's mind."""
        drawn = self._random.random()
        if not self._user_of or drawn < 0.5:
            return self.enrolling(*self._wanted(), self._perhaps_a_key())
        if drawn < 0.6:
            return self.batch([self._wanted() for _ in range(self._random.randint(2, 4))], self._perhaps_a_key())
        if drawn < 0.63:
            return self.erasing(self._random.choice(self.users))
        place = self._random.choice(list(self._user_of))
        if drawn < 0.8:
            return self.leaving(place, self._perhaps_a_key())
        return self.progressing(place, self._random.choice((50, 100, 100)), self._perhaps_a_key())

    def enrolling(self, user: str, course: str, means: str, key: str | None) -> Intent:
        refusals = {*CLOSED, REFUSAL_OF[means]}
        return self._new("POST", "/v1/enrollments", _place(user, course, means), key, [user], refusals)

    def batch(self, wanted: Sequence[tuple[str, str, str]], key: str | None) -> Intent:
        account = self._school.keys[wanted[0][0]]
        items = [(user, course, means) for user, course, means in wanted if self._school.keys[user] == account]
        refusals = {*CLOSED, *(REFUSAL_OF[means] for *_, means in items)}
        body = {"enrollments": [_place(*item) for item in items]}
        return self._new("POST", "/v1/enrollments/batch", body, key, [user for user, *_ in items], refusals)

    def leaving(self, place: str, key: str | None) -> Intent:
        self.left.add(place)
        return self._new("POST", f"/v1/enrollments/{place}/cancel", None, key, [self._user_of[place]], TOO_LATE)

    def progressing(self, place: str, progress: int, key: str | None) -> Intent:
        body = {"progress": progress}
        return self._new("PATCH", f"/v1/enrollments/{place}", body, key, [self._user_of[place]], TOO_LATE)

    def erasing(self, user: str) -> Intent:
        self.erased.add(user)
        return self._new("DELETE", f"/v1/users/{user}", None, None, [user], ())

    def _wanted(self) -> tuple[str, str, str]:
        return self._random.choice(self.users), self._random.choice(self._courses), self._random.choice(METHODS)

    def _perhaps_a_key(self) -> str | None:
        return f"key-{self._made}" if self._random.random() < 0.5 else None

    def _new(
        self, method: str, path: str, body: object, key: str | None, users: Sequence[str], refusals: Any
    ) -> Intent:
        self._made += 1
        text = b"" if body is None else msgspec.json.encode(body)
        credential = self._school.keys[users[0]]
        return Intent(self._made, method, path, text, key, frozenset(users), credential, frozenset(refusals))


def _place(user: str, course: str, means: str) -> dict[str, str]:
    return {"user_id": user, "course_id": course, "payment_method_id": means}
