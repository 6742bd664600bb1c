"""The served document: valid, complete, true to the published examples, and true to what the server does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2 as httpx
import jsonschema  # type: ignore[import-untyped]
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from openapi_spec_validator import validate
from schemathesis import checks

from learnflow_core.access import SCOPES
from learnflow_core.usecases import accounts
from learnflow_http import openapi
from learnflow_http.operations import OPERATIONS, Operation
from tests.test_access_matrix import REQUESTS, Cast
from tests.world import World, open_world

DOCUMENT: dict[str, Any] = json.loads(json.dumps(openapi.document()))
OPERATIONS_BY_ID = {operation.name: operation for operation in OPERATIONS}

schema: Any = schemathesis.openapi.from_dict(DOCUMENT)
schema.config.update(base_url="http://learnflow.test")
every_operation: Callable[[Any], Any] = schema.parametrize()

checks.load_all_checks()
UNTOLD = {"ignored_auth", "positive_data_acceptance"}
"""Checks that ask for what a document cannot say: that this key is good, and that `page` stands beside no `cursor`."""


def checks_of(operation: Operation) -> list[Any]:
    """What is checked of a reply. Of a query no more than its parameters can be wrong: unknown ones are ignored."""
    untold = UNTOLD if operation.body is not None else {*UNTOLD, "negative_data_rejection"}
    return [check for check in checks.CHECKS.get_all() if check.__name__ not in untold]


Ask = Callable[[Any], httpx.Response]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Sends a case of Schemathesis to a server in this process, with a key whose limit it cannot reach.

    Half of the cases with an id in their path ask about something that is there, made for the occasion.
    """
    with asyncio.Runner() as runner:
        opened = open_world()
        world = runner.run(opened.__aenter__())
        cast = runner.run(Cast.gather(world))
        runner.run(allow_much(world, cast))
        key = runner.run(world.key(cast.account))

        def ask(case: Any) -> httpx.Response:
            if case.path_parameters and len(str(case.path_parameters)) % 2:
                case.path_parameters = runner.run(path_of_something(cast, case))
            sent = case.as_transport_kwargs(headers={"Authorization": f"Bearer {key}"})
            fields = ("method", "url", "headers", "params", "json", "data", "cookies")
            request: Any = requests.Request(**{name: sent[name] for name in fields if name in sent}).prepare()
            headers = [(name.encode("latin-1"), as_bytes(value)) for name, value in request.headers.items()]
            world.clock.advance(2)  # enough for one more refused credential
            return runner.run(world.client.request(request.method, request.url, content=request.body, headers=headers))

        yield ask
        runner.run(opened.__aexit__(None, None, None))


def as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1")


async def path_of_something(cast: Cast, case: Any) -> dict[str, str]:
    return dict((await REQUESTS[case.operation.definition.raw["operationId"]](cast)).path)


async def allow_much(world: World, cast: Cast) -> None:
    ctx = world.ctx
    await world.services.storage.write(
        lambda tx: accounts.set_plan(
            tx, cast.account.id, plan="enterprise", per_minute=100_000_000, licenses=None, ctx=ctx
        )
    )


