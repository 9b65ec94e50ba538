"""A refund by policy: what is due, and the states that it goes through."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from services.billing.catalog.model import Refund as Policy


class State(StrEnum):
    """In this order (CONTRACT "Refund"): cancel, the new state reaches quota, count, refund. Each is written before the
    step that it names begins, so that a process killed anywhere leaves a row that another one goes on with."""

    CANCELING = "canceling"
    COUNTING = "counting"
    REFUNDING = "refunding"
    REFUNDED = "refunded"
    REFUSED = "refused"

    @property
    def final(self) -> bool:
        return self in {State.REFUNDED, State.REFUSED}


@dataclass(frozen=True)
class Refund:
    """An account's refund by policy; it has one at most. Amounts in whole minor units."""

    id: str
    account_id: str
    customer_id: str
    subscription_id: str
    invoice_id: str
    payment_intent: str
    amount: int
    currency: str
    state: State
    used: int | None
    attempt: int  # part of Stripe's idempotency key; grows after a stored 5xx
    stripe_refund_id: str
    actor_kind: str
    actor_id: str
    create_time: datetime
    finish_time: datetime | None


@dataclass(frozen=True)
class Seen:
    """A refund or a dispute of a charge as Stripe has it."""

    id: str
    kind: str  # refund or dispute
    charge_id: str
    invoice_id: str  # empty for a charge without one
    customer_id: str
    amount: int
    currency: str
    status: str
    reason: str
    policy_refund_id: str  # of our own refund; empty for what others made
    create_time: datetime

    @property
    def gave_back(self) -> bool:
        return self.kind == "refund" and self.status not in {"failed", "canceled"}


def refusal(policy: Policy | None, began: datetime | None, used: int | None, now: datetime) -> str:
    """Why nothing is due, by the contract's reason; empty when it is. `began`: the start of the first paid
    subscription, None when none runs; `used`: None before it was counted."""
    if policy is None:
        return "REFUND_NOT_OFFERED"
    if began is None:
        return "NOTHING_TO_REFUND"
    if now >= window_end(policy, began):
        return "REFUND_WINDOW_OVER"
    if used is not None and used >= policy.fewer_than:
        return "REFUND_USAGE_EXCEEDED"
    return ""


def window_end(policy: Policy, began: datetime) -> datetime:
    """Exclusive, UTC."""
    return began + timedelta(days=policy.days)
