"""The codes, frozen; and the envelope that every error travels in."""

from __future__ import annotations

import copy
import json
import pickle

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnflow_core.errors import MESSAGES, Code, LearnFlowError, envelope
from learnflow_http.errors import STATUS, challenge

# What clients have written into their programs. Words are added here; none is ever changed, moved or taken away.
FROZEN = {
    400: (
        "invalid_request",
        "invalid_parameter",
        "missing_parameter",
        "unknown_parameter",
        "invalid_json",
        "invalid_payment_method",
        "email_taken",
        "idempotency_key_reused",
    ),
    401: ("missing_token", "invalid_token", "invalid_api_key", "invalid_credentials"),
    403: (
        "insufficient_scope",
        "forbidden",
        "account_suspended",
        "insufficient_funds",
        "card_declined",
        "authentication_required",
        "license_exhausted",
        "course_full",
        "course_not_available",
        "enrollment_closed",
        "prerequisite_not_met",
        "enrollment_not_active",
        "refund_window_closed",
    ),
    404: (
        "not_found",
        "course_not_found",
        "user_not_found",
        "enrollment_not_found",
        "certificate_not_found",
        "api_key_not_found",
        "payment_method_not_found",
        "webhook_endpoint_not_found",
        "event_not_found",
    ),
    405: ("method_not_allowed",),
    413: ("payload_too_large",),
    415: ("unsupported_media_type",),
    429: ("rate_limit_exceeded",),
    500: ("internal_error",),
    503: ("service_unavailable",),
}

texts = st.text()
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(texts, children, max_size=3),
    max_leaves=10,
)
errors = st.builds(
    LearnFlowError,
    st.sampled_from(sorted(Code)),
    st.none() | texts,
    param=st.none() | texts,
    details=st.none() | st.dictionaries(texts, json_values, max_size=3),
    retry_after_s=st.none() | st.integers(1, 100),
)
request_ids = st.from_regex(r"req_[0-9a-z]{12}", fullmatch=True)
doc_urls = st.none() | st.just("https://learnflow.example/docs/errors#not_found")


def test_the_words_and_their_statuses_are_the_frozen_ones() -> None:
    assert {code.value: status for code, status in STATUS.items()} == {
        word: status for status, words in FROZEN.items() for word in words
    }
    assert {code.value for code in Code} == {word for words in FROZEN.values() for word in words}


@pytest.mark.parametrize("code", Code)
def test_every_code_has_a_sentence_for_people(code: Code) -> None:
    message = MESSAGES[code]
    assert message[0].isupper()
    assert message.endswith(".")
    assert LearnFlowError(code).message == message


def test_the_published_example_is_the_envelope_of_a_bad_token_to_the_byte() -> None:
    published = (
        b'{"error":{"code":"invalid_token","message":"The access token provided is expired or invalid.",'
        b'"request_id":"req_9x2k1m"}}'
    )
    assert msgspec.json.encode(envelope(LearnFlowError(Code.INVALID_TOKEN), "req_9x2k1m")) == published


@given(errors, request_ids, doc_urls)
def test_the_three_published_fields_come_first_and_the_others_only_where_they_say_something(
    error: LearnFlowError, request_id: str, doc_url: str | None
) -> None:
    optional = {"param": error.param, "details": error.details, "doc_url": doc_url}
    said = {name: value for name, value in optional.items() if value is not None}
    shown = envelope(error, request_id, doc_url=doc_url)
    assert list(shown) == ["error"]
    assert list(shown["error"].items()) == [
        ("code", error.code.value),
        ("message", error.message),
        ("request_id", request_id),
        *said.items(),
    ]


@given(errors, request_ids, doc_urls)
def test_an_envelope_is_json_that_reads_back_the_same(
    error: LearnFlowError, request_id: str, doc_url: str | None
) -> None:
    shown = envelope(error, request_id, doc_url=doc_url)
    assert msgspec.json.decode(msgspec.json.encode(shown)) == shown
    assert json.loads(json.dumps(shown)) == shown


@given(errors)
def test_the_code_travels_as_its_plain_word(error: LearnFlowError) -> None:
    assert type(envelope(error, "req_1")["error"]["code"]) is str


@given(errors)
def test_there_is_always_something_said_to_people(error: LearnFlowError) -> None:
    assert error.message


@given(errors)
def test_an_error_says_in_a_log_what_it_is_and_where(error: LearnFlowError) -> None:
    said = str(error)
    assert said.startswith(error.code.value)
    assert said.endswith(error.message)
    assert (error.param or "") in said


@given(errors)
def test_an_error_survives_being_sent_to_another_process(error: LearnFlowError) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own bytes
        assert vars(twin) == vars(error)
        assert twin.args == error.args


@given(errors)
def test_a_challenge_comes_with_401_and_with_a_missing_scope_and_with_nothing_else(error: LearnFlowError) -> None:
    has_one = challenge(error) is not None
    assert has_one == (STATUS[error.code] == 401 or error.code is Code.INSUFFICIENT_SCOPE)