class TestTheDocument:
    async def test_it_is_served_as_it_is_made_and_is_valid(self, world: World) -> None:
        reply = await world.ask("GET", "/openapi.json")
        assert reply.headers["Content-Type"] == "application/json"
        assert reply.json() == DOCUMENT
        assert DOCUMENT["openapi"] == "3.1.0"
        validate(DOCUMENT)

    async def test_it_names_the_public_address_where_one_is_configured(self) -> None:
        async with open_world(public_url="https://api.example.test") as world:
            assert (await world.ask("GET", "/openapi.json")).json()["servers"] == [{"url": "https://api.example.test"}]

    def test_every_operation_is_in_it_with_who_may_and_all_its_answers(self) -> None:
        found = {
            row["operationId"]: (path, method.upper(), row)
            for path, methods in DOCUMENT["paths"].items()
            for method, row in methods.items()
        }
        assert found.keys() == OPERATIONS_BY_ID.keys()
        for name, (path, method, row) in found.items():
            operation = OPERATIONS_BY_ID[name]
            assert (path, method) == (operation.path, operation.method)
            assert set(map(int, row["responses"])) == openapi.statuses(operation)
            assert row["summary"]
            assert row["tags"]
            assert ({} in row["security"]) == (operation.public or operation.sign_in is not None)
            if operation.scope is not None:
                assert f"`{operation.scope}`" in row["description"]

    def test_every_answer_tells_of_the_request_and_its_limit(self) -> None:
        for methods in DOCUMENT["paths"].values():
            for row in methods.values():
                for status, response in row["responses"].items():
                    assert {"X-Request-Id", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"} <= set(
                        response["headers"]
                    )
                    assert ("Retry-After" in response["headers"]) == (status in ("429", "503"))

    def test_every_error_of_an_operation_is_named_in_it(self) -> None:
        for name, operation in OPERATIONS_BY_ID.items():
            responses = DOCUMENT["paths"][operation.path][operation.method.lower()]["responses"]
            told = json.dumps(responses)
            assert all(f"`{code.value}`" in told for code in openapi.codes(operation)), name

    def test_a_query_parameter_is_never_null_and_always_described_by_a_type(self) -> None:
        for methods in DOCUMENT["paths"].values():
            for row in methods.values():
                for parameter in row["parameters"]:
                    assert "null" not in json.dumps(parameter["schema"])
                    assert parameter["schema"].keys() & {"type", "enum"}

    def test_the_scopes_of_a_key_are_listed(self) -> None:
        assert json.dumps(list(SCOPES)) in json.dumps(DOCUMENT["components"]["schemas"]["NewApiKey"])

    def test_no_body_of_a_request_takes_fields_that_it_does_not_name(self) -> None:
        for operation in OPERATIONS:
            if operation.body is not None:
                assert DOCUMENT["components"]["schemas"][operation.body.__name__]["additionalProperties"] is False


PUBLISHED = {
    "CourseItemPage": (
        '{"data": [{"id": "crs_8x92k1", "title": "Complete Web Development Bootcamp", "instructor": "Dr. John Smith", '
        '"category": "development", "level": "all", "price": {"amount": 49.99, "currency": "USD"}, "rating": 4.9, '
        '"total_students": 12450}], "meta": {"current_page": 1, "total_pages": 42, "total_items": 2085}}'
    ),
    "Enrollment": (
        '{"id": "enr_2m4p1z", "user_id": "usr_7f3d9a", "course_id": "crs_8x92k1", "status": "active", "progress": 0, '
        '"enrolled_at": "2024-01-15T09:30:00Z"}'
    ),
    "RefreshedToken": '{"access_token": "<JWT>", "token_type": "Bearer", "expires_in": 3600}',
    "Error": (
        '{"error": {"code": "invalid_token", "message": "The access token provided is expired or invalid.", '
        '"request_id": "req_9x2k1m"}}'
    ),
}


class TestTheExamples:
    @pytest.mark.parametrize("name", PUBLISHED)
    def test_the_published_ones_appear_to_the_letter(self, name: str) -> None:
        assert [json.dumps(example) for example in examples(name)] == [PUBLISHED[name]]

    def test_every_example_is_one_of_its_schema(self) -> None:
        named = [name for name in DOCUMENT["components"]["schemas"] if examples(name)]
        assert set(PUBLISHED) <= set(named)
        for name in named:
            validator = jsonschema.Draft202012Validator({**DOCUMENT, "$ref": f"#/components/schemas/{name}"})
            for example in examples(name):
                validator.validate(example)


def examples(name: str) -> list[Any]:
    found: list[Any] = DOCUMENT["components"]["schemas"][name].get("examples", [])
    return found


class TestTheServer:
    @pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
    async def test_it_answers_a_good_request_as_the_document_says(self, operation: Operation, world: World) -> None:
        cast = await Cast.gather(world)
        asked = await REQUESTS[operation.name](cast)
        credential = "self" if operation.name == "getMe" else "key"
        key = await cast.credential(credential, "*")
        body = {} if asked.body is None else {"body": asked.body}
        case = schema[operation.path][operation.method].Case(path_parameters=dict(asked.path), **body)
        reply = await world.ask(operation.method, operation.path.format(**asked.path), key, asked.body)
        assert reply.is_success
        case.validate_response(reply, checks=checks_of(operation))

    @every_operation
    @settings(max_examples=12, suppress_health_check=list(HealthCheck))
    def test_it_answers_any_request_as_the_document_says(self, case: Any, ask: Ask) -> None:
        operation = OPERATIONS_BY_ID[case.operation.definition.raw["operationId"]]
        reply = ask(case)
        case.validate_response(reply, checks=checks_of(operation))
        if reply.status_code >= 400:
            documented = {code.value for code in openapi.codes(operation)} | {"not_found", "method_not_allowed"}
            assert reply.json()["error"]["code"] in documented
