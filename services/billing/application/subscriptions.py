"""Changes to a live subscription: another plan, its end with the period, and taking that back.

Stripe's subscription is the state; nothing of the change is kept here but what the sync reads back. So each call looks
first and does nothing where it is so already, and a lost answer is mended by asking again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.billing.application import audit
from services.billing.application.checkout import metered_prices, sold_tier
from services.billing.application.context import Context
from services.billing.catalog import Price, Tier
from services.billing.domain.entitlement import Entitlement
from services.billing.domain.plan_change import CounterChange, PlanChange, Preview, counters
from services.billing.domain.principal import Actor
from services.billing.domain.subscription import Subscription, current
from services.billing.errors import NoSubscription, PlanUnchanged, PriceNotPushed
from services.billing.storage import BillingUnitOfWork
from services.kit.errors import InvalidArgument

WAIT = timedelta(seconds=10)
POLL_S = 0.05  # between looks at a row that any replica may write
_OLDEST_PRORATION = timedelta(hours=1)


@dataclass(frozen=True)
class Previewed:
    current_tier: str
    tier: str
    invoice: Preview
    proration_time: datetime
    counters: list[CounterChange]


async def preview_change(account_id: str, tier_name: str, context: Context) -> Previewed:
    """The invoice that the change would make now, and what would happen to counters. Changes nothing."""
    now = context.business.now().replace(microsecond=0)
    async with context.unit_of_work() as uow:
        running, state, change, price = await _wanted(account_id, tier_name, now, uow, context)
    invoice = await context.payments.preview_change(change)
    used = await context.usage.used(account_id)
    changes = counters(context.catalog, state.tier, tier_name, used, new_period=price.interval != running.interval)
    return Previewed(state.tier, tier_name, invoice, now, changes)


async def change_plan(
    account_id: str, tier_name: str, proration_time: datetime | None, actor: Actor, context: Context
) -> Entitlement:
    """Changes the price now, with proration charged or credited at once. Returns the state that followed."""
    now = context.business.now()
    if proration_time is not None and not now - _OLDEST_PRORATION <= proration_time <= now + timedelta(seconds=5):
        raise InvalidArgument("The preview is too old: ask for a new one.", field="proration_time")
    async with context.unit_of_work() as uow:
        running, state, change, _ = await _wanted(account_id, tier_name, proration_time, uow, context)
    await context.payments.change_plan(change)
    details = {"previous": state.tier, "tier": tier_name, "price_id": change.price_id}
    return await _read_back(account_id, actor, "subscription.changed", running.id, context, **details)


async def set_cancellation(account_id: str, actor: Actor, context: Context, *, cancel: bool) -> Entitlement:
    """Lets the subscription end with its period, or takes that back."""
    async with context.unit_of_work() as uow:
        running = await _running(account_id, uow)
    await context.payments.set_cancellation(running.id, cancel=cancel)
    action = "subscription.canceled" if cancel else "subscription.resumed"
    return await _read_back(account_id, actor, action, running.id, context)


async def _running(account_id: str, uow: BillingUnitOfWork) -> Subscription:
    await uow.accounts.get(account_id)
    found = current([s for s in await uow.snapshots.subscriptions(account_id) if s.live])
    if found is None:
        raise NoSubscription("There is no subscription to change: check out first.")
    return found


async def _wanted(
    account_id: str, tier_name: str, at: datetime | None, uow: BillingUnitOfWork, context: Context
) -> tuple[Subscription, Entitlement, PlanChange, Price]:
    tier = sold_tier(tier_name, context)
    running = await _running(account_id, uow)
    state = await uow.entitlements.get(account_id)
    price = _price_like(tier, running.interval)
    price_id = (await uow.prices.on_sale()).get(price.lookup_key)
    if price_id is None:
        raise PriceNotPushed("The plans are not at Stripe yet. The operator has to push the catalog.")
    if (await uow.prices.tiers([running.price_id])).get(running.price_id) == tier_name:
        raise PlanUnchanged(f"The account is on {tier.name} already.")
    metered = await metered_prices(tier_name, price, context, uow)
    return running, state, PlanChange(running.id, price_id, tuple(metered), at), price


def _price_like(tier: Tier, interval: str) -> Price:
    """The tier's price of the same interval, so that the period stays; else its first."""
    return next((price for price in tier.prices if price.interval == interval), tier.prices[0])


async def _read_back(
    account_id: str, actor: Actor, action: str, subject: str, context: Context, **details: str
) -> Entitlement:
    """Marks the account and waits until a sync has read what Stripe made of the change."""
    async with context.unit_of_work() as uow:
        mark = await uow.marks.want(account_id)
        await audit.record(uow, context, account_id, actor, action, subject, **details)
        await uow.commit()
    context.marked()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WAIT.total_seconds()
    while True:
        async with context.unit_of_work() as uow:
            is_read = await uow.marks.is_done(account_id, mark)
            state = await uow.entitlements.get(account_id)
        if is_read or loop.time() >= deadline:
            return state
        await asyncio.sleep(POLL_S)
