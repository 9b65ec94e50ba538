"""Signing in a program over REST, and what a session reaches: a real gateway before a real billing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.billing.application import device_logins, sessions
from services.billing.domain.api_key import new_key
from tests.integration.gateway.org_world import Orgs, running_orgs
from tests.integration.gateway.test_orgs import signed_in
from tests.integration.gateway.test_routes import assert_problem


@pytest.fixture
async def orgs(billing_database: str) -> AsyncIterator[Orgs]:
    async with running_orgs(billing_database, local=False) as running:
        yield running


async def begin(orgs: Orgs) -> dict[str, Any]:
    answer = await orgs.call("POST", "/v1/device/code", "", {"client_name": "tollway on ada-laptop"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    found: dict[str, Any] = answer.json()
    return found


async def poll(orgs: Orgs, device_code: str) -> Any:
    return await orgs.call("POST", "/v1/device/token", "", {"device_code": device_code})


async def test_a_code_becomes_a_session_once_it_is_approved_and_is_told_once(orgs: Orgs) -> None:
    slug, session, _ = await signed_in(orgs)
    begun = await begin(orgs)
    code = begun["user_code"]
    assert begun["verification_uri_complete"] == f"{begun['verification_uri']}?code={code}"
    assert begun["verification_uri"].endswith("/dash/device")
    assert (begun["interval"], begun["expires_in"]) == (5, 600)
    waiting = await poll(orgs, begun["device_code"])
    assert assert_problem(waiting, 400, "authorization_pending")["error"] == "authorization_pending"
    too_soon = await poll(orgs, begun["device_code"])
    assert assert_problem(too_soon, 400, "slow_down")["error"] == "slow_down"
    assert too_soon.headers["retry-after"] == "10"

    await device_logins.approve(code, session, slug, orgs.billing.context)
    answer = await poll(orgs, begun["device_code"])
    assert answer.status_code == 200, answer.text
    granted = answer.json()
    assert (granted["account"]["slug"], granted["email"]) == (slug, "ada@example.com")
    assert granted["expires_in"] == 30 * 86_400
    assert answer.headers["cache-control"] == "no-store"
    token = granted["access_token"]
    for path in (f"/v1/orgs/{slug}/keys", f"/v1/orgs/{slug}/billing", "/v1/session"):
        assert (await orgs.call("GET", path, token)).status_code == 200, path
    assert_problem(await poll(orgs, begun["device_code"]), 400, "invalid_grant")

    for _ in range(2):
        assert (await orgs.call("DELETE", "/v1/session", token)).status_code == 204
    assert_problem(await orgs.call("GET", "/v1/session", token), 401, "session_invalid")
    assert (await orgs.call("GET", "/v1/session", session)).status_code == 200  # the browser's goes on


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "device_code"),
        ({"device_code": 1}, "device_code"),
        ({"device_code": "a\0"}, "device_code"),
        ({"device_code": "x", "grant_type": "password"}, "grant_type"),
        ({"device_code": "x", "client_id": "x"}, "client_id"),
    ],
)
async def test_a_poll_of_another_shape_names_the_field(orgs: Orgs, body: Any, field: str) -> None:
    refused = await orgs.call("POST", "/v1/device/token", "", body)
    assert assert_problem(refused, 422, "validation_failed")["field"] == field


async def test_an_unknown_device_code_and_a_refused_login_are_named_as_rfc_8628_does(orgs: Orgs) -> None:
    _, session, _ = await signed_in(orgs)
    for code in ("nonsense", new_key(device_logins.PREFIX).secret):
        assert_problem(await poll(orgs, code), 400, "invalid_grant")
    begun = await begin(orgs)
    await device_logins.deny(begun["user_code"], session, orgs.billing.context)
    assert_problem(await poll(orgs, begun["device_code"]), 400, "access_denied")


async def test_logins_of_one_address_are_limited(orgs: Orgs) -> None:
    most = orgs.billing.context.settings.logins_per_address
    for _ in range(most):
        await begin(orgs)
    refused = await orgs.call("POST", "/v1/device/code", "")
    assert_problem(refused, 429, "device_login_rate_limited")
    assert int(refused.headers["retry-after"]) == 3600


async def test_a_session_makes_another_account_and_a_key_does_not(orgs: Orgs) -> None:
    slug, session, key = await signed_in(orgs)
    made = await orgs.call("POST", "/v1/orgs", session, {"name": "Second"}, **{"Idempotency-Key": "o-1"})
    again = await orgs.call("POST", "/v1/orgs", session, {"name": "Second"}, **{"Idempotency-Key": "o-1"})
    assert (made.status_code, made.json()) == (201, again.json())
    assert (made.json()["slug"], made.json()["role"]) == ("second", "owner")
    listed = (await orgs.call("GET", "/v1/orgs", session)).json()["orgs"]
    assert [org["slug"] for org in listed] == sorted([slug, "second"])
    _, token = await orgs.outsider("bob")
    for credential in (key, token):
        assert_problem(await orgs.call("POST", "/v1/orgs", credential, {"name": "Third"}), 403, "session_required")
    empty = await orgs.call("POST", "/v1/orgs", session, {"name": " "})
    assert assert_problem(empty, 422, "invalid_argument")["field"] == "name"


async def test_what_an_account_is_on_is_told_to_its_people_and_to_its_keys_that_may_read_it(orgs: Orgs) -> None:
    slug, session, key = await signed_in(orgs)
    eves, eves_session, _ = await signed_in(orgs, "eve@example.com")
    for credential in (session, key):  # the catalog's first kind has the scope `status`
        told = await orgs.call("GET", f"/v1/orgs/{slug}/billing", credential)
        assert told.json() == {
            "plan": "free",
            "status": "active",
            "current_period_end": None,
            "cancel_at_period_end": False,
        }
    unknown = await orgs.call("GET", "/v1/orgs/nobody/billing", session)
    for route in ("billing", "usage"):
        theirs = assert_problem(
            await orgs.call("GET", f"/v1/orgs/{slug}/{route}", eves_session), 404, "account_not_found"
        )
        assert theirs["detail"] == unknown.json()["detail"]
    assert eves != slug


async def test_a_session_is_what_the_session_routes_take(orgs: Orgs) -> None:
    _, _, key = await signed_in(orgs)
    for method in ("GET", "DELETE"):
        assert_problem(await orgs.call(method, "/v1/session", key), 403, "session_required")
        assert_problem(await orgs.call(method, "/v1/session", ""), 401, "unauthenticated")
    wrong = new_key(sessions.PREFIX).secret
    assert_problem(await orgs.call("GET", "/v1/session", wrong), 401, "session_invalid")
