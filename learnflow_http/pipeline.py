"""The way of a request: parse, authenticate, limit, use case, repository, encode.

`respond` is that way, step by step. `answer` makes every outcome a reply: errors become the envelope, and every reply
of the API carries the caller's rate limit, whatever its status.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from learnflow_core import pagination
from learnflow_core.access import FAILED_CREDENTIALS, Actor, permit, quotas
from learnflow_core.audit import PROGRAM
from learnflow_core.errors import Code, LearnFlowError, envelope
from learnflow_core.limiter import Decision
from learnflow_core.pagination import Page, Slice
from learnflow_core.ports import Context, Transaction
from learnflow_http import conditional, error_reference, idempotency
from learnflow_http.answers import Answer
from learnflow_http.call import Call
from learnflow_http.errors import RETRY_AFTER_S, STATUS, challenge
from learnflow_http.exchange import ClientDisconnectedError, Exchange, Reply, is_api
from learnflow_http.idempotency import Outcome
from learnflow_http.metrics import Endpoint
from learnflow_http.operations import Operation
from learnflow_http.outgoing import LOGGER, Asked, common, note, rate_limit
from learnflow_http.parsing import check_media_type, parse_body, parse_query
from learnflow_http.services import Services

logger = logging.getLogger(LOGGER)

ANONYMOUS = quotas("starter")
"""What an address may ask for without a credential."""

_NOBODY_WAITED = 499
"""What is noted of a request that was given up before its reply, since its client had gone; never sent."""

Work = Callable[[Exchange], Awaitable[Reply]]


async def respond(services: Services, operation: Operation, exchange: Exchange) -> Reply:
    """Answer one request: the steps in the order of the contract, each of which may refuse."""
    body, raw = None, b""
    if operation.sign_in is not None:
        body, raw = await _body(services, operation, exchange)
        exchange.actor = await operation.sign_in(services, exchange, body)
    else:
        exchange.actor = await _authenticate(services, operation, exchange)
    if callable(operation.cost):
        body, raw = await _body_to_pay_for(services, operation, exchange)
    exchange.decision = await _limit(services, exchange, operation.price(exchange.actor, body))
    if exchange.actor is not None:
        permit(exchange.actor, operation.scope, operation.roles)
    if operation.body is not None and body is None:
        body, raw = await _body(services, operation, exchange)
        exchange.actor = await _still_permitted(services, operation, exchange)
    if operation.shared is not None:
        kept = services.answers.kept(exchange.target, exchange.now_ns)
        if kept is not None:
            services.answers.hits.add()
            return _given(exchange, kept)
    pairs = exchange.query()
    params, query = parse_query(pairs, operation.query)
    filters = _filters(operation, exchange.path, params)
    call = Call(
        actor=exchange.actor,
        path=exchange.scope["path_params"],
        query=query,
        body=body,
        paging=pagination.request(params, filters=filters) if operation.paged else None,
        prepared=await operation.prepare(services, body) if operation.prepare else None,
        login=exchange.login,
        decision=exchange.decision,
        ctx=_context(services, exchange),
    )
    operation = operation.meant_by(query)
    encode = _encoder(operation, exchange, call, pairs, filters)
    if operation.shared is not None and operation.shared(call):
        shared = await _shared(services, operation, exchange, call, encode)
        if shared is not None:
            return _given(exchange, shared)
    try:
        outcome = await _run(services, operation, exchange, call, raw, encode)
    finally:
        if operation.revokes:  # also where it may have been done, and nobody can tell
            services.authenticator.forget()
    return _reply(operation, exchange, outcome)


def _context(services: Services, exchange: Exchange) -> Context:
    """When this is asked, and by whom."""
    actor = exchange.actor
    who = None if actor is None else actor.key_id or actor.user_id
    return Context(exchange.now, services.random_bytes, who or PROGRAM, exchange.request_id, services.now)


async def _authenticate(services: Services, operation: Operation, exchange: Exchange) -> Actor | None:
    actor = await _actor(services, exchange)
    if actor is None and not operation.public:
        raise LearnFlowError(Code.MISSING_TOKEN)
    return actor


async def _actor(services: Services, exchange: Exchange) -> Actor | None:
    credential = exchange.credential()
    return None if credential is None else await services.authenticator.actor(credential, exchange.now)


async def _limit(services: Services, exchange: Exchange, cost: int) -> Decision:
    """Take what the request costs from the caller's quotas, or refuse it; what costs nothing is never refused."""
    exchange.decision = await _take(services, exchange, cost)
    if cost and not exchange.decision.allowed:
        raise LearnFlowError(Code.RATE_LIMIT_EXCEEDED)
    return exchange.decision


