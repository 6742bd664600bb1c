"""The service: who may ask, what was asked before under a key, and what goes wrong."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import stripe

from tests.stripe_service.account import Account, Form, Object, RefusedError
from tests.stripe_service.faults import Fault
from tests.stripe_service.ledger import Ledger
from tests.stripe_service.wire import Listener, Request, Response

SECRET_KEY = "sk_test_localServiceForTests"
WEBHOOK_SECRET = "whsec_localServiceForTests"
INTENTS = "/v1/payment_intents"
SLOW_S = 0.03
LATER_S = 1.1

_ROUTES: dict[tuple[str, str], Callable[[Account, str, Form], Object]] = {
    ("POST", "payment_intents"): lambda account, _, form: account.create_intent(form),
    ("GET", "payment_intents"): lambda account, _, form: account.list_intents(form),
    ("GET", "payment_intents/…"): lambda account, key, _: account.get(key, "payment_intent", "intent"),
    ("POST", "payment_intents/…/cancel"): lambda account, key, _: account.cancel(key),
    ("POST", "refunds"): lambda account, _, form: account.create_refund(form),
    ("POST", "customers"): lambda account, _, form: account.create_customer(form),
    ("GET", "customers/…"): lambda account, key, _: account.get(key, "customer"),
    ("POST", "setup_intents"): lambda account, _, form: account.create_setup(form),
    ("POST", "payment_methods"): lambda account, _, form: account.create_method(form),
    ("GET", "payment_methods/…"): lambda account, key, _: account.retrieve_method(key),
    ("POST", "payment_methods/…/detach"): lambda account, key, _: account.detach(key),
}

Event = tuple[bytes, str]
"""The body of a webhook, and the signature that goes with it."""


class StripeService:
    """An account at Stripe behind a port of this machine.

    `fail` has requests go wrong. `events` are the webhooks that have not been delivered yet: `deliver` posts them, and
    `emitted` is set when there is the first.
    """

    def __init__(self, *, log: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self.ledger = Ledger(log)
        self.account = Account(self.ledger, clock, self._emit)
        self.events: list[Event] = []
        self.emitted = asyncio.Event()
        self.asked: list[Request] = []
        self._replies: dict[str, tuple[Any, Response | None]] = {}
        self._fault: Fault | None = None
        self._failing: tuple[str, int] = ("", 0)
        self._failed: Counter[str] = Counter()
        self._listener = Listener(self._handle)
        self._later: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._listener.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._later:
            task.cancel()
        await self._listener.__aexit__()

    @property
    def url(self) -> str:
        return self._listener.url

    def fail(self, fault: Fault | None, *, path: str = INTENTS, times: int = 1) -> None:
        """Have the first so many POSTs to addresses with this end go wrong in this way, of each payment or, where they
        name none, at each address; None: no more."""
        self._fault, self._failing = fault, (path, times)
        self._failed.clear()

    async def finish(self) -> None:
        """Wait until it has carried out what it was asked for."""
        await asyncio.gather(*self._later)

    def forget_keys(self) -> None:
        """Prune the idempotency keys, as Stripe does after 24 hours."""
        self._replies.clear()

    async def deliver(self, post: Callable[[bytes, str], Awaitable[int]], events: list[Event] | None = None) -> None:
        """Post webhooks, by default those that wait; what is not answered with 200 waits on."""
        due, self.events = self.events if events is None else events, []
        for body, signature in due:
            if await post(body, signature) != 200:
                self.events.append((body, signature))

    def event(self, kind: str, told: Object, secret: str = WEBHOOK_SECRET, signed_at: int | None = None) -> Event:
        """A webhook with its signature."""
        body = json.dumps({"id": f"evt_{len(self.events)}", "object": "event", "type": kind, "data": {"object": told}})
        return body.encode(), stripe.WebhookSignature.generate_signature_header(body, secret, signed_at)

    def _emit(self, kind: str, told: Object) -> None:
        self.events.append(self.event(kind, told))
        self.emitted.set()

    async def _handle(self, request: Request) -> Response:
        self.asked.append(request)
        if request.headers.get("authorization") != f"Bearer {SECRET_KEY}":
            return _error(401, "invalid_request_error", message="Invalid API Key provided")
        fault = self._fault_of(request)
        if fault is None:
            return await self._once(request)
        if fault.done == "before":
            await self._once(request)
        if fault.stored:
            reply = _error(fault.status, "api_error")
            self._replies[request.headers["idempotency-key"]] = (_asked(request), reply)
        if fault.how == "silent":
            if fault.done == "later":
                task = asyncio.create_task(self._carry_out_later(request))
                self._later.add(task)
            await asyncio.sleep(3_600)  # until the client has gone
        return await self._gone_wrong(request, fault)

    async def _gone_wrong(self, request: Request, fault: Fault) -> Response:
        if fault.how == "slow":
            await asyncio.sleep(SLOW_S)
            return await self._once(request)
        if fault.how == "reset":
            return Response(0, b"", broken_off=True)
        if fault.how == "garbage":
            return Response(200, b'{"id": "pi_')
        code = {409: "idempotency_key_in_use", 429: "rate_limit"}.get(fault.status)
        return _error(fault.status, "api_error" if fault.status >= 500 else "invalid_request_error", code=code)

    async def _carry_out_later(self, request: Request) -> None:
        key = request.headers["idempotency-key"]
        if key in self._replies:
            return
        self._replies[key] = (_asked(request), None)
        await asyncio.sleep(LATER_S)
        del self._replies[key]
        await self._once(request)

    def _fault_of(self, request: Request) -> Fault | None:
        path, times = self._failing
        if self._fault is None or request.method != "POST" or not request.path.endswith(path):
            return None
        whose = request.form.get("metadata[learnflow_payment]", request.path)
        self._failed[whose] += 1
        return self._fault if self._failed[whose] <= times else None

    async def _once(self, request: Request) -> Response:
        """The reply under the request's key: that of the first request, if its work had begun."""
        key = request.headers.get("idempotency-key") if request.method == "POST" else None
        if key is None:
            return self._answer(request)[0]
        asked, reply = self._replies.get(key, (_asked(request), None))
        if asked != _asked(request):
            return _error(400, "idempotency_error")
        if reply is not None:
            replayed = copy.deepcopy(reply)
            replayed.headers["Idempotent-Replayed"] = "true"
            return replayed
        if key in self._replies:
            return _error(409, "invalid_request_error", code="idempotency_key_in_use")
        self._replies[key] = (asked, None)
        await asyncio.sleep(0)  # others may ask meanwhile
        reply, begun = self._answer(request)
        if begun:
            self._replies[key] = (asked, reply)
        else:
            del self._replies[key]
        return reply

    def _answer(self, request: Request) -> tuple[Response, bool]:
        """The reply, and whether the work had begun."""
        try:
            return Response(200, copy.deepcopy(self._route(request))), True
        except RefusedError as refusal:
            return Response(refusal.status, copy.deepcopy(refusal.body)), refusal.begun

    def _route(self, request: Request) -> Object:
        """Do what is asked for; an id in the path is the second of its parts."""
        parts = request.path.removeprefix("/v1/").split("/")
        object_id = "".join(parts[1:2])
        parts[1:2] = ["…"] if object_id else []
        handler = _ROUTES.get((request.method, "/".join(parts)))
        if handler is None:
            raise RefusedError(404, "invalid_request_error", begun=False)
        return handler(self.account, object_id, request.form)


def _asked(request: Request) -> tuple[str, dict[str, str]]:
    return request.path, request.form


def _error(status: int, kind: str, **facts: Any) -> Response:
    return Response(status, {"error": {"type": kind, "message": "as the test wants it", **facts}})
