"""What the core asks of the world: a storage, a payment gateway, the time, and chance.

**Storage.** `read` and `write` run a piece of work, a function of one `Transaction`, and answer what it returned. A
write is durable when `write` returns, and undone whole when the work raises. The work awaits nothing but its
transaction and has no other effect, because a backend may run it on a thread of its own, together with others in one
commit, or a second time after a conflict. A caller that is cancelled meanwhile leaves no transaction open; a write
already under way completes.

Every method may raise `LearnFlowError(service_unavailable)` when the database cannot be used now. What the schema may
refuse for a reason of the business is never an exception: those methods answer whether they did it. What only a defect
can ask for is an exception of the backend's own, and undoes the work: a second record under one id, an enrolment that
is not of its user's account and mode, a second certificate of an enrolment, a second entry of one movement, a seat or a
licence given back that nobody took, a deleted user who keeps anything personal.

A read sees one snapshot, and writes are as if one came after the other. Lists come in a total order whose ties end at
the id, the same on every backend: text compares by code point. Pages count (`Slice.total`), cursors do not and say
where to go on (`Slice.next_after`). Where a list is asked for what was `updated_since` an instant, that or later, its
order is that of the changes (`updated_at`), the earliest first: what changes during a walk is met again at its end, and
nothing is missed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Literal, Protocol, TypeVar

import msgspec

from learnflow_core.audit import PROGRAM, AuditRow, Event
from learnflow_core.errors import Code
from learnflow_core.ids import new_id
from learnflow_core.ledger import Balance, Entry
from learnflow_core.model import (
    Account,
    ApiKey,
    Category,
    Certificate,
    Course,
    CourseStatus,
    CourseSummary,
    Enrollment,
    EnrollmentStatus,
    Instant,
    Level,
    Mode,
    Payment,
    PaymentMethod,
    RefreshToken,
    Reply,
    SandboxCharge,
    TokenFamily,
    User,
)
from learnflow_core.pagination import Cursor, Page, Slice
from learnflow_core.search import SearchQuery

T = TypeVar("T")
Paging = Page | Cursor


class Context(msgspec.Struct, frozen=True):
    """The instant at which a use case happens, and the randomness it may draw: arguments, so that a test holds both.

    `actor` and `request_id` are what the audit says of who asked (`learnflow_core.audit.AuditRow`). `clock` tells the
    time to what goes on after it has waited for somebody else, as for a payment service; without one, no time passes.
    """

    now: Instant
    random_bytes: Callable[[int], bytes]
    actor: str = PROGRAM
    request_id: str | None = None
    clock: Callable[[], Instant] | None = None

    def later(self) -> Context:
        """The same at the instant that it is by now, which is never before this one."""
        if self.clock is None:
            return self
        return msgspec.structs.replace(self, now=max(self.now, self.clock()))

    def new_id(self, prefix: str) -> str:
        """A new id with this prefix (`learnflow_core.ids`)."""
        return new_id(prefix, self.random_bytes)

    def event(self, event: Event, object_id: str, account_id: str | None, detail: str | None = None) -> AuditRow:
        """The row of the audit that says what happens now, to be added by `Transaction.audit`."""
        return AuditRow(self.new_id("aud"), self.now, event, object_id, account_id, self.actor, self.request_id, detail)


CourseSort = Literal["relevance", "popular", "newest", "rating", "price", "-price"]


class CourseQuery(msgspec.Struct, frozen=True):
    """Which courses a list shows, and in what order.

    `account_id` null: every account's. `relevance` needs `search`: courses whose title holds every word come first,
    then the others, each part by popularity. `popular` and `newest` and `rating` fall, `price` rises, `-price` falls.
    """

    sort: CourseSort
    search: SearchQuery | None = None
    category: str | None = None
    level: Level | None = None
    status: CourseStatus = "published"
    account_id: str | None = None
    updated_since: Instant | None = None


class EnrollmentQuery(msgspec.Struct, frozen=True):
    """Which enrolments a list shows, the latest first (`enrolled_at`).

    Within `mode`: those of the account's users, or (`seen_by`) a user's own and those in the courses the user created.
    `status` is as of `now`: an active one whose access is over counts as expired.
    """

    mode: Mode
    account_id: str | None = None
    seen_by: str | None = None
    user_id: str | None = None
    course_id: str | None = None
    status: EnrollmentStatus | None = None
    updated_since: Instant | None = None
    now: Instant = 0


class CertificateQuery(msgspec.Struct, frozen=True):
    """Which certificates a list shows, the latest first (`issued_at`); visibility as in `EnrollmentQuery`."""

    mode: Mode
    account_id: str | None = None
    seen_by: str | None = None
    user_id: str | None = None
    course_id: str | None = None
    updated_since: Instant | None = None


class Accounts(Protocol):
    """Accounts, and the licences that an Enterprise account's enrolments hold."""

    async def add(self, account: Account) -> None:
        """Keep a new account."""

    async def get(self, account_id: str) -> Account | None:
        """The account with this id."""

    async def put(self, account: Account) -> None:
        """Replace name, plan, rate, licences and suspension of the account with this id."""

    async def list(self, paging: Paging) -> Slice[Account]:
        """All accounts, the oldest first."""

    async def licenses_taken(self, account_id: str, mode: Mode) -> int:
        """How many live enrolments hold a licence."""

    async def take_license(self, account_id: str, mode: Mode) -> bool:
        """Take one licence, unless all are in use (then False, and nothing changes)."""

    async def return_license(self, account_id: str, mode: Mode) -> None:
        """Give one licence back."""


