"""The story by REST and on Stripe's pages: free, declined, paid, a receipt; and what tokens and quota make of it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from datetime import UTC, datetime

import jwt
from playwright.async_api import Browser, expect

from tests.e2e.browser import fill_card, open_page
from tests.e2e.world import DECLINED, PAYS, Customer, Json, World, rfc3339, until

FREE = {"plan": "free", "status": "active", "current_period_end": None, "cancel_at_period_end": False}


def _claims(token: str) -> Json:
    body = token.split(".")[1]
    found: Json = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found


async def test_a_new_account_is_on_free_and_stripe_has_never_heard_of_it(world: World) -> None:
    customer = await world.sign_up()
    assert await customer.billing() == FREE
    messages = await customer.messages()
    assert (messages["used"], messages["limit"], messages["remaining"]) == (0, 100_000, 100_000)
    assert (await world.stripe("GET", "customers", email=customer.email))["data"] == []


async def test_free_is_fully_functional_without_a_card(world: World) -> None:
    customer = await world.sign_up()
    assert (await customer.send(99_999)).status_code == 200
    assert (await customer.send(1, token=await customer.token())).status_code == 200
    assert (await world.stripe("GET", "customers", email=customer.email))["data"] == []


async def test_checkout_answers_an_address_of_the_payment_page_and_nothing_else(world: World) -> None:
    customer = await world.sign_up()
    answer = await customer.post("/v1/billing/checkout", {"tier": "pro"})
    assert answer.status_code == 200
    assert list(answer.json()) == ["checkout_url"]
    assert re.fullmatch(re.escape(world.stack.sandbox_url) + r"/c/pay/cs_test_\w+", answer.json()["checkout_url"])
    assert await customer.checkout() == answer.json()["checkout_url"], "one open page per account"
    assert await customer.billing() == FREE, "nothing is sold until it is paid"


async def test_a_declined_card_says_so_on_the_page_and_leaves_no_subscription(world: World, browser: Browser) -> None:
    customer = await world.sign_up()
    page = await open_page(browser)
    await page.goto(await customer.checkout())
    await expect(page.get_by_text("$29.00").first).to_be_visible()
    await fill_card(page, DECLINED)
    await page.get_by_role("button", name="Subscribe").click()
    await expect(page.get_by_role("alert")).to_have_text("Your card was declined.")
    await world.drained()
    assert await customer.subscriptions() == []
    assert await customer.invoices() == []
    assert await customer.billing() == FREE
    # The page is still open for a better card.
    await fill_card(page, PAYS)
    await page.get_by_role("button", name="Subscribe").click()
    await expect(page.get_by_role("heading", name="Payment received")).to_be_visible()
    assert len(await customer.subscriptions()) == 1
    await customer.becomes("pro")
    await customer.receipts(1)


async def _pay_and_time(world: World, browser: Browser) -> tuple[Customer, float]:
    """Seconds from the arrival of Stripe's first event until both the key and the quota are on pro."""
    customer = await world.sign_up()
    assert (await customer.send(7)).json()["limit"] == 100_000
    page = await open_page(browser)
    await page.goto(await customer.checkout())
    await fill_card(page, PAYS)

    async def seen() -> datetime:
        await until(customer.plan, lambda plan: plan == "pro")
        await until(customer.messages, lambda messages: messages["limit"] == 1_000_000)
        return datetime.now(UTC)

    watching = asyncio.create_task(seen())
    await page.get_by_role("button", name="Subscribe").click()
    at = await watching
    await expect(page.get_by_role("heading", name="Payment received")).to_be_visible()
    await page.context.close()
    query = "SELECT min(receive_time) AS first FROM webhook_event WHERE account_id = $1"
    (row,) = await world.rows("billing", query, customer.id)
    return customer, (at - row["first"]).total_seconds()


async def test_within_a_second_of_stripes_event_key_and_quota_are_on_pro(world: World, browser: Browser) -> None:
    took: list[float] = []
    while (not took or min(took) >= 1) and len(took) < 8:  # a busy machine may need other tries
        customer, seconds = await _pay_and_time(world, browser)
        took.append(seconds)
        messages = await customer.messages()
        assert (messages["used"], messages["remaining"]) == (7, 999_993), "an upgrade keeps what was used"
        await customer.receipts(1)
    assert min(took) < 1, f"seconds from Stripe's event: {took}"


