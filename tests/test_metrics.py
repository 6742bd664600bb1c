"""Metrics: true figures, of all workers together, for who has the token, and no label that clients can make."""

from __future__ import annotations

import asyncio
import hmac
import http.client
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from learnflow_core.errors import Code, LearnFlowError
from learnflow_http import metrics_page
from learnflow_http.counting import watch_connections, watch_store
from learnflow_http.metrics import CLASSES, OTHER, Endpoint, Metrics
from learnflow_http.routes import UNKNOWN
from storage_backends.driver import Connections
from storage_backends.repository.uncounted import ENOUGH
from storage_backends.valkey import AsyncValkeyLimiter
from storage_backends.valkey.health import Counts
from tests.asgi import raw
from tests.fleet import Connection, Fleet, workers
from tests.school import school_on, told
from tests.servers import Valkey
from tests.terminal import Operator, wait_until
from tests.world import World, open_world

TOKEN = "the-token-of-the-one-who-watches"

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with open_world(metrics_token=TOKEN) as world:
        yield world


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A server that a test may stop."""
    with Valkey() as server:
        yield server


def parsed(text: str) -> Figures:
    """Every sample, as the library of Prometheus reads it."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    figures = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    assert len(figures) == len(samples)
    return figures


def of(figures: Figures, name: str, **labels: str) -> float | None:
    return figures.get((f"learnflow_{name}", frozenset(labels.items())))


async def figures(world: World) -> Figures:
    reply = await world.ask("GET", "/metrics", TOKEN)
    assert reply.status_code == 200
    assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parsed(reply.text)


# --- Who may read them


async def test_without_the_setting_there_is_no_such_page() -> None:
    async with open_world() as world:
        assert told(await world.ask("GET", "/metrics")) == (404, "not_found")
        assert told(await world.ask("GET", "/metrics", TOKEN)) == (404, "not_found")