class ApiKeys(Protocol):
    """API keys, found by the digest of their secret."""

    async def add(self, key: ApiKey) -> None:
        """Keep a new key."""

    async def get(self, key_id: str) -> ApiKey | None:
        """The key with this id."""

    async def by_digest(self, digest: str) -> tuple[ApiKey, Account] | None:
        """The key whose secret has this digest, with its account; expired and revoked ones too."""

    async def put(self, key: ApiKey) -> None:
        """Replace name, expiry and revocation of the key with this id."""

    async def list(
        self, account_id: str, mode: Mode | None, paging: Paging, updated_since: Instant | None = None
    ) -> Slice[ApiKey]:
        """The account's keys, the newest first; those of one mode where one is given."""

    async def touch(self, used: Sequence[tuple[str, Instant]]) -> None:
        """Note when keys were last used; an earlier instant never replaces a later one."""


class Users(Protocol):
    """People. Emails are compared by their folded form (`learnflow_core.model.fold_email`)."""

    async def add(self, user: User) -> bool:
        """Keep a new user; False when the email or the external id is another's, in this account and mode."""

    async def get(self, user_id: str) -> User | None:
        """The user with this id; deleted ones too."""

    async def put(self, user: User) -> bool:
        """Replace the user with this id; False when the email or the external id is another's. A deleted user's are
        free."""

    async def by_email(self, folded_email: str, mode: Mode, account_id: str | None) -> Sequence[User]:
        """The users who sign in with this email: at most one in each account, and two are enough to tell."""

    async def list(
        self, account_id: str, mode: Mode, paging: Paging, updated_since: Instant | None = None
    ) -> Slice[User]:
        """The account's users, the newest first; who was deleted is shown among changes only."""


class Courses(Protocol):
    """The catalogue, its search index and its categories."""

    async def add(self, course: Course) -> bool:
        """Keep a new course; False when its external id is another's in the account."""

    async def add_all(self, courses: Sequence[Course]) -> None:
        """Keep many new courses; the caller knows that their external ids are nobody else's in their accounts."""

    async def get(self, course_id: str) -> Course | None:
        """The course with this id, whatever its status."""

    async def outline(self, course_id: str) -> Course | None:
        """The same without its long texts, which take most of the time: no `description`, nothing in `curriculum`."""

    async def by_external_ids(self, account_id: str, external_ids: Collection[str]) -> Mapping[str, Course]:
        """The account's courses that have one of these external ids, by it."""

    async def put(self, course: Course) -> bool:
        """Replace the course with this id, its place in the index and the counts of its category."""

    async def list(self, query: CourseQuery, paging: Paging) -> Slice[CourseSummary]:
        """The courses a query names, in its order."""

    async def known(self, course_ids: Collection[str]) -> frozenset[str]:
        """Those of the ids that are courses."""

    async def categories(self, paging: Paging) -> Slice[Category]:
        """Every category that has a published course, by slug."""

    async def name_category(self, slug: str, name: str) -> None:
        """Give a category its name, unless it has one."""

    async def seats_taken(self, course_id: str, mode: Mode) -> int:
        """How many live enrolments hold a seat."""

    async def take_seat(self, course_id: str, mode: Mode) -> bool:
        """Take one seat, unless all are taken (then False, and nothing changes). Exact under any concurrency."""

    async def free_seat(self, course_id: str, mode: Mode) -> None:
        """Give one seat back."""

    async def version(self) -> int:
        """A number that every change of what lists of published courses, their own pages and categories show makes
        another one: answers about these that were read under the same version are the same."""

    async def settle(self, limit: int) -> int:
        """Bring `total_students` of at most `limit` courses up to date with their enrolments; how many it did.

        Fewer than the limit, but at least one, where the courses' texts are long.
        """

    async def uncounted(self, limit: int) -> int:
        """How many notes of changes wait to be counted (`Storage.tally`), where that is put off: a measure of how much
        lists are slowed down. Counts some `limit` of them and stops."""

    async def survey(self) -> None:
        """Look at how large the catalogue has become, where lists and searches take the quickest way by that; worth its
        seconds after many courses were added."""


