"""Vatly's "Billing" page, sentence by sentence, through real processes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
from collections import Counter
from pathlib import Path

import grpc
import httpx
import pytest

from tests.e2e.lures import lures
from tests.e2e.quickstart import typed
from tests.e2e.vatly import BUSINESS, SCALE, Member, member, price_id, token, vatly, world
from tests.e2e.world import DECLINED, PROBLEM, Json, World, until
from tests.infra.stack import Stack
from tollway.billing.v1 import entitlement_pb2
from tollway.billing.v1.entitlement_pb2_grpc import EntitlementServiceStub

__all__ = ["vatly", "world"]  # fixtures

_CHARGED_AFTER = 2 * 3600
NEVER = {"customer_id": None, "subscription_id": None, "subscription_status": None, "tier": "free"}


def refused(answer: httpx.Response, status: int, code: str) -> Json:
    """The problem document of a refusal; under /admin it has the answers' meta."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    document: Json = answer.json()
    assert document["code"] == code
    if answer.request.url.path.startswith("/admin/"):
        assert document["meta"] == {"request_id": answer.headers["x-request-id"]}
    return document


async def at_stripe(world: World, customer: str) -> Json:
    page = await world.stripe("GET", "subscriptions", customer=customer, status="all")
    return dict(page["data"][0])


async def test_three_tiers_with_their_monthly_requests_are_on_the_price_list(world: World) -> None:
    plans = (await world.gateway.get("/v1/plans")).json()["plans"]
    listed = {plan["name"]: [quota["limit"] for quota in plan["quotas"]] for plan in plans}
    assert listed == {"Free": [500], "Business": [10_000], "Scale": [50_000]}
    sold = {price["lookup_key"]: price["id"] for plan in plans for price in plan["prices"]}
    assert sold.keys() == {BUSINESS, SCALE}
    assert all(each.startswith("price_") for each in sold.values())


@pytest.mark.parametrize(("bought", "burst", "monthly"), [("", 20, 500), (BUSINESS, 60, 10_000), (SCALE, 120, 50_000)])
async def test_each_tier_has_its_monthly_requests_and_its_burst(
    world: World, bought: str, burst: int, monthly: int
) -> None:
    ada = await member(world, f"user_{burst}")
    if bought:
        await ada.subscribe(bought)
    await ada.subscription()
    await ada.issue_key()
    wanted = {"requests_per_minute": burst, "requests_per_month": monthly}

    def limits(usage: Json) -> Json:
        return {limit["name"]: limit["limit"] for limit in usage["meters"][0]["limits"]}

    await until(ada.usage, lambda usage: limits(usage) == wanted)
    answers = await asyncio.gather(*(ada.validate() for _ in range(burst + 5)))
    assert Counter(answer.status_code for answer in answers) == {200: burst, 429: 5}
    document = refused(next(answer for answer in answers if answer.status_code == 429), 429, "burst_limit_exceeded")
    assert (document["used"], document["limit"], document["remaining"]) == (burst, burst, 0)
    assert 0 < int(next(a for a in answers if a.status_code == 429).headers["retry-after"]) <= 60


async def test_the_501st_request_of_a_month_on_free_is_402_and_whom_it_concerns_is_told(world: World) -> None:
    ada = await member(world, "user_month")
    await ada.subscription()
    await ada.issue_key()
    for _ in range(25):
        assert (await ada.validate(20)).status_code == 200
        await world.advance_to(await world.now() + 61)  # a burst's minute passes, and the month goes on
    answer = await ada.validate()
    document = refused(answer, 402, "monthly_request_limit_exceeded")
    assert document["reason"] == "monthly_request_limit_exceeded"
    assert (document["used"], document["limit"], document["remaining"]) == (500, 500, 0)
    assert re.fullmatch(re.escape(world.stack.gateway_url) + r"/dash/[\w-]+/billing", document["checkoutUrl"])
    assert int(answer.headers["retry-after"]) > 60


