"""The billing page in a browser, over real processes: Manashiki's "Purchase & billing", from signing in to restored.

TOLLWAY_SCREENSHOTS names a folder that keeps a picture of each page, on a phone and a desktop, light and dark.
"""

from __future__ import annotations

import re

from playwright.async_api import Browser, Page, expect

from tests.e2e.axe import assert_accessible
from tests.e2e.billing_page import ask_for_a_link, mailed_link, promotion_code, sign_in, watch
from tests.e2e.browser import fill_card, open_page, shoot
from tests.e2e.manashiki import Org, manashiki, sign_up, world
from tests.e2e.world import PAYS, World, until

__all__ = ["manashiki", "world"]  # fixtures


async def _look(page: Page, name: str) -> None:
    await shoot(page, f"dash-{name}", themes=True)
    await page.set_viewport_size({"width": 1280, "height": 800})


async def _upgrade(page: Page, code: str = "") -> None:
    """Buys on Stripe's page and comes back."""
    await page.get_by_role("button", name="Upgrade — Stripe Checkout").click()
    if code:
        await page.get_by_label("Promotion code").fill(code)
        await page.get_by_role("button", name="Apply").click()
    await fill_card(page, PAYS)
    await page.get_by_role("button", name="Subscribe").click()
    # The page takes `done` out of its address as soon as it has said it: that may be before we look.
    await page.wait_for_url(re.compile(r"/dash/[^/]+/billing(\?done=paid)?$"))


async def test_from_the_mailed_link_to_paid_a_guardrail_a_failed_renewal_and_back(
    world: World, browser: Browser
) -> None:
    org = await sign_up(world)
    page = await open_page(browser)
    complaints = await watch(page)
    await sign_in(page, org)
    await expect(page.locator("[data-tier]")).to_have_text("Free")
    await _look(page, "free")

    # "Promotion codes are accepted", and the page turns to paid by itself.
    await _upgrade(page, await promotion_code(world, 20))
    await expect(page.get_by_text("You are on Developer.")).to_be_visible()
    await expect(page.locator("[data-tier]")).to_have_attribute("data-tier", "paid")
    await expect(page.get_by_role("button", name="Manage subscription")).to_be_visible()
    await expect(page.get_by_role("button", name="Upgrade")).to_have_count(0)
    await expect(page.get_by_role("cell", name="$12.00")).to_be_visible()
    await _look(page, "paid")

    # A live key, shown once.
    await page.get_by_label("Name of a new key").fill("production")
    await page.get_by_label("Kind").select_option("live")
    await page.get_by_role("button", name="Issue key").click()
    org.live_key = await page.get_by_label("API key").input_value()
    assert org.live_key.startswith("mk_live_")
    await _look(page, "key")
    await page.get_by_role("link", name="I have copied it").click()
    await expect(page.get_by_role("link", name="Rotate or revoke production")).to_be_visible()
    assert org.live_key not in await page.content()

    # A cap of its own, reached; the page shows it without being asked.
    await page.get_by_label("at most").fill("2")
    await page.get_by_role("button", name="Save cap").click()
    await expect(page.get_by_text("Your cap is in force")).to_be_visible()
    for _ in range(2):
        await org.release(await org.downloaded(org.live_key), org.live_key)
    assert (await org.download(org.live_key)).json()["reason"] == "live_download_cap_reached"
    await expect(page.locator("#live").get_by_text("Limit reached.")).to_be_visible()
    await _look(page, "capped")
    await page.get_by_label("at most").fill("")
    await page.get_by_role("button", name="Save cap").click()
    await expect(page.get_by_text("Your cap was removed.")).to_be_visible()
    await org.downloaded(org.live_key)

    # The renewal fails: grace, with its end; keys go on, new ones do not.
    await _put_card(org, "pm_card_chargeCustomerFail")
    await _past_the_period(org)
    await org.becomes("past_due")
    await page.reload()
    await expect(page.get_by_text("Your last payment failed.")).to_be_visible()
    await expect(page.get_by_text("during the grace period, until")).to_be_visible()
    await expect(page.get_by_role("option", name=re.compile("live .* not in your plan"))).to_be_disabled()
    await _look(page, "grace")
    await org.downloaded(org.live_key)

    # Another card in the portal, with which Stripe pays the open invoice; the page shows it restored.
    await page.get_by_role("button", name="Manage subscription").click()
    await page.get_by_role("link", name="Update card").click()
    await fill_card(page, PAYS)
    await page.get_by_role("button", name=re.compile("Save|Update")).click()
    await org.becomes("paid")
    await page.goto(org.billing_page)
    await expect(page.locator("[data-tier]")).to_have_attribute("data-tier", "paid")
    await expect(page.get_by_text("Your last payment failed.")).to_have_count(0)
    await _look(page, "restored")
    assert complaints == []