class Enrollments(Protocol):
    """Enrolments; at most one live one for a user in a course."""

    async def add(self, enrollment: Enrollment) -> bool:
        """Keep a new enrolment; False when the user has a live one in the course."""

    async def get(self, enrollment_id: str) -> Enrollment | None:
        """The enrolment with this id."""

    async def live(self, user_id: str, course_id: str) -> Enrollment | None:
        """The user's pending, active or completed enrolment in the course."""

    async def put(self, enrollment: Enrollment) -> None:
        """Replace status, progress, payment, certificate and instants of the enrolment with this id."""

    async def completed(self, user_id: str, course_ids: Collection[str]) -> frozenset[str]:
        """Those of the courses that the user has completed."""

    async def list(self, query: EnrollmentQuery, paging: Paging) -> Slice[Enrollment]:
        """The enrolments a query names."""

    async def live_of_user(self, user_id: str) -> Sequence[Enrollment]:
        """Every live enrolment of a user."""

    async def overdue(self, now: Instant, limit: int, course_id: str | None = None) -> Sequence[Enrollment]:
        """Active enrolments whose access is over, those that were over first before the others; of one course, where
        one is given."""


class Payments(Protocol):
    """What was charged, refused and refunded, and the methods it was paid with."""

    async def add(self, payment: Payment) -> None:
        """Keep a new payment."""

    async def get(self, payment_id: str) -> Payment | None:
        """The payment with this id."""

    async def put(self, payment: Payment) -> None:
        """Replace the status of the payment with this id, and when it is due."""

    async def claim(self, now: Instant, limit: int, *, until: Instant) -> Sequence[Payment]:
        """Take up at most `limit` payments that are due, those that were tried least often first.

        Each is due again at `until`; before that nobody else is given it, however many ask at once. What is due more
        than three times as far from now as `until` is due now: a clock that was ahead has put it off.
        """

    async def unresolved(self, before: Instant, limit: int) -> int:
        """How many payments have been unresolved since before an instant; counted up to `limit`."""

    async def add_method(self, method: PaymentMethod) -> None:
        """Keep a new payment method."""

    async def method(self, method_id: str) -> PaymentMethod | None:
        """The payment method with this id; deleted ones too."""

    async def method_with(self, user_id: str, token: str) -> PaymentMethod | None:
        """The user's method, not deleted, that has this token; the oldest if there are several."""

    async def put_method(self, method: PaymentMethod) -> None:
        """Replace when the method with this id was deleted and forgotten."""

    async def delete_methods(self, user_id: str, now: Instant) -> None:
        """Delete every method of a user."""

    async def unforgotten(self, limit: int) -> Sequence[PaymentMethod]:
        """Methods that were deleted, and that the payment service has not forgotten yet; the first deleted first."""

    async def methods(self, user_id: str, paging: Paging) -> Slice[PaymentMethod]:
        """A user's methods that are not deleted, the newest first."""


class Certificates(Protocol):
    """Certificates; one for an enrolment."""

    async def add(self, certificate: Certificate) -> None:
        """Keep a new certificate."""

    async def get(self, certificate_id: str) -> Certificate | None:
        """The certificate with this id."""

    async def put(self, certificate: Certificate) -> None:
        """Replace recipient and revocation of the certificate with this id."""

    async def list(self, query: CertificateQuery, paging: Paging) -> Slice[Certificate]:
        """The certificates a query names."""

    async def erase_recipient(self, user_id: str, now: Instant) -> None:
        """Take the person's name off every certificate of the user."""


class Session(msgspec.Struct, frozen=True):
    """All that decides whether a token is still good: its family, its user, their account, its own revocation."""

    family: TokenFamily
    user: User
    account: Account
    token_revoked: bool


