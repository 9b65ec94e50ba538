"""Claims about checkout and the portal: one open session, never two subscriptions, no half-made customer."""

from __future__ import annotations

import asyncio

import pytest

from services.billing.application import checkout
from services.billing.errors import (
    AlreadySubscribed,
    ContactSales,
    IdempotencyKeyReused,
    NoCustomer,
    RedirectNotAllowed,
    StripeUnavailable,
    UnknownPrice,
    UnknownTier,
)
from services.kit.errors import InvalidArgument
from tests.integration.billing.conftest import Billing


async def test_asking_twice_gives_the_same_page(billing: Billing) -> None:
    account_id = (await billing.sign_up()).account.id
    assert await billing.check_out(account_id) == await billing.check_out(account_id)
    assert len(billing.payments.sessions) == 1


async def test_asking_ten_times_at_once_gives_one_page_and_one_customer(billing: Billing) -> None:
    account_id = (await billing.sign_up()).account.id
    assert len(set(await asyncio.gather(*(billing.check_out(account_id) for _ in range(10))))) == 1
    assert len(billing.payments.customers) == 1


async def test_an_expired_page_is_followed_by_a_new_one(billing: Billing) -> None:
    account_id = (await billing.sign_up()).account.id
    first = await billing.check_out(account_id)
    await billing.payments.expire_session(first)
    assert await billing.check_out(account_id) != first


async def test_another_success_page_expires_the_open_session(billing: Billing) -> None:
    account_id = (await billing.sign_up()).account.id
    first = await billing.check_out(account_id)
    command = checkout.CreateCheckout(account_id, "pro", success_url="http://127.0.0.1:8080/elsewhere")
    second = await checkout.create_checkout(command, billing.context)
    assert billing.payments.sessions[first].status == "expired"
    assert second.id != first


async def test_a_subscriber_is_sent_to_the_portal(billing: Billing) -> None:
    account_id = (await billing.sign_up()).account.id
    subscription = billing.payments.pay(await billing.check_out(account_id))
    await billing.hear_of(subscription.customer_id)
    await billing.settle()
    with pytest.raises(AlreadySubscribed):
        await billing.check_out(account_id)


async def test_who_paid_a_moment_ago_cannot_buy_again_before_the_webhook_is_here(billing: Billing) -> None:
    account_id = (await billing.sign_up()).account.id
    billing.payments.pay(await billing.check_out(account_id))
    with pytest.raises(AlreadySubscribed):
        await billing.check_out(account_id)
    await billing.settle()  # and the attempt itself found the lost payment
    assert (await billing.state(account_id)).entitlement.tier == "pro"


async def test_after_the_end_one_can_buy_again_and_the_customer_stays(billing: Billing) -> None:
    account_id = (await billing.sign_up()).account.id
    subscription = billing.payments.pay(await billing.check_out(account_id))
    billing.payments.change(subscription.id, status="canceled")
    await billing.hear_of(subscription.customer_id)
    await billing.settle()
    again = billing.payments.pay(await billing.check_out(account_id))
    assert again.customer_id == subscription.customer_id


async def test_stripe_being_away_sells_nothing_and_the_retry_makes_no_second_customer(billing: Billing) -> None:
    account_id = (await billing.sign_up()).account.id
    billing.payments.down = True
    with pytest.raises(StripeUnavailable):
        await billing.check_out(account_id)
    billing.payments.down = False
    await billing.check_out(account_id)
    assert len(billing.payments.customers) == 1


async def test_a_stored_failure_is_followed_by_another_key(billing: Billing) -> None:
    account_id = (await billing.sign_up()).account.id
    real = billing.payments.failing_keys
    billing.payments.failing_keys = _FirstAttempts()
    with pytest.raises(StripeUnavailable):
        await billing.check_out(account_id)
    assert await billing.check_out(account_id)
    assert real == set()


class _FirstAttempts(set[str]):
    def __contains__(self, key: object) -> bool:
        return str(key).endswith(":1")


@pytest.mark.parametrize("tier", ["", "gold", "free", "Pro"])
async def test_a_tier_that_is_not_sold_is_refused_by_field_with_what_is(billing: Billing, tier: str) -> None:
    account_id = (await billing.sign_up()).account.id
    with pytest.raises(UnknownTier, match="pro") as caught:
        await billing.check_out(account_id, tier)
    assert caught.value.field == "tier"


async def test_enterprise_answers_with_whom_to_write_to(billing: Billing) -> None:
    account_id = (await billing.sign_up()).account.id
    with pytest.raises(ContactSales) as caught:
        await billing.check_out(account_id, "enterprise")
    assert caught.value.metadata["contact"].startswith("mailto:")


async def test_a_foreign_success_page_is_refused_before_stripe_is_asked(billing: Billing) -> None:
    account_id = (await billing.sign_up()).account.id
    command = checkout.CreateCheckout(account_id, "pro", success_url="https://evil.example/")
    with pytest.raises(RedirectNotAllowed):
        await checkout.create_checkout(command, billing.context)
    assert not billing.payments.customers


async def test_the_portal_needs_a_customer(billing: Billing) -> None:
    account_id = (await billing.sign_up()).account.id
    with pytest.raises(NoCustomer):
        await checkout.create_portal_session(account_id, "", billing.context)
    await billing.check_out(account_id)
    assert await checkout.create_portal_session(account_id, "", billing.context)


async def test_an_idempotency_key_cannot_stand_for_two_different_checkouts(billing: Billing) -> None:
    account_id = (await billing.sign_up()).account.id
    first = checkout.CreateCheckout(account_id, "pro", request_id="k")
    other = checkout.CreateCheckout(account_id, "pro", success_url="http://127.0.0.1:8080/x", request_id="k")
    page = await checkout.create_checkout(first, billing.context)
    assert (await checkout.create_checkout(first, billing.context)).id == page.id
    with pytest.raises(IdempotencyKeyReused):
        await checkout.create_checkout(other, billing.context)


async def test_a_price_is_bought_by_its_id_and_shares_the_page_with_its_tier(billing: Billing) -> None:
    account_id = (await billing.sign_up()).account.id
    price = billing.payments.prices["skytale_pro_month"]
    command = checkout.CreateCheckout(account_id, "", price_id=price)
    assert (await checkout.create_checkout(command, billing.context)).id == await billing.check_out(account_id)


@pytest.mark.parametrize("price_id", ["price_of_nobody", "skytale_pro_month", "pro"])
async def test_a_price_that_is_not_on_sale_is_refused_before_there_is_a_customer(
    billing: Billing, price_id: str
) -> None:
    account_id = (await billing.sign_up()).account.id
    with pytest.raises(UnknownPrice) as refused:
        await checkout.create_checkout(checkout.CreateCheckout(account_id, "", price_id=price_id), billing.context)
    assert refused.value.field == "price_id"
    assert not billing.payments.customers


async def test_a_tier_and_a_price_at_once_are_refused(billing: Billing) -> None:
    account_id = (await billing.sign_up()).account.id
    command = checkout.CreateCheckout(account_id, "pro", price_id=billing.payments.prices["skytale_pro_month"])
    with pytest.raises(InvalidArgument) as refused:
        await checkout.create_checkout(command, billing.context)
    assert refused.value.field == "price_id"
