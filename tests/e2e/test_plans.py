"""What Skytale sells, and what its portal does, in the words of its page "Billing & Plans"."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest

from tests.e2e.world import Customer, Json, World


async def _plans(world: World) -> dict[str, Json]:
    answer = await world.gateway.get("/v1/plans")
    assert answer.status_code == 200
    assert answer.json()["product"] == "Skytale"
    return {plan["tier"]: plan for plan in answer.json()["plans"]}


async def test_there_are_three_tiers_free_pro_and_enterprise(world: World) -> None:
    plans = await _plans(world)
    assert [plan["name"] for plan in plans.values()] == ["Free", "Pro", "Enterprise"]


async def test_every_tier_includes_channels_relay_and_sdk(world: World) -> None:
    plans = await _plans(world)
    for words in ("encrypted MLS channels", "the hosted relay", "the Python SDK"):
        assert words.lower() in plans["free"]["description"].lower()
    assert "Everything in Free" in plans["pro"]["description"]
    assert "Everything in Pro" in plans["enterprise"]["description"]


@pytest.mark.parametrize(
    ("tier", "amounts", "by_contract", "messages", "support"),
    [
        ("free", [], False, 100_000, "Community support"),
        ("pro", [(2900, "usd", "month")], False, 1_000_000, ""),
        ("enterprise", [], True, None, "Dedicated support"),
    ],
)
async def test_the_price_list_is_the_pages(
    world: World, tier: str, amounts: list[Any], by_contract: bool, messages: int | None, support: str
) -> None:
    plan = (await _plans(world))[tier]
    assert [(price["unit_amount"], price["currency"], price["interval"]) for price in plan["prices"]] == amounts
    assert plan["contact_sales"] is by_contract
    assert plan["quotas"] == [{"meter": "messages", "limit": messages, "period": "month"}]
    assert support in plan["description"]


async def test_the_price_on_the_list_is_the_one_that_checkout_charges(world: World) -> None:
    (price,) = (await _plans(world))["pro"]["prices"]
    customer = await world.subscriber()
    (item,) = (await customer.subscriptions())[0]["items"]["data"]
    assert item["price"]["id"] == price["id"]
    assert (await customer.invoices())[0]["amount_paid"] == price["unit_amount"]


async def test_the_pages_of_stripe_are_in_the_sellers_name(world: World) -> None:
    customer = await world.sign_up()
    page = await customer.checkout()
    assert "By confirming, you allow Skytale to charge your card" in (await world.sandbox.get(page)).text
    assert (await customer.pay(page)).status_code == 303
    assert "Return to Skytale" in (await world.sandbox.get(await customer.portal())).text
    (invoice,) = await customer.invoices()
    assert "Skytale" in (await world.sandbox.get(invoice["hosted_invoice_url"])).text
    await customer.becomes("pro")
    await customer.receipts(1)


async def test_the_portal_updates_the_card_shows_the_invoices_and_cancels(world: World) -> None:
    customer = await world.subscriber()
    page = await world.sandbox.get(await customer.portal())
    assert page.status_code == 200
    for words in ("Payment method", "4242", "Update card", "Invoice history", "$29.00", "Cancel plan"):
        assert words in page.text
    assert (await customer.invoices())[0]["number"] in page.text


async def test_the_portal_answers_its_address_and_nothing_else(world: World) -> None:
    customer = await world.subscriber()
    answer = await customer.post("/v1/billing/portal")
    assert (answer.status_code, list(answer.json())) == (200, ["portal_url"])
    again = await customer.portal()
    assert again != answer.json()["portal_url"], "each visit has an address of its own"


def _curl(customer: Customer, *words: str) -> tuple[int, str]:
    """One of the page's commands as it stands there, with this system's address and this customer's key."""
    command = ["curl", "-sS", "-w", "\n%{http_code}", *words, "-H", f"Authorization: Bearer {customer.key}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed; the same requests are sent by httpx")
async def test_the_curl_lines_of_the_page_work_as_printed(world: World) -> None:
    customer = await world.subscriber()
    at = world.stack.gateway_url
    status, body = _curl(customer, f"{at}/v1/billing")
    assert (status, '"plan":"pro"' in body) == (200, True)
    status, body = _curl(customer, "-X", "POST", f"{at}/v1/billing/portal")
    assert (status, '"portal_url":"http' in body) == (200, True)
    newcomer = await world.sign_up()
    words = ("-H", "Content-Type: application/json", "-d", '{"tier": "pro"}')
    status, body = _curl(newcomer, "-X", "POST", f"{at}/v1/billing/checkout", *words)
    assert (status, '{"checkout_url":"http' in body) == (200, True)