class Tokens(Protocol):
    """Families of tokens, single tokens revoked before their time, and the chain of rotated refresh tokens."""

    async def add_family(self, family: TokenFamily) -> None:
        """Keep a new family."""

    async def session(self, family_id: str, token_id: str) -> Session | None:
        """What a token of the family depends on."""

    async def extend_family(self, family_id: str, expires_at: Instant) -> None:
        """Let a family live longer."""

    async def revoke_family(self, family_id: str, now: Instant) -> bool:
        """End a family; False when it has ended before."""

    async def revoke_of_user(self, user_id: str, now: Instant) -> None:
        """End every family of a user."""

    async def revoke_of_key(self, key_id: str, now: Instant) -> None:
        """End every family that a key minted."""

    async def revoke_token(self, token_id: str, expires_at: Instant) -> bool:
        """End one token; remembered until it would have expired. False when it has ended before."""

    async def refresh_token(self, token_id: str) -> RefreshToken | None:
        """What rotation knows of a refresh token."""

    async def put_refresh_token(self, token: RefreshToken) -> None:
        """Keep, or replace, what rotation knows of a refresh token."""


class Replies(Protocol):
    """Replies kept under an idempotency key, each for one caller and one operation (`scope`)."""

    async def get(self, scope: str, key: str) -> Reply | None:
        """The reply under the key."""

    async def put(self, scope: str, key: str, reply: Reply) -> None:
        """Keep, or replace, the reply under the key."""

    async def drop(self, scope: str, key: str) -> None:
        """Forget the reply under the key."""

    async def drop_naming(self, record_id: str) -> None:
        """Forget every reply whose body names this id."""


class Ledger(Protocol):
    """Movements of money (`learnflow_core.ledger`), which are added and never changed: one of a kind for a payment."""

    async def add(self, entries: Sequence[Entry]) -> None:
        """Keep entries, at the latest when the transaction commits."""

    async def of(self, record_id: str) -> Sequence[Entry]:
        """The entries of the payment, or of the payments for the enrolment, that has this id, in their order."""

    async def balances(self, mode: Mode, account_id: str | None) -> Sequence[Balance]:
        """What each account of the ledger was debited and credited: of one publishing account, or of all, by its id,
        then the currency. An account of the ledger that nothing moved is left out."""


class AuditQuery(msgspec.Struct, frozen=True):
    """Which rows of the audit a list shows, the latest first."""

    object_id: str | None = None
    account_id: str | None = None
    since: Instant | None = None


class Audit(Protocol):
    """What happened (`learnflow_core.audit`): rows are added and never changed."""

    async def add(self, row: AuditRow) -> None:
        """Keep a row, at the latest when the transaction commits."""

    async def list(self, query: AuditQuery, paging: Paging) -> Slice[AuditRow]:
        """The rows a query names."""

    async def purge(self, before: Instant, limit: int) -> int:
        """Let go of rows from before an instant, the oldest first and at most `limit`; how many there were."""


class SandboxCharges(Protocol):
    """The sandbox payment service's own record of what it was asked, by idempotency key."""

    async def add(self, charge: SandboxCharge) -> SandboxCharge:
        """Keep what the first request under a key was answered; return what is kept, the first one's."""


class Transaction(Protocol):
    """One transaction, in groups of the domain's words."""

    accounts: Accounts
    api_keys: ApiKeys
    users: Users
    courses: Courses
    enrollments: Enrollments
    payments: Payments
    certificates: Certificates
    tokens: Tokens
    replies: Replies
    ledger: Ledger
    audit: Audit
    sandbox_charges: SandboxCharges

    async def alone(self) -> None:
        """Called by work that was given with a subject, before it does what other subjects' works may do too other than
        by a guarded change: from here on nothing of others comes between its statements, if need be by a new start."""

    async def lead(self, name: str, now: Instant, until: Instant) -> bool:
        """Whether the process of this name is the one that does what is done for all processes, until then: because it
        was before, or nobody is any more. A time that is more than twice as far from now as
        this process asks for was told by a clock that is ahead, and counts for nothing."""

    async def purge(self, now: Instant) -> None:
        """Forget what time has made worthless: expired families and revocations, replies older than 24 hours."""


Work = Callable[[Transaction], Awaitable[T]]


class Finding(msgspec.Struct, frozen=True):
    """Something that is wrong: `says` tells what, and `remedy` what `Storage.repair` does about it where it is
    `repairable`, else what a person has to do."""

    says: str
    remedy: str
    repairable: bool


