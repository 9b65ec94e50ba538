"""What customers are told of a subscription's life: each fact once, whatever is heard again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.billing.application import accounts, reconcile
from services.billing.domain.subscription import Subscription
from services.billing.ports import Upcoming
from tests.integration.billing.conftest import Billing, event
from tollway.billing.v1 import events_pb2

SCHEDULED, ENDED = events_pb2.CANCELLATION_PHASE_SCHEDULED, events_pb2.CANCELLATION_PHASE_ENDED
NOW = datetime.now(UTC).replace(microsecond=0)


async def subscriber(billing: Billing) -> tuple[str, Subscription]:
    account_id = (await billing.sign_up()).account.id
    subscription = billing.payments.pay(await billing.check_out(account_id))
    await heard(billing, subscription)
    return account_id, subscription


async def heard(billing: Billing, subscription: Subscription, kind: str = "customer.subscription.updated") -> None:
    await billing.hear_of(subscription.customer_id, kind)
    await billing.settle()


async def test_the_end_of_a_trial_is_told_once_with_what_it_will_cost(billing: Billing) -> None:
    account_id, subscription = await subscriber(billing)
    end = NOW + timedelta(days=3)
    billing.payments.change(subscription.id, status="trialing", trial_end=end)
    for _ in range(2):
        await heard(billing, subscription, "customer.subscription.trial_will_end")
    (told,) = await billing.announced("TrialEnding")
    assert (told.account_id, told.subscription_id, told.tier) == (account_id, subscription.id, "pro")
    assert told.trial_end_time.ToDatetime(UTC) == end
    assert (told.amount_due, told.currency, told.ends_subscription) == (2900, "usd", False)
    assert (told.customer_email, told.contact_email, told.account_name) == ("ada@example.com", "", "Ada")
    assert told.brand.name == "Skytale"


async def test_a_trial_whose_end_is_far_is_not_told_and_a_longer_one_is_told_again(billing: Billing) -> None:
    _, subscription = await subscriber(billing)
    billing.payments.change(subscription.id, status="trialing", trial_end=NOW + timedelta(days=10))
    await heard(billing, subscription)
    assert await billing.announced("TrialEnding") == []
    for days in (2, 3):
        billing.payments.change(subscription.id, trial_end=NOW + timedelta(days=days))
        await heard(billing, subscription)
    assert len(await billing.announced("TrialEnding")) == 2


async def test_a_trial_that_ends_the_subscription_says_so_and_costs_nothing(billing: Billing) -> None:
    _, subscription = await subscriber(billing)
    end = NOW + timedelta(days=2)
    billing.payments.change(
        subscription.id, status="trialing", trial_end=end, period_end=end, cancel_at_period_end=True
    )
    await heard(billing, subscription)
    (told,) = await billing.announced("TrialEnding")
    assert told.ends_subscription
    assert not told.HasField("amount_due")


async def test_a_read_that_failed_before_the_commit_tells_nothing_and_the_next_one_does(billing: Billing) -> None:
    _, subscription = await subscriber(billing)
    billing.payments.change(subscription.id, status="trialing", trial_end=NOW + timedelta(days=1))
    asked = billing.payments.upcoming

    async def broken(subscription_id: str) -> Upcoming | None:
        raise ConnectionError("cut")

    billing.payments.upcoming = broken  # type: ignore[method-assign]
    await billing.hear_of(subscription.customer_id)
    with pytest.raises(ConnectionError):
        await billing.settle()
    assert await billing.announced("TrialEnding") == []
    billing.payments.upcoming = asked  # type: ignore[method-assign]
    async with billing.engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE billing_sync SET claim_until = now()")
    await billing.settle()
    assert len(await billing.announced("TrialEnding")) == 1


async def test_a_cancellation_is_told_when_asked_for_and_when_it_is_done_each_once(billing: Billing) -> None:
    account_id, subscription = await subscriber(billing)
    billing.payments.change(subscription.id, cancel_at_period_end=True, cancel_reason="cancellation_requested")
    for _ in range(2):
        await heard(billing, subscription)
    end = subscription.period_end
    billing.payments.change(subscription.id, status="canceled", cancel_at_period_end=False, ended_at=end)
    for _ in range(2):
        await heard(billing, subscription, "customer.subscription.deleted")
    asked, done = await billing.announced("SubscriptionCanceled")
    assert (asked.phase, asked.tier, asked.reason, asked.next_tier) == (SCHEDULED, "pro", "cancellation_requested", "")
    assert (done.phase, done.tier, done.next_tier, done.account_id) == (ENDED, "pro", "free", account_id)
    assert asked.end_time.ToDatetime(UTC) == done.end_time.ToDatetime(UTC) == end
    assert done.customer_email == "ada@example.com"


async def test_an_account_without_an_address_is_written_to_at_the_one_that_stripe_has(billing: Billing) -> None:
    """As those of an outside identity provider."""
    account_id, subscription = await subscriber(billing)
    async with billing.engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE account SET email = ''")
        await connection.exec_driver_sql("UPDATE invoice SET customer_email = 'typed@example.com'")
    (invoice,) = billing.payments.invoices.values()
    billing.payments.invoices[invoice.id] = replace(invoice, customer_email="typed@example.com")
    billing.payments.change(subscription.id, cancel_at_period_end=True)
    await heard(billing, subscription)
    (told,) = await billing.announced("SubscriptionCanceled")
    assert (told.contact_email, told.customer_email) == ("", "typed@example.com")
    assert (await accounts.get_recipient(account_id, billing.context)).customer_email == "typed@example.com"


async def test_a_cancellation_taken_back_and_asked_for_again_is_told_again(billing: Billing) -> None:
    _, subscription = await subscriber(billing)
    for cancel in (True, False, True):
        billing.payments.change(subscription.id, cancel_at_period_end=cancel)
        await heard(billing, subscription)
    assert [each.phase for each in await billing.announced("SubscriptionCanceled")] == [SCHEDULED, SCHEDULED]


async def test_a_subscription_that_was_over_when_first_seen_is_not_told(billing: Billing) -> None:
    account_id = (await billing.sign_up()).account.id
    subscription = billing.payments.pay(await billing.check_out(account_id))
    billing.payments.change(subscription.id, status="canceled", ended_at=NOW)
    await heard(billing, subscription)
    assert await billing.announced("SubscriptionCanceled") == []


async def test_what_no_event_told_is_found_and_told_by_reconciliation(billing: Billing) -> None:
    account_id, subscription = await subscriber(billing)
    billing.payments.change(subscription.id, status="canceled", ended_at=NOW)
    await reconcile.reconcile(account_id, "", billing.context, dry_run=False)
    (told,) = await billing.announced("SubscriptionCanceled")
    assert told.phase == ENDED


async def test_a_refund_carries_the_verified_contact(billing: Billing) -> None:
    account_id, subscription = await subscriber(billing)
    async with billing.engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE account SET contact_verify_time = now()")
    (invoice,) = billing.payments.invoices.values()
    seen = billing.payments.give_back(invoice.id, 100)
    await billing.hear(
        event("charge.refunded", {"id": seen.charge_id, "object": "charge", "customer": subscription.customer_id})
    )
    await billing.settle()
    (told,) = await billing.announced("InvoiceRefunded")
    assert (told.contact_email, told.customer_email) == ("ada@example.com", "ada@example.com")
    assert told.account_id == account_id
