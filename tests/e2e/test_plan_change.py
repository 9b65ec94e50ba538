"""Plan changes by API, through real processes and Vatly's catalog, which sells two plans; and when Stripe fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from playwright.async_api import Browser, expect

from local.blocking import run_apart
from tests.e2e.axe import assert_accessible
from tests.e2e.browser import open_page, shoot
from tests.e2e.world import Customer, Json, World, until
from tests.infra.servers import running_nats
from tests.infra.stack import Stack, running_stack
from tests.invariants import healed


@pytest.fixture(scope="module")
def two_plans(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("two_plans")
    given = {"CATALOG": "catalogs/vatly.yaml"}
    with running_nats(folder) as nats, running_stack(folder, postgres=postgres, nats=nats, env=given) as running:
        yield running
        found = run_apart(healed(running))
        assert not found, "\n".join(found)


@pytest.fixture
async def world(two_plans: Stack) -> AsyncIterator[World]:
    found = World(two_plans)
    yield found
    await found.knobs(reset=True)
    await found.close()


async def test_a_preview_is_what_the_change_charges_and_cancelling_and_resuming_work_by_api(world: World) -> None:
    customer = await world.sign_up()
    path = f"/v1/orgs/{customer.account['slug']}/billing"
    assert (await customer.post(f"{path}/change", {"tier": "scale"})).json()["code"] == "no_subscription"
    await buy(customer, "business")

    offer = await customer.get(f"{path}/preview?tier=scale")
    assert (offer["current_tier"], offer["tier"], offer["currency"]) == ("business", "scale", "usd")
    assert sum(line["amount"] for line in offer["lines"]) == offer["total"] == offer["amount_due"]
    assert 0 < offer["amount_due"] <= 9900 - 2900
    counters = {each["limit"]: (each["before"], each["after"]) for each in offer["counters"]}
    assert counters["requests_per_month"] == (10_000, 50_000)

    asked = {"tier": "scale", "proration_time": offer["proration_time"]}
    changed = await customer.post(f"{path}/change", asked)
    assert (changed.status_code, changed.json()) == (200, {"tier": "scale"}), changed.text
    invoices = await customer.invoices()
    assert [invoice["amount_paid"] for invoice in invoices] == [offer["amount_due"], 2900]
    assert (await customer.post(f"{path}/change", asked)).json()["code"] == "plan_unchanged"
    assert len(await customer.invoices()) == 2

    down = await customer.get(f"{path}/preview?tier=business")
    assert (down["amount_due"], down["total"] < 0) == (0, True)

    for _ in range(2):
        answer = await customer.post(f"{path}/cancel")
        assert answer.status_code == 200, answer.text
    assert (await billing(customer))["cancel_at_period_end"]
    assert (await customer.post(f"{path}/resume")).json() == {"cancel_at_period_end": False}
    assert not (await billing(customer))["cancel_at_period_end"]
    again = await customer.post("/v1/billing/checkout", {"tier": "business"})
    assert again.json()["code"] == "already_subscribed"


async def test_each_door_is_503_with_when_to_come_back_while_stripe_fails_or_is_silent_and_works_afterwards(
    world: World,
) -> None:
    silent, customer = await world.sign_up(), await world.sign_up()
    await buy(silent, "business")
    org = f"/v1/orgs/{customer.account['slug']}/billing"
    hang = {"status": "hang", "path": "/v1/invoices/create_preview", "next": 99}
    await world.knobs(api_errors=[hang])
    preview = f"/v1/orgs/{silent.account['slug']}/billing/preview?tier=scale"
    waiting = asyncio.create_task(world.gateway.get(preview, headers=silent.bearer))
    doors = [
        ("/v1/billing/checkout", {"tier": "business"}, "/v1/customers"),
        ("/v1/billing/checkout", {"tier": "business"}, "/v1/checkout/sessions"),
        ("/v1/billing/portal", None, "/v1/billing_portal/sessions"),
        (f"{org}/change", {"tier": "scale"}, "/v1/subscriptions/*"),
        (f"{org}/cancel", None, "/v1/subscriptions/*"),
        (f"{org}/resume", None, "/v1/subscriptions/*"),
    ]
    for path, body, at_stripe in doors:
        if path == f"{org}/change":
            await buy(customer, "business")
        await world.knobs(api_errors=[hang, {"status": 429, "path": at_stripe}])
        _come_back(await customer.post(path, body))
        assert (again := await customer.post(path, body)).status_code == 200, f"{path}: {again.text}"
    _come_back(await waiting)  # and that is before the gateway's own patience ends
    await world.knobs(reset=True)
    assert (await silent.get(preview))["tier"] == "scale"
    assert len(await customer.subscriptions()) == 1


def _come_back(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json().get("code")) == (503, "stripe_unavailable"), answer.request.url
    assert int(answer.headers["retry-after"]) >= 1


async def test_the_page_previews_a_change_before_it_is_confirmed(world: World, browser: Browser) -> None:
    customer = await world.sign_up()
    page = await open_page(browser)
    await page.goto(f"{world.stack.gateway_url}/dash/sign-in")
    await page.get_by_text("Use an API key instead").click()
    await page.get_by_label("API key").fill(customer.key)
    await page.get_by_role("button", name="Sign in with the key").click()
    await expect(page.get_by_role("link", name="Choose a plan")).to_be_visible()
    await expect(page.get_by_text("Up to 20 in any minute, 0 used right now.")).to_be_visible()
    await shoot(page, "dash-vatly-free", themes=True)
    await buy(customer, "business")
    await page.reload()
    await page.get_by_role("link", name="Switch to Scale").click()
    await expect(page.get_by_role("heading", name="Switch from Business to Scale?")).to_be_visible()
    await expect(page.get_by_role("row", name="Charged now $70.00")).to_be_visible()
    await expect(page.get_by_role("row", name="Requests per month 0 10,000 50,000")).to_be_visible()
    await assert_accessible(page, "change")
    await shoot(page, "dash-vatly-change", themes=True)
    assert (await customer.billing())["plan"] == "business"
    await page.get_by_role("button", name="Switch to Scale").click()
    await expect(page.get_by_text("Your plan was changed.")).to_be_visible()
    await expect(page.locator("[data-tier]")).to_have_attribute("data-tier", "scale")
    await shoot(page, "dash-vatly-scale", themes=True)


async def buy(customer: Customer, tier: str) -> None:
    assert (await customer.pay(await customer.checkout(tier))).status_code == 303
    await until(customer.plan, lambda plan: plan == tier)


async def billing(customer: Customer) -> Json:
    return await customer.billing()
