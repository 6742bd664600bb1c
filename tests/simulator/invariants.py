"""What must be true whatever happened: at any moment, and when all has come to rest."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from tests.simulator.clients import Clients, Told
from tests.simulator.database import Database
from tests.simulator.payments import PaymentService

_OVERSOLD = """
    SELECT courses.id, seats, count(*) FROM courses JOIN enrollments ON course_id = courses.id
    WHERE seats IS NOT NULL AND enrollments.status IN ('pending', 'active', 'completed')
    GROUP BY courses.id, seats HAVING count(*) > seats
"""
_UNRESOLVED = "SELECT id, status FROM payments WHERE status NOT IN ('charged', 'declined', 'refunded')"
_PLACES = "SELECT id, user_id, course_id, status, payment_id FROM enrollments"
_CERTIFIED = "SELECT enrollment_id, count(*) FROM certificates GROUP BY enrollment_id"
_ENROLLED = ("active", "completed", "expired")


def at_any_moment(database: Database) -> Iterator[str]:
    """What no committed state may show."""
    for course, seats, taken in database.rows(_OVERSOLD):
        yield f"{course} has {seats} seats, and {taken} are taken"


def in_the_end(database: Database, service: PaymentService, clients: Clients) -> Iterator[str]:
    """What must hold once faults have ended and the sweeps have had their time."""
    yield from service.complaints
    for payment, status in database.rows(_UNRESOLVED):
        yield f"{payment} is still {status}"
    yield from _money(database, service)
    yield from _promises(database, clients)
    yield from _keys(clients.told)
    for intent in clients.unanswered:
        yield f"intent {intent.number} is not answered, though all is well"


def _money(database: Database, service: PaymentService) -> Iterator[str]:
    """Charged if and only if enrolled, and at most once."""
    held: Counter[str] = Counter()
    for charge in service.charges.values():
        held[charge.payment.enrollment_id] += charge.holds_money
    known = database.rows(_PLACES)
    for place, user, course, status, payment in known:
        owed = 1 if payment is not None and status in _ENROLLED else 0
        if held[place] != owed:
            yield f"{place} of {user} in {course} is {status}, and {held[place]} charges are held for it"
    for place in held.keys() - {place for place, *_ in known}:
        if held[place]:
            yield f"{held[place]} charges are held for {place}, which nobody knows"


def _promises(database: Database, clients: Clients) -> Iterator[str]:
    """What clients were told is so, unless they asked for another thing later."""
    status_of = {place: status for place, _, _, status, _ in database.rows(_PLACES)}
    certified = dict(database.rows(_CERTIFIED))
    for told in clients.told:
        status, body = told.reply
        if status not in (200, 201, 429, 503) and not _may_refuse(told, body["error"]["code"], clients):
            yield f"intent {told.intent.number} was answered {status}: {body}"
        if status not in (200, 201):
            continue
        place, said = body["id"], body["status"]
        now = status_of.get(place)
        kept = {"active": ("active", "completed"), "completed": ("completed",)}.get(said, (said,))
        if now not in kept and not (said == "active" and place in clients.left and now in ("refunded", "cancelled")):
            yield f"intent {told.intent.number} was told that {place} is {said}, and it is {now}"
    for place, status in status_of.items():
        if certified.get(place, 0) != (status == "completed"):
            yield f"{place} is {status}, and has {certified.get(place, 0)} certificates"


def _may_refuse(told: Told, code: str, clients: Clients) -> bool:
    """Whether it may be refused so; a place that somebody leaves while it is being paid is none, when it is paid."""
    return code in told.intent.refusals or (code == "enrollment_not_active" and bool(clients.left))


def _keys(told: list[Told]) -> Iterator[str]:
    """All final replies under one key are the same reply."""
    replies: defaultdict[str, set[tuple[int, str]]] = defaultdict(set)
    for intent, reply in told:
        if intent.key is not None and reply.status in (200, 201, 403, 404):
            replies[intent.key].add((reply.status, _without_ids_of_requests(reply.body)))
    for key, various in replies.items():
        if len(various) > 1:
            yield f"{key} was answered differently: {sorted(various)}"


def _without_ids_of_requests(body: dict[str, object]) -> str:
    error = body.get("error")
    if isinstance(error, dict):
        return repr({name: value for name, value in error.items() if name != "request_id"})
    return repr(body)
