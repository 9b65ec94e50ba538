"""A subscription through the months, on a moved clock: cancel, end, come back; renew, fail, pay."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from playwright.async_api import Browser, expect

from tests.e2e.browser import fill_card, open_page
from tests.e2e.test_api_story import FREE
from tests.e2e.world import FAILS_LATER, PAYS, Customer, Json, World, month_after, next_middle_of_month, rfc3339, until

_DAY = 86_400
# Stripe leaves a renewal's invoice open to changes for an hour before it charges.
_CHARGED_AFTER = 2 * 3600


@pytest.fixture(autouse=True)
async def nobody_else_renews(world: World) -> None:
    """Ends what other stories bought: months that pass would renew all of it, month by month."""
    for status in ("active", "past_due"):
        while found := (await world.stripe("GET", "subscriptions", status=status, limit=100))["data"]:
            for subscription in found:
                await world.stripe("DELETE", f"subscriptions/{subscription['id']}")
    await world.drained()


async def _cancel(browser: Browser, customer: Customer) -> None:
    """Cancels as a person does, on Stripe's portal page."""
    page = await open_page(browser)
    await page.goto(await customer.portal())
    await page.get_by_role("link", name="Cancel plan").click()
    await page.get_by_role("button", name="Cancel plan").click()
    await expect(page.get_by_role("status")).to_contain_text("stays active until the end of the period")
    await page.context.close()


async def _give_card(browser: Browser, customer: Customer, card: str) -> None:
    page = await open_page(browser)
    await page.goto(await customer.portal())
    await page.get_by_role("link", name="Update card").click()
    await fill_card(page, card)
    await page.get_by_role("button", name="Save card").click()
    await expect(page.get_by_text(card[-4:])).to_be_visible()
    await page.context.close()


async def test_a_cancelled_plan_stays_pro_until_its_end_then_is_free_with_its_usage_and_can_come_back(
    world: World, browser: Browser
) -> None:
    # From the middle of a month to the middle of the next: the last half of the paid period and the first days on
    # free lie in one calendar month, whose messages are one count.
    start = next_middle_of_month(await world.now())
    await world.advance_to(start)
    customer = await world.subscriber()
    end = (await customer.subscriptions())[0]["items"]["data"][0]["current_period_end"]
    assert end - month_after(start) in range(120), "a month after it was paid"
    stripe_id = await customer.stripe_id()

    await _cancel(browser, customer)
    cancelling = {"plan": "pro", "status": "active", "current_period_end": rfc3339(end), "cancel_at_period_end": True}
    await until(customer.billing, lambda billing: billing == cancelling)

    await world.advance_to(end - 3600)
    assert await customer.billing() == cancelling, "paid to the last hour"
    assert (await customer.send(150_000)).json()["limit"] == 1_000_000

    await world.advance_to(end + 1)
    assert await customer.becomes("free") == FREE
    messages = await customer.messages()
    assert (messages["used"], messages["limit"], messages["remaining"]) == (150_000, 100_000, 0)
    refused = await customer.send()
    assert (refused.status_code, refused.json()["used"], refused.json()["limit"]) == (402, 150_000, 100_000)
    first = datetime.fromtimestamp(month_after(end), UTC).replace(day=1, hour=0, minute=0, second=0)
    assert messages["resets_at"] == rfc3339(int(first.timestamp()))

    await world.advance_to(int(first.timestamp()))
    assert (await customer.messages())["used"] == 0, "a new month"
    assert (await customer.send()).status_code == 200

    assert (await customer.pay(await customer.checkout())).status_code == 303
    await customer.becomes("pro")
    await customer.receipts(2)
    assert await customer.stripe_id() == stripe_id, "the same customer at Stripe"
    assert sorted(subscription["status"] for subscription in await customer.subscriptions()) == ["active", "canceled"]


