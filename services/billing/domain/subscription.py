"""Subscriptions and invoices as Stripe has them, cut down to what billing decides on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

LIVE = frozenset({"trialing", "active", "past_due", "unpaid", "paused"})
# CONTRACT "Status → tier": the current subscription is the first by rank, then the newest.
_RANK = {"active": 0, "trialing": 1, "past_due": 2, "unpaid": 3, "paused": 4, "incomplete": 5}
_FINAL = 6


@dataclass(frozen=True)
class Subscription:
    id: str
    customer_id: str
    status: str  # one of Stripe's eight
    price_id: str
    lookup_key: str  # empty when the price has none
    interval: str  # month or year
    create_time: datetime
    anchor: datetime  # billing_cycle_anchor
    period_start: datetime  # UTC
    period_end: datetime  # UTC, exclusive
    cancel_at_period_end: bool
    cancel_at: datetime | None
    canceled_at: datetime | None
    ended_at: datetime | None
    trial_end: datetime | None
    cancel_reason: str = ""  # cancellation_requested, payment_failed, payment_disputed; empty when Stripe says none

    @property
    def live(self) -> bool:
        return self.status in LIVE

    @property
    def ends_by_itself(self) -> bool:
        """Cancelling, by the flag or, as flexible billing does it, by `cancel_at` up to the period's end."""
        if not self.live:
            return False
        return self.cancel_at_period_end or (self.cancel_at is not None and self.cancel_at <= self.period_end)


@dataclass(frozen=True)
class Invoice:
    id: str
    customer_id: str
    subscription_id: str  # empty without one
    number: str
    status: str  # draft, open, paid, uncollectible, void
    currency: str
    amount_due: int  # minor units
    amount_paid: int
    attempt_count: int
    next_attempt_time: datetime | None
    hosted_url: str
    pdf_url: str
    customer_email: str
    billing_reason: str
    price_id: str
    create_time: datetime
    paid_time: datetime | None

    @property
    def failed(self) -> bool:
        """A charge was tried and the invoice is still owed."""
        return self.status == "open" and self.attempt_count > 0 and self.amount_due > 0


def current(subscriptions: list[Subscription]) -> Subscription | None:
    """The one that decides: the first by rank (active, trialing, past_due, unpaid, paused, incomplete, final), then
    the newest. CONTRACT "Status → tier"."""
    if not subscriptions:
        return None
    return min(subscriptions, key=lambda s: (_RANK.get(s.status, _FINAL), -s.create_time.timestamp(), s.id))
