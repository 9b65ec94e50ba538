"""The plan as the page tells it: what it is, how it stands, when it renews or ends, and what may be done now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.pages import words
from tollway.billing.v1 import billing_pb2 as pb

_CHANGEABLE = frozenset({"active", "trialing"})  # what is owed is settled first
_ENDABLE = frozenset({"active", "trialing", "past_due"})
_PILLS = {
    "trialing": ("Trial", "good"),
    "active": ("Active", "good"),
    "past_due": ("Payment failed", "bad"),
    "unpaid": ("Unpaid", "bad"),
    "paused": ("Paused", "near"),
    "incomplete": ("Payment incomplete", "near"),
    "incomplete_expired": ("Expired", "calm"),
    "canceled": ("Canceled", "calm"),
}


@dataclass(frozen=True)
class Offer:
    """A plan of the price table."""

    tier: str
    name: str
    description: str
    price: str  # as text; empty when it is made to measure or free
    current: bool
    action: str  # upgrade, change, contact; empty: nothing


@dataclass(frozen=True)
class Plan:
    tier: str
    name: str
    description: str
    price: str
    pill: str
    pill_kind: str  # good, near, bad, calm
    date_word: str  # Renews, Ends, Trial ends; empty: no date
    date: Timestamp | None
    grace_end: Timestamp | None
    owing: bool  # a payment failed and is still owed
    stopped: bool  # unpaid: the subscription is live, and the plan is not
    may_manage: bool
    may_cancel: bool
    may_resume: bool
    offers: list[Offer]

    @property
    def upgrades(self) -> list[Offer]:
        return [offer for offer in self.offers if offer.action == "upgrade"]


def read(billing: pb.Billing, shop: pb.ListPlansResponse) -> Plan:
    """CONTRACT, Manashiki: "Upgrade is offered whenever there is no live subscription (canceled too); on `unpaid`,
    Manage only"."""
    live, status = billing.live_subscription, billing.status
    listed = next((plan for plan in shop.plans if plan.tier == billing.tier), None)
    agreed = listed is not None and listed.contact_sales  # an operator's agreement; Stripe need not know of it
    currency = next((price.currency for plan in shop.plans for price in plan.prices), "usd")
    date_word, date = _date(billing)
    pill, kind = _pill(billing, agreed)
    return Plan(
        tier=billing.tier,
        name=billing.tier_name or words.label(billing.tier),
        description=billing.tier_description,
        price=_price(billing.price) if live and billing.HasField("price") else "By agreement" if agreed else "",
        pill=pill,
        pill_kind=kind,
        date_word=date_word,
        date=date,
        grace_end=billing.grace_end_time if billing.HasField("grace_end_time") else None,
        owing=live and status in {"past_due", "unpaid"},
        stopped=live and status == "unpaid",
        may_manage=live,
        may_cancel=live and status in _ENDABLE and not billing.cancel_at_period_end,
        may_resume=live and status in _ENDABLE and billing.cancel_at_period_end,
        offers=[_offer(plan, billing, agreed, currency) for plan in shop.plans],
    )


def _pill(billing: pb.Billing, agreed: bool) -> tuple[str, str]:
    if agreed or not billing.status:
        return "Active", "good"
    if billing.live_subscription and billing.cancel_at_period_end and billing.status in _ENDABLE:
        return "Cancels soon", "near"
    return _PILLS.get(billing.status, (words.label(billing.status), "calm"))


def _date(billing: pb.Billing) -> tuple[str, Timestamp | None]:
    if not billing.live_subscription:
        return "", None
    if billing.HasField("trial_end_time"):
        return "Trial ends", billing.trial_end_time
    if not billing.HasField("current_period_end") or billing.status in {"past_due", "unpaid"}:
        return "", None  # what is owed decides whether it renews
    return ("Ends" if billing.cancel_at_period_end else "Renews"), billing.current_period_end


def _offer(plan: pb.Plan, billing: pb.Billing, agreed: bool, currency: str) -> Offer:
    bought = billing.live_subscription and _sells(plan.prices, billing.price)
    current = bought or plan.tier == billing.tier
    action = ""
    if plan.contact_sales:
        action = "" if current else "contact"
    elif plan.prices and not agreed:
        if not billing.live_subscription:
            action = "upgrade"
        elif billing.status in _CHANGEABLE and not billing.cancel_at_period_end and not bought:
            action = "change"
    price = " or ".join(_price(each) for each in plan.prices)
    if not plan.prices and not plan.contact_sales:
        price = words.price(0, currency)
    return Offer(plan.tier, plan.display_name, plan.description, price or "Custom", current, action)


def _sells(prices: Sequence[pb.Price], price: pb.Price) -> bool:
    return any(each.lookup_key == price.lookup_key for each in prices)


def _price(price: pb.Price) -> str:
    return f"{words.price(price.unit_amount, price.currency)} / {price.interval}"
