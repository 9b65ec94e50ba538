"""Units that are sold by the unit: what Stripe's meter has heard of a period, and what it must hear next."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

# A draft invoice of a period is finalized about an hour after its end; what is stamped inside the period until then is
# still on it (https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage).
FINALIZED_AFTER = timedelta(hours=1)
INSTANT = timedelta(seconds=1)  # what Stripe's timestamps can tell apart


@dataclass(frozen=True)
class UsageTotal:
    """An account's use of a meter in a billing period, in units since its start.

    `used` is quota's word; `sent` is what Stripe's meter has taken; `sending` is the total that the report under way
    leads to, written before it leaves, so that a repeat is the same report.
    """

    account_id: str
    meter: str
    period_start: datetime
    period_end: datetime
    used: int
    record_time: datetime
    final: bool
    sent: int
    sending: int | None
    sending_stamp: datetime | None
    reports: int  # how many Stripe has taken
    late: bool  # some of it came after its invoice was final, and is on the next one

    @property
    def is_settled(self) -> bool:
        return self.sending is None and self.used == self.sent


@dataclass(frozen=True)
class Report:
    """One meter event. `units` may be negative: what a reversal took back."""

    customer_id: str
    meter: str
    units: int
    identifier: str
    stamp: datetime


def begin(total: UsageTotal, now: datetime) -> UsageTotal:
    """With a report under way. One that is under way already stays as it is."""
    if total.sending is not None:
        return total
    late = now >= total.period_end + FINALIZED_AFTER
    inside = max(total.period_start, min(now, total.period_end - INSTANT))
    return replace(total, sending=total.used, sending_stamp=now if late else inside, late=total.late or late)


def report(total: UsageTotal, customer_id: str) -> Report:
    """The report under way. Raises ValueError when there is none.

    Its identifier tells account, meter, period and cumulative total; and how many came before, because reversals can
    lead to the same total twice.
    """
    if total.sending is None or total.sending_stamp is None:
        raise ValueError("no report is under way")
    told = (total.account_id, total.meter, total.period_start.isoformat(), total.reports, total.sending)
    identifier = hashlib.sha256(repr(told).encode()).hexdigest()
    return Report(customer_id, total.meter, total.sending - total.sent, identifier, total.sending_stamp)


def delivered(total: UsageTotal) -> UsageTotal:
    """After Stripe took the report under way."""
    if total.sending is None:
        raise ValueError("no report is under way")
    return replace(total, sent=total.sending, sending=None, sending_stamp=None, reports=total.reports + 1)