async def _take(services: Services, exchange: Exchange, cost: int) -> Decision:
    """What the limiter says to the caller's next request of this cost; at no cost, it is only asked."""
    actor = exchange.actor
    key, of_caller = (exchange.address_key, ANONYMOUS) if actor is None else (actor.account_id, actor.quotas)
    if cost == 0:
        return await services.limiter.peek(key, of_caller)
    return await services.limiter.hit(key, of_caller, cost)


async def _body(services: Services, operation: Operation, exchange: Exchange) -> tuple[Any, bytes]:
    """The body, decoded and as it came; the request happens when it has come."""
    assert operation.body is not None, "only operations that take a body are asked for it"
    check_media_type(exchange.header(b"content-type"))
    raw = await exchange.body(services.bodies)
    exchange.now_ns = services.clock_ns()
    return parse_body(raw, operation.body), raw


async def _body_to_pay_for(services: Services, operation: Operation, exchange: Exchange) -> tuple[Any, bytes]:
    """The body of a request whose cost it decides. Who has no request left, or may not do this at all, is refused
    before it is read; what else is wrong with it is charged as one request."""
    actor = exchange.actor
    assert actor is not None, "what is public costs one"
    decision = await services.limiter.peek(actor.account_id, actor.quotas)
    if not decision.allowed:
        exchange.decision = decision
        raise LearnFlowError(Code.RATE_LIMIT_EXCEEDED)
    permit(actor, operation.scope, operation.roles)
    body, raw = await _body(services, operation, exchange)
    exchange.actor = await _still_permitted(services, operation, exchange)
    return body, raw


async def _still_permitted(services: Services, operation: Operation, exchange: Exchange) -> Actor | None:
    """The actor, looked up again: a body may take long to come, and the credential may have been revoked meanwhile."""
    actor = await _authenticate(services, operation, exchange)
    if actor is not None:
        permit(actor, operation.scope, operation.roles)
    return actor


def _filters(operation: Operation, path: str, params: dict[str, str]) -> dict[str, str]:
    """What a cursor is bound to: the list at this address, under the parameters that it knows."""
    known = operation.query.__struct_fields__ if operation.query else ()
    return {"": path} | {name: params[name] for name in known if name in params}


async def _shared(
    services: Services, operation: Operation, exchange: Exchange, call: Call, encode: Callable[[Any], Outcome]
) -> Answer | None:
    """What everybody is answered; None where it is a refusal, and the caller may be somebody to whom more is shown."""
    anyones = msgspec.structs.replace(call, actor=None)

    async def work(tx: Transaction) -> Outcome:
        return encode(await operation.run(tx, anyones))

    async def read() -> Answer:
        outcome = await services.storage.read(work)
        return Answer.of(operation.path, exchange.path, outcome.body, outcome.link)

    try:
        return await services.answers.get(exchange.target, read)
    except LearnFlowError as refusal:
        if call.actor is None or STATUS[refusal.code] == 503:
            raise
        return None


