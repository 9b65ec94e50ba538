"""What customers are told of a subscription's life: that its trial ends, that it will end, that it has ended."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.billing.domain.subscription import Subscription

# Stripe says so three days before (https://docs.stripe.com/billing/subscriptions/trials); the hour is for clocks that
# differ, so that the read which its event asks for is not a second too early.
TRIAL_NOTICE = timedelta(days=3, hours=1)


@dataclass(frozen=True)
class Told:
    """What was told of a subscription so far."""

    trial_end: datetime | None = None  # of the trial whose end was announced
    cancel_time: datetime | None = None  # of the end that was announced ahead
    ended: bool = False


@dataclass(frozen=True)
class Due:
    """What is to be told now. Any of them may be None: there is nothing of the kind."""

    trial_end: datetime | None
    scheduled_end: datetime | None
    ended: datetime | None


def trial_ends(now_is: Subscription, told: Told, now: datetime) -> datetime | None:
    """The end of a trial that is near and was not told."""
    end = now_is.trial_end
    if now_is.status != "trialing" or end is None or end == told.trial_end:
        return None
    return end if now < end <= now + TRIAL_NOTICE else None


def due(
    before: Subscription | None, now_is: Subscription, told: Told, now: datetime, *, quiet: bool = False
) -> tuple[Due, Told]:
    """What is to be told, and what has been told then. `before`: as it was read last, None for the first time;
    `quiet`: what happened to it so far happened before it was ours, so that nobody waits for word of it."""
    trial_end = trial_ends(now_is, told, now)
    scheduled = None
    if now_is.live:
        end = (now_is.cancel_at or now_is.period_end) if now_is.ends_by_itself else None
        scheduled = end if end != told.cancel_time and not (quiet and before is None) else None
        told = replace(told, cancel_time=end)
    ended = None
    if now_is.status == "canceled" and not told.ended:
        # One that is over when it is first seen was never told of either.
        if before is not None and before.live:
            ended = now_is.ended_at or now_is.canceled_at or now
        told = replace(told, ended=True)
    return Due(trial_end, scheduled, ended), replace(told, trial_end=trial_end or told.trial_end)
