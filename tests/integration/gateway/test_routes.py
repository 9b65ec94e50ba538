"""Each route answers as its documentation shows."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.kit import errors
from tests.integration.gateway.conftest import Stack, standing

pytestmark = pytest.mark.asyncio(loop_scope="module")
WHO = {"email": "ada@example.com", "name": "Ada"}


def assert_problem(answer, status: int, code: str, field: str | None = None) -> dict:
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == answer.headers["x-request-id"]
    if field is not None:
        assert body["field"] == field
        assert field in [error["field"] for error in body["errors"]]
    return body


async def test_sign_up_answers_the_account_and_its_key(stack: Stack) -> None:
    answer = await stack.http.post("/v1/signup", json=WHO)
    body = answer.json()
    assert answer.status_code == 201
    assert set(body) == {"account", "api_key"}
    assert set(body["account"]) == {"id", "slug", "name", "email"}
    assert stack.billing.keys[body["api_key"]] == body["account"]["id"]
    assert answer.headers["cache-control"] == "no-store"


async def test_sign_up_again_with_the_same_idempotency_key_quoted_or_not_is_one_account(stack: Stack) -> None:
    first = await stack.http.post("/v1/signup", json=WHO, headers={"Idempotency-Key": '"once"'})
    again = await stack.http.post("/v1/signup", json=WHO, headers={"Idempotency-Key": "once"})
    assert first.json() == again.json()
    other = await stack.http.post(
        "/v1/signup", json={**WHO, "email": "bob@example.com"}, headers={"Idempotency-Key": "once"}
    )
    assert_problem(other, 422, "idempotency_key_reused", field="Idempotency-Key")


async def test_sign_up_tells_billing_the_peer_and_believes_nobody_else(stack: Stack) -> None:
    await stack.http.post("/v1/signup", json=WHO, headers={"X-Forwarded-For": "203.0.113.9"})
    assert stack.billing.fault.asked["CreateAccount"].remote_address == "127.0.0.1"


async def test_behind_a_trusted_proxy_sign_up_tells_billing_the_address_that_the_proxy_added() -> None:
    async with standing(trusted_proxies="127.0.0.0/8, 10.0.0.1") as stack:
        headers = {"X-Forwarded-For": "198.51.100.7, 203.0.113.9, 10.0.0.1"}
        await stack.http.post("/v1/signup", json=WHO, headers=headers)
        assert stack.billing.fault.asked["CreateAccount"].remote_address == "203.0.113.9"


async def test_a_sign_up_rate_limit_says_when_to_come_back(stack: Stack) -> None:
    stack.billing.fault.errors["CreateAccount"] = errors.ResourceExhausted(
        "Too many sign-ups.", reason="SIGN_UP_RATE_LIMITED", retry_after=timedelta(seconds=59.2)
    )
    answer = await stack.http.post("/v1/signup", json=WHO)
    assert_problem(answer, 429, "sign_up_rate_limited")
    assert answer.headers["retry-after"] == "60"


async def test_a_key_becomes_a_token_that_counts_usage(stack: Stack) -> None:
    account_id, auth = stack.account()
    body = (await stack.http.post("/v1/auth/token", headers=auth)).json()
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 3600)
    bearer = {"authorization": f"bearer {body['access_token']}"}
    assert (await stack.http.post("/v1/usage", json={"meter": "messages"}, headers=bearer)).status_code == 200
    assert stack.quota.used[account_id] == 1
    assert_problem(await stack.http.get("/v1/billing", headers=bearer), 401, "api_key_required")
    assert_problem(await stack.http.post("/v1/auth/token", headers=bearer), 401, "api_key_required")


async def test_billing_of_a_free_account_is_as_documented(stack: Stack) -> None:
    account_id, auth = stack.account()
    free = {"plan": "free", "status": "active", "current_period_end": None, "cancel_at_period_end": False}
    assert (await stack.http.get("/v1/billing", headers=auth)).json() == free
    state = stack.billing.states[account_id]  # free again after a subscription ended
    state.status, state.cancel_at_period_end = "canceled", True
    state.current_period_end.seconds = 1
    assert (await stack.http.get("/v1/billing", headers=auth)).json() == free


async def test_billing_of_a_pro_account_is_as_the_seed_shows(stack: Stack) -> None:
    account_id, auth = stack.account()
    state = stack.billing.states[account_id]
    state.tier, state.status, state.default_tier = "pro", "active", False
    state.current_period_end.FromJsonString("2026-04-01T00:00:00Z")
    answer = await stack.http.get("/v1/billing", headers=auth)
    assert answer.text == (
        '{"plan":"pro","status":"active","current_period_end":"2026-04-01T00:00:00Z","cancel_at_period_end":false}'
    )


async def test_a_contract_without_a_subscription_is_active(stack: Stack) -> None:
    account_id, auth = stack.account()
    stack.billing.states[account_id].tier, stack.billing.states[account_id].default_tier = "enterprise", False
    body = (await stack.http.get("/v1/billing", headers=auth)).json()
    assert body == {
        "plan": "enterprise",
        "status": "active",
        "current_period_end": None,
        "cancel_at_period_end": False,
    }


async def test_checkout_answers_its_url_and_passes_the_idempotency_key(stack: Stack) -> None:
    _, auth = stack.account()
    answer = await stack.http.post(
        "/v1/billing/checkout", json={"tier": "pro"}, headers={**auth, "Idempotency-Key": "c1"}
    )
    assert (answer.status_code, answer.json()) == (
        200,
        {"checkout_url": "https://checkout.stripe.com/c/pay/cs_test_1"},
    )
    assert stack.billing.fault.asked["CreateCheckout"].request_id == "c1"


async def test_checkout_refusals_name_what_is_wrong(stack: Stack) -> None:
    account_id, auth = stack.account()

    async def checkout(**body: object):
        return await stack.http.post("/v1/billing/checkout", json=body, headers=auth)

    sales = assert_problem(await checkout(tier="enterprise"), 422, "contact_sales", field="tier")
    assert sales["contact"] == "mailto:contact@skytale.sh"
    assert "secret" not in sales
    assert_problem(await checkout(tier="gold"), 422, "unknown_tier", field="tier")
    evil = await checkout(tier="pro", success_url="https://evil.example")
    assert_problem(evil, 422, "redirect_not_allowed", field="success_url")
    assert_problem(await checkout(), 422, "validation_failed", field="tier")
    assert_problem(await checkout(tier="pro", plan="x"), 422, "validation_failed", field="plan")
    stack.billing.states[account_id].default_tier = False
    assert_problem(await checkout(tier="pro"), 409, "already_subscribed")


async def test_the_portal_takes_no_body_or_a_return_url(stack: Stack) -> None:
    account_id, auth = stack.account()
    assert_problem(await stack.http.post("/v1/billing/portal", headers=auth), 409, "no_customer")
    stack.billing.states[account_id].stripe_customer_id = "cus_1"
    bare = await stack.http.post("/v1/billing/portal", headers=auth)
    assert (bare.status_code, bare.json()) == (200, {"portal_url": "https://billing.stripe.com/p/session/1"})
    await stack.http.post("/v1/billing/portal", headers=auth, json={"return_url": "https://app.example"})
    assert stack.billing.fault.asked["CreatePortalSession"].return_url == "https://app.example"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/billing"), ("POST", "/v1/billing/checkout"), ("POST", "/v1/billing/portal")]
)
async def test_billing_needs_the_scope(stack: Stack, method: str, path: str) -> None:
    stack.billing.scopes = ["usage"]
    _, auth = stack.account()
    answer = await stack.http.request(method, path, headers=auth, json={"tier": "pro"} if method == "POST" else None)
    assert assert_problem(answer, 403, "insufficient_scope")["scope"] == "billing"
    assert 'error="insufficient_scope", scope="billing"' in answer.headers["www-authenticate"]


async def test_a_use_is_counted_and_tells_what_is_left(stack: Stack) -> None:
    account_id, auth = stack.account()
    answer = await stack.http.post("/v1/usage", json={"meter": "messages", "amount": 4}, headers=auth)
    assert answer.status_code == 200
    assert answer.json() == {
        "allowed": True,
        "meter": "messages",
        "amount": 4,
        "tier": "free",
        "replayed": False,
        "used": 4,
        "limit": 10,
        "remaining": 6,
        "resets_at": "2100-01-01T00:00:00Z",
        "limits": [
            {
                "name": "messages_per_month",
                "kind": "quota",
                "used": 4,
                "limit": 10,
                "remaining": 6,
                "resets_at": "2100-01-01T00:00:00Z",
                "window_seconds": None,
                "auto_stop": None,
            }
        ],
    }
    assert answer.headers["ratelimit-policy"] == '"messages_per_month";q=10'
    assert answer.headers["ratelimit"].startswith('"messages_per_month";r=6;t=')
    assert stack.quota.used[account_id] == 4


async def test_a_refused_use_is_the_catalogs_problem_with_the_numbers(stack: Stack) -> None:
    account_id, auth = stack.account()
    stack.quota.used[account_id] = 10
    answer = await stack.http.post("/v1/usage", json={"meter": "messages"}, headers=auth)
    body = assert_problem(answer, 402, "message_quota_exceeded")
    assert body["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert body["reason"] == "message_quota_exceeded"
    assert (body["meter"], body["used"], body["limit"], body["remaining"]) == ("messages", 10, 10, 0)
    assert body["resets_at"] == "2100-01-01T00:00:00Z"
    assert body["checkoutUrl"] == "https://api.example.com/dash/ada/billing"
    assert "supportContact" not in body
    assert answer.headers["retry-after"] == "91"
    assert answer.headers["ratelimit"].startswith('"messages_per_month";r=0;t=')


@pytest.mark.parametrize(("told", "status"), [(402, 402), (403, 403), (429, 429), (503, 503), (200, 429), (0, 429)])
async def test_a_refusal_has_the_catalogs_status_and_never_a_success(stack: Stack, told: int, status: int) -> None:
    _, auth = stack.account()
    stack.quota.limit, stack.quota.refusal.http_status = 0, told
    answer = await stack.http.post("/v1/usage", json={"meter": "messages"}, headers=auth)
    assert_problem(answer, status, "message_quota_exceeded")


async def test_an_unlimited_meter_answers_nulls_and_no_rate_limit_headers(stack: Stack) -> None:
    _, auth = stack.account()
    stack.quota.limit = None
    answer = await stack.http.post("/v1/usage", json={"meter": "messages"}, headers=auth)
    assert (answer.json()["used"], answer.json()["limit"], answer.json()["remaining"]) == (1, None, None)
    assert "ratelimit" not in answer.headers
    listed = (await stack.http.get("/v1/usage", headers=auth)).json()
    assert listed["tier"] == "free"
    assert [(meter["meter"], meter["used"], meter["limit"]) for meter in listed["meters"]] == [("messages", 1, None)]


async def test_the_numbers_of_a_use_are_its_quotas_and_a_rate_is_listed_beside(stack: Stack) -> None:
    _, auth = stack.account()
    stack.quota.burst = 3
    answer = await stack.http.post("/v1/usage", json={"meter": "messages"}, headers=auth)
    body = answer.json()
    assert (body["used"], body["limit"], body["remaining"]) == (1, 10, 9)
    assert [(state["name"], state["limit"]) for state in body["limits"]] == [("burst", 3), ("messages_per_month", 10)]
    assert answer.headers["ratelimit"].startswith('"burst";r=2;t=')


async def test_limits_per_key_hear_which_key_called_by_key_and_by_token(stack: Stack) -> None:
    _, auth = stack.account()
    token = (await stack.http.post("/v1/auth/token", headers=auth)).json()["access_token"]
    for headers in (auth, {"authorization": f"Bearer {token}"}):
        await stack.http.post("/v1/usage", json={"meter": "messages"}, headers=headers)
        await stack.http.get("/v1/usage", headers=headers)
        assert stack.quota.fault.asked.pop("Consume").key_id == "key_1"
        assert stack.quota.fault.asked.pop("GetUsage").key_id == "key_1"


async def test_every_service_hears_for_which_request_it_works(stack: Stack) -> None:
    _, auth = stack.account()
    for sent in ({"X-Request-Id": "order-4711"}, {"X-Request-Id": "not an id"}, {}):
        answer = await stack.http.post("/v1/usage", json={"meter": "messages"}, headers=auth | sent)
        heard = {stack.billing.fault.working_for["Authenticate"], stack.quota.fault.working_for["Consume"]}
        assert heard == {answer.headers["x-request-id"]}


async def test_a_repeated_use_is_counted_once(stack: Stack) -> None:
    account_id, auth = stack.account()
    headers = {**auth, "Idempotency-Key": "u1"}
    for replayed in (False, True):
        answer = await stack.http.post("/v1/usage", json={"meter": "messages"}, headers=headers)
        assert answer.json()["replayed"] is replayed
    assert stack.quota.used[account_id] == 1
    other = await stack.http.post("/v1/usage", json={"meter": "messages", "amount": 2}, headers=headers)
    assert_problem(other, 422, "idempotency_key_reused", field="Idempotency-Key")


@pytest.mark.parametrize(
    "amount", ["1.5", "1.0", '"1"', "true", "null", str(2**63), str(2**62 + 1), "0", "-1", "9" * 5000]
)
async def test_an_amount_that_is_no_count_is_refused_by_name(stack: Stack, amount: str) -> None:
    _, auth = stack.account()
    answer = await stack.http.post(
        "/v1/usage",
        content=f'{{"meter": "messages", "amount": {amount}}}',
        headers={**auth, "Content-Type": "application/json"},
    )
    assert_problem(answer, 422, "validation_failed", field="amount")
    assert stack.quota.fault.calls["Consume"] == 0


async def test_an_unknown_meter_is_refused_by_name(stack: Stack) -> None:
    _, auth = stack.account()
    answer = await stack.http.post("/v1/usage", json={"meter": "nope"}, headers=auth)
    assert_problem(answer, 422, "unknown_meter", field="meter")


async def test_plans_list_tiers_prices_and_quotas(stack: Stack) -> None:
    body = (await stack.http.get("/v1/plans")).json()
    assert body["product"] == "Skytale"
    free, pro, enterprise = body["plans"]
    assert (free["prices"], free["quotas"]) == ([], [{"meter": "messages", "limit": 100_000, "period": "month"}])
    assert pro["prices"] == [
        {
            "id": "price_1",
            "lookup_key": "skytale_pro_month",
            "unit_amount": 2900,
            "currency": "usd",
            "interval": "month",
        }
    ]
    assert enterprise["contact_sales"] is True
    assert enterprise["quotas"][0]["limit"] is None


async def test_webhooks_reach_billing_byte_for_byte(stack: Stack) -> None:
    payload = b'{ "id":"evt_1",\n "amount": 1.0, "amount": 2 }\xff'
    answer = await stack.http.post("/webhooks/stripe", content=payload, headers={"Stripe-Signature": "t=1,v1=good"})
    assert (answer.status_code, answer.json()) == (200, {"received": True})
    assert stack.billing.events == [payload]


async def test_a_webhook_that_is_forged_or_unsigned_is_400_and_one_that_cannot_be_kept_503(stack: Stack) -> None:
    async def deliver(**headers: str):
        return await stack.http.post("/webhooks/stripe", content=b"{}", headers=headers)

    assert_problem(await deliver(**{"Stripe-Signature": "t=1,v1=bad"}), 400, "signature_invalid")
    assert_problem(await deliver(), 400, "signature_invalid")
    assert stack.billing.events == []
    stack.billing.fault.errors["IngestWebhook"] = errors.Unavailable("The database cannot be reached.")
    kept = await deliver(**{"Stripe-Signature": "t=1,v1=good"})
    assert_problem(kept, 503, "unavailable")
    assert kept.headers["retry-after"] == "1"


async def test_a_webhook_over_one_mebibyte_is_413_and_one_of_that_size_passes(stack: Stack) -> None:
    headers = {"Stripe-Signature": "t=1,v1=good"}
    fits = await stack.http.post("/webhooks/stripe", content=b"x" * 1024 * 1024, headers=headers)
    assert fits.status_code == 200
    large = await stack.http.post("/webhooks/stripe", content=b"x" * (1024 * 1024 + 1), headers=headers)
    assert_problem(large, 413, "body_too_large")


async def test_ready_names_the_service_that_is_down(own: Stack) -> None:
    ready = await own.http.get("/readyz")
    assert (ready.status_code, ready.json()["services"]) == (
        200,
        {"billing": "ok", "quota": "ok", "notify": "ok"},
    )
    await own.quota_server.stop()
    down = assert_problem(await own.http.get("/readyz"), 503, "not_ready")
    assert down["services"] == {"billing": "ok", "quota": "down", "notify": "ok"}
    assert (await own.http.get("/healthz")).json() == {"status": "ok"}


async def test_a_service_that_is_down_is_503_and_tells_no_address(own: Stack) -> None:
    _, auth = own.account()
    await own.quota_server.stop()
    answer = await own.http.post("/v1/usage", json={"meter": "messages"}, headers=auth)
    assert_problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"]
    assert "127.0.0.1" not in answer.text
    assert "ipv4" not in answer.text


async def test_metrics_count_requests_by_route_not_by_path(stack: Stack) -> None:
    await stack.http.get("/healthz")
    await stack.http.get("/made/up/by/a/caller")
    text = (await stack.http.get("/metrics")).text
    assert 'tollway_http_seconds_count{method="GET",route="/healthz",status="200"}' in text
    assert "made/up" not in text
