"""The `Payments` port's contract, on the fake that tests use and on the official library against the Stripe sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from services.billing.catalog import load_catalog
from services.billing.domain.customer import Subscriber
from services.billing.domain.metering import Report
from services.billing.errors import StripeUnavailable
from services.billing.ports import NewSession, Payments, Session, StripeRetryable, Upcoming
from services.billing.stripe import StripePayments
from tests.fakes.payments import FakePayments
from tests.infra.processes import running_sandbox

CATALOG = load_catalog(Path("catalogs/skytale.yaml"))
BACK = "http://127.0.0.1:8080/"


@dataclass
class Stripe:
    """A Stripe with the catalog pushed, and what a person does there."""

    payments: Payments
    pay: Callable[[Session], Awaitable[None]]
    fail_next_create: Callable[[str], Awaitable[None]]  # given the idempotency key it will come with
    price_id: str


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    with running_sandbox(tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox.url


@pytest.fixture(params=["fake", "sandbox"])
async def stripe(request: pytest.FixtureRequest) -> AsyncIterator[Stripe]:
    if request.param == "fake":
        fake = FakePayments()

        async def pay_fake(session: Session) -> None:
            fake.pay(session.id)

        async def fail_fake(key: str) -> None:
            fake.failing_keys.add(key)

        pushed = await fake.push(CATALOG, BACK)
        yield Stripe(fake, pay_fake, fail_fake, pushed.prices["skytale_pro_month"])
        return
    url: str = request.getfixturevalue("base")
    real = StripePayments("sk_test_contract", base=url)
    async with httpx.AsyncClient(base_url=url, auth=("sk_test_contract", "")) as client:

        async def pay_real(session: Session) -> None:
            """As the official command-line tool pays."""
            card = {"type": "card", "card[token]": "tok_visa"}
            method = (await client.post("/v1/payment_methods", data=card)).raise_for_status().json()["id"]
            body = {"payment_method": method, "expected_amount": "2900"}
            (await client.post(f"/v1/payment_pages/{session.id}/confirm", data=body)).raise_for_status()

        async def fail_real(key: str) -> None:
            # The first try stores it; the library's own retries hear it again.
            fault = {"api_error": {"status": 500, "next": 1, "path": "/v1/checkout/sessions"}}
            (await client.put("/_sandbox/faults", json=fault)).raise_for_status()

        pushed = await real.push(CATALOG, BACK)
        yield Stripe(real, pay_real, fail_real, pushed.prices["skytale_pro_month"])
        (await client.put("/_sandbox/faults", json={"api_error": None})).raise_for_status()
    await real.close()


_accounts = iter(f"acct_{number}" for number in range(1000))


async def new_session(stripe: Stripe, customer_id: str, account_id: str, key: str = "") -> NewSession:
    return NewSession(
        key=key or f"chk_{account_id}:1",
        account_id=account_id,
        customer_id=customer_id,
        price_id=stripe.price_id,
        success_url=BACK + "done",
        cancel_url=BACK,
        promotion_codes=False,
        trial_days=0,
        automatic_tax=False,
    )


async def customer_of(stripe: Stripe) -> tuple[str, str]:
    account_id = next(_accounts)
    return account_id, await stripe.payments.create_customer(account_id, "ada@example.com", "Ada")


async def test_a_customer_is_made_once_for_an_account_and_known_as_its(stripe: Stripe) -> None:
    account_id, customer_id = await customer_of(stripe)
    again = await stripe.payments.create_customer(account_id, "ada@example.com", "Ada")
    assert again == customer_id
    assert await stripe.payments.account_of_customer(customer_id) == account_id


async def test_a_customer_may_have_no_address_yet(stripe: Stripe) -> None:
    account_id = next(_accounts)
    customer_id = await stripe.payments.create_customer(account_id, "", "Acme")
    assert await stripe.payments.account_of_customer(customer_id) == account_id


async def test_a_customer_that_nobody_made_is_nobodys(stripe: Stripe) -> None:
    assert await stripe.payments.account_of_customer("cus_nobody") == ""


async def test_one_key_opens_one_session_even_at_once(stripe: Stripe) -> None:
    account_id, customer_id = await customer_of(stripe)
    new = await new_session(stripe, customer_id, account_id)
    opened = await asyncio.gather(*(stripe.payments.create_session(new) for _ in range(4)))
    assert len({session.id for session in opened}) == 1
    assert opened[0].status == "open"
    assert opened[0].url.startswith("http")


async def test_an_expired_session_has_no_page(stripe: Stripe) -> None:
    account_id, customer_id = await customer_of(stripe)
    session = await stripe.payments.create_session(await new_session(stripe, customer_id, account_id))
    assert (await stripe.payments.expire_session(session.id)).status == "expired"
    assert (await stripe.payments.session(session.id)).url == ""


async def test_before_paying_there_is_nothing_and_after_it_a_live_subscription_with_its_paid_invoice(
    stripe: Stripe,
) -> None:
    account_id, customer_id = await customer_of(stripe)
    session = await stripe.payments.create_session(await new_session(stripe, customer_id, account_id))
    before = await stripe.payments.read(customer_id, [], want_last_paid=True)
    assert (before.subscriptions, before.invoices, before.last_paid_price_id) == ([], [], "")
    await stripe.pay(session)
    after = await stripe.payments.read(customer_id, [], want_last_paid=True)
    (subscription,), (invoice,) = after.subscriptions, after.invoices
    assert (subscription.status, subscription.price_id, subscription.interval) == ("active", stripe.price_id, "month")
    assert subscription.lookup_key == "skytale_pro_month"
    assert subscription.period_start < subscription.period_end
    assert (invoice.status, invoice.amount_paid, invoice.currency) == ("paid", 2900, "usd")
    assert invoice.subscription_id == subscription.id
    assert invoice.number
    assert invoice.hosted_url
    assert invoice.pdf_url
    assert after.last_paid_price_id == stripe.price_id
    assert (await stripe.payments.session(session.id)).status == "complete"


async def test_expiring_a_session_that_was_paid_tells_that_it_is_complete(stripe: Stripe) -> None:
    account_id, customer_id = await customer_of(stripe)
    session = await stripe.payments.create_session(await new_session(stripe, customer_id, account_id))
    await stripe.pay(session)
    assert (await stripe.payments.expire_session(session.id)).status == "complete"


async def test_a_named_invoice_of_another_customer_is_not_read(stripe: Stripe) -> None:
    account_id, customer_id = await customer_of(stripe)
    session = await stripe.payments.create_session(await new_session(stripe, customer_id, account_id))
    await stripe.pay(session)
    (invoice,) = (await stripe.payments.read(customer_id, [], want_last_paid=False)).invoices
    _, other = await customer_of(stripe)
    assert (await stripe.payments.read(other, [invoice.id, "in_nowhere"], want_last_paid=False)).invoices == []


async def test_the_portal_has_an_address(stripe: Stripe) -> None:
    _, customer_id = await customer_of(stripe)
    assert (await stripe.payments.create_portal_session(customer_id, BACK, "")).startswith("http")


async def test_pushing_again_changes_nothing(stripe: Stripe) -> None:
    first = await stripe.payments.push(CATALOG, BACK)
    again = await stripe.payments.push(CATALOG, BACK)
    assert again.changes == []
    assert again.prices == first.prices


async def test_a_stored_failure_asks_for_another_key_and_another_key_works(stripe: Stripe) -> None:
    account_id, customer_id = await customer_of(stripe)
    failing = await new_session(stripe, customer_id, account_id)
    await stripe.fail_next_create(failing.key)
    with pytest.raises(StripeRetryable):
        await stripe.payments.create_session(failing)
    other = await new_session(stripe, customer_id, account_id, key=f"chk_{account_id}:2")
    assert (await stripe.payments.create_session(other)).status == "open"


async def test_a_stripe_that_is_not_there_is_unavailable_within_seconds() -> None:
    gone = StripePayments("sk_test_contract", base="http://127.0.0.1:9")
    with pytest.raises(StripeUnavailable):
        await asyncio.wait_for(gone.create_customer("acct_x", "a@example.com", "A"), 10)
    await gone.close()


async def test_a_base_fee_is_given_back_once_for_our_id_and_the_subscription_ends_once(stripe: Stripe) -> None:
    account_id, customer_id = await customer_of(stripe)
    session = await stripe.payments.create_session(await new_session(stripe, customer_id, account_id))
    await stripe.pay(session)
    read = await stripe.payments.read(customer_id, [], want_last_paid=False)
    (subscription,), (invoice,) = read.subscriptions, read.invoices
    fee = await stripe.payments.base_fee(invoice.id, {stripe.price_id})
    assert fee is not None
    assert (fee.amount, fee.currency) == (2900, "usd")
    assert await stripe.payments.base_fee(invoice.id, {"price_of_nothing"}) is None
    for _ in range(2):
        await stripe.payments.cancel_subscription(subscription.id, f"{account_id}:cancel")
    made = await stripe.payments.refund(fee.payment_intent, fee.amount, f"rfd_{account_id}", f"{account_id}:1")
    # Another key, as after a day: the first one is found.
    again = await stripe.payments.refund(fee.payment_intent, fee.amount, f"rfd_{account_id}", f"{account_id}:2")
    assert again == made
    assert (made.kind, made.amount, made.invoice_id, made.customer_id) == ("refund", 2900, invoice.id, customer_id)
    assert await stripe.payments.reversals(made.charge_id) == [made]
    assert await stripe.payments.customer_of_charge(made.charge_id) == customer_id
    (ended,) = (await stripe.payments.read(customer_id, [], want_last_paid=False)).subscriptions
    assert ended.status == "canceled"


async def test_what_comes_next_is_the_plans_price_until_it_is_cancelled(stripe: Stripe) -> None:
    account_id, customer_id = await customer_of(stripe)
    session = await stripe.payments.create_session(await new_session(stripe, customer_id, account_id))
    await stripe.pay(session)
    (subscription,) = (await stripe.payments.read(customer_id, [], want_last_paid=False)).subscriptions
    assert await stripe.payments.upcoming(subscription.id) == Upcoming(2900, "usd")
    await stripe.payments.set_cancellation(subscription.id, cancel=True)
    assert await stripe.payments.upcoming(subscription.id) is None
    (ending,) = (await stripe.payments.read(customer_id, [], want_last_paid=False)).subscriptions
    assert ending.ends_by_itself


async def every_subscriber(stripe: Stripe, limit: int) -> dict[str, Subscriber]:
    found: dict[str, Subscriber] = {}
    token = ""
    while True:
        page = await stripe.payments.subscribers(token, limit)
        found |= {each.customer.id: each for each in page.subscribers}
        token = page.next_token
        if not token:
            return found


async def test_subscribers_come_in_pages_with_whose_they_are_and_without_those_that_ended(stripe: Stripe) -> None:
    paid = {}
    for _ in range(3):
        account_id, customer_id = await customer_of(stripe)
        session = await stripe.payments.create_session(await new_session(stripe, customer_id, account_id))
        await stripe.pay(session)
        paid[customer_id] = account_id
    _, nothing_bought = await customer_of(stripe)
    found = await every_subscriber(stripe, limit=2)
    assert paid.keys() <= found.keys()
    assert nothing_bought not in found
    one = next(iter(paid))
    assert (found[one].customer.account_id, found[one].live[0].price_id) == (paid[one], stripe.price_id)
    assert await stripe.payments.subscriber(one) == found[one]
    await stripe.payments.cancel_subscription(found[one].live[0].id, f"{one}:cancel")
    assert one not in await every_subscriber(stripe, limit=100)
    ended = await stripe.payments.subscriber(one)
    assert ended is not None
    assert ended.subscriptions == ()
    listed, token = await stripe.payments.list_subscriptions("", 1)
    while token:
        page, token = await stripe.payments.list_subscriptions(token, 100)
        listed += page
    statuses = {each.customer_id: each.status for each in listed}
    assert statuses[one] == "canceled"
    assert paid.keys() <= statuses.keys()


async def test_a_customer_is_found_by_its_address_renamed_and_deleted_for_good(stripe: Stripe) -> None:
    _, customer_id = await customer_of(stripe)
    address = f"{customer_id.lower().replace('_', '-')}@example.com"
    for _ in range(2):
        await stripe.payments.update_customer(customer_id, "acct_other", address)
    assert await stripe.payments.customers_with_email(address) == [customer_id]
    found = await stripe.payments.subscriber(customer_id)
    assert found is not None
    assert (found.customer.email, found.customer.account_id) == (address, "acct_other")
    for _ in range(2):
        await stripe.payments.delete_customer(customer_id)
    assert await stripe.payments.subscriber(customer_id) is None
    assert await stripe.payments.customers_with_email(address) == []


async def test_a_charge_that_nobody_made_is_nobodys(stripe: Stripe) -> None:
    assert await stripe.payments.customer_of_charge("ch_nobody") == ""


@pytest.fixture
async def payments(base: str) -> AsyncIterator[StripePayments]:
    real = StripePayments("sk_test_contract", base=base)
    yield real
    await real.close()


async def test_a_cancellation_at_once_invoices_the_units_that_were_reported(
    base: str, payments: StripePayments
) -> None:
    catalog = load_catalog(Path("catalogs/manashiki.yaml"))
    pushed = await payments.push(catalog, BACK)
    account_id, tier = "acct_metered", catalog.tiers["paid"]
    customer_id = await payments.create_customer(account_id, "ada@example.com", "Ada")
    metered = [pushed.prices[each.lookup_key] for each in catalog.metered_prices("paid", tier.prices[0])]
    new = NewSession(
        key=f"chk_{account_id}:1",
        account_id=account_id,
        customer_id=customer_id,
        price_id=pushed.prices[tier.prices[0].lookup_key],
        success_url=BACK,
        cancel_url=BACK,
        promotion_codes=False,
        trial_days=0,
        automatic_tax=False,
        metered_price_ids=tuple(metered),
    )
    session = await payments.create_session(new)
    async with httpx.AsyncClient(base_url=base, auth=("sk_test_contract", "")) as client:
        card = {"type": "card", "card[token]": "tok_visa"}
        method = (await client.post("/v1/payment_methods", data=card)).raise_for_status().json()["id"]
        body = {"payment_method": method, "expected_amount": str(tier.prices[0].amount)}
        (await client.post(f"/v1/payment_pages/{session.id}/confirm", data=body)).raise_for_status()
        (subscription,) = (await payments.read(customer_id, [], want_last_paid=False)).subscriptions
        stamp = subscription.period_start
        now = (await client.get("/_sandbox/clock")).json()["now"]
        (await client.post("/_sandbox/clock/advance", json={"to": now + 10})).raise_for_status()
    await payments.report_usage(Report(customer_id, "live_downloads", 1500, "use_1", stamp), catalog)
    await payments.cancel_subscription(subscription.id, f"{account_id}:end")
    paid = {each.amount_paid for each in await payments.list_invoices(customer_id)}
    # 500 beyond the included 1,000, at a tenth of a cent; the base fee is neither charged again nor given back.
    assert paid == {tier.prices[0].amount, 50}