async def _put_card(org: Org, method: str) -> None:
    (subscription,) = await org.customer.subscriptions()
    card = await org.world.stripe("POST", f"payment_methods/{method}/attach", customer=subscription["customer"])
    await org.world.stripe("POST", f"subscriptions/{subscription['id']}", default_payment_method=card["id"])


async def _past_the_period(org: Org) -> None:
    (subscription,) = await org.customer.subscriptions()
    await org.world.advance_to(int(subscription["items"]["data"][0]["current_period_end"]) + 7200)


async def _kill_switch(world: World, enabled: bool) -> None:
    answer = await world.gateway.put(
        "/v1/operator/kill-switch",
        json={"enabled": enabled, "reason": "incident 4711" if enabled else ""},
        headers={"Authorization": f"Bearer {world.stack.operator_token}"},
    )
    assert answer.status_code == 200, answer.text


async def test_without_scripts_everything_works_by_forms_and_a_refresh(world: World, browser: Browser) -> None:
    org = await sign_up(world)
    page = await open_page(browser, scripts=False)
    await sign_in(page, org)
    await _upgrade(page)
    await org.becomes("paid")
    paid = page.get_by_text("You are on Developer.")
    if not await paid.is_visible():  # said once: on the way back, or where that was faster than the webhook, now
        await page.get_by_role("link", name="Refresh").click()
    await expect(paid).to_be_visible()
    await page.get_by_label("at most").fill("1,000")
    await page.get_by_role("button", name="Save cap").click()
    await expect(page.get_by_label("at most")).to_have_value("1,000")
    await page.get_by_label("Name of a new key").fill("ci")
    await page.get_by_label("Kind").select_option("svc")
    await page.get_by_role("button", name="Issue key").click()
    first = await page.get_by_label("API key").input_value()
    await page.get_by_role("link", name="I have copied it").click()
    await page.get_by_role("link", name="Rotate or revoke ci").click()
    await page.get_by_role("button", name="Rotate key").click()
    second = await page.get_by_label("API key").input_value()
    assert first.startswith("mk_svc_")
    assert second not in {"", first}
    assert (await org.download(first)).status_code == (await org.download(second)).status_code == 200
    await page.get_by_role("link", name="I have copied it").click()
    await page.get_by_role("link", name="Rotate or revoke ci").click()
    await page.get_by_role("button", name="Revoke ci").click()
    await expect(page.get_by_text("The key was revoked.")).to_be_visible()
    assert (await org.download(second)).status_code == 401

    await _kill_switch(world, True)
    try:
        await page.get_by_role("link", name="Refresh").click()
        await expect(page.get_by_text("Service suspended. incident 4711")).to_be_visible()
    finally:
        await _kill_switch(world, False)
    await page.get_by_role("link", name="Refresh").click()
    await expect(page.get_by_text("In service")).to_be_visible()

    await page.get_by_role("link", name="Cancel subscription…").click()
    await page.get_by_role("button", name="Cancel subscription").click()
    await expect(page.get_by_text("Ends on")).to_be_visible()
    await page.get_by_role("button", name="Keep my subscription").click()
    await expect(page.get_by_text("Renews on")).to_be_visible()

    # "The monthly base fee is fully refundable": it says first that the subscription ends.
    await page.get_by_role("link", name="Refund…").click()
    await expect(page.get_by_text("This ends your subscription at once.")).to_be_visible()
    await page.get_by_role("button", name="End subscription and refund $15.00").click()
    await expect(page.get_by_text("Your base fee is on its way back")).to_be_visible()
    await expect(page.locator("[data-tier]")).to_have_attribute("data-tier", "canceled")
    await expect(page.get_by_role("button", name="Upgrade — Stripe Checkout")).to_be_visible()
    await expect(page.get_by_role("button", name="Manage subscription")).to_have_count(0)

    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_text("You are signed out.")).to_be_visible()
    await page.goto(org.billing_page)
    await expect(page.get_by_role("heading", name="Sign in to Manashiki")).to_be_visible()


