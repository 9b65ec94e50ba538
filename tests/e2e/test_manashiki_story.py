"""Manashiki's "Purchase & billing" from the first receipt to the restored service, through real processes."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from pathlib import Path

import pytest

from tests.e2e.manashiki import Org, developer, manashiki, sign_up, world
from tests.e2e.test_cli_story import Terminal
from tests.e2e.world import PAYS, Json, World, until

__all__ = ["manashiki", "world"]  # fixtures


@pytest.fixture
async def ends_unpaid(world: World) -> AsyncIterator[None]:
    """Stripe's setting of what follows the last try: the subscription stays, unpaid."""
    await world.sandbox.put("/_sandbox/settings", json={"end_state": "unpaid"})
    yield
    await world.sandbox.put("/_sandbox/settings", json={"end_state": "cancel"})


async def _mail(org: Org, subject: str, count: int = 1) -> Json:
    mails = await until(lambda: org.world.mails(org.customer.email, subject), lambda found: len(found) >= count)
    return mails[-1]


async def _keys(org: Org) -> dict[str, Json]:
    """By id; revoked ones are left out."""
    listed = (await org.call("GET", f"/v1/orgs/{org.slug}/keys")).json()["keys"]
    return {key["id"]: key for key in listed if not key.get("revoked_at")}


async def _customer_id(org: Org) -> str:
    query = "SELECT stripe_customer_id AS id FROM account WHERE id = $1"
    (row,) = await org.world.rows("billing", query, org.customer.id)
    return str(row["id"])


async def _stop_paying(org: Org) -> None:
    (subscription,) = [each for each in await org.customer.subscriptions() if each["status"] == "active"]
    card = await org.world.stripe(
        "POST", "payment_methods/pm_card_chargeCustomerFail/attach", customer=subscription["customer"]
    )
    await org.world.stripe("POST", f"subscriptions/{subscription['id']}", default_payment_method=card["id"])
    ends = datetime.fromisoformat((await org.status())["currentPeriodEnd"])
    await org.world.advance_to(int(ends.timestamp()) + 7200)


async def test_a_promotion_code_is_accepted_and_the_receipt_tells_what_was_paid_with_links_that_open(
    world: World,
) -> None:
    org = await sign_up(world)
    coupon = await world.stripe("POST", "coupons", percent_off="20", duration="once")
    promotion = {"promotion[type]": "coupon", "promotion[coupon]": coupon["id"], "code": "LAUNCH20"}
    await world.stripe("POST", "promotion_codes", **promotion)
    page = (await org.call("POST", f"/v1/orgs/{org.slug}/billing/checkout")).json()["url"]
    assert (await world.sandbox.post(f"{page}/promotion", data={"promotionCode": "NOSUCH"})).status_code == 422
    assert (await world.sandbox.post(f"{page}/promotion", data={"promotionCode": "LAUNCH20"})).status_code == 303
    assert (await org.customer.pay(page)).status_code == 303
    await org.becomes("paid")
    (invoice,) = await org.customer.invoices()
    receipt = await _mail(org, "receipt")
    for body in (receipt["Text"], receipt["HTML"]):
        assert "$12.00" in body
        for told in ("number", "hosted_invoice_url", "invoice_pdf"):
            assert invoice[told] in body
    assert "Paid" in (await world.sandbox.get(invoice["hosted_invoice_url"])).text
    assert (await world.sandbox.get(invoice["invoice_pdf"])).content.startswith(b"%PDF")


