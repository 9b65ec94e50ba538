"""The OpenAPI document is complete: whoever reads only it can call every route and understand every answer."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import jsonschema_rs
import pytest
import pytest_asyncio
from fastapi import FastAPI
from fastapi.routing import APIRoute

from gateway import openapi
from gateway.app import _ROUTERS, create
from gateway.backend import Backend
from gateway.openapi.examples import of_path
from gateway.openapi.links import LINKS
from gateway.problem_types import KNOWN
from gateway.settings import GatewaySettings

pytestmark = pytest.mark.asyncio(loop_scope="module")
URL = "https://api.example.com"
Json = dict[str, Any]
PROBLEM = "application/problem+json"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app() -> AsyncIterator[FastAPI]:
    backend = Backend(GatewaySettings(local=True))
    yield create(GatewaySettings(local=True), backend)
    await backend.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def described(app: FastAPI) -> Json:
    found: Json = json.loads(json.dumps(openapi.document(app, URL)))
    return found


def contents(described: Json) -> Iterator[tuple[str, str, Json]]:
    """(where, media type, content) of each body and each answer that has one."""
    for path, method, operation in openapi.operations(described):
        for media, content in operation.get("requestBody", {}).get("content", {}).items():
            yield f"{method} {path} body", media, content
        for status, response in operation["responses"].items():
            for media, content in response.get("content", {}).items():
                yield f"{method} {path} {status}", media, content


def values(content: Json) -> list[Any]:
    shown = [example["value"] for example in content.get("examples", {}).values()]
    return shown + ([content["example"]] if "example" in content else [])


def valid(described: Json, schema: Json, value: Any) -> list[str]:
    whole = {**schema, "components": described["components"]}
    return [error.message for error in jsonschema_rs.Draft202012Validator(whole).iter_errors(value)]


async def test_every_body_and_every_answer_has_an_example_that_its_schema_allows(described: Json) -> None:
    for where, _, content in contents(described):
        assert values(content), where
        for value in values(content):
            assert not valid(described, content["schema"], value), f"{where}: {value}"


async def test_examples_are_of_the_field_and_not_placeholders(described: Json) -> None:
    for where, media, content in contents(described):
        for value in values(content):
            assert '"…"' not in json.dumps(value, ensure_ascii=False), where
        if media == PROBLEM:
            for value in values(content):
                assert "{" not in value["instance"]
                assert value["detail"], where
                assert value["type"].startswith((f"{URL}/problems#", "https://iana.org/")), where


async def test_every_route_is_described_or_hidden_on_purpose(described: Json) -> None:
    routes = {
        (method.lower(), route.path.replace(":path}", "}"))
        for router in _ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute) and route.include_in_schema
        for method in route.methods or ()
    }
    assert routes == {(method, path) for path, method, _ in openapi.operations(described)}


async def test_an_operation_has_a_name_for_generators_a_tag_with_a_text_and_a_description(described: Json) -> None:
    tags = {tag["name"] for tag in described["tags"] if tag["description"]}
    ids = [operation["operationId"] for _, _, operation in openapi.operations(described)]
    assert len(ids) == len(set(ids))
    for path, _, operation in openapi.operations(described):
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+|reconcile", operation["operationId"]), path
        assert operation["tags"], path
        assert set(operation["tags"]) <= tags, path
        assert operation["summary"], path
        assert operation["description"], path


async def test_schemas_are_named_for_their_readers_and_each_is_used(described: Json) -> None:
    schemas = described["components"]["schemas"]
    used = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(described)))
    assert used == set(schemas)
    for name, schema in schemas.items():
        assert re.fullmatch(r"[A-Z][A-Za-z]+", name)
        assert schema["title"] == name


async def test_every_answer_has_its_request_id_and_every_status_its_headers(described: Json) -> None:
    schemes = described["components"]["securitySchemes"]
    for path, method, operation in openapi.operations(described):
        assert set().union(*operation["security"]) <= set(schemes), path
        for status, response in operation["responses"].items():
            headers = response["headers"]
            assert "X-Request-Id" in headers
            assert ("Retry-After" in headers) or status not in {"429", "503", "504"}, (method, path, status)
            assert ("WWW-Authenticate" in headers) or status != "401", (method, path)
            if int(status) >= 400:
                assert set(response["content"]) == {PROBLEM}, (method, path, status)
        assert ("401" in operation["responses"]) is bool(operation["security"]), path


async def test_what_a_plan_refuses_has_the_refusals_members_and_the_limits_headers(described: Json) -> None:
    for path in ("/v1/usage", "/api/download"):
        responses = described["paths"][path]["post"]["responses"]
        assert {"RateLimit", "RateLimit-Policy"} <= responses["200"]["headers"].keys()
        for status in ("402", "403", "429", "503"):
            assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= responses[status]["headers"].keys()
            assert "UsageRefused" in json.dumps(responses[status]["content"][PROBLEM]["schema"])


async def test_a_counted_use_documents_what_quota_may_refuse_besides_limits(described: Json) -> None:
    for path in ("/v1/usage", "/api/download"):
        responses = described["paths"][path]["post"]["responses"]
        codes = {
            code
            for answer in responses.values()
            for code in answer.get("content", {}).get(PROBLEM, {}).get("examples", ())
        }
        assert {"counter_full", "reversed", "queue_full", "billing_unavailable", "expired_in_queue"} <= codes


async def test_every_problem_that_a_route_may_answer_is_documented_with_its_own_status(described: Json) -> None:
    for where, media, content in contents(described):
        if media == PROBLEM:
            for code in content["examples"].keys() - {"a limit"}:
                assert str(KNOWN[code].status) == where.rsplit(" ", 1)[1], where


async def test_parameters_of_paths_are_all_there_with_examples(described: Json) -> None:
    for path, _, operation in openapi.operations(described):
        shown = {p["name"]: p for p in operation["parameters"] if p.get("in") == "path"}
        assert set(shown) == set(re.findall(r"{(\w+)}", path)), path
        assert all(parameter["example"] for parameter in shown.values())


async def test_links_lead_from_answers_that_are_documented_to_operations_that_take_what_they_carry(
    described: Json,
) -> None:
    found = {operation["operationId"]: operation for _, _, operation in openapi.operations(described)}
    for (source, status), links in LINKS.items():
        assert set(found[source]["responses"][status]["links"]) == {name for name, _, _ in links}
        for _, target, parameters in links:
            assert set(parameters) <= {p.get("name") for p in found[target]["parameters"]}, (source, target)


async def test_bounds_are_exact(described: Json) -> None:
    amount = described["components"]["schemas"]["Use"]["properties"]["amount"]
    assert (amount["minimum"], amount["maximum"]) == (1, 2**62)
    assert isinstance(amount["maximum"], int)


async def test_a_part_of_a_path_that_has_no_example_is_shown_by_its_name() -> None:
    assert of_path("/v1/orgs/{slug}/news/{edition}") == "/v1/orgs/adas-relay/news/edition"