@pytest.mark.parametrize(("bought", "included"), [("", False), (BUSINESS, True), (SCALE, True)])
async def test_consultation_numbers_come_with_business_and_scale(world: World, bought: str, included: bool) -> None:
    ada = await member(world, f"user_consultation_{bought}")
    if bought:
        await ada.subscribe(bought)
    await ada.subscription()
    metadata = (("authorization", f"Bearer {world.env['TOLLWAY_RPC_TOKEN']}"),)
    (row,) = await world.rows(
        "billing", "SELECT account_id FROM outside_identity WHERE external_id = $1", f"user_consultation_{bought}"
    )
    asked = entitlement_pb2.BatchGetEntitlementsRequest(account_ids=[row["account_id"]])
    async with grpc.aio.insecure_channel(world.stack.address("billing")) as channel:
        answer = await EntitlementServiceStub(channel).BatchGetEntitlements(asked, timeout=10, metadata=metadata)
    assert dict(answer.entitlements[0].gates) == {"consultation_number": included}


async def test_the_curl_lines_of_the_page_work_as_printed(world: World) -> None:
    ada = await member(world, "user_curl")
    body = {
        "price_id": await price_id(world, BUSINESS),
        "success_url": "https://yourapp.com/billing/success",
        "cancel_url": "https://yourapp.com/billing/cancel",
    }
    opened = await ada.call("POST", "/admin/billing/checkout", body, **{"X-Request-Id": "550e8400-e29b-41d4-a716"})
    assert opened.status_code == 201, opened.text
    answer = opened.json()
    assert answer.keys() == {"data", "meta"}
    assert answer["data"].keys() == {"session_id", "url"}
    assert answer["data"]["session_id"].startswith("cs_")
    assert answer["meta"] == {"request_id": "550e8400-e29b-41d4-a716"}
    paid = await ada.pay(answer["data"]["url"])
    assert (paid.status_code, paid.headers["location"]) == (303, "https://yourapp.com/billing/success")
    subscribed = await ada.becomes("business")
    assert subscribed.keys() == {"customer_id", "subscription_id", "subscription_status", "tier"}
    assert subscribed["customer_id"].startswith("cus_")
    assert subscribed["subscription_id"].startswith("sub_")
    portal = await ada.call("POST", "/admin/billing/portal", {"return_url": "https://yourapp.com/billing"})
    assert portal.status_code == 200, portal.text
    assert portal.json().keys() == {"data", "meta"}
    assert portal.json()["data"].keys() == {"url"}
    assert "https://yourapp.com/billing" in (await world.sandbox.get(portal.json()["data"]["url"])).text


async def test_who_never_subscribed_has_no_ids_even_after_an_abandoned_checkout(world: World) -> None:
    ada = await member(world, "user_never")
    assert await ada.subscription() == NEVER
    refused(await ada.call("POST", "/admin/billing/portal"), 409, "no_customer")
    assert (await ada.checkout()).status_code == 201
    assert await ada.subscription() == NEVER


async def test_a_second_checkout_of_a_subscriber_is_refused_and_sells_nothing(world: World) -> None:
    ada = await member(world, "user_twice")
    had = await ada.subscribe()
    refused(await ada.checkout(SCALE), 409, "already_subscribed")
    page = await world.stripe("GET", "subscriptions", customer=had["customer_id"], status="all")
    assert len(page["data"]) == 1


@pytest.mark.parametrize(
    "price", ["price_none", "vatly_business_month", "business", "price_'; --", "price_" + "x" * 200]
)
async def test_a_price_that_the_catalog_does_not_sell_is_refused_naming_the_field(world: World, price: str) -> None:
    ada = await member(world, "user_price")
    document = refused(await ada.call("POST", "/admin/billing/checkout", {"price_id": price}), 422, "unknown_price")
    assert document["field"] == "price_id"


async def test_a_price_at_stripe_that_is_not_the_catalogs_is_no_price_here(world: World) -> None:
    own = await world.stripe("GET", "prices", limit=1)
    foreign = await world.stripe(
        "POST",
        "prices",
        currency="usd",
        unit_amount=1,
        product=own["data"][0]["product"],
        **{"recurring[interval]": "month"},
    )
    ada = await member(world, "user_foreign")
    asked = await ada.call("POST", "/admin/billing/checkout", {"price_id": foreign["id"]})
    refused(asked, 422, "unknown_price")


