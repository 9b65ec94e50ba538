"""What people do on the billing page, by its words."""

from __future__ import annotations

import re
import uuid

from playwright.async_api import Page, expect

from tests.e2e.manashiki import Org
from tests.e2e.world import World, until

LINK = re.compile(r"http\S+/dash/sign-in/link\?token=\S+")


async def ask_for_a_link(page: Page, email: str) -> None:
    await page.get_by_label("Email address").fill(email)
    await page.get_by_role("button", name="Mail me a link").click()
    await expect(page.get_by_role("heading", name="Check your mail")).to_be_visible()


async def mailed_link(world: World, email: str, count: int = 1) -> str:
    """The latest link, once so many have arrived."""
    mails = await until(lambda: world.mails(email, "Sign in"), lambda found: len(found) >= count)
    found = LINK.search(mails[-1]["Text"])
    assert found is not None
    return found[0]


async def sign_in(page: Page, org: Org) -> None:
    """From the account's page to the mail and back."""
    earlier = len(await org.world.mails(org.customer.email, "Sign in"))
    await page.goto(org.billing_page)
    await ask_for_a_link(page, org.customer.email)
    await page.goto(await mailed_link(org.world, org.customer.email, earlier + 1))
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url(org.billing_page)


async def promotion_code(world: World, percent: int) -> str:
    """A code that takes so much off, for good."""
    coupon = await world.stripe("POST", "coupons", percent_off=percent, duration="forever")
    code = f"SAVE{uuid.uuid4().hex[:8].upper()}"
    form = {"promotion[type]": "coupon", "promotion[coupon]": coupon["id"], "code": code}
    await world.stripe("POST", "promotion_codes", **form)
    return code


async def watch(page: Page) -> list[str]:
    """What the page complains of in its console, from now on."""
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    return complaints