async def test_a_link_opens_once_and_only_in_the_browser_that_asked(world: World, browser: Browser) -> None:
    org = await sign_up(world)
    page, other = await open_page(browser), await open_page(browser)
    await page.goto(f"{world.stack.gateway_url}/dash/sign-in")
    await ask_for_a_link(page, org.customer.email)
    link = await mailed_link(world, org.customer.email)
    await other.goto(link)
    await expect(other.get_by_role("heading", name="Open the link where you asked for it")).to_be_visible()
    await _look(other, "other-browser")
    await assert_accessible(other, "other-browser")
    await page.goto(link)
    await page.goto(link)  # looking at it uses nothing up
    await assert_accessible(page, "link")
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url(org.billing_page)
    await page.goto(link)
    await expect(page.get_by_role("heading", name="This link is over")).to_be_visible()
    token = link.partition("token=")[2]
    assert token not in world.stack.all_logs()


async def test_the_page_has_nothing_serious_for_axe_in_light_and_dark(world: World, browser: Browser) -> None:
    org = await sign_up(world, "Ada & <b>Sons</b> {{7*7}}")
    page = await open_page(browser)
    await page.goto(org.billing_page)
    await assert_accessible(page, "sign-in")
    await _look(page, "sign-in")
    await sign_in(page, org)
    await assert_accessible(page, "free")
    await expect(page.get_by_role("link", name="Ada & <b>Sons</b> {{7*7}}")).to_be_visible()
    await _upgrade(page)
    await expect(page.get_by_text("You are on Developer.")).to_be_visible()
    await org.cap(1)
    await page.goto(org.billing_page)
    await assert_accessible(page, "paid")
    await page.get_by_label("Name of a new key").fill("axe")
    await page.get_by_role("button", name="Issue key").click()
    await expect(page.get_by_label("API key")).to_be_visible()
    await assert_accessible(page, "key-shown")
    await page.get_by_role("link", name="I have copied it").click()
    await page.get_by_role("link", name="Rotate or revoke axe").click()
    await assert_accessible(page, "key")
    for name, path in (
        ("cancel", "/billing/cancel"),
        ("refund", "/billing/refund"),
        ("nobodys", "-x/billing"),
    ):
        await page.goto(f"{org.billing_page.removesuffix('/billing')}{path}")
        await assert_accessible(page, name)
        await _look(page, name)
    for name, path in (("accounts", "/dash"), ("device", "/dash/device"), ("sent", "/dash/sign-in/sent")):
        await page.goto(world.stack.gateway_url + path)
        await assert_accessible(page, name)
        await _look(page, name)


async def test_a_programs_code_is_approved_on_its_page_and_the_program_gets_in(world: World, browser: Browser) -> None:
    org = await sign_up(world)
    asked = (await world.gateway.post("/v1/device/code", json={"client_name": "tollway on <i>ada</i>"})).json()
    page = await open_page(browser)
    await page.goto(asked["verification_uri_complete"])
    await ask_for_a_link(page, org.customer.email)
    await page.goto(await mailed_link(world, org.customer.email))
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url(asked["verification_uri_complete"])
    await expect(page.get_by_text(asked["user_code"])).to_be_visible()
    await expect(page.get_by_text("tollway on <i>ada</i>")).to_be_visible()
    await assert_accessible(page, "device-code")
    await _look(page, "device-code")
    await page.get_by_role("button", name="Approve").click()
    await expect(page.get_by_role("heading", name="The program is signed in")).to_be_visible()

    async def poll() -> int:
        answer = await world.gateway.post("/v1/device/token", json={"device_code": asked["device_code"]})
        if answer.status_code == 200:
            tokens.append(answer.json()["access_token"])
        return answer.status_code

    tokens: list[str] = []
    await until(poll, lambda status: status == 200)
    bearer = {"Authorization": f"Bearer {tokens[0]}"}
    assert (await world.gateway.get(f"/v1/orgs/{org.slug}/billing/status", headers=bearer)).status_code == 200

    # Another one is turned away; a code that nobody was given is said to be unknown.
    refused = (await world.gateway.post("/v1/device/code", json={})).json()
    await page.goto(refused["verification_uri_complete"])
    await page.get_by_role("button", name="Deny").click()
    await expect(page.get_by_role("heading", name="The program was turned away")).to_be_visible()
    await page.goto(f"{world.stack.gateway_url}/dash/device")
    await page.get_by_label("The code that the program shows").fill("BBBB-BBBB")
    await page.get_by_role("button", name="Continue").click()
    await expect(page.get_by_role("alert")).to_contain_text("not known")
