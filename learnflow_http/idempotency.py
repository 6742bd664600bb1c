"""`Idempotency-Key`: one effect for one key, and the first reply again for every repetition.

What is kept belongs to a caller, a method, a path and a query. An operation of one transaction keeps its reply in
that same transaction, so there is no instant at which the effect is there and the reply is not. A saga claims the
key first, and renews its claim as long as it runs; a second request meanwhile waits for the reply, and carries on in
the place of one that crashed. A refusal of the use case is kept like a success; what failed before or beside the use
case (a shape, a credential, a limit, our own failure) is not.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import msgspec

from learnflow_core.errors import Code, LearnFlowError
from learnflow_core.model import SECOND, Instant, Reply
from learnflow_core.ports import Storage, Transaction
from learnflow_http.errors import STATUS

WAIT_S = 30.0
POLL_S = 0.05
CLAIM_LIFETIME: Instant = 10 * SECOND
"""How long a claim is believed: when it has not been renewed for so long, whoever made it has crashed."""
RENEWED_EVERY: Instant = 3 * SECOND

CORRECTABLE = frozenset({Code.INVALID_PARAMETER, Code.MISSING_PARAMETER, Code.IDEMPOTENCY_KEY_REUSED})
"""Refusals that say how the request is to be written, whoever found it: the corrected one may come under the key."""

FOR_ITS_CLIENT = "client_secret"
"""A detail by which a client does what is asked of it, and then sends its request again: nobody else is to have it, and
the answer will be another."""

RUNNING = 0
"""The status of a claim: the first request is still being worked on."""


class Outcome(msgspec.Struct, frozen=True):
    """What a use case came to: the reply's status and body, what to keep of the body (None: the reply is not kept), and
    the headers of a list."""

    status: int
    body: bytes
    kept: bytes | None
    link: str = ""
    replayed: bool = False


class ReplayedError(LearnFlowError):
    """The refusal that the first request under a key met."""


class Key(msgspec.Struct, frozen=True):
    """A key in its scope, with the fingerprint of the body that came with it."""

    scope: str
    key: str
    fingerprint: str
    now: Instant

    @classmethod
    def of(cls, key: str, *, caller: str, request: str, body: bytes, now: Instant) -> Key:
        """The key as it is kept; `invalid_parameter` when it is not 1-255 printable ASCII characters."""
        if not (1 <= len(key) <= 255 and key.isascii() and key.isprintable()):
            raise LearnFlowError(
                Code.INVALID_PARAMETER,
                "Idempotency-Key must be 1 to 255 printable ASCII characters.",
                param="Idempotency-Key",
            )
        scope = hashlib.sha256(f"{caller}\0{request}".encode()).hexdigest()
        return cls(scope, key, hashlib.sha256(_canonical(body)).hexdigest(), now)

    @property
    def subject(self) -> str:
        """Whose business works under the key are."""
        return f"{self.scope} {self.key}"

    def later(self, seconds: float) -> Key:
        """The key as somebody shows it who has waited for so long."""
        return msgspec.structs.replace(self, now=self.now + round(seconds * SECOND))

    def reply(self, status: int, body: bytes) -> Reply:
        """What is kept under the key."""
        return Reply(fingerprint=self.fingerprint, status=status, body=body, claimed_at=self.now)


async def once_in_transaction(storage: Storage, key: Key, run: Callable[[Transaction], Awaitable[Outcome]]) -> Outcome:
    """Run a use case of one transaction at most once under a key."""

    async def work(tx: Transaction) -> Outcome:
        kept = await tx.replies.get(key.scope, key.key)
        if kept is not None:
            return _replay(key, kept)
        outcome = await run(tx)
        if outcome.kept is not None:
            await tx.replies.put(key.scope, key.key, key.reply(outcome.status, outcome.kept))
        return outcome

    try:
        return await storage.write(work)
    except ReplayedError:
        raise
    except LearnFlowError as refusal:
        return await _refused(storage, key, refusal)


async def once(storage: Storage, key: Key, run: Callable[[], Awaitable[Outcome]]) -> Outcome:
    """Run a saga at most once under a key; `service_unavailable` when the first run takes longer than 30 seconds.

    One whose process crashed is run again, which finds and carries on what that one began.
    """
    kept = await _claim(storage, key)
    if kept is not None:
        return _replay(key, kept)
    try:
        with _renewed(storage, key):
            outcome = await run()
    except LearnFlowError as refusal:
        return await _refused(storage, key, refusal)
    except BaseException:
        await asyncio.shield(_keep(storage, key, None))
        raise
    reply = None if outcome.kept is None else key.reply(outcome.status, outcome.kept)
    other = await _keep(storage, key, reply)
    return outcome if other is None else _replay(key, other)


async def _claim(storage: Storage, key: Key) -> Reply | None:
    """Claim the key, or wait for the reply of whoever has; None when it is ours. Waiting only reads."""

    async def look(tx: Transaction) -> Reply | None:
        return await tx.replies.get(key.scope, key.key)

    async def claim(tx: Transaction) -> Reply | None:
        kept = await look(tx)
        if kept is None or _is_abandoned(key, kept):
            await tx.replies.put(key.scope, key.key, key.reply(RUNNING, b""))
            return None
        return kept

    kept = await storage.write(claim, subject=key.subject)
    for _ in range(round(WAIT_S / POLL_S)):
        if kept is None or kept.status != RUNNING:
            return kept
        _check_same_body(key, kept)
        await asyncio.sleep(POLL_S)
        key = key.later(POLL_S)
        kept = await storage.read(look)
        if kept is None or _is_abandoned(key, kept):
            kept = await storage.write(claim, subject=key.subject)
    raise LearnFlowError(Code.SERVICE_UNAVAILABLE, "The first request with this key is still running.", retry_after_s=1)


def _is_abandoned(key: Key, kept: Reply) -> bool:
    """Whether what is kept is the claim of somebody who has crashed while at the same request."""
    return (
        kept.status == RUNNING and kept.claimed_at <= key.now - CLAIM_LIFETIME and kept.fingerprint == key.fingerprint
    )


@contextmanager
def _renewed(storage: Storage, key: Key) -> Iterator[None]:
    """Renew the claim for as long as this lasts, so that nobody takes it for abandoned."""
    loop, tasks = asyncio.get_running_loop(), list[asyncio.Task[None]]()
    timer = loop.call_later(RENEWED_EVERY / SECOND, lambda: tasks.append(loop.create_task(_renew(storage, key))))
    try:
        yield
    finally:
        timer.cancel()
        for task in tasks:
            task.cancel()


async def _renew(storage: Storage, key: Key) -> None:
    async def work(tx: Transaction, passed: Instant) -> None:
        claim = await tx.replies.get(key.scope, key.key)
        if claim is not None and claim.status == RUNNING:
            renewed = msgspec.structs.replace(claim, claimed_at=claim.claimed_at + passed)
            await tx.replies.put(key.scope, key.key, renewed)

    clock = asyncio.get_running_loop().time
    renewed_at = clock() - RENEWED_EVERY / SECOND
    while True:
        now = clock()  # a write may take long, and one in vain is made up for by the next
        with suppress(LearnFlowError):  # it is tried again, and if that is in vain too, this one is taken for crashed
            await storage.write(partial(work, passed=round((now - renewed_at) * SECOND)), subject=key.subject)
            renewed_at = now
        await asyncio.sleep(RENEWED_EVERY / SECOND)


def _replay(key: Key, kept: Reply) -> Outcome:
    _check_same_body(key, kept)
    if kept.status >= 400:
        error: dict[str, Any] = msgspec.json.decode(kept.body)
        raise ReplayedError(Code(error["code"]), error["message"], param=error["param"], details=error["details"])
    return Outcome(kept.status, kept.body, kept.body, replayed=True)


def _check_same_body(key: Key, kept: Reply) -> None:
    if kept.fingerprint != key.fingerprint:
        raise LearnFlowError(Code.IDEMPOTENCY_KEY_REUSED, param="Idempotency-Key")


async def _refused(storage: Storage, key: Key, refusal: LearnFlowError) -> Outcome:
    """Raise the refusal, after it was kept if it is the use case's own; answer a reply that was kept meanwhile."""
    error = {
        "code": refusal.code.value,
        "message": refusal.message,
        "param": refusal.param,
        "details": refusal.details,
    }
    reply = key.reply(STATUS[refusal.code], msgspec.json.encode(error))
    is_kept = reply.status in (400, 403, 404) and refusal.code not in CORRECTABLE
    is_kept = is_kept and FOR_ITS_CLIENT not in (refusal.details or {})
    other = await _keep(storage, key, reply if is_kept else None)
    if other is None:
        raise refusal
    return _replay(key, other)


async def _keep(storage: Storage, key: Key, reply: Reply | None) -> Reply | None:
    """Keep a reply, or without one let go of the key; what it does not replace is the reply that was kept meanwhile."""

    async def work(tx: Transaction) -> Reply | None:
        there = await tx.replies.get(key.scope, key.key)
        if there is not None and there.status != RUNNING:
            return there
        if reply is not None:
            await tx.replies.put(key.scope, key.key, reply)
        elif there is not None:
            await tx.replies.drop(key.scope, key.key)
        return None

    return await storage.write(work, subject=key.subject)


def _canonical(body: bytes) -> bytes:
    """A JSON text in one form: keys sorted, whole numbers without a fraction, nothing as the object without fields.

    One with a number that is beyond all measure stays as it is: it is about to be refused.
    """
    try:
        return msgspec.json.encode(_NUMBERS.decode(body or b"{}"), order="sorted")
    except (msgspec.DecodeError, OverflowError, RecursionError):
        return body


def _number(text: str) -> int | float:
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


_NUMBERS = msgspec.json.Decoder(float_hook=_number)