async def test_the_status_of_a_subscription_is_pro_active_until_a_month_later(world: World) -> None:
    customer = await world.subscriber()
    (subscription,) = await customer.subscriptions()
    end = subscription["items"]["data"][0]["current_period_end"]
    assert 28 <= (end - subscription["start_date"]) / 86_400 <= 31
    assert await customer.billing() == {
        "plan": "pro",
        "status": "active",
        "current_period_end": rfc3339(end),
        "cancel_at_period_end": False,
    }


async def test_an_old_token_says_free_a_new_one_pro_and_quota_acts_on_the_plan_of_now(world: World) -> None:
    customer = await world.sign_up()
    old = await customer.token()
    await customer.subscribe()
    new = await customer.token()
    assert (_claims(old)["tier"], _claims(new)["tier"]) == ("free", "pro")
    assert _claims(new)["version"] > _claims(old)["version"]
    for token in (old, new):
        answer = await customer.send(200_000, token=token)
        assert answer.status_code == 200, answer.text
        assert (answer.json()["tier"], answer.json()["limit"]) == ("pro", 1_000_000)


async def test_a_token_lives_for_one_hour_at_most(world: World) -> None:
    claims = _claims(await (await world.sign_up()).token())
    assert 0 < claims["exp"] - claims["iat"] <= 3600


async def test_a_token_is_proven_by_the_published_keys_and_an_altered_one_is_refused(world: World) -> None:
    customer = await world.sign_up()
    token = await customer.token()
    keys = jwt.PyJWKSet.from_dict((await world.gateway.get("/.well-known/jwks.json")).json())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, algorithms=["EdDSA"], issuer=world.stack.gateway_url)
    assert claims["sub"] == customer.id
    head, _, signature = token.split(".")
    better = base64.urlsafe_b64encode(json.dumps(claims | {"tier": "pro"}).encode()).rstrip(b"=").decode()
    answer = await customer.send(token=f"{head}.{better}.{signature}")
    assert (answer.status_code, answer.json()["code"]) == (401, "token_invalid")


async def test_the_receipt_has_amount_and_number_and_both_of_its_links_open(world: World) -> None:
    customer = await world.subscriber("Grace Hopper")
    (mail,) = await customer.receipts(1)
    (invoice,) = await customer.invoices()
    assert [to["Address"] for to in mail["To"]] == [customer.email]
    for body in (mail["Text"], mail["HTML"]):
        assert "$29.00" in body
        assert invoice["number"] in body
        assert invoice["hosted_invoice_url"] in body
        assert invoice["invoice_pdf"] in body
    hosted = await world.sandbox.get(invoice["hosted_invoice_url"])
    assert hosted.status_code == 200
    assert {"$29.00", "Paid"} <= set(re.findall(r"\$29\.00|Paid", hosted.text))
    assert invoice["number"] in hosted.text
    pdf = await world.sandbox.get(invoice["invoice_pdf"])
    assert pdf.headers["content-type"] == "application/pdf"
    assert pdf.content.startswith(b"%PDF")
    assert invoice["number"].encode() in pdf.content


async def test_who_has_pro_is_shown_to_the_portal_instead_of_paying_twice(world: World) -> None:
    customer = await world.subscriber()
    answer = await customer.post("/v1/billing/checkout", {"tier": "pro"})
    assert (answer.status_code, answer.json()["code"]) == (409, "already_subscribed")


async def test_a_page_that_was_paid_in_two_tabs_sells_once(world: World) -> None:
    customer = await world.sign_up()
    page = await customer.checkout()
    answers = await asyncio.gather(*(customer.pay(page) for _ in range(2)))
    assert [answer.status_code for answer in answers] == [303, 303]
    await customer.becomes("pro")
    await customer.receipts(1)
    await world.drained()
    assert len(await customer.subscriptions()) == 1
    assert len(await customer.receipts(1)) == 1


async def test_a_stranger_sees_nothing_of_another_account(world: World) -> None:
    payer, stranger = await asyncio.gather(world.subscriber(), world.sign_up("Eve"))
    assert await stranger.billing() == FREE
    answer = await stranger.post("/v1/billing/portal")
    assert (answer.status_code, answer.json()["code"]) == (409, "no_customer")
    assert (await payer.billing())["plan"] == "pro"


async def test_billing_answers_are_nobodys_to_cache(world: World) -> None:
    customer = await world.sign_up()
    for path in ("/v1/billing", "/v1/usage"):
        answer = await world.gateway.get(path, headers=customer.bearer)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
