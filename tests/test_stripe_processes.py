"""Stripe as a whole server sees it: `learnflow serve --payments stripe`, killed while a charge is under way."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import httpx2 as httpx

from learnflow_http.app import open_services
from learnflow_http.settings import load
from tests import scene
from tests.stripe_service import FAULTS, SECRET_KEY, WEBHOOK_SECRET, StripeService
from tests.terminal import COMMAND, finished, serving
from tests.world import Clock, World


async def test_a_server_that_is_killed_while_it_charges_has_charged_once_when_it_is_back(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/school.db"
    async with StripeService(log=tmp_path / "stripe.jsonl") as service, httpx.AsyncClient() as client:
        settings = {
            "LEARNFLOW_PAYMENTS": "stripe",
            "LEARNFLOW_STRIPE_SECRET_KEY": SECRET_KEY,
            "LEARNFLOW_STRIPE_WEBHOOK_SECRETS": WEBHOOK_SECRET,
            "LEARNFLOW_STRIPE_API": service.url,
            "PYTHONWARNINGS": "default",  # the library gives httpx a form as text, which it warns of
        }
        key, user, course = await _school(url)
        headers = {"Authorization": f"Bearer {key}"}
        with serving("--database", url, **settings) as (server, address):
            added = await client.post(
                f"{address}/v1/users/{user}/payment-methods", json={"token": "pm_card_visa"}, headers=headers
            )
            wanted = {"user_id": user, "course_id": course, "payment_method_id": added.json()["id"]}
            service.fail(FAULTS["times out after charging"])
            doomed = asyncio.create_task(client.post(f"{address}/v1/enrollments", json=wanted, headers=headers))
            await service.emitted.wait()
            os.kill(server.pid, signal.SIGKILL)
            assert isinstance(*await asyncio.gather(doomed, return_exceptions=True), httpx.TransportError)
        with serving("--database", url, **settings) as (server, address):
            reply = await client.post(f"{address}/v1/enrollments", json=wanted, headers=headers)
            assert (reply.status_code, reply.json()["status"]) == (200, "active")
            body, signature = service.events[0]
            told = await client.post(
                f"{address}/webhooks/stripe", content=body, headers={"Stripe-Signature": signature}
            )
            assert told.status_code == 200
            server.send_signal(signal.SIGTERM)
            _, log = await asyncio.to_thread(server.communicate)
            assert SECRET_KEY not in log
            assert WEBHOOK_SECRET not in log
        assert service.ledger.kept() == {reply.json()["id"]: 1}
    assert StripeService(log=tmp_path / "stripe.jsonl").ledger.lines == service.ledger.lines


def test_without_a_key_nothing_is_served_and_the_setting_is_named() -> None:
    ended = finished(*COMMAND, "serve", "--payments", "stripe")
    assert ended.returncode == 2
    assert "--stripe-secret-key or LEARNFLOW_STRIPE_SECRET_KEY" in ended.stderr


async def _school(url: str) -> tuple[str, str, str]:
    """A key, a learner and a course in a database."""
    async with open_services(load({"database": url}, {})) as services, httpx.AsyncClient() as client:
        world = World(services, Clock(), client)
        account = await world.account(plan="professional")
        course = await scene.course(world, account)
        return await world.key(account), (await world.user(account, "ada@acme.test")).id, course.id
