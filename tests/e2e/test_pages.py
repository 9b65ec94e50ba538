"""The pages that people see on the way, on a phone and on a desktop: nothing overflows, everything has its name.

TOLLWAY_SCREENSHOTS names a folder that keeps a picture of each.
"""

from __future__ import annotations

from playwright.async_api import Browser, Page, expect

from tests.e2e.browser import fill_card, open_page, shoot
from tests.e2e.world import DECLINED, PAYS, World


async def _every_control_is_named(page: Page) -> None:
    """Inputs have labels, and buttons and links have words: what a screen reader would say."""
    nameless = await page.evaluate(
        """() => [...document.querySelectorAll('input:not([type=hidden]), button, a[href], select')]
            .filter(e => !(e.labels && e.labels.length) && !e.getAttribute('aria-label') && !e.textContent.trim())
            .map(e => e.outerHTML)"""
    )
    assert nameless == []


async def _watch(page: Page) -> list[str]:
    """What the page complains of in its console, from now on."""
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    return complaints


async def test_checkout_success_and_receipt_read_well_on_phone_and_desktop(world: World, browser: Browser) -> None:
    customer = await world.sign_up()
    page = await open_page(browser)
    await page.goto(await customer.checkout())
    await _every_control_is_named(page)
    await shoot(page, "checkout")
    await page.get_by_role("button", name="Subscribe").click()
    await expect(page.get_by_text("Required").first).to_be_visible()
    await shoot(page, "checkout-empty")
    await fill_card(page, DECLINED)
    await page.get_by_role("button", name="Subscribe").click()
    await expect(page.get_by_role("alert")).to_be_visible()
    await shoot(page, "checkout-declined")
    await fill_card(page, PAYS)
    await page.get_by_role("button", name="Subscribe").click()
    await expect(page.get_by_role("heading", name="Payment received")).to_be_visible()
    await _every_control_is_named(page)
    await shoot(page, "success")

    (receipt,) = await customer.receipts(1)
    complaints = await _watch(page)
    await page.goto(f"{world.stack.mailbox_url}/")
    await expect(page.get_by_text(receipt["Subject"]).first).to_be_visible()
    await _every_control_is_named(page)
    await shoot(page, "mailbox")
    await page.goto(f"{world.stack.mailbox_url}/message/{receipt['ID']}")
    await expect(page.frame_locator("iframe").get_by_role("link", name="View invoice")).to_be_visible()
    await shoot(page, "mailbox-mail")
    await page.goto((await customer.invoices())[0]["hosted_invoice_url"])
    await _every_control_is_named(page)
    await shoot(page, "invoice")
    assert complaints == []
    # The mail alone, as wide as the screen, as a mail program shows it.
    alone = await open_page(browser)
    await alone.goto(f"{world.stack.mailbox_url}/view/{receipt['ID']}.html")
    await shoot(alone, "receipt")


async def test_portal_and_its_steps_read_well_on_phone_and_desktop(world: World, browser: Browser) -> None:
    customer = await world.subscriber()
    page = await open_page(browser)
    complaints = await _watch(page)
    await page.goto(await customer.portal())
    await _every_control_is_named(page)
    await shoot(page, "portal")
    await page.get_by_role("link", name="Update card").click()
    await _every_control_is_named(page)
    await shoot(page, "portal-card")
    await page.get_by_role("link", name="Go back").click()
    await page.get_by_role("link", name="Cancel plan").click()
    await _every_control_is_named(page)
    await shoot(page, "portal-cancel")
    await page.get_by_role("button", name="Cancel plan").click()
    await expect(page.get_by_role("status")).to_be_visible()
    await shoot(page, "portal-cancelled")
    assert complaints == []


async def test_a_person_with_a_key_signs_in_and_sees_the_accounts_messages(world: World, browser: Browser) -> None:
    customer = await world.sign_up("Ada <img src=x onerror=alert(1)>")
    await customer.send(90_000)
    page = await open_page(browser)
    complaints = await _watch(page)
    await page.goto(f"{world.stack.gateway_url}/dash/sign-in")
    await page.get_by_text("Use an API key instead").click()
    await page.get_by_label("API key").fill(customer.key)
    await page.get_by_role("button", name="Sign in with the key").click()
    await expect(page.get_by_role("progressbar", name="Used this month")).to_have_attribute("value", "90")
    await expect(page.get_by_text("90,000 of 100,000")).to_be_visible()
    await expect(page.get_by_role("button", name="Upgrade — Stripe Checkout")).to_be_visible()
    await _every_control_is_named(page)
    await shoot(page, "dash-skytale", themes=True)
    assert complaints == []


async def test_the_gateways_own_pages_read_well_on_phone_and_desktop(world: World, browser: Browser) -> None:
    page = await open_page(browser)
    complaints = await _watch(page)
    for name, path in (("index", "/"), ("canceled", "/checkout/canceled"), ("problems", "/problems")):
        answer = await page.goto(world.stack.gateway_url + path)
        assert answer is not None
        assert answer.status == 200
        await _every_control_is_named(page)
        await shoot(page, name)
    assert complaints == []