async def _run(
    services: Services,
    operation: Operation,
    exchange: Exchange,
    call: Call,
    raw: bytes,
    encode: Callable[[Any], Outcome],
) -> Outcome:
    """Run the use case in its transaction, or its transactions, and at most once where an idempotency key asks so."""

    async def in_transaction(tx: Transaction) -> Outcome:
        return encode(await operation.run(tx, call))

    async def saga() -> Outcome:
        return encode(await operation.run(services, call))

    key = _idempotency_key(operation, exchange, call, raw)
    if operation.kind == "saga":
        return await saga() if key is None else await idempotency.once(services.storage, key, saga)
    if operation.kind == "read":
        return await services.storage.read(in_transaction)
    if key is None:
        return await services.storage.write(in_transaction)
    return await idempotency.once_in_transaction(services.storage, key, in_transaction)


def _idempotency_key(operation: Operation, exchange: Exchange, call: Call, raw: bytes) -> idempotency.Key | None:
    text = exchange.header(b"idempotency-key") if operation.idempotent else None
    if text is None:
        return None
    query = exchange.scope["query_string"].decode("latin-1")
    return idempotency.Key.of(
        text,
        caller=call.actor.caller_id,
        request=f"{exchange.method} {exchange.path}?{query}",
        body=raw if operation.body is not None else b"",
        now=call.ctx.now,
    )


def _encoder(
    operation: Operation, exchange: Exchange, call: Call, pairs: list[tuple[str, str]], filters: dict[str, str]
) -> Callable[[Any], Outcome]:
    """How what the use case answers becomes the bytes of a reply."""

    def encode(result: Any) -> Outcome:
        if operation.paged:
            shown, link = _list(result, call.paging, operation.show, exchange.path, pairs, filters)
            body = msgspec.json.encode(shown)
            return Outcome(200, body, body, link)
        shown = operation.show(result)
        status = operation.status if isinstance(operation.status, int) else operation.status(result)
        kept = operation.kept(shown)
        return Outcome(status, msgspec.json.encode(shown), None if kept is None else msgspec.json.encode(kept))

    return encode


def _list(
    found: Slice[Any],
    paging: pagination.Page | pagination.Cursor,
    show: Callable[[Any], Any],
    path: str,
    pairs: list[tuple[str, str]],
    filters: dict[str, str],
) -> tuple[dict[str, Any], str]:
    data = [show(item) for item in found.items]
    if isinstance(paging, Page):
        total = found.total or 0
        meta: dict[str, Any] = pagination.page_meta(paging, total)
        return {"data": data, "meta": meta}, pagination.page_links(path, pairs, paging, total)
    after = found.next_after
    cursor = None if after is None else pagination.encode_cursor(after, filters)
    return {"data": data, "meta": pagination.cursor_meta(cursor)}, pagination.cursor_links(path, pairs, cursor)


def _reply(operation: Operation, exchange: Exchange, outcome: Outcome) -> Reply:
    if operation.method == "GET" and not operation.secret:
        return _given(exchange, Answer.of(operation.path, exchange.path, outcome.body, outcome.link))
    reply = Reply(outcome.status, outcome.body, [(b"content-type", b"application/json")])
    if operation.secret:
        reply.headers.append((b"cache-control", b"no-store"))
        return _marked(reply, replayed=outcome.replayed)
    reply.headers.append((b"cache-control", b"private"))
    return _marked(reply, replayed=outcome.replayed)


def _given(exchange: Exchange, answer: Answer) -> Reply:
    """The answer, unless the client has it already."""
    if conditional.is_not_modified(exchange.header(b"if-none-match"), answer.tag):
        return Reply(304, b"", list(answer.headers))
    return Reply(200, answer.body, list(answer.headers))


def _marked(reply: Reply, *, replayed: bool) -> Reply:
    if replayed:
        reply.headers.append((b"idempotent-replayed", b"true"))
    return reply


async def unrouted(services: Services, exchange: Exchange, error: LearnFlowError) -> Reply:
    """The reply where there is no such address or method: it costs its caller a request, if there is one left, or its
    address a refused credential, and OPTIONS nothing."""
    if is_api(exchange.path) and exchange.method != "OPTIONS":
        exchange.decision = await _charge_unrouted(services, exchange)
    return _error_reply(services, exchange, error)