@pytest.mark.parametrize("body", [{}, {"price_id": 1}, {"price_id": ""}, {"price_id": None}, {"tier": "business"}, []])
async def test_a_body_of_another_shape_is_refused(world: World, body: object) -> None:
    ada = await member(world, "user_body")
    refused(await ada.call("POST", "/admin/billing/checkout", body), 422, "validation_failed")


async def test_the_portal_changes_the_plan_updates_the_card_and_cancels(world: World) -> None:
    ada = await member(world, "user_portal")
    had = await ada.subscribe()
    portal = await ada.portal()
    page = (await world.sandbox.get(portal)).text
    for offered in ("Change plan", "Update card", "Cancel plan"):
        assert offered in page
    change = {"subscription": had["subscription_id"], "price": await price_id(world, SCALE)}
    assert (await world.sandbox.post(f"{portal}/change", data=change)).status_code == 303
    changed = await ada.becomes("scale")
    assert changed["subscription_id"] == had["subscription_id"]
    back = change | {"price": await price_id(world, BUSINESS)}
    assert (await world.sandbox.post(f"{await ada.portal()}/change", data=back)).status_code == 303
    await ada.becomes("business")


async def test_a_canceled_subscription_downgrades_to_free_and_keeps_its_ids(world: World) -> None:
    ada = await member(world, "user_cancel")
    had = await ada.subscribe()
    await world.stripe("DELETE", f"subscriptions/{had['subscription_id']}")
    gone = await ada.becomes("free", "canceled")
    assert gone == had | {"subscription_status": "canceled", "tier": "free"}
    # … and it can be bought anew, as the same customer.
    again = await ada.subscribe(SCALE)
    assert again["customer_id"] == had["customer_id"]
    assert (again["tier"], again["subscription_id"] == had["subscription_id"]) == ("scale", False)


async def test_past_due_and_unpaid_leave_the_tier_unchanged(world: World) -> None:
    settings = {"end_state": "unpaid"}
    assert (await world.sandbox.put("/_sandbox/settings", json=settings)).status_code == 200
    try:
        ada = await member(world, "user_unpaid")
        had = await ada.subscribe()
        customer = had["customer_id"]
        method = await world.stripe("POST", "payment_methods/pm_card_chargeCustomerFail/attach", customer=customer)
        await world.stripe("POST", f"subscriptions/{had['subscription_id']}", default_payment_method=method["id"])
        end = (await at_stripe(world, customer))["items"]["data"][0]["current_period_end"]
        await world.advance_to(end + _CHARGED_AFTER)
        assert await ada.becomes("business", "past_due") == had | {"subscription_status": "past_due"}
        while attempt := (await world.stripe("GET", "invoices", customer=customer))["data"][0]["next_payment_attempt"]:
            await world.advance_to(attempt + 60)
        assert await ada.becomes("business", "unpaid") == had | {"subscription_status": "unpaid"}
    finally:
        await world.sandbox.put("/_sandbox/settings", json={"end_state": "cancel"})


async def test_trialing_is_told_and_has_the_prices_tier(world: World) -> None:
    ada = await member(world, "user_trial")
    assert (await ada.checkout()).status_code == 201  # which makes the customer
    (row,) = await world.rows(
        "billing",
        "SELECT a.stripe_customer_id FROM account a JOIN outside_identity o ON o.account_id = a.id"
        " WHERE o.external_id = 'user_trial'",
    )
    await world.stripe(
        "POST",
        "subscriptions",
        customer=row["stripe_customer_id"],
        trial_period_days=14,
        **{"items[0][price]": await price_id(world, SCALE)},
    )
    assert (await ada.becomes("scale", "trialing"))["customer_id"] == row["stripe_customer_id"]


async def test_webhook_handlers_are_idempotent_and_safe_to_replay(world: World) -> None:
    ada = await member(world, "user_replay")
    had = await ada.subscribe()
    (before,) = await _versions(world, "user_replay")
    for order in ("made", "reversed", "shuffled"):
        assert (await world.sandbox.post("/_sandbox/deliveries/replay", json={"order": order})).status_code == 200
        await world.drained()
    assert await ada.subscription() == had
    assert await _versions(world, "user_replay") == [before]


