"""Bad input: each answer is a problem document that names the field and tells nothing of what is inside."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import httpx
import pytest

from services.billing.domain.api_key import new_key
from tests.e2e.world import PROBLEM, World, assert_nothing_inside_shows

_JSON = {"Content-Type": "application/json"}


def _is_problem(answer: httpx.Response, status: int, code: str, field: str | None) -> None:
    document = answer.json()
    assert answer.headers["content-type"] == PROBLEM
    assert (answer.status_code, document["status"], document["code"]) == (status, status, code), answer.text
    assert document.get("field") == field
    if field is not None:
        assert field in {error["field"] for error in document["errors"]}
    assert document["request_id"] == answer.headers["x-request-id"]
    assert document["title"]
    assert document["detail"]


@pytest.mark.parametrize(
    "amount",
    ["0", "-1", str(2**63), str(2**63 - 1), "1e400", "1.5", "1.0", '"1"', "true", "null", "[1]", "{}"],
)
async def test_an_amount_that_is_no_count_is_refused_naming_it(world: World, amount: str) -> None:
    customer = await world.sign_up()
    body = f'{{"meter": "messages", "amount": {amount}}}'
    answer = await world.gateway.post("/v1/usage", content=body, headers=customer.bearer | _JSON)
    _is_problem(answer, 422, "validation_failed", "amount")
    assert (await customer.messages())["used"] == 0


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ("{", 400, "malformed_json", None),
        ("", 400, "malformed_json", None),
        ('{"meter": "messages"} x', 400, "malformed_json", None),
        ("{'meter': 'messages'}", 400, "malformed_json", None),
        ('{"meter": "messages", "amount": NaN}', 400, "malformed_json", None),
        (b'{"meter": "\xff"}', 400, "malformed_json", None),
        ('{"meter": "messages", "meter": "messages"}', 400, "duplicate_key", None),
        ("[]", 422, "validation_failed", ""),
        ('"messages"', 422, "validation_failed", ""),
        ("{}", 422, "validation_failed", "meter"),
        ('{"meter": 7}', 422, "validation_failed", "meter"),
        ('{"meter": ""}', 422, "validation_failed", "meter"),
        ('{"meter": "minutes"}', 422, "unknown_meter", "meter"),
        ('{"meter": "messages", "amonut": 2}', 422, "validation_failed", "amonut"),
    ],
)
async def test_a_body_that_is_not_understood_is_refused_naming_what(
    world: World, body: str | bytes, status: int, code: str, field: str | None
) -> None:
    customer = await world.sign_up()
    answer = await world.gateway.post("/v1/usage", content=body, headers=customer.bearer | _JSON)
    _is_problem(answer, status, code, field)
    assert (await customer.messages())["used"] == 0


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"tier": "platinum"}, "unknown_tier", "tier"),
        ({"tier": "free"}, "unknown_tier", "tier"),
        ({"tier": ""}, "validation_failed", "tier"),
        ({"tier": 1}, "validation_failed", "tier"),
        ({}, "validation_failed", "tier"),
        ({"tier": "pro", "success_url": "https://evil.example/"}, "redirect_not_allowed", "success_url"),
        ({"tier": "pro", "cancel_url": "//evil.example/"}, "redirect_not_allowed", "cancel_url"),
        ({"tier": "pro", "success_url": "javascript:alert(1)"}, "redirect_not_allowed", "success_url"),
    ],
)
async def test_a_checkout_that_cannot_be_is_refused_naming_the_field(
    world: World, body: dict[str, Any], code: str, field: str
) -> None:
    customer = await world.sign_up()
    _is_problem(await customer.post("/v1/billing/checkout", body), 422, code, field)
    assert (await world.stripe("GET", "customers", email=customer.email))["data"] == []


async def test_enterprise_is_sold_by_contract_and_the_refusal_says_whom_to_write_to(world: World) -> None:
    customer = await world.sign_up()
    answer = await customer.post("/v1/billing/checkout", {"tier": "enterprise"})
    assert (answer.status_code, answer.json()["code"]) == (422, "contact_sales")
    assert answer.json()["contact"] == "mailto:contact@skytale.sh"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"email": "nobody", "name": "Ada"}, "email"),
        ({"email": "a@b\r\nBcc: c@d.example", "name": "Ada"}, "email"),
        ({"email": "ada@example.com", "name": "   "}, "name"),
        ({"email": "ada@example.com", "name": "a\r\nb"}, "name"),
        ({"email": "ada@example.com", "name": "x" * 101}, "name"),
        ({"email": "ada@example.com"}, "name"),
    ],
)
async def test_a_sign_up_that_is_not_one_is_refused_naming_the_field(
    world: World, body: dict[str, str], field: str
) -> None:
    answer = await world.gateway.post("/v1/signup", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == PROBLEM
    assert answer.json()["field"] == field


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "unauthenticated"),
        ("Basic dXNlcjpwYXNz", "authorization_malformed"),
        ("Bearer", "authorization_malformed"),
        ("Bearer a b", "authorization_malformed"),
        ("Bearer sk_live_short", "api_key_malformed"),
        ("Bearer sk_live_" + "0" * 33, "api_key_malformed"),
        ("Bearer pk_live_" + "A" * 33, "api_key_malformed"),
        ("Bearer ' OR 1=1 --", "authorization_malformed"),
        ("Bearer e30.e30.e30", "api_key_required"),
    ],
)
async def test_credentials_that_are_none_are_refused_with_a_challenge(
    world: World, authorization: str | None, code: str
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = await world.gateway.get("/v1/billing", headers=headers)
    _is_problem(answer, 401, code, None)
    assert answer.headers["www-authenticate"].startswith('Bearer realm="tollway"')


async def test_a_key_with_a_wrong_checksum_is_refused_while_no_table_can_be_read(world: World) -> None:
    key = (await world.sign_up()).key
    mistyped = key[:-1] + ("A" if key[-1] != "A" else "B")
    stranger = new_key("sk_live_").secret
    tables = await world.rows("billing", "SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'")
    names = ", ".join(f'"{table["name"]}"' for table in tables)

    async def ask(credential: str) -> httpx.Response:
        return await world.gateway.get("/v1/billing", headers={"Authorization": f"Bearer {credential}"})

    connection = await asyncpg.connect(world.dsn("billing"))
    try:
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
            looked_up = asyncio.create_task(ask(stranger))
            refused = await asyncio.wait_for(ask(mistyped), 5)
            # A well-formed key has to be looked up, and waits for the tables.
            done, _ = await asyncio.wait([looked_up], timeout=0.3)
            assert not done, (await looked_up).text
    finally:
        await connection.close()
    _is_problem(refused, 401, "api_key_malformed", None)
    _is_problem(await looked_up, 401, "api_key_unknown", None)


@pytest.mark.parametrize("path", ["/v1/signup", "/v1/billing/checkout", "/v1/billing/portal", "/v1/usage"])
async def test_wrong_json_is_refused_on_every_route_that_takes_json(world: World, path: str) -> None:
    customer = await world.sign_up()
    answer = await world.gateway.post(path, content='{"tier": ', headers=customer.bearer | _JSON)
    _is_problem(answer, 400, "malformed_json", None)
    answer = await world.gateway.post(path, content='["tier"]', headers=customer.bearer | _JSON)
    _is_problem(answer, 422, "validation_failed", "")


async def test_unknown_routes_and_methods_are_problems_too(world: World) -> None:
    _is_problem(await world.gateway.get("/v2/billing"), 404, "route_not_found", None)
    _is_problem(await world.gateway.delete("/v1/billing"), 405, "method_not_allowed", None)
    answer = await world.gateway.post("/v1/signup", content="email=a", headers={"Content-Type": "text/plain"})
    _is_problem(answer, 415, "unsupported_media_type", None)


@pytest.mark.parametrize(
    "said",
    [
        'Traceback (most recent call last):\n  File "x", line 1, in <module>',
        "<class 'asyncpg.exceptions.UniqueViolationError'>",
        "SELECT id FROM account WHERE id = $1",
        "could not open /home/tollway/.secrets",
        "postgresql://tollway:password@127.0.0.1/tollway_billing",
        "services/billing/application/plans.py",
    ],
)
def test_an_answer_that_shows_what_is_inside_would_be_noticed(said: str) -> None:
    document = dict.fromkeys(("type", "title", "instance", "code", "request_id"), "")
    request = httpx.Request("GET", "http://127.0.0.1/v1/billing")
    body = document | {"status": 500, "detail": said}
    answer = httpx.Response(500, json=body, headers={"Content-Type": PROBLEM}, request=request)
    with pytest.raises(AssertionError, match="tells too much"):
        assert_nothing_inside_shows(answer)