async def _charge_unrouted(services: Services, exchange: Exchange) -> Decision:
    try:
        exchange.actor = await _actor(services, exchange)
    except LearnFlowError as refusal:  # that there is nothing here is told first
        if STATUS[refusal.code] == 401:
            return await services.limiter.hit(exchange.failed_key, FAILED_CREDENTIALS)
    return await _take(services, exchange, cost=1)


async def answer(
    services: Services,
    scope: Scope,
    receive: Receive,
    send: Send,
    work: Work,
    *,
    endpoint: Endpoint,
    limited: bool = True,
) -> None:
    """Answer one request to `endpoint` with what `work` makes of it; `limited` replies belong to the API and tell of
    its limits."""
    exchange = Exchange(scope, receive, next(services.request_ids), services.clock_ns(), services.trusted_proxies)
    try:
        reply = await work(exchange)
    except (ClientDisconnectedError, asyncio.CancelledError) as left:
        _note(services, endpoint, exchange, _NOBODY_WAITED)
        if isinstance(left, asyncio.CancelledError):
            raise
        return
    except LearnFlowError as error:
        reply = await _refuse(services, exchange, error)
    except Exception:
        logger.exception("internal error", extra={"request_id": exchange.request_id})
        reply = _error_reply(services, exchange, LearnFlowError(Code.INTERNAL_ERROR))
    reply.headers.extend(await _common_headers(services, exchange, reply.status, limited=limited))
    await exchange.send(send, reply)
    _note(services, endpoint, exchange, reply.status)


def _note(services: Services, endpoint: Endpoint, exchange: Exchange, status: int) -> None:
    asked = Asked(
        exchange.request_id,
        exchange.client_request_id,
        exchange.method,
        exchange.path,
        exchange.client,
        exchange.actor,
        exchange.decision,
    )
    took_ns = max(0, services.clock_ns() - exchange.started_ns)
    note(services.metrics, endpoint, asked, status=status, took_ns=took_ns)


async def _refuse(services: Services, exchange: Exchange, error: LearnFlowError) -> Reply:
    """The reply to a refusal. One that came before the limit is charged here, or refused for it: a bad credential to
    the quota of those, anything else to the caller, who is the address where nobody else is known. That we cannot tell
    who is asking is charged to nobody: of many behind one address, each has an account of its own to be charged."""
    if exchange.decision is None and is_api(exchange.path) and STATUS[error.code] != 503:
        if STATUS[error.code] == 401:
            exchange.decision = await services.limiter.hit(exchange.failed_key, FAILED_CREDENTIALS)
        else:
            exchange.decision = await _take(services, exchange, cost=1)
        if not exchange.decision.allowed:
            error = LearnFlowError(Code.RATE_LIMIT_EXCEEDED)
    return _error_reply(services, exchange, error)


def _error_reply(services: Services, exchange: Exchange, error: LearnFlowError) -> Reply:
    status = STATUS[error.code]
    base = services.settings.public_url
    doc_url = f"{base}{error_reference.PATH}#{error.code.value}" if base else None
    body = msgspec.json.encode(envelope(error, exchange.request_id, doc_url=doc_url))
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"private")]
    www_authenticate = challenge(error)
    if www_authenticate is not None:
        headers.append((b"www-authenticate", www_authenticate.encode("ascii")))
    if status == 503:
        headers.append((b"retry-after", b"%d" % (error.retry_after_s or RETRY_AFTER_S)))
    return _marked(Reply(status, body, headers), replayed=isinstance(error, idempotency.ReplayedError))


async def _common_headers(
    services: Services, exchange: Exchange, status: int, *, limited: bool
) -> list[tuple[bytes, bytes]]:
    """What every reply carries: its request id, for whom it is, who may read it, and the caller's rate limit."""
    headers = common(exchange.request_id, exchange.header(b"origin"), services.settings.cors_origins)
    if limited:
        decision = exchange.decision
        if decision is None:
            decision = await services.limiter.peek(exchange.address_key, ANONYMOUS)
        headers.extend(rate_limit(decision, services.clock_ns(), status))
    return headers
