"""The periodic comparison of all subscriptions at Stripe with ours (DESIGN §4 "Reconciliation").

A page of Stripe's list is one call, compared with what is held here; only an account that differs is read whole and
repaired. Replicas share one cursor, so a pass goes on wherever one of them was killed.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from services.billing.application.context import Context
from services.billing.application.reconcile import repair
from services.billing.domain.drift import drifts
from services.billing.domain.subscription import Subscription
from services.billing.storage.accounts import Account
from services.kit import telemetry
from services.kit.errors import Unavailable

NAME = "subscriptions"
PAGE = 100  # Stripe's most
HOLD = timedelta(minutes=2)  # what a killed replica held is another's after it
PAUSE = timedelta(seconds=2)  # between pages: a pass is in no hurry, and people's calls are
_AFTER_TROUBLE = timedelta(minutes=1)
LOOK_S = 2.0

log = structlog.get_logger(__name__)


async def run(context: Context) -> None:
    """Compares page after page, pass after pass, until cancelled. Any number of replicas may."""
    while True:
        try:
            await sweep_page(context)
        except Exception as error:
            log.warning("sweep.delayed", error=type(error).__name__)
        await asyncio.sleep(LOOK_S)  # a period, not a wait for something


async def sweep_page(context: Context) -> int | None:
    """The next page; how many accounts it found to differ. None when none is due."""
    async with context.unit_of_work() as uow:
        cursor = await uow.sweeps.claim(NAME, HOLD)
        await uow.commit()
    if cursor is None:
        return None
    following, pause = cursor, _AFTER_TROUBLE
    try:
        listed, after = await _list(cursor, context)
        wrong = await _differing(listed, context)
        for account in wrong:
            await _repair(account, context)
        following, pause = after, PAUSE if after else timedelta(hours=context.settings.sweep_hours)
    except PlaceLost:
        following = ""
        raise
    finally:
        async with context.unit_of_work() as uow:
            await uow.sweeps.advance(NAME, following, pause)
            await uow.commit()
    telemetry.count("tollway_swept_subscriptions_total", len(listed))
    if not following:
        log.info("sweep.done")
    return len(wrong)


class PlaceLost(Exception):
    """Stripe does not know any more where we were."""


async def _list(cursor: str, context: Context) -> tuple[list[Subscription], str]:
    try:
        return await context.payments.list_subscriptions(cursor, PAGE)
    except Unavailable:
        raise
    except Exception as error:
        raise PlaceLost from error


async def _repair(account: Account, context: Context) -> None:
    """One account that cannot be read does not keep the others from it; its next event, or pass, tries again."""
    try:
        await repair(account, context)
    except Unavailable:
        raise
    except Exception as error:
        log.warning("sweep.not_repaired", account=account.id, error=repr(error))


async def _differing(listed: list[Subscription], context: Context) -> list[Account]:
    """Accounts of ours with subscriptions that are not held as Stripe has them; those that are about to be read
    anyway left out."""
    async with context.unit_of_work() as uow:
        owners = await uow.accounts.of_customers({each.customer_id for each in listed})
        waiting = await uow.marks.waiting([account.id for account in owners.values()])
        held = await uow.snapshots.subscriptions_of_ids([each.id for each in listed])
    found = {}
    for each in listed:
        account = owners.get(each.customer_id)
        if account is None or account.erase_time is not None or account.id in waiting:
            continue
        if drifts(account.id, [held[each.id]] if each.id in held else [], [each]):
            found[account.id] = account
    return list(found.values())
