"""Changes to a live subscription: preview, up, down, cancel, resume."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from services.billing.application import subscriptions
from services.billing.domain.principal import Actor, ActorKind
from services.billing.errors import ContactSales, NoSubscription, PaymentDeclined, PlanUnchanged, UnknownTier
from services.kit.errors import InvalidArgument
from tests.integration.billing.conftest import Billing, running_billing

T = TypeVar("T")
OWNER = Actor(ActorKind.SESSION, "usr_1")


@pytest.fixture
async def shop(billing_database: str) -> AsyncIterator[Billing]:
    async with running_billing(billing_database, Path("catalogs/vatly.yaml")) as started:
        yield started


async def on_business(shop: Billing) -> str:
    account_id = (await shop.sign_up()).account.id
    subscription = shop.payments.pay(await shop.check_out(account_id, "business"), "vatly_business_month")
    await shop.hear_of(subscription.customer_id)
    await shop.settle()
    assert (await shop.state(account_id)).entitlement.tier == "business"
    return account_id


async def done(shop: Billing, call: Awaitable[T]) -> T:
    """What the call answers while a worker syncs, as in a running service."""
    asking = asyncio.ensure_future(call)
    while not asking.done():
        await shop.settle()
        await asyncio.wait([asking], timeout=0.02)
    return await asking


async def test_a_preview_tells_invoice_and_counters_and_changes_nothing(shop: Billing) -> None:
    account_id = await on_business(shop)
    shop.usage.by_limit = {"requests_per_month": 700}
    found = await subscriptions.preview_change(account_id, "scale", shop.context)
    assert (found.current_tier, found.tier, found.invoice.amount_due) == ("business", "scale", 1450)
    changes = {each.limit: (each.used, each.before, each.after, each.restarts) for each in found.counters}
    assert changes["requests_per_month"] == (700, 10_000, 50_000, False)
    assert (await shop.state(account_id)).entitlement.tier == "business"


async def test_a_plan_goes_up_and_down_and_what_is_so_already_is_said(shop: Billing) -> None:
    account_id = await on_business(shop)
    up = await done(shop, subscriptions.change_plan(account_id, "scale", None, OWNER, shop.context))
    assert up.tier == "scale"
    with pytest.raises(PlanUnchanged):
        await subscriptions.change_plan(account_id, "scale", None, OWNER, shop.context)
    down = await done(shop, subscriptions.change_plan(account_id, "business", None, OWNER, shop.context))
    assert down.tier == "business"
    assert len(shop.payments.subscriptions) == 1
    tiers = [change.tier for change in await shop.announced("TierChanged")]
    assert tiers == ["free", "business", "scale", "business"]


async def test_a_declined_card_changes_nothing(shop: Billing) -> None:
    account_id = await on_business(shop)
    shop.payments.declining = True
    with pytest.raises(PaymentDeclined):
        await subscriptions.change_plan(account_id, "scale", None, OWNER, shop.context)
    await shop.settle()
    assert (await shop.state(account_id)).entitlement.tier == "business"
    assert await shop.rows("SELECT * FROM audit_log WHERE action = 'subscription.changed'") == []


async def test_cancel_and_resume_are_safe_to_repeat(shop: Billing) -> None:
    account_id = await on_business(shop)
    for cancel in (True, True, False, False):
        call = subscriptions.set_cancellation(account_id, OWNER, shop.context, cancel=cancel)
        assert (await done(shop, call)).cancel_at_period_end is cancel
    assert (await shop.state(account_id)).entitlement.tier == "business"


async def test_what_cannot_be_changed_is_named(shop: Billing) -> None:
    free = (await shop.sign_up()).account.id
    with pytest.raises(NoSubscription):
        await subscriptions.preview_change(free, "scale", shop.context)
    with pytest.raises(NoSubscription):
        await subscriptions.set_cancellation(free, OWNER, shop.context, cancel=True)
    account_id = await on_business(shop)
    for tier in ("platinum", "free"):
        with pytest.raises(UnknownTier):
            await subscriptions.change_plan(account_id, tier, None, OWNER, shop.context)
    old = shop.context.business.now() - timedelta(hours=2)
    with pytest.raises(InvalidArgument) as refused:
        await subscriptions.change_plan(account_id, "scale", old, OWNER, shop.context)
    assert refused.value.field == "proration_time"


async def test_a_tier_sold_by_contract_is_not_changed_to(billing: Billing) -> None:
    account_id = (await billing.sign_up()).account.id
    with pytest.raises(ContactSales):
        await subscriptions.preview_change(account_id, "enterprise", billing.context)
