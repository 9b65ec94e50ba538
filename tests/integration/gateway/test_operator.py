"""The operator's kill switch: who may, what it answers, and what is left in the log."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import structlog

from tests.integration.gateway.conftest import Stack, standing
from tests.integration.gateway.test_routes import assert_problem

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATH = "/v1/operator/kill-switch"
TOKEN = "op_" + "0123456789abcdef" * 3
AUTH = {"Authorization": f"Bearer {TOKEN}"}
THROW = {"enabled": True, "reason": "incident 4711"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def operated() -> AsyncIterator[Stack]:
    async with standing(operator_token=TOKEN) as stack:
        yield stack


async def test_an_operator_throws_sees_and_releases_it(operated: Stack) -> None:
    thrown = await operated.http.put(PATH, json=THROW, headers=AUTH)
    assert thrown.status_code == 200
    expected = {"meter": None, "enabled": True, "reason": "incident 4711", "changed_at": "2100-01-01T00:00:00Z"}
    assert thrown.json() == expected
    one = {"enabled": True, "reason": "disk", "meter": "messages"}
    assert (await operated.http.put(PATH, json=one, headers=AUTH)).json()["meter"] == "messages"
    listed = (await operated.http.get(PATH, headers=AUTH)).json()
    assert (listed["enabled"], listed["reason"]) == (True, "incident 4711")
    assert [switch["meter"] for switch in listed["switches"]] == [None, "messages"]
    released = await operated.http.put(PATH, json={"enabled": False}, headers=AUTH)
    assert (released.json()["enabled"], released.headers["cache-control"]) == (False, "no-store")


async def test_it_is_written_in_the_log_and_the_token_is_not(operated: Stack) -> None:
    with structlog.testing.capture_logs() as lines:
        await operated.http.put(PATH, json=THROW, headers=AUTH)
    [line] = [line for line in lines if line["event"] == "operator.kill_switch"]
    assert (line["meter"], line["enabled"], line["reason"]) == ("all", True, "incident 4711")
    assert TOKEN not in repr(lines)


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("", "unauthenticated"),
        (f"Basic {TOKEN}", "authorization_malformed"),
        (f"Bearer {TOKEN[:-1]}", "operator_token_invalid"),
        (f"Bearer {TOKEN}x", "operator_token_invalid"),
        ("Bearer sk_live_0123456789abcdef0123456789abcdef", "operator_token_invalid"),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "GET"])
async def test_nobody_else_may(operated: Stack, method: str, authorization: str, code: str) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    operated.switches.fault.calls.clear()
    answer = await operated.http.request(method, PATH, json=THROW if method == "PUT" else None, headers=headers)
    assert_problem(answer, 401, code)
    assert "www-authenticate" in answer.headers
    assert not operated.switches.fault.calls


async def test_an_accounts_key_is_no_operator(operated: Stack) -> None:
    _, auth = operated.account()
    assert_problem(await operated.http.put(PATH, json=THROW, headers=auth), 401, "operator_token_invalid")


async def test_without_an_operator_token_nobody_may(stack: Stack) -> None:
    _, auth = stack.account()
    for headers in (AUTH, auth):
        assert_problem(await stack.http.put(PATH, json=THROW, headers=headers), 403, "operator_disabled")
    assert_problem(await stack.http.put(PATH, json=THROW), 401, "unauthenticated")
    assert not stack.switches.fault.calls


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"reason": "x"}, "validation_failed", "enabled"),
        ({"enabled": "true", "reason": "x"}, "validation_failed", "enabled"),
        ({"enabled": True, "reason": "x" * 301}, "validation_failed", "reason"),
        ({"enabled": True, "reason": "a\nb"}, "validation_failed", "reason"),
        ({"enabled": True, "reason": "x", "meter": ""}, "validation_failed", "meter"),
        ({"enabled": True}, "invalid_argument", "reason"),
        ({"enabled": True, "reason": "x", "meter": "nonsense"}, "unknown_meter", "meter"),
    ],
)
async def test_bad_input_names_its_field(operated: Stack, body: dict[str, object], code: str, field: str) -> None:
    answer = await operated.http.put(PATH, json=body, headers=AUTH)
    assert assert_problem(answer, 422, code)["field"] == field


@pytest.mark.parametrize("query", ["page_size=0", "page_size=1001", "page_size=ten", "status=" + "x" * 21])
async def test_a_query_of_another_shape_is_refused_by_name(operated: Stack, query: str) -> None:
    answer = await operated.http.get(f"/v1/operator/stripe-events?{query}", headers=AUTH)
    problem = assert_problem(answer, 422, "validation_failed", field=query.partition("=")[0])
    assert "x" * 21 not in str(problem)
