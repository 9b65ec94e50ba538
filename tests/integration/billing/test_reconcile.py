"""Reconciliation: what webhooks missed is found, told field by field, and repaired."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.billing.application import reconcile
from services.billing.errors import AccountNotFound, EventNotFound
from tests.fakes.payments import START
from tests.integration.billing.conftest import Billing, event


async def subscriber(billing: Billing) -> tuple[str, str]:
    account_id = (await billing.sign_up()).account.id
    subscription = billing.payments.pay(await billing.check_out(account_id))
    await billing.hear_of(subscription.customer_id)
    await billing.settle()
    return account_id, subscription.id


async def test_a_lost_invoice_paid_is_found_announced_once_and_leaves_no_drift(billing: Billing) -> None:
    account_id, subscription_id = await subscriber(billing)
    for _ in range(2):  # the older one is not the latest invoice any more
        billing.payments.bill(billing.payments.subscriptions[subscription_id], paid=True)
    dry = await reconcile.reconcile(account_id, "", billing.context, dry_run=True)
    assert [(each.object_id, each.field, each.stripes) for each in dry.drifts] == [
        ("in_2", "*", "paid"),
        ("in_3", "*", "paid"),
    ]
    assert len(await billing.announced("InvoicePaid")) == 1, "a dry run changes nothing"
    done = await reconcile.reconcile(account_id, "", billing.context, dry_run=False)
    assert done.drifts == dry.drifts
    assert [each.invoice.id for each in await billing.announced("InvoicePaid")] == ["in_1", "in_2", "in_3"]
    assert (await reconcile.reconcile(account_id, "", billing.context, dry_run=False)).drifts == []


async def test_drift_names_the_field_with_both_values(billing: Billing) -> None:
    account_id, subscription_id = await subscriber(billing)
    billing.payments.change(subscription_id, status="past_due", period_end=START + timedelta(days=62))
    found = await reconcile.reconcile("", "", billing.context, dry_run=False)
    assert found.accounts == 1
    assert {(each.account_id, each.field, each.ours, each.stripes) for each in found.drifts} >= {
        (account_id, "status", "active", "past_due")
    }
    assert {each.field for each in found.drifts} == {"status", "period_end"}
    assert (await billing.state(account_id)).entitlement.status == "past_due"


async def test_an_event_that_never_arrived_is_stored_and_applied(billing: Billing) -> None:
    account_id, subscription_id = await subscriber(billing)
    billing.payments.change(subscription_id, status="canceled")
    lost = event("customer.subscription.deleted", {"id": subscription_id, "customer": f"cus_{account_id}"})
    billing.payments.events = [lost]
    assert await reconcile.find_missed(billing.context, dry_run=True) == 1
    assert await reconcile.find_missed(billing.context, dry_run=False) == 1
    await billing.settle()
    assert (await billing.state(account_id)).entitlement.tier == "free"
    assert await reconcile.find_missed(billing.context, dry_run=False) == 0


async def test_a_replayed_event_is_applied_again_and_an_unknown_one_is_named(billing: Billing) -> None:
    account_id, subscription_id = await subscriber(billing)
    (stored,) = await reconcile.list_events("applied", account_id, 0, billing.context)
    billing.payments.change(subscription_id, status="past_due")
    await reconcile.replay(stored.id, billing.context)
    assert [each.id for each in await reconcile.list_events("pending", "", 0, billing.context)] == [stored.id]
    await billing.settle()
    assert (await billing.state(account_id)).entitlement.status == "past_due"
    found, payload = await reconcile.get_event(stored.id, billing.context)
    assert (found.status, stored.id.encode() in payload) == ("applied", True)
    with pytest.raises(EventNotFound):
        await reconcile.replay("evt_nobody", billing.context)
    with pytest.raises(AccountNotFound):
        await reconcile.reconcile("acct_nobody", "", billing.context, dry_run=False)
