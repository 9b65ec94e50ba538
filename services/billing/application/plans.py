"""What is sold, what an account has, and what services that enforce need to know."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from services.billing.application.context import Context
from services.billing.application.sync import save_entitlement
from services.billing.application.webhooks import HANDLED
from services.billing.catalog import Price, Tier
from services.billing.domain.entitlement import Entitlement, resolve
from services.billing.domain.principal import CATALOG
from services.billing.domain.subscription import Subscription, current
from services.billing.ports import Endpoint, Pushed
from services.kit.errors import InvalidArgument
from tollway.billing.v1 import billing_pb2, entitlement_pb2

PAGE, MOST = 500, 1000
# Changes commit out of the order of their times by less than this: who comes back for more sees these again.
OVERLAP = timedelta(seconds=60)
BATCH = 200


async def list_plans(context: Context) -> billing_pb2.ListPlansResponse:
    """The price table, in the catalog's order."""
    async with context.unit_of_work() as uow:
        ids = await uow.prices.on_sale()
    catalog = context.catalog
    plans = []
    for name, tier in catalog.tiers.items():
        if tier.grandfathered or not tier.listed:
            continue
        numbers: dict[str, int | str] = {}
        for each in catalog.lineage(name):
            numbers |= each.limits
        plan = billing_pb2.Plan(
            tier=name,
            display_name=tier.name,
            description=tier.description,
            contact_sales=tier.contract,
            prices=[
                billing_pb2.Price(
                    id=ids.get(price.lookup_key, ""),
                    lookup_key=price.lookup_key,
                    unit_amount=price.amount,
                    currency=price.currency,
                    interval=price.interval,
                )
                for price in tier.prices
            ],
        )
        for limit_name, limit in catalog.limits.items():
            if limit.kind == "quota" and limit_name in numbers:
                number = numbers[limit_name]
                if limit.period == "lifetime" and number == "unlimited":
                    continue  # only counted: nothing that a buyer chooses by
                for meter in limit.meters:
                    quota = plan.quotas.add(meter=meter, period=limit.period or "")
                    if isinstance(number, int):
                        quota.limit = number
        plans.append(plan)
    return billing_pb2.ListPlansResponse(
        plans=plans,
        product=catalog.product.name,
        brand=context.announcer.brand(),
        key_kinds=[
            billing_pb2.KeyKind(name=name, prefix=kind.prefix, gate=kind.gate or "", allowance=kind.allowance or "")
            for name, kind in catalog.key_kinds.items()
        ],
        promotion_codes=catalog.policies.promotion_codes,
        refunds=catalog.policies.refund is not None,
    )


@dataclass(frozen=True)
class Billing:
    entitlement: Entitlement
    stripe_customer_id: str
    grace_end_time: datetime | None
    default_tier: bool
    tier: Tier
    live: bool  # a subscription is: another one cannot be bought
    trial_end_time: datetime | None
    price: Price | None  # of the subscription, when the catalog has it


async def get_billing(account_id: str, context: Context) -> Billing:
    async with context.unit_of_work() as uow:
        account = await uow.accounts.get(account_id)
        state = await uow.entitlements.get(account_id)
        failure = await uow.snapshots.first_unpaid_failure(account_id) if state.subscription_id else None
        subscription = current(await uow.snapshots.subscriptions(account_id))
    days = context.catalog.policies.grace_days
    trialing = subscription is not None and subscription.status == "trialing"
    return Billing(
        entitlement=state,
        stripe_customer_id=account.stripe_customer_id or "",
        grace_end_time=failure + timedelta(days=days) if failure is not None and days else None,
        default_tier=state.tier == context.catalog.default_tier,
        tier=context.catalog.tiers[state.tier],
        live=subscription is not None and subscription.live,
        trial_end_time=subscription.trial_end if subscription is not None and trialing else None,
        price=_price(subscription, context) if subscription is not None else None,
    )


def _price(subscription: Subscription, context: Context) -> Price | None:
    prices = (price for tier in context.catalog.tiers.values() for price in tier.prices)
    return next((price for price in prices if price.lookup_key == subscription.lookup_key), None)