async def _versions(world: World, external_id: str) -> list[int]:
    query = "SELECT e.version FROM entitlement e JOIN outside_identity o USING (account_id) WHERE o.external_id = $1"
    return [row["version"] for row in await world.rows("billing", query, external_id)]


async def test_an_organization_is_one_account_for_all_its_admins_and_nobody_elses(world: World) -> None:
    ada, grace = await member(world, "user_ada", "acme"), await member(world, "user_grace", "acme")
    had = await ada.subscribe()
    assert await grace.subscription() == had
    for other in (await member(world, "user_ada"), await member(world, "user_ada", "other")):
        assert await other.subscription() == NEVER


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/admin/billing/checkout"),
        ("POST", "/admin/billing/portal"),
        ("GET", "/admin/billing/subscription"),
    ],
)
async def test_billing_takes_a_token_of_an_admin(world: World, method: str, path: str) -> None:
    body = {"price_id": await price_id(world, BUSINESS)} if path.endswith("checkout") else None
    plain = await member(world, "user_plain", "acme", role="member")
    document = refused(await plain.call(method, path, body), 403, "insufficient_role")
    assert document["role"] == "admin"
    answer = await world.gateway.request(method, path, json=body)
    refused(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    alone = await member(world, "user_keyed")
    await alone.subscription()
    by_key = Member(world, await alone.issue_key())
    refused(await by_key.call(method, path, body), 401, "token_required")
    late = Member(world, await token(world, "user_late", expires_in=-60))
    refused(await late.call(method, path, body), 401, "token_expired")
    head, claims, signature = (await token(world, "user_x")).split(".")
    said = json.loads(base64.urlsafe_b64decode(claims + "=="))
    forged = base64.urlsafe_b64encode(json.dumps(said | {"sub": "user_ada"}).encode()).rstrip(b"=").decode()
    refused(await Member(world, f"{head}.{forged}.{signature}").call(method, path, body), 401, "token_invalid")


async def test_a_token_that_names_a_key_or_its_place_is_401_and_nobody_asks_there(world: World) -> None:
    asked: list[str] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode())
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    good = await token(world, "user_lured")
    header, said = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in good.split(".")[:2])
    async with httpx.AsyncClient(trust_env=False) as client:
        (key,) = (await client.get(world.env["TOLLWAY_CLERK_JWKS_URL"])).json()["keys"]
        modulus = base64.urlsafe_b64decode(key["n"] + "==")
        for what, lure in lures(address, header, said, modulus).items():
            for method, path in (("GET", "/admin/billing/subscription"), ("GET", "/v1/usage"), ("GET", "/v1/billing")):
                answer = await Member(world, lure).call(method, path)
                code = "token_invalid" if path.startswith("/admin/") else answer.json()["code"]
                refused(answer, 401, code)
                assert code in {"token_invalid", "api_key_required"}, what
        assert asked == []
        with contextlib.suppress(httpx.HTTPError):
            await client.get(f"{address}/heard")
    assert asked == ["GET /heard HTTP/1.1\r\n"], "who asks there is heard"
    assert (await Member(world, good).call("GET", "/admin/billing/subscription")).status_code == 200
    server.close()


async def test_what_is_not_there_is_a_problem_with_the_same_meta(world: World) -> None:
    refused(await world.gateway.get("/admin/billing/nothing"), 404, "route_not_found")
    answer = await world.gateway.get("/admin/billing/checkout")
    refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


async def test_a_declined_card_says_so_on_the_page_and_leaves_no_subscription(world: World) -> None:
    ada = await member(world, "user_declined")
    url = (await ada.checkout()).json()["data"]["url"]
    declined = await ada.pay(url, DECLINED)
    assert "declined" in declined.text
    assert await ada.subscription() == NEVER
    assert (await ada.pay(url)).status_code == 303
    await ada.becomes("business")


async def test_the_quick_start_runs_as_it_stands(vatly: Stack, tmp_path: Path) -> None:
    assert await typed("quickstart-vatly.md", vatly, tmp_path) >= 4
