"""What operators do with accounts: tiers by agreement, looking for one, and why it is what it is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime

import structlog

from services.billing.application import audit, paging
from services.billing.application.context import Context
from services.billing.application.sync import save_entitlement
from services.billing.domain.entitlement import Entitlement, resolve
from services.billing.domain.principal import CLOCK, Actor
from services.billing.domain.subscription import Subscription, current
from services.billing.errors import UnknownTier
from services.billing.storage import BillingUnitOfWork
from services.billing.storage.accounts import Account
from services.billing.storage.overrides import Found, LastEvent, Override, Reading
from services.kit.errors import InvalidArgument

CLOCK_S = 1.0  # how late, at most, the end of an override is noticed
BATCH = 100
LONGEST_TERMS, LONGEST_QUERY = 2000, 200

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class SetOverride:
    account_id: str
    actor: Actor
    tier: str
    terms: str
    end_time: datetime | None


async def set_override(command: SetOverride, context: Context) -> Override:
    """Puts the account on the tier by agreement. Running it twice is running it once."""
    if command.tier not in context.catalog.tiers:
        raise UnknownTier(f"Not a tier of the catalog: {', '.join(context.catalog.tiers)}.", field="tier")
    if not 1 <= len(command.terms) <= LONGEST_TERMS:
        raise InvalidArgument(f"1 to {LONGEST_TERMS} characters are expected: what was agreed.", field="terms")
    now = context.business.now()
    if command.end_time is not None and command.end_time <= now:
        raise InvalidArgument("A time that lies ahead is expected.", field="end_time")
    new = Override(
        command.account_id,
        command.tier,
        command.terms,
        command.end_time,
        command.actor.kind,
        command.actor.id,
        now,
    )
    async with context.unit_of_work() as uow:
        await uow.accounts.get(command.account_id, lock=True)
        await uow.overrides.save(new)
        end = command.end_time.isoformat() if command.end_time else None
        details = {"tier": command.tier, "terms": command.terms, "end_time": end}
        await audit.record(
            uow, context, command.account_id, command.actor, "override.set", command.account_id, **details
        )
        await settle(command.account_id, uow, context, command.actor)
        await uow.commit()
    return new


async def remove_override(account_id: str, actor: Actor, context: Context) -> None:
    """The tier follows from the subscription again."""
    async with context.unit_of_work() as uow:
        await uow.accounts.get(account_id, lock=True)
        if await uow.overrides.remove(account_id):
            await audit.record(uow, context, account_id, actor, "override.removed", account_id)
            await settle(account_id, uow, context, actor)
            await uow.commit()


async def settle(account_id: str, uow: BillingUnitOfWork, context: Context, actor: Actor) -> Entitlement:
    """Resolves the account anew from what is known here, and announces what is another. Asks Stripe nothing."""
    prior = await uow.entitlements.get(account_id, lock=True)
    read = await uow.snapshots.subscriptions(account_id)
    tiers = await uow.prices.tiers({s.price_id for s in read} | {prior.granted_price_id})
    override = await uow.overrides.tier(account_id, context.business.now())
    state = resolve(context.catalog, prior, read, tiers, override_tier=override).entitlement
    await save_entitlement(prior, state, uow, context, actor)
    return state


async def end_overrides(context: Context) -> int:
    """Ends those whose time has come: no event tells it. Returns how many."""
    async with context.unit_of_work() as uow:
        ended = await uow.overrides.ended(context.business.now(), BATCH)
        for account_id in ended:
            await uow.overrides.remove(account_id)
            await audit.record(uow, context, account_id, CLOCK, "override.ended", account_id)
            await settle(account_id, uow, context, CLOCK)
        await uow.commit()
    return len(ended)


async def run(context: Context) -> None:
    """Watches the clock until cancelled."""
    while True:
        try:
            await end_overrides(context)
        except Exception as error:
            log.warning("overrides.delayed", error=type(error).__name__)
        await asyncio.sleep(CLOCK_S)  # time passes without telling anybody


async def search(query: str, page_size: int, page_token: str, context: Context) -> paging.Page[Found]:
    """Newest first."""
    if len(query) > LONGEST_QUERY or "\x00" in query:
        raise InvalidArgument(f"At most {LONGEST_QUERY} characters are expected.", field="query")
    size, before = paging.checked(page_size, page_token, "acct")
    async with context.unit_of_work() as uow:
        found = await uow.overrides.search(query, before, size + 1)
    return paging.page(found, size, lambda each: each.account.id)


@dataclass(frozen=True)
class Explanation:
    account: Account
    entitlement: Entitlement
    subscription: Subscription | None
    outcome: str  # of the catalog's lifecycle: price, keep, a tier; empty without a subscription
    price_tier: str
    event: LastEvent | None
    override: Override | None
    reading: Reading
    change_time: datetime
    because: list[str]


async def explain(account_id: str, context: Context) -> Explanation:
    """Why the account is on its tier: from which subscription, event, override and catalog."""
    catalog = context.catalog
    async with context.unit_of_work() as uow:
        account = await uow.accounts.get(account_id)
        (listed,) = await uow.entitlements.of([account_id])
        subscriptions = await uow.snapshots.subscriptions(account_id)
        counts = current(subscriptions)
        event = await uow.overrides.last_event(account_id)
        override = await uow.overrides.of(account_id)
        reading = await uow.overrides.reading(account_id)
        state = listed.entitlement
        known = await uow.prices.tiers({counts.price_id if counts else "", state.granted_price_id})
    outcome = catalog.lifecycle[counts.status] if counts is not None else ""
    because = []
    if counts is None:
        because.append(f"No subscription was ever seen, so the tier is the catalog's default, {catalog.default_tier}.")
    else:
        because.append(f"Of {len(subscriptions)} subscriptions {counts.id} counts; Stripe says it is {counts.status}.")
        because.append(f"The catalog's lifecycle for {counts.status} is: {outcome}.")
        sold = known.get(counts.price_id)
        because.append(f"Its price {counts.lookup_key or counts.price_id} sells {sold or 'no tier that is known'}.")
        if outcome == "keep":
            kept = known.get(state.granted_price_id, "none")
            because.append(f"The price last granted while active or trialing sells {kept}.")
    if override is not None and override.in_force(context.business.now()):
        until = f"until {override.end_time.isoformat()}" if override.end_time else "until it is removed"
        because.append(f"An override by {override.actor_id} puts the account on {override.tier}, {until}.")
    because.append(f"So the tier is {state.tier}, since version {state.version}.")
    return Explanation(
        account=account,
        entitlement=state,
        subscription=counts,
        outcome=outcome,
        price_tier=known.get(counts.price_id, "") if counts else "",
        event=event,
        override=override,
        reading=reading,
        change_time=listed.change_time,
        because=because,
    )
