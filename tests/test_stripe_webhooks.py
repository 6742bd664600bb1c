"""What Stripe posts: believed when it is signed, acted on however often and in whatever order it comes."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator

import pytest
import stripe
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learnflow_core.audit import PAYMENT_SERVICE
from learnflow_core.errors import Code, LearnFlowError
from payment_gateways.stripe import StripeEvents, StripeGateway
from payment_gateways.stripe.events import KINDS
from tests.paying import PayingSchool, open_paying_school
from tests.school import DAY_S, told
from tests.stripe_service import FAULTS, SECRET_KEY, WEBHOOK_SECRET
from tests.stripe_service.account import Object
from tests.world import World, open_world

ADDRESS = "/webhooks/stripe"


@pytest.fixture
async def school() -> AsyncIterator[PayingSchool]:
    async with open_paying_school() as school:
        yield school
        assert list(await school.world.services.storage.check()) == []


async def intent_of(school: PayingSchool, enrollment_id: str) -> Object:
    return school.service.account.intent_of((await school.payment(enrollment_id)).id)


class TestWhoIsBelieved:
    @pytest.mark.parametrize(
        "signature",
        [
            "",
            "t=1",
            "t=1,v1=",
            "v1=abc",
            "t=x,v1=abc",
            "t=1,v1=\u00e9",
            "t=" + "9" * 5_000 + ",v1=a",
            "t=1=2,v1=3=4",
            ",",
        ],
    )
    async def test_what_is_not_signed_is_refused_in_the_envelope(self, school: PayingSchool, signature: str) -> None:
        body, _ = school.service.event("payment_intent.succeeded", {})
        reply = await school.world.client.post(
            ADDRESS, content=body, headers={b"Stripe-Signature": signature.encode("latin-1")}
        )
        assert told(reply) == (400, "invalid_request")

    async def test_a_signature_by_another_secret_of_other_words_or_of_long_ago_is_refused(
        self, school: PayingSchool
    ) -> None:
        event = school.service.event
        for body, signature in (
            event("payment_intent.succeeded", {}, secret="whsec_another"),
            (b"{}", event("payment_intent.succeeded", {})[1]),
            event("payment_intent.succeeded", {}, signed_at=int(time.time()) - 400),
        ):
            assert told(await school.post_event(body, signature)) == (400, "invalid_request")

    async def test_while_secrets_change_both_are_good(self, school: PayingSchool) -> None:
        secrets = "whsec_theNewOne99,whsec_theOldOne99"
        options = {"payments": "stripe", "stripe_secret_key": SECRET_KEY, "stripe_webhook_secrets": secrets}
        async with open_world(**options, stripe_api=school.service.url) as world:
            for secret, status in (("whsec_theNewOne99", 200), ("whsec_theOldOne99", 200), (WEBHOOK_SECRET, 400)):
                body, signature = school.service.event("customer.created", {}, secret=secret)
                reply = await world.client.post(ADDRESS, content=body, headers={"Stripe-Signature": signature})
                assert reply.status_code == status

    async def test_without_secrets_or_without_stripe_there_is_no_such_address(self, world: World) -> None:
        assert told(await world.ask("POST", ADDRESS)) == (404, "not_found")
        async with open_world(payments="stripe", stripe_secret_key=SECRET_KEY) as other:
            assert told(await other.ask("POST", ADDRESS)) == (404, "not_found")

    async def test_the_address_is_posted_to_and_no_more(self, school: PayingSchool) -> None:
        reply = await school.world.ask("GET", ADDRESS)
        assert told(reply) == (405, "method_not_allowed")
        assert reply.headers["Allow"] == "OPTIONS, POST"
        assert (await school.world.ask("OPTIONS", ADDRESS)).status_code == 200

    async def test_it_costs_nobody_a_request_and_has_the_limit_of_every_body(self, school: PayingSchool) -> None:
        for _ in range(50):
            assert (await school.post_event(b"{}", "t=1,v1=0")).status_code == 400
        assert "X-RateLimit-Limit" not in (await school.post_event(b"{}", "")).headers
        body, signature = school.service.event("customer.created", {"x": "y" * 2_000_000})
        assert told(await school.post_event(body, signature)) == (413, "payload_too_large")
        assert (await school.world.ask("GET", "/v1/courses")).headers["X-RateLimit-Remaining"] == "29"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(
    st.one_of(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: (
                st.lists(inner) | st.dictionaries(st.sampled_from(["type", "data", "object", "metadata"]), inner)
            ),
        ),
        st.builds(
            lambda kind, told: {"type": kind, "data": {"object": told}},
            st.sampled_from(sorted(KINDS)),
            st.dictionaries(
                st.sampled_from(["metadata", "refunded", "status", "id"]),
                st.none()
                | st.text()
                | st.booleans()
                | st.dictionaries(st.just("learnflow_payment"), st.integers() | st.text()),
            ),
        ),
    )
)
async def test_signed_nonsense_is_never_a_failure_of_ours(told: object) -> None:
    body = json.dumps(told)
    events = StripeEvents([WEBHOOK_SECRET], StripeGateway(SECRET_KEY, clock_ns=time.time_ns, api="http://127.0.0.1:9"))
    signature = stripe.WebhookSignature.generate_signature_header(body, WEBHOOK_SECRET)
    refusals = []
    try:
        await events.read(body.encode(), signature)
    except LearnFlowError as refusal:
        refusals.append(refusal.code)
    assert set(refusals) <= {Code.INVALID_JSON}


class TestWhatComesOfIt:
    async def test_events_for_nobody_here_are_answered(self, school: PayingSchool) -> None:
        for kind, told_of in (
            ("customer.created", {}),
            ("payment_intent.succeeded", {"metadata": {}}),
            ("payment_intent.succeeded", {"metadata": {"learnflow_payment": "pay_nobodys"}}),
            ("payment_intent.payment_failed", {}),
            ("charge.dispute.created", {"payment_intent": "pi_unknown"}),
            ("charge.refunded", {"refunded": False, "metadata": {"learnflow_payment": "pay_1"}}),
        ):
            assert await school.hear(*school.service.event(kind, told_of)) == 200

    async def test_success_activates_the_place_whose_reply_was_lost(self, school: PayingSchool) -> None:
        course, method = await school.course(), await school.method()
        school.service.fail(FAULTS["reset after charging"])
        assert (await school.enrol(course, method)).status_code == 503
        await school.service.deliver(school.hear)
        assert [one["status"] for one in await school.enrollments()] == ["active"]
        assert school.charges == 1

    async def test_failure_frees_the_seat_whose_reply_was_lost(self, school: PayingSchool) -> None:
        course, method = await school.course(seats=1), await school.method("pm_card_chargeCustomerFail")
        school.service.fail(FAULTS["reset after charging"])
        assert (await school.enrol(course, method)).status_code == 503
        await school.service.deliver(school.hear)
        assert [one["status"] for one in await school.enrollments()] == ["cancelled"]

    async def test_the_same_events_again_in_any_order_change_nothing(self, school: PayingSchool) -> None:
        enrolled = (await school.pay()).json()["id"]
        await school.cancel(enrolled)
        before = await school.enrollments()
        for event in reversed(school.service.events * 2):
            assert await school.hear(*event) == 200
        assert await school.enrollments() == before
        assert (school.charges, school.kept) == (1, 0)

    async def test_a_refund_from_stripes_dashboard_ends_the_enrolment(self, school: PayingSchool) -> None:
        course, method = await school.course(seats=1), await school.method()
        enrolled = (await school.enrol(course, method)).json()["id"]
        school.service.account.create_refund({"payment_intent": (await intent_of(school, enrolled))["id"]})
        await school.service.deliver(school.hear)
        assert [one["status"] for one in await school.enrollments()] == ["refunded"]
        assert (await school.enrol(course, method)).status_code == 201
        await school.assert_paid_is_enrolled()

    async def test_a_refund_of_what_is_not_known_to_have_been_paid_comes_again_until_it_is(
        self, school: PayingSchool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        course, method = await school.course(), await school.method()
        school.service.fail(FAULTS["reset after charging"])
        assert (await school.enrol(course, method)).status_code == 503
        (made,) = await school.enrollments()
        school.service.account.create_refund({"payment_intent": (await intent_of(school, made["id"]))["id"]})
        refunded = school.service.events[-1]
        with monkeypatch.context() as away:
            away.setattr("tests.stripe_service.service.SECRET_KEY", "another")
            assert told(await school.post_event(*refunded)) == (503, "service_unavailable")
        assert await school.hear(*refunded) == 200
        assert [one["status"] for one in await school.enrollments()] == ["refunded"]
        await school.assert_paid_is_enrolled()

    async def test_the_books_say_of_a_refund_by_stripe_alone_that_stripe_told_of_it(self, school: PayingSchool) -> None:
        payment = await school.payment((await school.pay()).json()["id"])
        school.service.account.create_refund({"payment_intent": school.service.account.intent_of(payment.id)["id"]})
        for _ in range(2):
            await school.service.deliver(school.hear)
        moved, told_of = await school.books(payment.id)
        assert moved == ["charged", "refunding", "refunded"]
        assert {event for event, actor in told_of if actor == PAYMENT_SERVICE} == {"refunding", "refunded"}

    async def test_a_lost_dispute_ends_the_enrolment_and_an_open_one_is_for_the_operator(
        self, school: PayingSchool, caplog: pytest.LogCaptureFixture
    ) -> None:
        enrolled = (await school.pay()).json()["id"]
        dispute = school.service.account.dispute(await intent_of(school, enrolled))
        with caplog.at_level(logging.ERROR, "learnflow.payments"):
            await school.service.deliver(school.hear)
        assert "a payment needs to be looked at" in caplog.text
        assert [one["status"] for one in await school.enrollments()] == ["active"]
        school.service.account.lose(dispute)
        await school.service.deliver(school.hear)
        assert [one["status"] for one in await school.enrollments()] == ["refunded"]
        await school.assert_paid_is_enrolled()

    @pytest.mark.parametrize("left", [True, False])
    async def test_a_dispute_that_was_won_is_for_the_operator_where_a_refund_was_left_to_it(
        self, school: PayingSchool, caplog: pytest.LogCaptureFixture, *, left: bool
    ) -> None:
        enrolled = (await school.pay()).json()["id"]
        dispute = school.service.account.dispute(await intent_of(school, enrolled))
        await school.service.deliver(school.hear)
        if left:
            assert (await school.cancel(enrolled)).json()["status"] == "refunded"
        school.service.account.win(dispute)
        caplog.clear()
        await school.service.deliver(school.hear)
        assert ("a payment needs to be looked at" in caplog.text) is left

    async def test_a_refund_of_a_course_that_was_completed_is_for_the_operator(
        self, school: PayingSchool, caplog: pytest.LogCaptureFixture
    ) -> None:
        enrolled = (await school.pay()).json()["id"]
        await school.progress(enrolled, 100)
        school.service.account.create_refund({"payment_intent": (await intent_of(school, enrolled))["id"]})
        with caplog.at_level(logging.ERROR, "learnflow.payments"):
            await school.service.deliver(school.hear)
        assert "a payment needs to be looked at" in caplog.text
        assert [one["status"] for one in await school.enrollments()] == ["completed"]
        assert (await school.payment(enrolled)).status == "refunded"

    @pytest.mark.parametrize("ended", ["expired", "cancelled"])
    async def test_a_refund_for_a_place_that_has_ended_is_in_the_books(
        self, school: PayingSchool, caplog: pytest.LogCaptureFixture, ended: str
    ) -> None:
        course = await school.course(access_days=15 if ended == "expired" else None)
        enrolled = (await school.enrol(course, await school.method())).json()["id"]
        school.world.clock.advance(15 * DAY_S)
        if ended == "expired":
            await school.world.sweep()
        else:
            await school.world.ask("DELETE", f"/v1/users/{school.user.id}", school.key)
        school.service.account.create_refund({"payment_intent": (await intent_of(school, enrolled))["id"]})
        for _ in range(2):
            await school.service.deliver(school.hear)
        assert (await school.payment(enrolled)).status == "refunded"
        assert [one["status"] for one in await school.enrollments()] == [ended]
        assert "a payment needs to be looked at" not in caplog.text

    async def test_a_refund_that_has_failed_is_for_the_operator(
        self, school: PayingSchool, caplog: pytest.LogCaptureFixture
    ) -> None:
        payment = await school.payment((await school.pay()).json()["id"])
        event = school.service.event("refund.failed", {"metadata": {"learnflow_payment": payment.id}})
        with caplog.at_level(logging.ERROR, "learnflow.payments"):
            assert await school.hear(*event) == 200
        assert "a payment needs to be looked at" in caplog.text

    async def test_stripe_comes_again_with_what_only_it_can_explain_while_it_does_not_answer(
        self, school: PayingSchool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        enrolled = (await school.pay()).json()["id"]
        school.service.account.lose(school.service.account.dispute(await intent_of(school, enrolled)))
        with monkeypatch.context() as away:
            away.setattr("tests.stripe_service.service.SECRET_KEY", "another")
            reply = await school.post_event(*school.service.events[-1])
        assert told(reply) == (503, "service_unavailable")
        await school.service.deliver(school.hear)
        await school.service.deliver(school.hear)
        assert [one["status"] for one in await school.enrollments()] == ["refunded"]