class Storage(Protocol):
    """A backend; see the top of this module for what it promises."""

    async def read(self, work: Work[T]) -> T:
        """Run work that changes nothing, on one snapshot."""

    async def write(self, work: Work[T], *, subject: str | None = None, snapshot: bool = False) -> T:
        """Run work that changes something; what it returns is answered once it is durable.

        It is as if it were alone. With `snapshot` it may miss what others change meanwhile of what it reads and does
        not write: for work that needs no more, and would be undone for it again and again.

        With a `subject` (a text that names whose business it is) it may share a transaction with such works of other
        subjects, which is quicker where many write, and their statements may then come between its own: it must decide
        by what only works of its subject, or works without one, change, and by changes that are guarded (`take_seat`,
        `take_license`, `add`). See `Transaction.alone`. Nobody gives both.
        """

    async def tally(self) -> bool:
        """Count some of what has changed in the catalogue, where that is put off and has become much, in a write that
        holds up no others; whether it did, and there may be more. Lists and totals are exact at any time, and slower
        the more there is. One process does it at a time (`Transaction.lead`), or several undo each other."""

    def watch_catalogue(self, changed: Callable[[], None]) -> None:
        """From now on, call `changed` in the event loop when a write through this storage has given the catalogue
        another version, before its caller is answered; also when that may have happened and is not known. A caller
        that is cancelled is not answered, and what its write then does is told to nobody. The one given last is
        called."""

    async def check(self) -> Sequence[Finding]:
        """What is wrong: damage to the database, and books that do not agree (seats, licences, payments, certificates,
        the ledger, the audit, counts, the search index). Reads everything, however long that takes, in snapshots that
        keep nobody from writing; of each kind of finding, at most 100 are told."""

    async def repair(self, ctx: Context) -> Sequence[Finding]:
        """Put right every finding that is `repairable`, each in a transaction of its own that the audit tells of; what
        was repaired. No repair moves money, or takes a place from somebody whose money is not being given back."""

    async def close(self) -> None:
        """Finish what is under way and let go of the database."""


class PaymentGateway(Protocol):
    """A payment service.

    What it is asked about a payment follows from the payment alone, and `payment.id` is the idempotency key: asking
    again, at any time and by several at once, never pays twice, and means the same question.

    Every method raises `LearnFlowError(service_unavailable)` when the outcome is not known; ask again later.
    """

    builtin_methods: Mapping[str, str]
    """Payment methods that every user has without adding them, with their tokens (a sandbox's test cards)."""

    async def keep(self, token: str, user: User) -> str:
        """Have the service keep a means of payment for this user, so that it can be charged when the user is away.
        Returns the token to charge it by. The same token of the same user may come again, and is answered the same.

        Raises `invalid_payment_method` for a token that is none of the service's or is somebody else's, and
        `card_declined`, `insufficient_funds` or `authentication_required` when the bank refuses: the last with what the
        client needs to have its user authenticate, in `details`, after which the token can be sent again."""

    async def forget(self, token: str) -> None:
        """Have the service let go of a means of payment that it kept; one it does not have is fine."""

    async def charge(self, payment: Payment) -> Code | None:
        """Charge `payment.amount` to `payment.token`, or find out what became of that: None when it is paid.

        A code says that it is not paid and never will be: `card_declined`, `insufficient_funds`,
        `authentication_required`, `invalid_payment_method`; `course_not_available` when the service does not take such
        an amount; `service_unavailable` when it was not reached in the time in which it may be asked to charge
        (`payment.created_at` begins it)."""

    async def refund(self, payment: Payment) -> None:
        """Give the whole amount back, once: returns when that is decided at the service, or had been before.

        What the service will never give back is no longer asked for either, as money that a dispute has taken back: it
        returns then too, and tells its operator where anything is left to be done."""


class PaymentNews(msgspec.Struct, frozen=True):
    """What a payment service tells by itself of one payment. It may come late, twice, and in any order.

    `changed`: something became of it, ask what. `paid`: the money has come in. `returned`: the money went back to the
    payer, all of it. `disputed`: the payer asked the bank for the money back; `kept`: in vain. `not_returned`: a refund
    has failed.
    """

    payment_id: str
    kind: Literal["changed", "paid", "returned", "disputed", "kept", "not_returned"]


class PaymentNewsReader(Protocol):
    """Reads what a payment service posts to us."""

    async def read(self, body: bytes, signature: str) -> PaymentNews | None:
        """The news in a message that bears the service's signature; None where there is nothing for us in it.

        Raises `invalid_request` for a message that the service did not sign, or long ago; `service_unavailable` when
        the service has to be asked what it means and does not answer."""
