"""Stripe as the payment service: every outcome it documents, from the request of a client to Stripe's own ledger."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import stripe

from learnflow_core.money import Money
from payment_gateways.stripe import StripeGateway
from tests import scene
from tests.paying import UNKNOWN_UNTIL_S, PayingSchool, open_paying_school
from tests.scene import told as told_with_param
from tests.school import told
from tests.stripe_service import FAULTS, SECRET_KEY
from tests.stripe_service.service import INTENTS


@pytest.fixture
async def school() -> AsyncIterator[PayingSchool]:
    """A school on Stripe whose books agree with Stripe's at the end of the test."""
    async with open_paying_school() as school:
        yield school
        assert list(await school.world.services.storage.check()) == []
        await school.assert_paid_is_enrolled()


class TestCharging:
    async def test_a_good_card_pays_once_off_session_under_the_payments_id(self, school: PayingSchool) -> None:
        reply = await school.pay()
        assert (reply.status_code, reply.json()["status"]) == (201, "active")
        payment = await school.payment(reply.json()["id"])
        (asked,) = [each for each in school.service.asked if each.path == INTENTS]
        assert asked.headers["idempotency-key"] == payment.id
        assert asked.form["off_session"] == asked.form["confirm"] == "true"
        assert asked.form["metadata[learnflow_payment]"] == payment.id
        assert asked.form["metadata[learnflow_enrollment]"] == reply.json()["id"]
        assert (asked.form["amount"], asked.form["currency"]) == ("4999", "usd")
        assert school.kept == 1

    @pytest.mark.parametrize(
        ("card", "status", "code"),
        [
            ("pm_card_chargeCustomerFail", 403, "card_declined"),
            ("pm_card_poorLater", 403, "insufficient_funds"),
            ("pm_card_waryLater", 403, "authentication_required"),
            ("pm_card_actionLater", 403, "authentication_required"),
            ("pm_card_blocksInvalid", 400, "invalid_payment_method"),
        ],
    )
    async def test_a_card_that_does_not_pay_frees_the_seat_and_leaves_nothing_open_at_stripe(
        self, school: PayingSchool, card: str, status: int, code: str
    ) -> None:
        course = await school.course(seats=1)
        assert told(await school.enrol(course, await school.method(card))) == (status, code)
        intents = [each for each in school.service.account.objects.values() if each["object"] == "payment_intent"]
        assert {each["status"] for each in intents if card != "pm_card_blocksInvalid"} <= {"canceled"}
        assert (await school.enrol(course, await school.method())).status_code == 201
        assert school.kept == 1

    async def test_a_charge_that_is_being_processed_is_asked_for_until_it_has_ended(self, school: PayingSchool) -> None:
        reply = await school.pay("pm_card_processingLater")
        assert told(reply) == (503, "service_unavailable")
        (found,) = await school.enrollments()
        assert found["status"] == "pending"
        payment = await school.payment(found["id"])
        school.service.account.succeed(school.service.account.intent_of(payment.id))
        school.world.clock.advance(11)
        await school.world.sweep()
        assert (await school.enrollments())[0]["status"] == "active"

    async def test_a_method_that_stripe_lost_is_no_payment_method_and_leaves_a_trace(
        self, school: PayingSchool, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "learnflow.payments")
        method = await school.method()
        for each in school.service.account.objects.values():
            if each["object"] == "payment_method":
                each["customer"] = None
        assert told(await school.enrol(await school.course(), method)) == (400, "invalid_payment_method")
        assert caplog.messages.count("Stripe does not take a means of payment") == 1
        assert told(await school.add("pm_nobodys")) == (400, "invalid_payment_method")
        assert caplog.messages.count("Stripe does not take a means of payment") == 2

    async def test_only_the_test_mode_pays_in_the_sandbox(self, school: PayingSchool) -> None:
        world = school.world
        key = await world.key(school.account, mode="test")
        user = await world.user(school.account, "test@acme.test", mode="test")
        course = await school.course()
        assert (await school.enrol(course, user=user, credential=key)).status_code == 201
        assert told(await school.enrol(course, "pm_visa_4242")) == (400, "invalid_payment_method")
        assert school.charges == 0

    async def test_a_secret_key_that_stripe_does_not_accept_is_logged_and_charges_nobody(
        self, school: PayingSchool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        method, course = await school.method(), await school.course()
        monkeypatch.setattr("tests.stripe_service.service.SECRET_KEY", "another")
        with caplog.at_level(logging.ERROR, "learnflow.payments"):
            assert told(await school.enrol(course, method)) == (503, "service_unavailable")
        assert "Stripe does not accept --stripe-secret-key" in caplog.text
        monkeypatch.undo()
        assert (await school.enrol(course, method)).status_code == 200


class TestOverALine:
    @pytest.mark.parametrize("name", ["reset after charging", "reset before charging", "503 after charging"])
    async def test_what_may_pass_is_repeated_once_within_the_request(
        self, school: PayingSchool, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gateway = StripeGateway(SECRET_KEY, clock_ns=school.world.clock, api=school.service.url)
        monkeypatch.setattr(gateway._http, "sleep_async", lambda _: asyncio.sleep(0))
        monkeypatch.setitem(cast("Any", school.world.services.gateways), "live", gateway)
        course, method = await school.course(), await school.method()
        school.service.fail(FAULTS[name])
        assert (await school.enrol(course, method)).status_code == 201
        keys = [each.headers["idempotency-key"] for each in school.service.asked if each.path == INTENTS]
        assert len(keys) == 2
        assert len(set(keys)) == school.charges == 1
        await gateway.aclose()

    async def test_stripe_is_told_which_version_of_its_api_is_meant_and_nothing_of_the_machine(
        self, school: PayingSchool
    ) -> None:
        await school.pay()
        for asked in school.service.asked:
            assert asked.headers["stripe-version"] == stripe.api_version
            assert "x-stripe-client-telemetry" not in asked.headers


class TestCurrencies:
    @pytest.mark.parametrize(
        ("price", "amount"),
        [
            (Money(500, "JPY"), "500"),
            (Money(5_120, "KWD"), "5120"),
            (Money(100, "ISK"), "10000"),
            (Money(5_000, "UGX"), "500000"),
            (Money(15_000, "MGA"), "150"),
        ],
        ids=lambda each: getattr(each, "currency", None),
    )
    async def test_each_currency_is_charged_in_stripes_smallest_unit_of_it(
        self, school: PayingSchool, price: Money, amount: str
    ) -> None:
        assert (await school.pay(price=price)).status_code == 201
        (line,) = school.service.ledger.lines
        assert (str(line["amount"]), line["currency"]) == (amount, price.currency.lower())

    @pytest.mark.parametrize(
        "price",
        [Money(5_124, "KWD"), Money(150, "MGA"), Money(1, "USD"), Money(10**12, "USD"), Money(5_000, "IQD")],
        ids=["finer", "fraction", "too small", "too large", "unknown"],
    )
    async def test_a_price_that_stripe_does_not_charge_makes_a_course_that_cannot_be_had_and_is_logged(
        self, school: PayingSchool, price: Money, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.ERROR, "learnflow.payments"):
            assert told(await school.pay(price=price)) == (403, "course_not_available")
        assert "Stripe does not charge the price of a course" in caplog.text
        assert school.charges == 0


class TestKeepingCards:
    async def test_a_card_is_set_up_for_a_customer_of_its_own_and_can_be_charged_again(
        self, school: PayingSchool
    ) -> None:
        added = await school.add("pm_card_visa")
        assert added.status_code == 201
        for _ in range(2):
            assert (await school.enrol(await school.course(), added.json()["id"])).status_code == 201
        (setup,) = [each for each in school.service.asked if each.path == "/v1/setup_intents"]
        assert setup.form["usage"] == "off_session"
        assert school.kept == 2

    @pytest.mark.parametrize(
        ("token", "status", "code"),
        [
            ("pm_card_chargeDeclined", 403, "card_declined"),
            ("pm_card_chargeDeclinedInsufficientFunds", 403, "insufficient_funds"),
            ("pm_nobodys", 400, "invalid_payment_method"),
            ("tok_nobodys", 400, "invalid_payment_method"),
            ("tok_nobódys", 400, "invalid_payment_method"),
            ("tok_nobodys\r\n", 400, "invalid_payment_method"),
            ("seti_1", 400, "invalid_payment_method"),
            ("../payment_intents", 400, "invalid_payment_method"),
            ("pm_/../../refunds", 400, "invalid_payment_method"),
        ],
    )
    async def test_what_stripe_does_not_keep_is_not_added(
        self, school: PayingSchool, token: str, status: int, code: str
    ) -> None:
        assert told_with_param(await school.add(token)) == (status, code, "token")
        path = f"/v1/users/{school.user.id}/payment-methods"
        assert (await school.world.ask("GET", path, school.key)).json()["data"] == []

    async def test_the_older_tokens_of_stripe_are_taken(self, school: PayingSchool) -> None:
        added = await school.add("tok_visa")
        assert (await school.enrol(await school.course(), added.json()["id"])).status_code == 201

    async def test_an_older_token_is_good_for_one_card_and_may_come_again(self, school: PayingSchool) -> None:
        first, second = await school.add("tok_visa"), await school.add("tok_visa")
        assert (first.status_code, second.status_code) == (201, 200)
        assert first.json() == second.json()
        other = (await school.crowd(1))[0]
        assert told_with_param(await school.add("tok_visa", other)) == (400, "invalid_payment_method", "token")

    async def test_an_older_token_comes_again_once_the_cardholder_has_agreed(self, school: PayingSchool) -> None:
        token = "tok_authenticationRequiredOnSetup"
        refused = await school.add(token)
        assert told(refused) == (403, "authentication_required")
        school.service.account.authenticate(refused.json()["error"]["details"]["client_secret"])
        assert (await school.add(token)).status_code == 201

    async def test_a_cardholder_whom_the_bank_wants_to_see_agrees_and_the_card_is_kept(
        self, school: PayingSchool
    ) -> None:
        account = school.service.account
        token = account.create_method({"card[token]": "tok_authenticationRequiredOnSetup"})["id"]
        refused = await school.add(token)
        assert told(refused) == (403, "authentication_required")
        account.authenticate(refused.json()["error"]["details"]["client_secret"])
        added = await school.add(token)
        assert added.status_code == 201
        assert (await school.enrol(await school.course(), added.json()["id"])).status_code == 201

    async def test_what_lets_a_client_go_on_is_kept_nowhere_and_its_request_may_come_again_under_its_key(
        self, school: PayingSchool
    ) -> None:
        account = school.service.account
        token = account.create_method({"card[token]": "tok_authenticationRequiredOnSetup"})["id"]
        path = f"/v1/users/{school.user.id}/payment-methods"
        asked = ("POST", path, school.key, {"token": token})
        refused = await school.world.ask(*asked, Idempotency_Key="one")
        secret = refused.json()["error"]["details"]["client_secret"]
        assert secret not in repr(await scene.books(school.world))
        account.authenticate(secret)
        assert (await school.world.ask(*asked, Idempotency_Key="one")).status_code == 201

    async def test_a_card_that_is_kept_is_not_added_twice(self, school: PayingSchool) -> None:
        token = school.service.account.create_method({"card[token]": "tok_visa"})["id"]
        first, second = await school.add(token), await school.add(token)
        assert (first.status_code, second.status_code) == (201, 200)
        assert first.json() == second.json()

    async def test_nobody_pays_with_the_card_of_somebody_else(self, school: PayingSchool) -> None:
        token = school.service.account.create_method({"card[token]": "tok_visa"})["id"]
        assert (await school.add(token)).status_code == 201
        other = (await school.crowd(1))[0]
        assert told(await school.add(token, other)) == (400, "invalid_payment_method")

    async def test_a_deleted_card_is_detached_by_the_sweep_also_when_stripe_was_away(
        self, school: PayingSchool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        added = (await school.add("pm_card_visa")).json()["id"]
        (kept,) = [each for each in school.service.account.objects.values() if each["object"] == "payment_method"]
        await school.world.ask("DELETE", f"/v1/users/{school.user.id}/payment-methods/{added}", school.key)
        with monkeypatch.context() as away:
            away.setattr("tests.stripe_service.service.SECRET_KEY", "another")
            await school.world.sweep()
        assert kept["customer"] is not None
        for _ in range(2):
            await school.world.sweep()
        assert kept["customer"] is None
        assert len([each for each in school.service.asked if each.path.endswith("/detach")]) == 2

    async def test_a_card_that_was_deleted_and_added_again_is_not_detached(self, school: PayingSchool) -> None:
        first = await school.add("pm_card_visa")
        token = await self.token_of(school, first.json()["id"])
        path = f"/v1/users/{school.user.id}/payment-methods"
        await school.world.ask("DELETE", f"{path}/{first.json()['id']}", school.key)
        again = await school.add(token.partition("/")[2])
        assert again.status_code == 201
        await school.world.sweep()
        await school.world.sweep()
        assert (await school.enrol(await school.course(), again.json()["id"])).status_code == 201

    async def token_of(self, school: PayingSchool, method_id: str) -> str:
        found = await school.world.services.storage.read(lambda tx: tx.payments.method(method_id))
        assert found is not None
        return found.token

    async def test_the_cards_of_a_user_who_is_erased_are_detached(self, school: PayingSchool) -> None:
        other = (await school.crowd(1))[0]
        await school.add("pm_card_visa", other)
        await school.world.ask("DELETE", f"/v1/users/{other.id}", school.key)
        await school.world.sweep()
        methods = [each for each in school.service.account.objects.values() if each["object"] == "payment_method"]
        assert [each["customer"] for each in methods] == [None]

    async def test_stripe_being_away_adds_nothing(self, school: PayingSchool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tests.stripe_service.service.SECRET_KEY", "another")
        assert told(await school.add("pm_card_visa")) == (503, "service_unavailable")


class TestRefunding:
    async def test_leaving_refunds_the_whole_amount_once(self, school: PayingSchool) -> None:
        enrolled = (await school.pay()).json()["id"]
        for _ in range(2):
            assert (await school.cancel(enrolled)).json()["status"] == "refunded"
        assert (school.charges, school.kept) == (1, 0)

    async def test_a_refund_is_possible_after_the_card_was_deleted(self, school: PayingSchool) -> None:
        method = await school.method()
        enrolled = (await school.enrol(await school.course(), method)).json()["id"]
        await school.world.ask("DELETE", f"/v1/users/{school.user.id}/payment-methods/{method}", school.key)
        await school.world.sweep()
        school.world.clock.advance(13 * 86_400)
        assert (await school.cancel(enrolled)).json()["status"] == "refunded"
        assert school.kept == 0

    async def test_a_payment_beyond_the_first_page_of_a_customers_is_found(self, school: PayingSchool) -> None:
        method = await school.method()
        enrolled = (await school.enrol(await school.course(), method)).json()["id"]
        account = school.service.account
        intent = account.intent_of((await school.payment(enrolled)).id)
        for _ in range(150):
            account._new("pi", "payment_intent", customer=intent["customer"], metadata={}, status="succeeded")
        assert (await school.cancel(enrolled)).json()["status"] == "refunded"
        assert school.kept == 0

    @pytest.mark.parametrize("code", ["charge_disputed", "refund_disputed_payment"])
    async def test_what_a_dispute_has_taken_back_is_not_refunded_as_well(self, school: PayingSchool, code: str) -> None:
        enrolled = (await school.pay()).json()["id"]
        account = school.service.account
        account.disputed_code = code
        dispute = account.dispute(account.intent_of((await school.payment(enrolled)).id))
        assert (await school.cancel(enrolled)).json()["status"] == "refunded"
        assert (await school.payment(enrolled)).status == "refunded"
        account.lose(dispute)
        await school.service.deliver(school.hear)
        assert school.kept == 0


class TestWhatStripeMayForget:
    async def test_a_payment_is_not_created_again_when_stripe_may_have_forgotten_its_key(
        self, school: PayingSchool
    ) -> None:
        course, method = await school.course(), await school.method()
        school.service.fail(FAULTS["reset after charging"])
        assert (await school.enrol(course, method)).status_code == 503
        school.service.fail(None)
        school.service.forget_keys()
        school.world.clock.advance(86_400)
        await school.world.sweep()
        assert [one["status"] for one in await school.enrollments()] == ["active"]
        assert school.charges == 1

    async def test_a_payment_is_found_also_when_our_clock_is_hours_ahead(self, school: PayingSchool) -> None:
        school.service.account._clock = lambda: school.world.clock() / 1e9 - 6 * 3_600
        course, method = await school.course(), await school.method()
        school.service.fail(FAULTS["reset after charging"])
        assert (await school.enrol(course, method)).status_code == 503
        school.service.fail(None)
        school.world.clock.advance(UNKNOWN_UNTIL_S)
        await school.world.sweep()
        assert [one["status"] for one in await school.enrollments()] == ["active"]

    async def test_a_payment_that_never_reached_stripe_is_given_up_and_the_next_post_pays_anew(
        self, school: PayingSchool
    ) -> None:
        course, method = await school.course(seats=1), await school.method()
        school.service.fail(FAULTS["reset before charging"])
        assert (await school.enrol(course, method)).status_code == 503
        school.service.fail(None)
        school.world.clock.advance(UNKNOWN_UNTIL_S - 300)
        await school.world.sweep()
        assert [one["status"] for one in await school.enrollments()] == ["pending"]
        school.world.clock.advance(300)
        assert (await school.enrol(course, method)).status_code == 201
        assert sorted(one["status"] for one in await school.enrollments()) == ["active", "cancelled"]
        assert school.kept == 1
