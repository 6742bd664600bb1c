"""Do the books agree? What is kept twice, to be cheap to read or to guard, is compared with where it comes from.

Each question is one statement that answers what is wrong, so sound books cost reading and nothing else.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Final

from learnflow_core.enrollment import PAYMENTS
from storage_backends.driver import DriverTransaction
from storage_backends.repository import list_books, words
from storage_backends.repository.catalogue_repairs import RECOUNT, REINDEX, searched
from storage_backends.repository.checks import Remedy
from storage_backends.repository.enrollments import LIVE
from storage_backends.repository.sql import MODES

MOST = 100
"""How many findings of one kind are told: whoever has more of them needs no longer list."""

_AGREEING = " OR ".join(
    f"(enrollments.status = '{status}' AND payments.status IN ({', '.join(map(repr, sorted(ways)))}))"
    for status, ways in PAYMENTS.items()
)
"""`learnflow_core.enrollment.PAYMENTS`, as a condition."""

# ruff: noqa: S608 - nothing but our own names is put into these
QUESTIONS = {
    f"course {{}}: {{}} {mode} seats are taken, but live enrolments hold {{}}": f"""
        SELECT id, taken, held FROM (
            SELECT id, {mode}_taken AS taken, (
                SELECT count(*) FROM enrollments WHERE course_id = courses.id AND mode = '{mode}' AND {LIVE}
            ) AS held FROM courses
        ) AS places WHERE taken <> held ORDER BY id
    """
    for mode in MODES
}
QUESTIONS |= {
    f"account {{}}: {{}} {mode} licences are taken, but live enrolments hold {{}}": f"""
        SELECT id, taken, held FROM (
            SELECT id, {mode}_licenses AS taken, (
                SELECT count(*) FROM enrollments
                WHERE account_id = accounts.id AND mode = '{mode}' AND licensed = 1 AND {LIVE}
            ) AS held FROM accounts
        ) AS grants WHERE taken <> held ORDER BY id
    """
    for mode in MODES
}
QUESTIONS |= {
    "course {}: it shows {} students, but has {}, and no sweep is due": """
        SELECT id, total_students, students_base + live_taken FROM courses
        WHERE total_students <> students_base + live_taken AND id NOT IN (SELECT course_id FROM unsettled) ORDER BY id
    """,
    "enrolment {}: it is {}, but its payment {} is {}": f"""
        SELECT enrollments.id, enrollments.status, payment_id, COALESCE(payments.status, 'not there') FROM enrollments
        LEFT JOIN payments ON payments.id = payment_id AND payments.enrollment_id = enrollments.id
            AND payments.mode = enrollments.mode
        WHERE payment_id IS NOT NULL AND (payments.id IS NULL OR NOT (
            {_AGREEING}
        )) ORDER BY enrollments.id
    """,
    "enrolment {}: it is cancelled, and its payment {} is kept, though its user is there": """
        SELECT enrollments.id, payments.id FROM enrollments JOIN payments ON payments.id = payment_id
        JOIN users ON users.id = user_id
        WHERE enrollments.status = 'cancelled' AND payments.status = 'charged' AND deleted_at IS NULL
        ORDER BY enrollments.id
    """,
    "enrolment {}: it is {}, and no payment belongs to it": """
        SELECT id, status FROM enrollments WHERE status IN ('pending', 'refunded') AND payment_id IS NULL ORDER BY id
    """,
    "payment {}: enrolment {} does not know of it": """
        SELECT payments.id, enrollment_id FROM payments JOIN enrollments ON enrollments.id = enrollment_id
        WHERE payment_id IS NULL OR payment_id <> payments.id ORDER BY payments.id
    """,
    "enrolment {}: it is completed, but its certificate {} is not there": """
        SELECT enrollments.id, certificate_id FROM enrollments
        LEFT JOIN certificates ON certificates.id = certificate_id AND certificates.enrollment_id = enrollments.id
            AND certificates.user_id = enrollments.user_id AND certificates.course_id = enrollments.course_id
        WHERE enrollments.status = 'completed' AND certificates.id IS NULL ORDER BY enrollments.id
    """,
    "certificate {}: enrolment {} is not completed": """
        SELECT certificates.id, enrollment_id FROM certificates JOIN enrollments ON enrollments.id = enrollment_id
        WHERE enrollments.status <> 'completed' ORDER BY certificates.id
    """,
}
QUESTIONS |= list_books.QUESTIONS
"""What to say of each row that a statement answers."""


async def findings(tx: DriverTransaction) -> list[tuple[str, Remedy]]:
    """What is wrong beyond what the questions ask, one sentence each with what helps; at most MOST of a kind."""
    found = [(f"the database is damaged: {damage}", _DAMAGED) for damage in (await tx.damage())[:MOST]]
    return found + await _index_findings(tx)


async def _index_findings(tx: DriverTransaction) -> list[tuple[str, Remedy]]:
    """Whether the search index says of every course what the course says, and words are counted right.

    Each course has every token it should have, and each token as many courses as should have it: so none has another.
    """
    wrong = [f"course {course_id}: it has not its place in the search index" for course_id in await tx.misplaced()]
    expected: Counter[str] = Counter()
    published: Counter[str] = Counter()
    async for courses in searched(tx):
        for entry, computed in courses:
            expected.update(entry.tokens.split(" "))
            if entry.published:
                published.update(words.words_of(entry.tokens))
            if entry.tokens != computed:
                wrong.append(f"course {entry.id}: it would be found by other words than it says")
        missed = set(await tx.missed([entry for entry, _ in courses]))
        not_found = (entry.id for entry, _ in courses if entry.n in missed)
        wrong += [f"course {course_id}: the search index does not find it by every word" for course_id in not_found]
    indexed: Counter[str] = Counter(dict(await tx.indexed()))
    differing = (token for token in sorted(expected.keys() | indexed.keys()) if expected[token] != indexed[token])
    wrong += [
        f"the search index has {indexed[token]} courses with {token}, and should have {expected[token]}"
        for token in islice(differing, MOST)
    ]
    counted = await words.all_counts(tx)
    differing = (word for word in sorted(published.keys() | counted.keys()) if published[word] != counted[word])
    miscounted = [
        f"word {word}: it counts {counted[word]} published courses, but has {published[word]}"
        for word in islice(differing, MOST)
    ]
    return [(says, REINDEX) for says in wrong[:MOST]] + [(says, RECOUNT) for says in miscounted]


_DAMAGED: Final = Remedy("restore a backup, or dump what can still be read (docs/operations.md)")