async def test_unpaid_withdraws_what_was_paid_for_keeps_keys_and_ids_and_paying_restores_all_of_it(
    world: World, ends_unpaid: None
) -> None:
    org = await developer(world)
    made = await org.call("POST", f"/v1/orgs/{org.slug}/keys", {"kind": "svc", "name": "CI"})
    service_key = made.json()["api_key"]
    keys, customer = await _keys(org), await _customer_id(org)
    await _stop_paying(org)
    await org.becomes("past_due")
    owed = next(invoice for invoice in await org.customer.invoices() if invoice["status"] == "open")
    notice = await _mail(org, "failed")
    for body in (notice["Text"], notice["HTML"]):
        assert "$15.00" in body
        assert "7 days" in body or "7-day" in body
        assert owed["hosted_invoice_url"] in body
    while (attempt := (await org.customer.invoices())[0]["next_payment_attempt"]) is not None:
        await org.downloaded(org.live_key)
        await world.advance_to(attempt + 60)
    await org.becomes("canceled")
    (subscription,) = await org.customer.subscriptions()
    assert subscription["status"] == "unpaid"
    status = await org.status()
    gates = ("liveKeyIssuanceAllowed", "serviceKeyIssuanceAllowed", "customModelAllowed")
    assert ([status[gate] for gate in gates], status["stagingQuotaLimit"]) == ([False] * 3, 10)
    for key in (org.live_key, service_key):
        answer = await org.download(key)
        assert (answer.status_code, answer.json()["reason"]) == (402, "subscription_inactive")
    assert await _keys(org) == keys
    assert await _customer_id(org) == customer
    again = await org.call("POST", f"/v1/orgs/{org.slug}/billing/checkout")
    assert (again.status_code, again.json()["code"]) == (409, "already_subscribed")

    for invoice in await org.customer.invoices():
        if invoice["status"] == "open":
            assert (await org.customer.pay(invoice["hosted_invoice_url"])).status_code == 303
    await org.becomes("paid")
    for key in (org.live_key, service_key):
        await org.downloaded(key)
    assert (await org.status())["stagingQuotaLimit"] is None
    assert len(await world.mails(org.customer.email, "failed")) == 1, "of one invoice once"


async def test_the_pages_lines_for_the_terminal_buy_show_and_manage_the_plan_of_the_selected_org(
    world: World, tmp_path: Path
) -> None:
    terminal = Terminal(world, tmp_path / "home")
    signed_up = await terminal.json("signup", f"{uuid.uuid4().hex[:8]}@example.com", "--name", "Rin Studio")
    slug, key = signed_up["account"]["slug"], signed_up["api_key"]
    async with terminal.start("billing", "upgrade", "--org", slug) as upgrade:
        page = await until(_opened(terminal), lambda address: "/c/pay/" in address)
        form = {"email": "rin@example.com", "cardNumber": PAYS, "cardExpiry": "12/34", "cardCvc": "123"}
        assert (await world.sandbox.post(page, data=form | {"billingName": "Rin"})).status_code == 303
        told, _ = await asyncio.wait_for(upgrade.communicate(), 60)
    assert upgrade.returncode == 0
    assert "Developer" in told.decode() or "paid" in told.decode()
    for words in (("--org", slug), ()):  # the account of the sign-up is the selected one
        assert "paid" in await terminal.tollway("billing", "status", *words)
    # "After paying, your keys immediately work for production."
    headers = {"Authorization": f"Bearer {key}"}
    made = await world.gateway.post(f"/v1/orgs/{slug}/keys", json={"kind": "live", "name": "x"}, headers=headers)
    live = {"Authorization": f"Bearer {made.json()['api_key']}"}
    granted = await world.gateway.post("/api/download", json={"object": "models/base.bin"}, headers=live)
    assert granted.status_code == 200, granted.text
    assert "/p/session/" in await terminal.tollway("billing", "portal", "--org", slug)
    portal = await until(_opened(terminal), lambda address: "/p/session/" in address)
    assert (await world.sandbox.get(portal)).status_code == 200
    await terminal.tollway("orgs", "select", slug)
    assert "paid" in await terminal.tollway("billing", "status")


def _opened(terminal: Terminal) -> Callable[[], Awaitable[str]]:
    """What its browser was told to open last."""

    async def read() -> str:
        return await asyncio.to_thread(terminal.opened.read_text) if terminal.opened.exists() else ""

    return read


async def test_who_was_canceled_upgrades_again_as_the_same_customer_and_the_old_keys_work(world: World) -> None:
    org = await developer(world)
    keys, customer = await _keys(org), await _customer_id(org)
    (subscription,) = await org.customer.subscriptions()
    await world.stripe("DELETE", f"subscriptions/{subscription['id']}")
    await org.becomes("canceled")
    assert (await org.download(org.live_key)).status_code == 402
    old_key = org.live_key
    await org.upgrade()
    assert await _customer_id(org) == customer
    assert keys.items() <= (await _keys(org)).items()
    await org.downloaded(old_key)
    assert len(await org.customer.subscriptions()) == 2