async def batch_get_entitlements(account_ids: list[str], context: Context) -> list[entitlement_pb2.Entitlements]:
    if len(account_ids) > MOST:
        raise InvalidArgument(f"At most {MOST} ids are expected.", field="account_ids")
    async with context.unit_of_work() as uow:
        listed = await uow.entitlements.of(account_ids)
    return [context.announcer.entitlements(each.entitlement, each.change_time) for each in listed]


async def list_entitlements(
    page_size: int, page_token: str, context: Context
) -> entitlement_pb2.ListEntitlementsResponse:
    """A page in the order of change. The token of a last page lies a little back, so that nothing is missed."""
    if not 0 <= page_size <= MOST:
        raise InvalidArgument(f"0 to {MOST} is expected.", field="page_size")
    size = page_size or PAGE
    after = _position(page_token) if page_token else (datetime.fromtimestamp(0, UTC), "")
    async with context.unit_of_work() as uow:
        now = await uow.entitlements.now()
        listed = await uow.entitlements.changed_after(after, size + 1)
    has_more = len(listed) > size
    page = listed[:size]
    last = (page[-1].change_time, page[-1].entitlement.account_id) if page else after
    if not has_more:
        last = min(last, (now - OVERLAP, ""))
    return entitlement_pb2.ListEntitlementsResponse(
        entitlements=[context.announcer.entitlements(each.entitlement, each.change_time) for each in page],
        next_page_token=_token(*last),
        has_more=has_more,
    )


def _token(change_time: datetime, account_id: str) -> str:
    return base64.urlsafe_b64encode(f"{change_time.isoformat()} {account_id}".encode()).decode()


def _position(token: str) -> tuple[datetime, str]:
    try:
        instant, account_id = base64.urlsafe_b64decode(token.encode()).decode().split(" ", 1)
        return datetime.fromisoformat(instant).astimezone(UTC), account_id
    except ValueError:
        raise InvalidArgument("This is no page token of ours.", field="page_token") from None


async def push_catalog(context: Context, *, dry_run: bool = False) -> Pushed:
    """Makes what the catalog sells exist at Stripe and notes the ids. Running it again changes nothing. With `dry_run`
    nothing is made nor noted: the answer tells what would be."""
    base = context.settings.public_url
    # Stripe takes https only; in local mode the sandbox, or `stripe listen`, knows where events go.
    wanted = base.startswith("https://") and not context.settings.local
    endpoint = Endpoint(f"{base}/webhooks/stripe", HANDLED) if wanted else None
    pushed = await context.payments.push(context.catalog, f"{base}/", endpoint=endpoint, dry_run=dry_run)
    if dry_run:
        return pushed
    async with context.unit_of_work() as uow:
        for name, tier in context.catalog.tiers.items():
            for price in tier.prices:
                metered = [each.lookup_key for each in context.catalog.metered_prices(name, price)]
                for key in (price.lookup_key, *metered):
                    await uow.prices.remember(pushed.prices[key], key, name, on_sale=True)
        if pushed.portal_configuration:
            await uow.prices.set_portal_configuration(pushed.portal_configuration)
        await uow.commit()
    return pushed


async def missing_tiers(context: Context) -> set[str]:
    """Tiers that accounts are on, or have paid for, and the catalog no longer has."""
    async with context.unit_of_work() as uow:
        return (await uow.entitlements.tiers() | await uow.prices.known_tiers()) - set(context.catalog.tiers)


async def apply_catalog(context: Context) -> int:
    """Sends the snapshots that another catalog changes (DESIGN §3). Returns how many accounts those were."""
    seen = 0
    while True:
        async with context.unit_of_work() as uow:
            account_ids = await uow.entitlements.of_other_catalog(context.catalog.fingerprints, BATCH)
            for account_id in account_ids:
                prior = await uow.entitlements.get(account_id)
                read = await uow.snapshots.subscriptions(account_id)
                prices = {s.price_id for s in read} | {prior.granted_price_id}
                tiers = await uow.prices.tiers(prices)
                override = await uow.overrides.tier(account_id, context.business.now())
                state = resolve(context.catalog, prior, read, tiers, override_tier=override).entitlement
                await save_entitlement(prior, state, uow, context, CATALOG)
            await uow.commit()
        seen += len(account_ids)
        if len(account_ids) < BATCH:
            return seen