@pytest.mark.parametrize("credential", [None, "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "sk_live_wrong"])
async def test_without_the_token_nothing_is_told(world: World, credential: str | None) -> None:
    reply = await world.ask("GET", "/metrics", credential)
    assert told(reply) == (401, "missing_token" if credential is None else "invalid_token")
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_key_that_may_do_everything_is_not_the_token(world: World) -> None:
    assert told(await world.ask("GET", "/metrics", await world.key(await world.account()))) == (401, "invalid_token")


async def test_the_token_opens_nothing_else(world: World) -> None:
    assert told(await world.ask("GET", "/v1/account", TOKEN)) == (401, "invalid_token")


async def test_the_token_is_compared_in_a_time_that_tells_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert (await world.ask("GET", "/metrics", "guess")).status_code == 401
    assert compared == [(b"guess", TOKEN.encode())]


async def test_a_token_of_any_bytes_is_refused_and_no_error(world: World) -> None:
    status, _ = await raw(world, "GET", "/metrics", headers=[(b"authorization", b"Bearer \xff\xfe\x00")])
    assert status == 401


async def test_reading_them_costs_no_request_and_is_kept_by_nobody(world: World) -> None:
    reply, *others = [await world.ask("GET", "/metrics", TOKEN) for _ in range(40)]
    assert {other.status_code for other in (reply, *others)} == {200}
    assert "X-RateLimit-Limit" not in reply.headers
    assert reply.headers["Cache-Control"] == "no-store"
    assert (await world.ask("GET", "/v1/courses")).headers["X-RateLimit-Remaining"] == "29"


# --- What they say


async def test_requests_are_counted_by_route_method_and_class_of_status(world: World) -> None:
    key = await world.key(await world.account())
    for number in range(3):
        assert (await world.ask("GET", f"/v1/courses/crs_{number}", key)).status_code == 404
    await world.ask("GET", "/v1/courses", key)
    await world.ask("HEAD", "/v1/courses", key)
    await world.ask("GET", "/")
    found = await figures(world)
    assert of(found, "requests_total", route="/v1/courses/{id}", method="GET", status="4xx") == 3
    for route, method, status in (
        ("/v1/courses", "GET", "2xx"),
        ("/v1/courses", "HEAD", "2xx"),
        ("/", "GET", "3xx"),
    ):
        assert of(found, "requests_total", route=route, method=method, status=status) == 1
    assert of(found, "request_duration_seconds_count", route="/v1/courses/{id}", method="GET") == 3


def test_a_duration_is_in_every_bucket_that_is_not_shorter_and_in_the_sum() -> None:
    metrics = Metrics()
    endpoint = Endpoint(metrics, "/a", ["GET"])
    for seconds in (0.001, 0.0011, 0.3, 60.0):
        endpoint.answered("GET", 200, seconds)
    found = parsed(metrics_page.page(metrics).decode())
    labels = {"route": "/a", "method": "GET"}
    for le, number in (("0.001", 1), ("0.0025", 2), ("0.25", 2), ("0.5", 3), ("10.0", 3), ("+Inf", 4)):
        assert of(found, "request_duration_seconds_bucket", le=le, **labels) == number
    assert of(found, "request_duration_seconds_sum", **labels) == pytest.approx(60.3021)


async def test_the_limiters_decisions_are_counted_and_what_it_did_not_see_is_not(world: World) -> None:
    for _ in range(33):
        await world.ask("GET", "/v1/courses")
    await world.ask("GET", "/healthz")
    found = await figures(world)
    assert of(found, "limiter_decisions_total", decision="allowed", fallback="none") == 30
    assert of(found, "limiter_decisions_total", decision="refused", fallback="none") == 3


async def test_a_limiters_store_is_told_of_with_its_failures(own_valkey: Valkey) -> None:
    patient = {"limiter": own_valkey.url, "limiter_fallback": "open", "limiter_budget_ms": "1000"}
    async with open_world(metrics_token=TOKEN, **patient) as world:
        await world.ask("GET", "/v1/courses")
        limiter = world.services.limiter
        assert isinstance(limiter, AsyncValkeyLimiter)
        own_valkey.kill()
        await world.ask("GET", "/v1/courses")
        found = await figures(world)
        assert of(found, "limiter_decisions_total", decision="allowed", fallback="open") == 1
        assert of(found, "limiter_store_decisions_total", by="store") == limiter.counts.by_store > 0
        assert of(found, "limiter_store_decisions_total", by="fallback") == limiter.counts.by_fallback == 1
        kinds = ("connect", "timeout", "lost", "protocol", "error")
        failures = sum(of(found, "limiter_store_failures_total", kind=kind) or 0 for kind in kinds)
        assert failures == sum(limiter.counts.failures.values()) > 0


def test_codes_that_a_store_makes_up_are_one_kind_of_failure() -> None:
    metrics, counts = Metrics(), Counts()
    watch_store(metrics, counts)
    for number in range(100):
        counts.failures[f"CODE{number}"] = 2
    for _ in range(2):
        metrics.refresh()
    found = parsed(metrics_page.page(metrics).decode())
    assert of(found, "limiter_store_failures_total", kind="error") == 200
    assert of(found, "limiter_store_failures_total", kind="timeout") == 0


async def test_payments_are_counted_by_what_the_service_answered(world: World) -> None:
    school = await school_on(world, "professional")
    for method, status in (("pm_visa_4242", 201), ("pm_visa_0002", 403), ("pm_visa_9995", 403)):
        course = await school.course()
        reply = await school.enrol(course, method)
        assert reply.status_code == status
        if status == 201:
            await school.cancel(reply.json()["id"])
    found = await figures(world)
    for call, outcome in (("charge", "paid"), ("charge", "card_declined"), ("refund", "refunded")):
        assert of(found, "payment_answers_total", mode="live", call=call, outcome=outcome) == 1
    assert of(found, "payment_answers_total", mode="live", call="charge", outcome="insufficient_funds") == 1
    assert of(found, "payment_answers_total", mode="test", call="charge", outcome="paid") == 0


async def test_a_payment_without_an_outcome_is_told_of_until_it_has_one(world: World) -> None:
    school = await school_on(world, "professional")
    school.gateway.away = lambda: LearnFlowError(Code.SERVICE_UNAVAILABLE)
    assert told(await school.enrol(await school.course())) == (503, "service_unavailable")
    for seconds, number in ((0, 0), (11, 1)):
        world.clock.advance(seconds)
        await world.sweep()
        assert of(await figures(world), "payments_unresolved") == number
    school.gateway.away = None
    for _ in range(2):
        await world.sweep()
    assert of(await figures(world), "payments_unresolved") == 0


async def test_changes_that_are_noted_are_told_of_until_they_are_counted(world: World) -> None:
    school = await school_on(world, "professional")
    for _ in range(ENOUGH):
        await school.course()
    await world.sweep()
    assert of(await figures(world), "catalogue_uncounted") == 2 * ENOUGH
    await world.sweep()
    assert of(await figures(world), "catalogue_uncounted") == 0


async def test_an_answer_that_a_payment_service_does_not_give_is_unknown(world: World) -> None:
    gateway: Any = world.services.gateways["live"]

    async def silent(_payment: object) -> None:
        raise LearnFlowError(Code.SERVICE_UNAVAILABLE)

    gateway._gateway.charge = gateway._gateway.refund = silent
    school = await school_on(world, "professional")
    assert told(await school.enrol(await school.course())) == (503, "service_unavailable")
    found = await figures(world)
    assert of(found, "payment_answers_total", mode="live", call="charge", outcome="unknown") == 1


async def test_a_refusal_that_is_not_foreseen_is_counted_and_told_as_it_is(world: World) -> None:
    gateway: Any = world.services.gateways["live"]

    async def refuses(_payment: object) -> Code:
        return Code.FORBIDDEN

    gateway._gateway.charge = refuses
    school = await school_on(world, "professional")
    assert told(await school.enrol(await school.course())) == (403, "forbidden")
    assert of(await figures(world), "payment_answers_total", mode="live", call="charge", outcome=OTHER) == 1


async def test_a_request_whose_client_leaves_is_counted_and_noted(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before, hangs = await figures(world), asyncio.Event()

    async def hang(_work: Any) -> Any:
        hangs.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patch, caplog.at_level(logging.INFO, "learnflow.http"):
        patch.setattr(world.services.storage, "read", hang)
        asking = asyncio.ensure_future(world.ask("GET", "/v1/courses?search=slow"))
        await hangs.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    [line] = [record for record in caplog.records if record.name == "learnflow.http"]
    noted = vars(line)["fields"]
    assert (noted["path"], noted["status"]) == ("/v1/courses", 499)
    found = await figures(world)
    labels = {"method": "GET", "route": "/v1/courses", "status": "4xx"}
    assert (of(found, "requests_total", **labels) or 0) - (of(before, "requests_total", **labels) or 0) == 1


def test_the_connections_of_a_pool_are_told_of() -> None:
    metrics = Metrics()
    watch_connections(metrics, lambda: Connections(3, 1, 2))
    metrics.refresh()
    found = parsed(metrics_page.page(metrics).decode())
    assert of(found, "database_connections", state="in_use") == 3
    assert of(found, "database_connections", state="idle") == 1
    assert of(found, "database_waiting") == 2


async def test_the_process_tells_its_memory_processor_time_and_open_files(world: World) -> None:
    found = await figures(world)
    for name in ("resident_memory_bytes", "cpu_seconds_total", "open_fds"):
        assert found[f"process_{name}", frozenset({("worker", "0")})] > 0


# --- Nothing that clients send becomes a label


async def test_hostile_paths_and_methods_make_no_series_of_their_own(world: World) -> None:
    async def ask_everything(round_number: int) -> None:
        for number in range(20):
            path = f"/v1/x{round_number}{number}" if number % 2 else f'/a"\n{round_number}{number}'
            await raw(world, "GET", path)
            await raw(world, f"M{round_number}{number}", "/v1/courses")
            await raw(world, f"M{round_number}{number}", path)
            await raw(world, "GET", f"/v1/courses/crs_{round_number}{number}")

    await ask_everything(0)
    await figures(world)
    before = await figures(world)
    await ask_everything(1)
    after = await figures(world)
    assert before.keys() == after.keys()
    assert of(after, "requests_total", route=UNKNOWN, method=OTHER, status="4xx") == 40
    assert of(after, "requests_total", route="/v1/courses", method=OTHER, status="4xx") == 40


@given(st.text(), st.integers(200, 599), st.floats(0, 1e6))
def test_whatever_is_answered_is_counted_once(method: str, status: int, seconds: float) -> None:
    metrics = Metrics()
    Endpoint(metrics, "/a", ["GET"]).answered(method, status, seconds)
    found = parsed(metrics_page.page(metrics).decode())
    known = "GET" if method == "GET" else OTHER
    assert of(found, "requests_total", route="/a", method=known, status=CLASSES[status // 100 - 2]) == 1
    assert of(found, "request_duration_seconds_count", route="/a", method=known) == 1


# --- Several workers


def test_counts_are_of_all_workers_and_stay_when_one_is_replaced() -> None:
    metrics = Metrics(3)
    counter = metrics.family("counter", "learnflow_things", "Things.").series()
    for number in (0, 1, 2, 1):  # the last of them in the place of another
        metrics.be_worker(number)
        counter.add(10)
    assert of(parsed(metrics_page.page(metrics).decode()), "things_total") == 40


def test_a_gauge_is_the_sum_and_a_fact_the_greatest_and_a_new_worker_begins_at_nothing() -> None:
    metrics = Metrics(2)
    gauge, fact = metrics.family("gauge", "learnflow_held", "Held."), metrics.family("fact", "learnflow_seen", "Seen.")
    for number in (0, 1):
        metrics.be_worker(number)
        gauge.series().put(5)
        fact.series().put(3 + number)
    found = parsed(metrics_page.page(metrics).decode())
    assert (of(found, "held"), of(found, "seen")) == (10, 4)
    gauge.series()
    fact.series()
    found = parsed(metrics_page.page(metrics).decode())
    assert (of(found, "held"), of(found, "seen")) == (5, 3)


def test_of_a_worker_that_has_left_the_counts_stay_and_what_was_told_of_its_process_goes() -> None:
    metrics = Metrics(2)
    gauge, fact = metrics.family("gauge", "learnflow_held", "Held."), metrics.family("fact", "learnflow_seen", "Seen.")
    counter = metrics.family("counter", "learnflow_things", "Things.").series()
    for number in (0, 1):
        metrics.be_worker(number)
        gauge.series().put(5)
        fact.series().put(3 + number)
        counter.add()
    metrics.end()
    found = parsed(metrics_page.page(metrics).decode())
    assert (of(found, "held"), of(found, "seen"), of(found, "things_total")) == (5, 3, 2)
    assert [number for number, _ in metrics.workers()] == [0]


def test_a_server_with_every_series_has_room_for_twice_as_many(world: World) -> None:
    world.services.metrics.allocate(world.services.metrics._used)


def test_more_series_than_there_is_room_for_are_an_error_and_no_overwriting() -> None:
    with pytest.raises(RuntimeError, match="more series"):
        Metrics().allocate(1_000_000)


def scraped(fleet: Fleet) -> Figures:
    connection = http.client.HTTPConnection(urlsplit(fleet.address).netloc, timeout=30)
    connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    text = connection.getresponse().read().decode()
    connection.close()
    return parsed(text)


def test_two_workers_are_summed_whoever_answers_and_a_killed_one_takes_no_count_along(operator: Operator) -> None:
    with workers(2, "--database", operator.url, "--metrics-token", TOKEN) as fleet:
        asked = 0
        while asked < 20 or len(fleet.worker_pids()) < 2:
            asked += 1
            connection = Connection(fleet.address)
            assert connection.get("/healthz").status == 200
            connection.close()
        healthy = {"route": "/healthz", "method": "GET"}
        wait_until(lambda: len(fleet.said("request")) == asked)
        for _ in range(8):
            assert of(scraped(fleet), "requests_total", status="2xx", **healthy) == asked
        before = fleet.worker_pids()
        os.kill(min(before), signal.SIGKILL)
        wait_until(lambda: bool(fleet.said("a worker ended, and is replaced")))
        wait_until(lambda: scraped(fleet) is not None and bool(fleet.worker_pids() - before))
        found = scraped(fleet)
        assert of(found, "requests_total", status="2xx", **healthy) == asked
        assert of(found, "request_duration_seconds_count", **healthy) == asked
        for worker in "01":
            assert found["process_resident_memory_bytes", frozenset({("worker", worker)})] > 0
