"""The entitlement state of an account, and how it follows from the catalog and Stripe's subscriptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from services.billing.catalog.model import KEEP, PRICE, Catalog
from services.billing.domain.subscription import Subscription, current

# What periods are computed with. Without one of these an account's billing periods are calendar months.
INTERVALS = frozenset({"month", "year"})


@dataclass(frozen=True)
class Entitlement:
    """What an account has now. `version` grows by one with each change of anything else here."""

    account_id: str
    version: int
    tier: str
    status: str  # Stripe's; empty before the first subscription
    subscription_id: str
    price_id: str
    granted_price_id: str  # the price last seen active or trialing: what `keep` keeps
    period_anchor: datetime | None
    period_interval: str
    period_start: datetime | None
    period_end: datetime | None
    cancel_at_period_end: bool
    catalog_hash: str  # of what the catalog resolves the tier to

    def same_as(self, other: Entitlement) -> bool:
        return replace(self, version=0) == replace(other, version=0)


@dataclass(frozen=True)
class Resolution:
    entitlement: Entitlement
    alerts: tuple[str, ...]  # what an operator should look at


def new_account(account_id: str, catalog: Catalog) -> Entitlement:
    """The default tier, version 1, nothing bought."""
    return Entitlement(
        account_id=account_id,
        version=1,
        tier=catalog.default_tier,
        status="",
        subscription_id="",
        price_id="",
        granted_price_id="",
        period_anchor=None,
        period_interval="",
        period_start=None,
        period_end=None,
        cancel_at_period_end=False,
        catalog_hash=catalog.fingerprint(catalog.default_tier),
    )


def resolve(
    catalog: Catalog,
    prior: Entitlement,
    subscriptions: list[Subscription],
    tier_of_price: Mapping[str, str],
    last_paid_price_id: str = "",
    override_tier: str = "",
) -> Resolution:
    """The state that follows from all the customer's subscriptions. Of the prior state only the granted price and,
    for a price nobody knows, the tier matter: the order in which changes were heard of does not.

    `tier_of_price` maps Stripe's price ids to tiers, for ever; `last_paid_price_id` is the price of the latest paid
    invoice, for a subscription first seen while its tier is to be kept. `override_tier`: what an
    operator agreed; it wins. CONTRACT "Status → tier".
    """
    alerts: list[str] = []
    live = [s for s in subscriptions if s.live]
    if len(live) > 1:
        alerts.append("second_live_subscription")
    now = current(subscriptions)
    if now is None:
        # Ids are kept for ever; a customer whose subscriptions Stripe no longer lists has ended.
        status = "canceled" if prior.subscription_id else ""
        tier = _ended(catalog, status)
        fresh = replace(new_account(prior.account_id, catalog), status=status, tier=tier)
        state = replace(
            fresh,
            catalog_hash=catalog.fingerprint(tier),
            subscription_id=prior.subscription_id,
            price_id=prior.price_id,
            granted_price_id=prior.granted_price_id,
        )
        return _overridden(catalog, prior, state, override_tier, alerts)

    same = now.id == prior.subscription_id
    granted = prior.granted_price_id if same else ""
    if now.status in {"active", "trialing"} and now.price_id in tier_of_price:
        granted = now.price_id
    outcome = catalog.lifecycle[now.status]
    if outcome == PRICE:
        sold = tier_of_price.get(now.price_id)
        if sold is None:
            alerts.append("unknown_price")  # never lowers a tier
        tier = sold or prior.tier
    elif outcome == KEEP:
        kept = tier_of_price.get(granted or last_paid_price_id)
        if kept is None:
            alerts.append("nothing_to_keep")
        tier = kept or (prior.tier if same else catalog.default_tier)
    else:
        tier = outcome
    has_period = now.live and now.interval in INTERVALS
    if now.live and not has_period:
        alerts.append("unknown_interval")  # of a price that somebody else made
    state = Entitlement(
        account_id=prior.account_id,
        version=prior.version,
        tier=tier,
        status=now.status,
        subscription_id=now.id,
        price_id=now.price_id,
        granted_price_id=granted,
        period_anchor=now.anchor if has_period else None,
        period_interval=now.interval if has_period else "",
        period_start=now.period_start if now.live else None,
        period_end=now.period_end if now.live else None,
        cancel_at_period_end=now.ends_by_itself,
        catalog_hash=catalog.fingerprint(tier),
    )
    return _overridden(catalog, prior, state, override_tier, alerts)


def _overridden(
    catalog: Catalog, prior: Entitlement, state: Entitlement, override_tier: str, alerts: list[str]
) -> Resolution:
    """Status and period stay Stripe's; the tier is what was agreed, if anything was."""
    if override_tier:
        state = replace(state, tier=override_tier, catalog_hash=catalog.fingerprint(override_tier))
    return Resolution(_versioned(prior, state), tuple(alerts))


def _ended(catalog: Catalog, status: str) -> str:
    outcome = catalog.lifecycle[status] if status else catalog.default_tier
    return catalog.default_tier if outcome in {PRICE, KEEP} else outcome


def _versioned(prior: Entitlement, state: Entitlement) -> Entitlement:
    unchanged = state.same_as(prior)
    return replace(state, version=prior.version if unchanged else prior.version + 1)
