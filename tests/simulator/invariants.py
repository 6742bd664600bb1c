"""What must be true whatever happened: at any moment, and when all has come to rest."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from tests.simulator.clients import Clients
from tests.simulator.database import Database
from tests.simulator.intents import TOO_LATE, Said, Told
from tests.simulator.payments import PaymentService
from tests.simulator.school import LICENSES, school

_EXCEEDED = f"""
    SELECT courses.id, 'seats', seats, count(*) FROM courses JOIN enrollments ON course_id = courses.id
    WHERE seats IS NOT NULL AND enrollments.status IN ('pending', 'active', 'completed')
    GROUP BY courses.id, seats HAVING count(*) > seats
    UNION ALL
    SELECT account_id, 'licences', {LICENSES}, count(*) FROM enrollments
    WHERE licensed = 1 AND status IN ('pending', 'active', 'completed')
    GROUP BY account_id HAVING count(*) > {LICENSES}
"""  # noqa: S608 - a number of our own
_OUTSIDE = """
    SELECT enrollments.id FROM courses JOIN enrollments ON course_id = courses.id
    WHERE enrolled_at < enrolls_from OR enrolled_at >= enrolls_until
"""
_UNRESOLVED = "SELECT id, status FROM payments WHERE status NOT IN ('charged', 'declined', 'refunded')"
_PAYMENTS = "SELECT id, status FROM payments"
_PLACES = "SELECT id, user_id, course_id, status, payment_id FROM enrollments"
_CERTIFIED = "SELECT enrollment_id, count(*) FROM certificates GROUP BY enrollment_id"
_ERASED = "SELECT id FROM users WHERE deleted_at IS NOT NULL"
_ENDING = "SELECT id FROM enrollments WHERE status = 'active' AND expires_at IS NOT NULL"
_ENROLLED = ("active", "completed", "expired")


def at_any_moment(database: Database) -> Iterator[str]:
    """What no committed state may show."""
    for whose, what, has, taken in database.rows(_EXCEEDED):
        yield f"{whose} has {has} {what}, and {taken} are taken"


def in_the_end(database: Database, service: PaymentService, clients: Clients) -> Iterator[str]:
    """What must hold once faults have ended and the sweeps have had their time."""
    yield from service.complaints
    for payment, status in database.rows(_UNRESOLVED):
        yield f"{payment} is still {status}"
    for (place,) in database.rows(_OUTSIDE):
        yield f"{place} was made outside of its course's window"
    yield from _money(database, service)
    yield from _Promises(database, service, clients).broken()
    yield from _keys(clients)
    for intent in clients.unanswered:
        yield f"intent {intent.number} is not answered, though all is well"


def a_day_later(database: Database) -> Iterator[str]:
    """What must hold when every access that was given for a day is over."""
    for (place,) in database.rows(_ENDING):
        yield f"{place} is active, and its access is over"


def _money(database: Database, service: PaymentService) -> Iterator[str]:
    """Charged if and only if enrolled, and at most once; what the service itself gave back is in the books."""
    held: Counter[str] = Counter()
    returned = set()
    paid = defaultdict(lambda: "unknown", database.rows(_PAYMENTS))
    for charge in service.charges.values():
        held[charge.payment.enrollment_id] += charge.holds_money
        if charge.returned:
            returned.add(charge.payment.enrollment_id)
            if paid[charge.payment.id] != "refunded":
                yield f"{charge.payment.id} was given back, and is {paid[charge.payment.id]}"
    known = database.rows(_PLACES)
    for place, user, course, status, payment in known:
        enrolled = _ENROLLED if place not in returned else ("active",)
        owed = 1 if payment is not None and status in enrolled else 0
        if held[place] != owed:
            yield f"{place} of {user} in {course} is {status}, and {held[place]} charges are held for it"
    for place in held.keys() - {place for place, *_ in known}:
        if held[place]:
            yield f"{held[place]} charges are held for {place}, which nobody knows"


class _Promises:
    """What clients were told is so, unless they asked for another thing later, or the payment service did."""

    def __init__(self, database: Database, service: PaymentService, clients: Clients) -> None:
        self._clients = clients
        self._wishes = clients.wishes
        self._status_of = {place: status for place, _, _, status, _ in database.rows(_PLACES)}
        self._certified = dict(database.rows(_CERTIFIED))
        self._erased = {user for (user,) in database.rows(_ERASED)}
        self._given_up = clients.wishes.left | {
            charge.payment.enrollment_id for charge in service.charges.values() if charge.returned
        }

    def broken(self) -> Iterator[str]:
        for told in self._clients.told:
            for said in told.said:
                yield from self._of(told, said)
        for place, status in self._status_of.items():
            if self._certified.get(place, 0) != (status == "completed"):
                yield f"{place} is {status}, and has {self._certified.get(place, 0)} certificates"

    def _of(self, told: Told, said: Said) -> Iterator[str]:
        status, body = said
        if status not in (200, 201, 429, 503) and not self._may_refuse(told, body["error"]["code"]):
            yield f"intent {told.intent.number} was answered {status}: {body}"
        if told.intent.method == "DELETE" and status == 200 and body["id"] not in self._erased:
            yield f"intent {told.intent.number} was told that {body['id']} is deleted"
        if status not in (200, 201) or "progress" not in body:
            return
        now = self._status_of.get(body["id"])
        if now != body["status"] and now not in self._may_become(body):
            yield f"intent {told.intent.number} was told that {body['id']} is {body['status']}, and it is {now}"

    def _may_become(self, told: dict[str, str]) -> set[str]:
        """What may have become of an enrolment since somebody was told of it."""
        if told["status"] != "active":
            return set()
        later = {"completed"}
        if told["id"] in school().ending:
            later |= {"expired"}
        if told["id"] in self._given_up or told["user_id"] in self._wishes.erased:
            later |= {"refunded", "cancelled"}
        return later

    def _may_refuse(self, told: Told, code: str) -> bool:
        """Whether it may be refused so; a place that somebody leaves while it is being paid is none, when it is
        paid."""
        if code == "user_not_found":
            return bool(told.intent.users & self._wishes.erased)
        return code in told.intent.refusals or (code in TOO_LATE and bool(self._given_up or self._wishes.erased))


def _keys(clients: Clients) -> Iterator[str]:
    """All final replies under one key are the same reply; those that named somebody are forgotten with them."""
    replies: defaultdict[str, set[tuple[int, str]]] = defaultdict(set)
    for told in clients.told:
        intent, reply = told
        if intent.key is not None and told.is_final and not intent.users & clients.wishes.erased:
            replies[intent.key].add((reply.status, _without_ids_of_requests(reply.body)))
    for key, various in replies.items():
        if len(various) > 1:
            yield f"{key} was answered differently: {sorted(various)}"


def _without_ids_of_requests(body: dict[str, object]) -> str:
    error = body.get("error")
    if isinstance(error, dict):
        return repr({name: value for name, value in error.items() if name != "request_id"})
    return repr(body)
