"""Tells what becomes of subscriptions, so that their customers can be written to: each fact once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.billing.application.accounts import addressed
from services.billing.application.context import Context
from services.billing.domain.notices import Told, due, trial_ends
from services.billing.domain.subscription import Subscription
from services.billing.ports import Upcoming
from services.billing.storage import BillingUnitOfWork
from services.billing.storage.accounts import Account


async def read_upcoming(
    read: Sequence[Subscription], told: Mapping[str, Told], context: Context
) -> dict[str, Upcoming | None]:
    """What the end of a trial will cost, for those that are about to be told of it. Asks Stripe."""
    now = context.business.now()
    ending = [s for s in read if trial_ends(s, told.get(s.id, Told()), now)]
    return {s.id: None if s.ends_by_itself else await context.payments.upcoming(s.id) for s in ending}


async def announce(
    account: Account,
    read: Sequence[Subscription],
    upcoming: Mapping[str, Upcoming | None],
    tiers: Mapping[str, str],
    next_tier: str,
    uow: BillingUnitOfWork,
    context: Context,
) -> None:
    """Saves the subscriptions as read, and announces what is new. `next_tier`: what the account is on now."""
    before = {s.id: s for s in await uow.snapshots.subscriptions(account.id)}
    told = await uow.snapshots.told(account.id)
    await uow.snapshots.save_subscriptions(account.id, list(read))
    now = context.business.now()
    for each in read:
        earlier = told.get(each.id, Told())
        is_older = account.import_time is not None and each.create_time <= account.import_time
        new, after = due(before.get(each.id), each, earlier, now, quiet=is_older)
        tier = tiers.get(each.price_id, "")
        whom, announcer = await addressed(account, uow), context.announcer
        if new.trial_end is not None:
            event = announcer.trial_ending(whom, each, tier, new.trial_end, upcoming.get(each.id))
            uow.outbox.add(event, account.id)
        if new.scheduled_end is not None:
            uow.outbox.add(announcer.cancellation_scheduled(whom, each, tier, new.scheduled_end), account.id)
        if new.ended is not None:
            uow.outbox.add(announcer.subscription_ended(whom, each, tier, new.ended, next_tier), account.id)
        if after != earlier:
            await uow.snapshots.note_told(each.id, after)