async def test_who_takes_a_cancellation_back_stays_on_pro(world: World, browser: Browser) -> None:
    customer = await world.subscriber()
    await _cancel(browser, customer)
    await until(customer.billing, lambda billing: billing["cancel_at_period_end"])
    page = await open_page(browser)
    await page.goto(await customer.portal())
    await page.get_by_role("button", name="Don't cancel plan").click()
    await expect(page.get_by_role("status")).to_contain_text("renew as before")
    billing = await until(customer.billing, lambda billing: not billing["cancel_at_period_end"])
    await world.advance_to(int(datetime.fromisoformat(billing["current_period_end"]).timestamp()) + _CHARGED_AFTER)
    renewed = await until(customer.billing, lambda now: now["current_period_end"] != billing["current_period_end"])
    assert (renewed["plan"], renewed["status"]) == ("pro", "active")
    await customer.receipts(2)


async def test_each_period_brings_one_receipt_and_moves_the_end_by_a_month(world: World) -> None:
    await world.advance_to(next_middle_of_month(await world.now()))
    customer = await world.subscriber()
    ends = [int(datetime.fromisoformat((await customer.billing())["current_period_end"]).timestamp())]
    for period in (2, 3):
        await world.advance_to(ends[-1] + _CHARGED_AFTER)
        ends.append(month_after(ends[-1]))
        billing = await until(customer.billing, lambda now: now["current_period_end"] == rfc3339(ends[-1]))
        assert (billing["plan"], billing["status"]) == ("pro", "active")
        receipts = await customer.receipts(period)
        numbers = [invoice["number"] for invoice in reversed(await customer.invoices())]
        assert len(receipts) == len(numbers) == len(set(numbers)) == period
        for receipt, number in zip(receipts, numbers, strict=True):
            assert number in receipt["Text"]


async def _failed_renewal(world: World, browser: Browser) -> tuple[Customer, Json]:
    """A subscriber whose new card failed when the period was over, and the notice about it."""
    customer = await world.subscriber("Grace Hopper")
    await _give_card(browser, customer, FAILS_LATER)
    end = (await customer.subscriptions())[0]["items"]["data"][0]["current_period_end"]
    await world.advance_to(end + _CHARGED_AFTER)
    billing = await until(customer.billing, lambda billing: billing["status"] == "past_due")
    assert billing["plan"] == "pro", "past_due keeps the plan"
    assert (await customer.messages())["limit"] == 1_000_000
    notices = await until(lambda: world.mails(customer.email, "failed"), bool)
    return customer, notices[0]


async def test_a_renewal_that_fails_keeps_pro_sends_one_notice_and_paying_by_its_link_mends_it(
    world: World, browser: Browser
) -> None:
    customer, notice = await _failed_renewal(world, browser)
    invoice = (await customer.invoices())[0]
    assert invoice["status"] == "open"
    for body in (notice["Text"], notice["HTML"]):
        assert "$29.00" in body
        assert invoice["hosted_invoice_url"] in body
    # Stripe tries again and fails again: of one invoice is written once.
    await world.advance_to(invoice["next_payment_attempt"] + 60)
    assert (await customer.invoices())[0]["attempt_count"] == 2
    assert (await customer.billing())["status"] == "past_due"

    page = await open_page(browser)
    await page.goto(invoice["hosted_invoice_url"])
    await fill_card(page, PAYS)
    await page.get_by_role("button", name="Pay").click()
    await expect(page.get_by_text("Paid", exact=True).first).to_be_visible()
    billing = await until(customer.billing, lambda billing: billing["status"] == "active")
    assert billing["plan"] == "pro"
    receipts = await customer.receipts(2)
    assert invoice["number"] in receipts[-1]["Text"]
    assert len(await world.mails(customer.email, "failed")) == 1


async def test_who_never_pays_keeps_pro_while_stripe_tries_and_is_free_when_it_gives_up(
    world: World, browser: Browser
) -> None:
    customer, _ = await _failed_renewal(world, browser)
    while (attempt := (await customer.invoices())[0]["next_payment_attempt"]) is not None:
        assert (await customer.billing())["plan"] == "pro"
        await world.advance_to(attempt + 60)
    assert await customer.becomes("free") == FREE
    assert (await customer.messages())["limit"] == 100_000
    assert len(await world.mails(customer.email, "failed")) == 1
