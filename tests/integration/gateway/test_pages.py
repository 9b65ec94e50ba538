"""The pages for people, and the description for machines."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from gateway.problem_types import KNOWN
from tests.integration.gateway.conftest import Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")
PAGES = ["/", "/checkout/success?session_id=cs_test_1", "/checkout/canceled", "/problems"]


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_runs_nothing_and_loads_nothing(stack: Stack, path: str) -> None:
    answer = await stack.http.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<script" not in answer.text
    assert " style=" not in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    style = re.search(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy  # else the browser shows the page without style
    assert "prefers-color-scheme: dark" in style[1]


async def test_a_page_repeats_nothing_of_its_address(stack: Stack) -> None:
    answer = await stack.http.get("/checkout/success", params={"session_id": "<script>alert(1)</script>"})
    assert "alert" not in answer.text


async def test_the_type_of_a_problem_leads_to_its_explanation(stack: Stack) -> None:
    kind = (await stack.http.get("/v1/billing")).json()["type"]
    path, _, anchor = kind.removeprefix("https://api.example.com").partition("#")
    text = (await stack.http.get(path)).text
    assert f'id="{anchor}"' in text
    for code in KNOWN:
        assert f'id="{code}"' in text


async def test_the_index_links_only_to_what_is_there(stack: Stack) -> None:
    text = (await stack.http.get("/")).text
    links = re.findall(r'href="(/[^"]*)"', text)
    assert "/openapi.json" in links
    for link in links:
        assert (await stack.http.get(link)).status_code == 200


async def test_the_openapi_document_is_3_1_and_every_reference_resolves(stack: Stack) -> None:
    described = (await stack.http.get("/openapi.json")).json()
    assert described["openapi"].startswith("3.1")

    def references(value):
        if isinstance(value, dict):
            yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    for reference in set(references(described)):
        found = described
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


async def test_every_operation_has_an_id_a_summary_and_says_who_may_call_it(stack: Stack) -> None:
    described = (await stack.http.get("/openapi.json")).json()
    ids = set()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            assert operation["operationId"] not in ids
            ids.add(operation["operationId"])
            assert operation["summary"], path
            assert "default" not in operation["responses"]
            open_to_all = not operation.get("security")
            answer = await stack.http.request(method, path)
            assert (answer.status_code == 401) is not open_to_all, path
            assert str(answer.status_code) in operation["responses"], path


async def test_the_documented_examples_are_accepted_and_look_like_the_answers(stack: Stack) -> None:
    described = (await stack.http.get("/openapi.json")).json()
    example = described["paths"]["/v1/signup"]["post"]["requestBody"]["content"]["application/json"]["example"]
    answer = await stack.http.post("/v1/signup", json=example)
    assert answer.status_code == 201
    shown = described["components"]["schemas"]["SignedUp"]["properties"]
    assert set(answer.json()) == set(shown)
